"""Slice + reference -> why bone is false there; probabilities -> how often they come true."""

from collections.abc import Iterator

import cv2
import numpy as np

from bonelib.settings import BACKGROUND, BONE, IGNORE

# What wrongly called bone can be. Place and grey level tell, so that it works for any data.
CAUSES = (
    "outside the patient",  # couch, cushions, what is stuck to the skin
    "metal or marker",  # prostheses, gold seeds
    "contrast or calcification",  # bowel, bladder, vessels
    "beside bone",  # an edge that is drawn too far
    "soft tissue",  # the rest
)
OUTSIDE, METAL, CONTRAST, BESIDE, SOFT = range(len(CAUSES))

# How far a thing's blurred edge reaches: a marker on the skin is less than 3 mm thick, and an
# edge of bone two of the paper's pixels off is still that edge. Pixels may be coarser than
# that: then it is to the next one, across its corner.
MARGIN_MM = 4.0
LEAST_MARGIN_PIXELS = 1.5

BRIGHTEST = 255  # 8 bits; metal is clipped to it, and contrast hardly ever reaches it

BINS = 20  # of probability; with 5 % each a network's last one still tells "sure" from "certain"
LEVELS = np.arange(256)  # of a probability as 8 bits
# Equal width; an upper edge belongs to its bin, so that certainty needs no bin of its own.
BIN_OF_LEVEL = np.maximum(-(-LEVELS * BINS // LEVELS[-1]) - 1, 0)


def causes(
    images: np.ndarray, reference: np.ndarray, spacing_mm, bright_level: float
) -> Iterator[np.ndarray]:
    """Yield for each slice why bone would be false: an index of `CAUSES` for each pixel.

    `images` and `reference` are uint8 stacks (slice, row, column) of one series,
    `spacing_mm` has the order of their axes and square pixels. From `bright_level` on, the
    grey of the usual threshold for bone, soft tissue ends. The first of these that fits wins:

    1. outside the patient: background of the reference, and its margin where no bone is near;
    2. metal or marker: a patch of the brightest grey that reaches farther from bone than the
       margin, and the margin of it;
    3. beside bone: the margin of bone, over the slices next to it too;
    4. contrast or calcification: bright grey, and the margin of it;
    5. soft tissue.
    """
    pixel_mm = spacing_mm[1]
    margin_mm = max(MARGIN_MM, LEAST_MARGIN_PIXELS * pixel_mm)
    beside_bone = _margin_of_bone(reference >= BONE, spacing_mm, margin_mm)

    def near(mask: np.ndarray) -> np.ndarray:
        return _distance_mm(mask, pixel_mm) <= margin_mm

    for image, labels, beside in zip(images, reference, beside_bone, strict=True):
        background, bone = labels == BACKGROUND, labels >= BONE
        bright = (image >= bright_level) & ~beside & ~background
        metal = _patches_through((image == BRIGHTEST) & ~bone & ~background, ~beside)
        yield np.select(
            [background | near(background) & ~beside, near(metal), beside, near(bright)],
            [np.uint8(cause) for cause in (OUTSIDE, METAL, BESIDE, CONTRAST)],
            np.uint8(SOFT),
        )


def false_bone(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return where bone of any class is predicted and the reference has another known label."""
    return (prediction >= BONE) & (reference < BONE)


def reliability(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Count how often probabilities come true, int64 of shape (class, bin, 3); counts add up.

    `probabilities` are 8-bit levels (slice, row, column, class), `reference` labels, of which
    `IGNORE` is left out. The three are pixels, the sum of their levels, and those of them
    whose reference is the class.
    """
    known = reference != IGNORE
    truth = reference[known]
    in_bin = np.arange(BINS)[:, None] == BIN_OF_LEVEL
    counts = []
    for label in range(probabilities.shape[-1]):
        levels = probabilities[..., label][known].astype(np.intp)
        others, of_class = np.bincount(
            levels + len(LEVELS) * (truth == label), minlength=2 * len(LEVELS)
        ).reshape(2, -1)
        pixels = others + of_class
        counts.append(in_bin @ np.stack([pixels, pixels * LEVELS, of_class], axis=1))
    return np.stack(counts)


def _margin_of_bone(bone: np.ndarray, spacing_mm, margin_mm: float) -> np.ndarray:
    """Return where bone lies within the margin, in the slice or through those next to it."""
    margin = np.zeros(bone.shape, bool)
    reach = int(margin_mm // spacing_mm[0])
    for index, mask in enumerate(bone):
        distance_mm = _distance_mm(mask, spacing_mm[1])
        for other in range(max(index - reach, 0), min(index + reach + 1, len(bone))):
            across_mm = np.sqrt(margin_mm**2 - ((other - index) * spacing_mm[0]) ** 2)
            margin[other] |= distance_mm <= across_mm
    return margin


def _distance_mm(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return how far each pixel of a slice is from a mask, infinite where that is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    outside = (~mask).astype(np.uint8)
    return cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * pixel_mm


def _patches_through(mask: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the patches of a mask, connected at corners too, of which some part is in places."""
    _, patches = cv2.connectedComponents(mask.astype(np.uint8))
    chosen = np.unique(patches[mask & places])
    return np.isin(patches, chosen) & mask
