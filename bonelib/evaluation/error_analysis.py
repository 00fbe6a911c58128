"""Where and why a method errs: level of the pelvis, cause of false bone, reliability."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pandas as pd

from bonelib.bone_names import class_of
from bonelib.settings import BACKGROUND, BONE, CLASS_SCHEMES, IGNORE

# Levels from feet to head, named after the bones that a slice shows.
PELVIC_LEVELS = (
    "femur shaft",
    "femur and hip bone",
    "hip bone and sacrum",
    "hip bone and vertebra",
    "vertebra",
)
THIRDS = ("lower third", "middle third", "upper third")  # of a series with unnamed bones
LEVELS = (*PELVIC_LEVELS, *THIRDS)

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
PROBABILITY_LEVELS = np.arange(256)  # 8 bits
# Bins of equal width; an upper edge belongs to the bin below it, so 100 % needs no extra bin.
BIN_OF_LEVEL = np.maximum(-(-PROBABILITY_LEVELS * BINS // MAX_GREY) - 1, 0)


def levels_of(table: pd.DataFrame) -> pd.Series:
    """Return the level, one of `LEVELS`, of each row of a table of slices.

    `table` has the columns series, position_mm and structures (names separated by spaces).
    Named bones decide; a slice without bone takes the level of its neighbour. A series
    without named bones is divided into thirds of its height.
    """
    parts = [_levels_of_series(series) for _, series in table.groupby("series")]
    return pd.concat(parts).reindex(table.index) if parts else pd.Series(dtype=str)


def _levels_of_series(series: pd.DataFrame) -> pd.Series:
    series = series.sort_values("position_mm")
    named = series["structures"].fillna("").map(lambda names: _pelvic_level(names.split()))
    if named.notna().any():
        return named.ffill().bfill()
    height_mm = series["position_mm"] - series["position_mm"].min()
    return pd.cut((height_mm / height_mm.max()).fillna(0), 3, labels=THIRDS).astype(str)


def _pelvic_level(names: Sequence[str]) -> str | None:
    class_names = dict(enumerate(CLASS_SCHEMES["bones"], BONE))
    bones = {class_names.get(class_of(name, "bones")) for name in names}
    has_pelvis = bool(bones & {"hip bone", "sacrum"})
    if "vertebra" in bones:
        return "hip bone and vertebra" if has_pelvis else "vertebra"
    if "femur" in bones:
        return "femur and hip bone" if has_pelvis else "femur shaft"
    return "hip bone and sacrum" if has_pelvis else None


def causes(
    images: np.ndarray, reference: np.ndarray, spacing_mm, bright_level: float
) -> Iterator[np.ndarray]:
    """Yield for each slice the cause that false bone would have at each pixel.

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
    pixel_mm = spacing_mm[1]
    margin_mm = max(MARGIN_MM, MIN_MARGIN_PIXELS * pixel_mm)
    beside_bone = _margin_of_bone(reference >= BONE, spacing_mm, margin_mm)

    def near(mask: np.ndarray) -> np.ndarray:
        return _distance_mm(mask, pixel_mm) <= margin_mm

    for image, labels, beside in zip(images, reference, beside_bone, strict=True):
        background, bone = labels == BACKGROUND, labels >= BONE
        bright = (image >= bright_level) & ~beside & ~background
        metal = _patches_reaching((image == MAX_GREY) & ~bone & ~background, ~beside)
        yield np.select(
            [background | near(background) & ~beside, near(metal), beside, near(bright)],
            [np.uint8(cause) for cause in (OUTSIDE, METAL, BESIDE, CONTRAST)],
            np.uint8(SOFT),
        )


def false_bone(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the pixels predicted as any bone whose known reference is no bone."""
    return (prediction >= BONE) & (reference < BONE)


def reliability(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Count how often probabilities come true, int64 of shape (class, bin, 3).

    `probabilities` are 8-bit levels (slice, row, column, class); pixels whose reference is
    `IGNORE` are left out. The last axis holds the number of pixels, the sum of their levels
    and the number of pixels of the class. Counts of several images add up.
    """
    known = reference != IGNORE
    truth = reference[known]
    in_bin = np.arange(BINS)[:, None] == BIN_OF_LEVEL
    size = len(PROBABILITY_LEVELS)
    counts = []
    for label in range(probabilities.shape[-1]):
        levels = probabilities[..., label][known].astype(np.intp)
        pairs = np.bincount(levels + size * (truth == label), minlength=2 * size)
        others, of_class = pairs.reshape(2, size)
        pixels = others + of_class
        counts.append(in_bin @ np.stack([pixels, pixels * PROBABILITY_LEVELS, of_class], axis=1))
    return np.stack(counts)


def expected_calibration_error(rows: pd.DataFrame) -> float:
    """Return the mean gap in % between probability and truth, weighted by pixels.

    `rows` are rows of scoring.read_reliability for one class. NaN without pixels.
    """
    bins = rows.groupby("bin")[["pixels", "probability", "positive"]].sum()
    pixels = bins["pixels"].sum()
    gaps = (bins["positive"] - bins["probability"]).abs().sum()
    return 100 * float(gaps / pixels) if pixels else np.nan


def _margin_of_bone(bone: np.ndarray, spacing_mm, margin_mm: float) -> np.ndarray:
    """Return the pixels within the margin of bone, in their slice or across slices."""
    margin = np.zeros(bone.shape, bool)
    reach = int(margin_mm // spacing_mm[0])
    for index, mask in enumerate(bone):
        distance_mm = _distance_mm(mask, spacing_mm[1])
        for other in range(max(index - reach, 0), min(index + reach + 1, len(bone))):
            in_plane_mm = np.sqrt(margin_mm**2 - ((other - index) * spacing_mm[0]) ** 2)
            margin[other] |= distance_mm <= in_plane_mm
    return margin


def _distance_mm(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return the distance of each pixel to a mask, infinite for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    outside = (~mask).astype(np.uint8)
    return cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * pixel_mm


def _patches_reaching(mask: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return the 8-connected patches of a mask that overlap a region."""
    _, patches = cv2.connectedComponents(mask.astype(np.uint8))
    chosen = np.unique(patches[mask & region])
    return np.isin(patches, chosen) & mask
