"""The numbers that the paper prints: Krawczyk & Starzyński (2021).

Percentages unless stated otherwise. Scores are (mean, background, patient, bone).
"""

METHOD_NAMES = {
    "fcn8": "FCN8",
    "fcn32": "FCN32",
    "pspnet": "PSPNet",
    "unet": "U-net",
    "segnet": "SegNet",
    "vgg_unet": "VGG-U-net",
    "resnet50_unet": "ResNet-U-net",
    "threshold": "Threshold (baseline)",
}

MEASURE_NAMES = {"iou": "IoU", "dice": "Dice coeff.", "accuracy": "Pixel acc."}

# Table 1: best epoch of 10 ("It. No.") and the scores on the 730 test slices.
TABLE1 = {
    "fcn8": {
        "epoch": 10,
        "iou": (92.39, 99.78, 96.45, 80.95),
        "dice": (95.85, 99.89, 98.19, 89.47),
        "accuracy": (99.72, 99.81, 99.58, 99.78),
    },
    "fcn32": {
        "epoch": 10,
        "iou": (82.83, 99.29, 90.12, 59.09),
        "dice": (89.58, 99.64, 94.80, 74.28),
        "accuracy": (99.22, 99.37, 98.83, 99.46),
    },
    "pspnet": {
        "epoch": 6,
        "iou": (83.26, 99.61, 92.78, 57.38),
        "dice": (89.66, 99.81, 96.26, 72.92),
        "accuracy": (99.42, 99.66, 99.14, 99.48),
    },
    "unet": {
        "epoch": 10,
        "iou": (93.91, 99.76, 96.65, 85.32),
        "dice": (96.75, 99.88, 98.30, 92.08),
        "accuracy": (99.74, 99.79, 99.61, 99.83),
    },
    "segnet": {
        "epoch": 7,
        "iou": (90.30, 99.67, 95.30, 75.93),
        "dice": (94.58, 99.84, 97.60, 86.32),
        "accuracy": (99.63, 99.71, 99.45, 99.73),
    },
}

# Table 2: milliseconds per 512 x 512 slice on an RTX 2080 Ti; total and trainable parameters.
TABLE2 = {
    "fcn8": {"milliseconds": 57.6, "parameters": 69_736_873, "trainable": 69_734_953},
    "fcn32": {"milliseconds": 59.5, "parameters": 69_769_603, "trainable": 69_767_683},
    "pspnet": {"milliseconds": 23.3, "parameters": 3_282_819, "trainable": 3_275_779},
    "unet": {"milliseconds": 26.3, "parameters": 4_472_323, "trainable": 4_468_995},
    "segnet": {"milliseconds": 24.4, "parameters": 3_698_179, "trainable": 3_694_851},
}

# Table 3: best epoch of 30 and the scores on the 730 test slices.
TABLE3 = {
    "unet": {
        "epoch": 30,
        "iou": (94.64, 99.83, 97.41, 86.67),
        "dice": (97.16, 99.92, 98.69, 92.86),
        "accuracy": (99.80, 99.85, 99.70, 99.84),
    },
    "vgg_unet": {
        "epoch": 28,
        "iou": (96.55, 99.85, 98.05, 91.76),
        "dice": (98.21, 99.92, 99.02, 95.70),
        "accuracy": (99.85, 99.87, 99.78, 99.91),
    },
    "resnet50_unet": {
        "epoch": 20,
        "iou": (96.92, 99.83, 98.05, 92.87),
        "dice": (98.41, 99.91, 99.01, 96.31),
        "accuracy": (99.85, 99.85, 99.77, 99.92),
    },
}

# Table 4: slices and IoU of the ResNet-U-net on each test series, in the paper's order.
TABLE4_MODEL = "resnet50_unet"
TABLE4 = (
    {"images": 85, "iou": (97.10, 99.88, 98.59, 92.83)},
    {"images": 152, "iou": (97.10, 99.87, 98.32, 93.10)},
    {"images": 124, "iou": (96.25, 99.90, 97.96, 90.87)},
    {"images": 143, "iou": (96.79, 99.88, 98.27, 92.22)},
    {"images": 226, "iou": (97.04, 99.71, 97.66, 93.75)},
)
TABLE4_COMBINED = {"images": 730, "iou": (96.92, 99.83, 98.05, 92.87)}

# Section 5.3: bone IoU of U-net on single test slices.
UNET_IMAGES = {
    "minimum": 57.49,
    "maximum": 98.39,
    "mean": 87.15,
    "standard_deviation": 5.98,
}

# Figure 6: bone IoU of each model on one slice of the upper pelvis.
FIGURE6 = {"fcn8": 73.72, "fcn32": 63.66, "pspnet": 58.74, "unet": 79.75, "segnet": 60.0}

# Figure 7: (mean IoU, bone IoU) of U-net on four slices.
FIGURE7 = ((98.69, 98.38), (95.81, 91.63), (93.5, 85.2), (93.5, 79.75))

# Section 5.4, in the text: gain of longer training, differences between series, lower bounds.
LONGER_TRAINING_GAIN = {"mean": 0.73, "bone": 1.35}
SERIES_SPREAD = {"mean": 0.86, "bone": 2.88}
SERIES_BONE_FLOOR = 90.0
BACKBONE_BONE_FLOOR = 90.0
ACCURACY_FLOOR = 99.0  # section 5.3, "in all cases"

# Section 5.2 on Figure 4: the epoch after which a class's IoU stays above 90 %, and the epoch and
# IoU where the curve of bone flattens.
CURVE_FLOOR = 90.0
CURVE_EPOCHS = {"background": 1, "patient": 3}
BONE_FLAT_EPOCH = 5
BONE_FLAT = 80.0

# Section 5.3: lower bounds of all networks and of the three best, and U-net's lead on bone.
MEAN_FLOORS = {"iou": 83.0, "dice": 89.0}
THREE_BEST = ("fcn8", "unet", "segnet")
THREE_BEST_FLOOR = 90.0
UNET_LEAD = {"fcn8": 4.0, "segnet": 9.0}

# Shares of the test pixels, computed from the printed scores: a class's union of reference and
# prediction is the share (100 - accuracy) / (100 - IoU).
CLASS_SHARES = {"background": 87.6, "patient": 11.4, "bone": 1.05}

# Section 6: range of Dice coefficients in the related work.
LITERATURE_DICE = (83.0, 97.9)

# Contradictions within the paper or with its library; the last clause says how each is resolved.
INCONSISTENCIES = (
    f"The abstract gives U-net a mean IoU of 93.2 %, Table 1 and the conclusion "
    f"{TABLE1['unet']['iou'][0]} %: Table 1 is used.",
    f"The text puts the mean IoU of every network above {MEAN_FLOORS['iou']:.0f} %, Table 1 has "
    f"FCN32 at {TABLE1['fcn32']['iou'][0]} %: the claim is tested as in the text.",
    f"The text puts every pixel accuracy above {ACCURACY_FLOOR:.0f} %, Table 1 has FCN32's "
    f"patient class at {TABLE1['fcn32']['accuracy'][2]} %: the claim is tested on the means over "
    "classes.",
    f"The text gives {TABLE2['pspnet']['milliseconds']} ms to SegNet, Table 2 gives them to PSPNet "
    f"and {TABLE2['segnet']['milliseconds']} ms to SegNet: Table 2 is used.",
    "Equation 1 has no TN in its numerator; the printed accuracies only fit (TP + TN) / all, "
    "which is used.",
    "Slices c and d of Figure 7 have the same mean IoU but bone IoUs "
    f"{FIGURE7[2][1] - FIGURE7[3][1]:.2f} points apart: neither is used in a test.",
    "Section 3.2 describes PSPNet with dilated convolutions; the variant with Table 2's number of "
    "parameters has none: it is built without.",
    "Section 3.4 describes SegNet with pooling indices and more skip connections than FCN; the "
    "library's SegNet, with Table 2's number of parameters, has neither: it is built without.",
    "Images have 512 x 512 pixels, but no network of the library has that output size (FCN 520 "
    "and 544, U-net and SegNet 256; PSPNet takes multiples of 192 only): scores are taken at the "
    "input size, and also at the network's own.",
    "Section 4 augments each image 10 times, the library augments each sample at random: the "
    "library is followed.",
    "Histogram equalisation is in the text's list of augmentations, but not in the library's "
    "strongest preset, which matches the rest of the list: it is applied, as in the text.",
    "Section 6 says that one work [33] has a higher mean Dice than ResNet-U-net, but prints "
    f"{LITERATURE_DICE[1]} % for it and {TABLE3['resnet50_unet']['dice'][0]} % for ResNet-U-net, "
    "whose mean counts background and patient, too; its Dice of bone, "
    f"{TABLE3['resnet50_unet']['dice'][3]} %, is lower: neither is used in a test.",
    "Section 3.3 cites SegNet's paper [11] for U-net, and section 6 cites a work on kidneys [15] "
    "for bones that the previous sentence attributes to [20]: U-net follows [10].",
)
