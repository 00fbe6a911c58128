"""How far, where and why a method errs: surfaces, level, cause of false bone, reliability."""

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from bonelib import metrics
from bonelib.bone_names import kind_of
from bonelib.settings import BACKGROUND, BONE, IGNORE, PATIENT

THIRDS = ("lower third", "middle third", "upper third")  # of a series with unnamed bones
LEVELS = (  # from feet to head, named after the bones that a slice shows
    "femur shaft",
    "femur and hip bone",
    "hip bone and sacrum",
    "hip bone and vertebra",
    "vertebra",
    *THIRDS,
)

# Causes of false bone, told by place and grey level, which every data set has.
CAUSES = (
    "outside the patient",  # couch, cushions, objects on the skin
    "metal or marker",  # prostheses, gold seeds
    "contrast or calcification",  # bowel, bladder, vessels
    "beside bone",  # the outline of a bone drawn too far out
    "soft tissue",  # all other pixels
)
OUTSIDE, METAL, CONTRAST, BESIDE, SOFT = range(len(CAUSES))

# Reach of a blurred edge: a marker on the skin is less than 3 mm thick, and two of the paper's
# pixels still belong to the edge of a bone. On a coarser grid it is the diagonal of a pixel.
MARGIN_MM = 4.0
MIN_MARGIN_PIXELS = 1.5

MAX_GREY = 255  # 8 bits; metal saturates the window, contrast agent hardly ever does

BINS = 20  # of probability, 5 % each: narrow enough to tell "sure" from "certain"
# Bin of an 8-bit probability; an upper edge belongs to the bin below it, so 100 % has no own bin.
BIN_OF_LEVEL = np.maximum(-(-np.arange(256) * BINS // 255) - 1, 0)

STATES = {  # of a structure, by its presence in reference and prediction
    (True, True): "found",
    (True, False): "missed",
    (False, True): "invented",
    (False, False): "absent",
}


def measure_surfaces(reference: np.ndarray, predicted: np.ndarray, spacing_mm) -> pd.DataFrame:
    """Return the surface distances of the patient, bone included, and of bone.

    Both stacks are (slice, row, column); `IGNORE` pixels of the reference belong to neither.
    """
    known = reference != IGNORE
    rows = []
    for structure, label in (("patient", PATIENT), ("bone", BONE)):
        masks = [known & (labels >= label) for labels in (reference, predicted)]
        state = STATES[tuple(bool(mask.any()) for mask in masks)]
        scores = metrics.surface_scores(*masks, spacing_mm)
        rows.append({"structure": structure, "state": state} | scores)
    return pd.DataFrame(rows)


def slice_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return position, spacing, level and area of bone of each slice."""
    spacing_mm = table["spacing"].str.split(expand=True).astype(float)
    bone_mm2 = table["bone_pixels"] * spacing_mm[1] * spacing_mm[2]
    table = table.assign(level=levels_of(table), bone_mm2=bone_mm2)
    return table[["series", "slice", "position_mm", "spacing", "level", "bone_mm2"]]


def levels_of(table: pd.DataFrame) -> pd.Series:
    """Return the level, one of `LEVELS`, of each row of a table of slices.

    `table` has the columns series, position_mm and structures (names separated by spaces).
    Named bones decide; a slice without bone takes the level of its neighbour. A series
    without named bones is divided into thirds of its height.
    """
    ordered = table.sort_values("position_mm")
    series, position_mm = ordered["series"], ordered["position_mm"]
    named = ordered["structures"].map(_pelvic_level)
    named = named.groupby(series).ffill().groupby(series).bfill()
    lowest, highest = (position_mm.groupby(series).transform(end) for end in ("min", "max"))
    height = ((position_mm - lowest) / (highest - lowest)).fillna(0.5)  # of a single slice
    thirds = pd.cut(height, [-1, 1 / 3, 2 / 3, 1], labels=THIRDS).astype(str)
    return named.fillna(thirds).reindex(table.index)


def _pelvic_level(structures: str) -> str | None:
    bones = set(map(kind_of, structures.split()))
    has_pelvis = bool(bones & {"hip bone", "sacrum"})
    if "vertebra" in bones:
        return "hip bone and vertebra" if has_pelvis else "vertebra"
    if "femur" in bones:
        return "femur and hip bone" if has_pelvis else "femur shaft"
    return "hip bone and sacrum" if has_pelvis else None


def causes(
    images: np.ndarray, reference: np.ndarray, spacing_mm, bright_level: float
) -> np.ndarray:
    """Return the cause that false bone would have at each pixel, uint8.

    `images` and `reference` are uint8 stacks (slice, row, column) of one series;
    `spacing_mm` has the same order, with square pixels. `bright_level` is the grey level of
    the usual threshold for bone. Values are indices of `CAUSES`; the first match wins:

    1. outside the patient: background of the reference, and its margin away from bone;
    2. metal or marker: a saturated patch that reaches beyond the margin of bone, and the
       margin of that patch;
    3. beside bone: the margin of bone, in three dimensions;
    4. contrast or calcification: bright pixels and their margin;
    5. soft tissue.
    """
    margin_mm = max(MARGIN_MM, MIN_MARGIN_PIXELS * spacing_mm[1])
    found = []
    for image, labels, beside in zip(
        images, reference, _near_bone(reference >= BONE, spacing_mm, margin_mm), strict=True
    ):
        background = labels == BACKGROUND
        saturated = (image == MAX_GREY) & (labels == PATIENT)
        metal = ndimage.binary_propagation(saturated & ~beside, np.ones((3, 3)), saturated)
        bright = (image >= bright_level) & ~beside & ~background
        near_background, near_metal, near_bright = (
            _dilated(mask, spacing_mm[1], margin_mm) for mask in (background, metal, bright)
        )
        outside = background | near_background & ~beside
        masks = {OUTSIDE: outside, METAL: near_metal, BESIDE: beside, CONTRAST: near_bright}
        found.append(np.select(list(masks.values()), list(masks), SOFT).astype(np.uint8))
    return np.stack(found)


def _near_bone(bone: np.ndarray, spacing_mm, margin_mm: float) -> np.ndarray:
    """Return the pixels within the margin of bone, in their slice or across slices."""
    near = np.zeros(bone.shape, bool)
    for step in range(min(int(margin_mm // spacing_mm[0]) + 1, len(bone))):
        in_plane_mm = np.sqrt(margin_mm**2 - (step * spacing_mm[0]) ** 2)
        dilated = np.stack([_dilated(mask, spacing_mm[1], in_plane_mm) for mask in bone])
        near[step:] |= dilated[: len(bone) - step]
        near[: len(bone) - step] |= dilated[step:]
    return near


def _dilated(mask: np.ndarray, pixel_mm: float, margin_mm: float) -> np.ndarray:
    """Return the pixels whose centre is at most `margin_mm` from one of the mask."""
    radius = int(margin_mm // pixel_mm)
    steps = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = np.hypot(*steps) * pixel_mm <= margin_mm
    return cv2.dilate(mask.astype(np.uint8), disk.astype(np.uint8)) > 0


def reliability(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Count how often probabilities come true, int64 of shape (class, bin, 3).

    `probabilities` are 8-bit levels (slice, row, column, class); pixels whose reference is
    `IGNORE` are left out. The last axis holds the number of pixels, the sum of their levels
    and the number of pixels of the class. Counts of several images add up.
    """
    known = reference != IGNORE
    counts = np.zeros((probabilities.shape[-1], BINS, 3), np.int64)
    for label, of_class in enumerate(counts):
        levels = probabilities[..., label][known]
        for column, weights in enumerate((None, levels, reference[known] == label)):
            of_class[:, column] = np.bincount(BIN_OF_LEVEL[levels], weights, BINS)
    return counts


def expected_calibration_error(rows: pd.DataFrame) -> float:
    """Return the mean gap in % between probability and truth, weighted by pixels.

    `rows` are those of one class in the table `reliability`. NaN without pixels.
    """
    bins = rows.groupby("bin")[["pixels", "probability", "positive"]].sum()
    pixels = bins["pixels"].sum()
    gaps = (bins["positive"] - bins["probability"]).abs().sum()
    return 100 * float(gaps / pixels) if pixels else np.nan
