"""What all figures share: colours, marks, sizes, captions and the two file formats.

A class has one colour everywhere. Any two colours differ in lightness as well as in hue, so
they stay apart in grey print and for colour-blind readers. The background class is white in
pictures, as in the paper's Figure 2.
"""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from bonelib.provenance import replacing

# Blue, orange, green: the paper's order. Yellow, wine, black: where there are more bones.
CLASS_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#F0E442", "#882255", "#000000")
IGNORE_COLOUR = "#BBBBBB"
PAIR_COLOURS = ("#D55E00", "#56B4E9")  # two curves: the paper's orange and blue
FAINT, MIDDLE, DARK = "#C8C8C8", "#888888", "#333333"  # greys
BONE_COLOUR = "#E3DAC9"  # a surface of all bone
# Surfaces of single bones: Paul Tol's scheme "light", which shading leaves distinguishable.
SURFACE_COLOURS = (
    "#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00",
    "#DDDDDD",
)  # fmt: skip
WINDOW_HU = (-450, 1050)  # shows bone; scans in their own grey values
MARKS = "os^Dv*"  # of curves, in order
MARK_SIGNS = "●■▲◆▼★"  # the same marks in text
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")  # of bars, in order
DOTS_PER_INCH = 300
SCREEN_DOTS_PER_INCH = 130  # of a printed figure in a notebook
COLUMN_MM, PAGE_MM = 85.0, 180.0  # widths of one and two columns of a journal
MM_PER_INCH = 25.4
SMALL_POINTS = 7  # the smallest text in print
STYLE = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.labelsize": 8,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "legend.fontsize": SMALL_POINTS,
    "legend.title_fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # text stays text in the PDF, its fonts are embedded
}

CAPTIONS = {
    "figure1": "Figure 1. Example CT slices of the training series: a), b) sacrum and ilium, "
    "c) ischium and upper extremity of the femur, d) body of the femur.",
    "figure2": "Figure 2. Data augmentation: a) original, b) to d) augmented: the first "
    "draws that move the patient. Pixels of the background class are white.",
    "figure3": "Figure 3. Pixel accuracy on the training and the validation set by epoch.",
    "figure4": "Figure 4. IoU of each class on the validation set by epoch.",
    "figure5": "Figure 5. Mean IoU and mean Dice coefficient on the validation set by epoch.",
    "figure6": "Figure 6. One test slice, segmented by every method, chosen by rule: the slice on "
    "which the networks' average bone IoU is nearest its lower quartile. Networks of Tables 1 and "
    "3 are shown after the longer training.",
    "figure7": "Figure 7. Segmentations from best to worst, chosen by rule: of the test slices "
    "whose reference shows bone, those at the maximum, the upper quartile, the lower quartile and "
    "the minimum of the network's bone IoU. Left: reference, right: prediction.",
    "figureS1_comparisons": "Figure S1. Differences in bone IoU between any two methods, the "
    "better one first: pooled over the test series, with 95 % bootstrap intervals over series and "
    "slices. Filled marks: p < 0.05 by the Wilcoxon signed-rank test on the slices' bone IoU, "
    "after Holm's correction for all pairs. The test treats slices as independent; the intervals "
    "do not.",
    "figureS2_levels": "Figure S2. Bone IoU by level of the pelvis, from feet to head: line, "
    "pooled over the test series; dots, single series; pale, the other methods.",
    "figureS3_bone_size": "Figure S3. Bone IoU of single test slices by the area of bone in the "
    "reference: dots, slices; line and bars, median and quartiles of groups of equally many "
    "slices. Slices without bone in the reference are left out.",
    "figureS4_confusion": "Figure S4. Confusion matrices on the test pixels: of each class of the "
    "reference (row), the share predicted as each class (column), in %.",
    "figureS5_reliability": "Figure S5. Calibration of the networks' probabilities on the test "
    "pixels. Top: share of the pixels that belong to a class, by predicted probability; dashed, "
    "perfect calibration; ECE, expected calibration error of each class in percentage points. "
    "Bottom: pixels in each bin of probability.",
    "figureS6_false_bone": "Figure S6. False bone by cause. Left: in % of the reference's bone; "
    "right: in % of all false bone.",
    "bone_model": "Bone surface from the label maps of one test series.",
}


def canvas(rows: int, columns: int, width: float = 0.0, height: float = 0.0, **options):
    """Return a figure of rows x columns axes; `width` and `height` of a panel are in inches."""
    plt.rcParams.update(STYLE)
    size = (columns * (width or 2.4), rows * (height or 2.6))
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    figure.get_layout_engine().set(h_pad=0.08)  # inches: titles stay clear of the ticks above
    return figure, axes


def printed(rows: int, columns: int, height_mm: float, width_mm: float = PAGE_MM, **options):
    """Return `canvas` with the size of the whole figure in print."""
    size = (width_mm / columns / MM_PER_INCH, height_mm / rows / MM_PER_INCH)
    figure, axes = canvas(rows, columns, *size, **options)
    figure.set_dpi(SCREEN_DOTS_PER_INCH)
    return figure, axes


def save(figure: Figure, name: str, folder: Path, note: str = "") -> None:
    """Write `figure` as `name`.png and .pdf, with its caption and `note` as metadata."""
    caption = f"{CAPTIONS.get(name, name)} {note.strip()}".strip()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both files
    keys = {"png": {"Description": caption}, "pdf": {"Subject": caption, "CreationDate": None}}
    for suffix, metadata in keys.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            figure.savefig(scratch, dpi=DOTS_PER_INCH, metadata=metadata)


def read_caption(path: Path) -> str:
    """Return the caption that `save` stored in a PNG."""
    with Image.open(path) as image:
        return image.info.get("Description", path.stem)
