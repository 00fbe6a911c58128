"""Scan in HU -> outline of the patient, 0 or 1 on the scan's grid."""

import cv2
import numpy as np
import SimpleITK

SKIN_HU = -300.0  # air, foam and cloth lie below; skin, blurred with air, above
THIN_MM = 9.0  # couch shells, blankets and tubes are thinner; limbs are thicker
SMALLEST_LIMB_MM2 = 500.0  # cross-section of a child's wrist; rails of a couch are smaller
FATTEST_LIMB_HU = -180.0  # the parts of a couch have a lower mean
ENCLOSED = 0.6  # share of a cavity's rim that is thick tissue, if the cavity is gas inside
OPEN = 0.5  # share of a cavity under outside air, if it is a gap between limbs
SMALLEST_GAP_MM2 = 50.0  # a smaller cavity is never a gap between limbs


def body_mask(scan: SimpleITK.Image) -> SimpleITK.Image:
    """Outline the patient, arms and inner gas included, without couch, clothes and gaps.

    Works in the slices, in millimetres, so that they may be far apart; a neighbour only
    tells the air between two limbs from gas inside. Returns uint8 0 or 1 on the scan's grid.
    """
    spacing_mm = scan.GetSpacing()[:2]
    image_hu = SimpleITK.GetArrayViewFromImage(scan)
    outlines, cavities = zip(*(_outline(part, spacing_mm) for part in image_hu), strict=True)
    body, cavities = np.stack(outlines), np.stack(cavities)
    smallest_gap = SMALLEST_GAP_MM2 / np.prod(spacing_mm)
    padding_hu = image_hu.min()
    last = len(body) - 1
    for here, neighbour in (
        *((index, index - 1) for index in range(1, last + 1)),
        *((index, index + 1) for index in range(last - 1, -1, -1)),
    ):
        # Rows that hold nothing were not scanned: they show no air between limbs.
        scanned = (image_hu[neighbour] > padding_hu).any(axis=1, keepdims=True)
        _open_gaps(body[here], cavities[here], (1 - body[neighbour]) * scanned, smallest_gap)
    mask = SimpleITK.GetImageFromArray(body)
    mask.CopyInformation(scan)
    return mask


def _outline(
    slice_hu: np.ndarray, spacing_mm: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the filled limbs and trunk of a slice, and the air inside; uint8 0 or 1.

    `spacing_mm` is (x, y).
    """
    size = [2 * max(round(THIN_MM / 2 / mm), 1) + 1 for mm in spacing_mm]
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)
    above = (slice_hu > SKIN_HU).astype(np.uint8)
    thick = cv2.morphologyEx(above, cv2.MORPH_OPEN, disk)
    filled = above | _thick_walled(above, thick)
    trunk = cv2.morphologyEx(filled, cv2.MORPH_OPEN, disk)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(trunk, connectivity=4)
    tissue = above > 0
    sums_hu = np.bincount(parts[tissue], weights=slice_hu[tissue], minlength=count)
    means_hu = sums_hu / np.maximum(np.bincount(parts[tissue], minlength=count), 1)
    areas_mm2 = stats[:, cv2.CC_STAT_AREA] * np.prod(spacing_mm)
    kept = (areas_mm2 >= SMALLEST_LIMB_MM2) & (means_hu > FATTEST_LIMB_HU)
    kept[0] = False  # the background
    limbs = kept[parts]
    # The opening took off edges and folds; back they come, without a couch that lies close.
    _, parts = cv2.connectedComponents(
        cv2.dilate(limbs.astype(np.uint8), disk) & filled, connectivity=4
    )
    limbs = np.isin(parts, np.unique(parts[limbs])).astype(np.uint8)
    outline = 1 - _outside(limbs)
    return outline, outline & (1 - above)


def _thick_walled(above: np.ndarray, thick: np.ndarray) -> np.ndarray:
    """Return the air enclosed by thick tissue, as gas is; a couch or a blanket is thin."""
    inner = np.pad((1 - above) & (1 - _outside(above)), 1)
    count, parts = cv2.connectedComponents(inner, connectivity=4)
    # Each rim pixel of a cavity is seen from it, by its four neighbours.
    above, thick = (np.pad(part, 1).ravel() for part in (above, thick))
    pixels = np.flatnonzero(inner)
    numbers, width = parts.ravel()[pixels], parts.shape[1]
    rim, thick_rim = np.zeros(count), np.zeros(count)
    for step in (-width, -1, 1, width):
        rim += np.bincount(numbers, above[pixels + step], count)
        thick_rim += np.bincount(numbers, thick[pixels + step], count)
    enclosed = thick_rim >= ENCLOSED * rim
    enclosed[0] = False
    return enclosed[parts[1:-1, 1:-1]].astype(np.uint8)


def _outside(body: np.ndarray) -> np.ndarray:
    """Return 1 where air reaches the edge of the slice, else 0."""
    _, parts = cv2.connectedComponents(np.pad(1 - body, 1, constant_values=1), connectivity=4)
    return (parts == parts[0, 0])[1:-1, 1:-1].astype(np.uint8)


def _open_gaps(
    body: np.ndarray, cavities: np.ndarray, air: np.ndarray, smallest_gap: float
) -> None:
    """Take from `body` the cavities that lie under the neighbouring slice's outside air."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(cavities & body, connectivity=4)
    pixels = np.flatnonzero(parts)
    under = np.bincount(parts.ravel()[pixels], air.ravel()[pixels], len(stats))
    share = under / stats[:, cv2.CC_STAT_AREA]
    gaps = (share > OPEN) & (stats[:, cv2.CC_STAT_AREA] >= smallest_gap)
    gaps[0] = False
    if gaps.any():
        body[gaps[parts]] = 0
