"""Scan in HU -> outline of the patient, and bone that the annotators left out."""

import cv2
import numpy as np
import SimpleITK
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_objects

from bonelib.scans.volumes import image_like
from bonelib.settings import AIR_HU

SKIN_HU = -300.0  # air, foam and cloth lie below; skin, blurred with air, above
THIN_MM = 9.0  # couch shells, blankets and tubes are thinner; limbs are thicker
SMALLEST_LIMB_MM2 = 500.0  # cross-section of a child's wrist; rails of a couch are smaller
FATTEST_LIMB_HU = -180.0  # the parts of a couch have a lower mean
ENCLOSED = 0.6  # share of a cavity's rim that is thick tissue, if the cavity is gas inside
OPEN = 0.5  # share of a cavity under outside air, if it is a gap between limbs
CAVITY = 2  # air inside the patient, in `_outline`
SMALLEST_GAP_MM2 = 50.0  # a smaller cavity is never a gap between limbs

BONE_HU = 200.0  # soft tissue lies below, some of each bone's shell above
THIN_BONE_HU = 120.0  # shells that are thin or blurred, where they go on from bright ones
CLOSED_GAP_MM = 5.0  # shells of osteoporotic bone have holes of this width in a slice
LARGEST_BONE_MM2 = 6000.0  # the lower end of a large man's femur; a larger hull is of several
SMALLEST_BONE_MM2 = 50.0  # a rib across; smaller ones are calcification or noise
MARGIN_MM = 2.0  # a bone's edge is blurred, and lies below BONE_HU on its outer side


def body_mask(scan: SimpleITK.Image) -> SimpleITK.Image:
    """Outline the patient, arms and inner gas included, without couch, clothes and gaps.

    Works in the slices, in millimetres, so that they may be far apart; a neighbour only
    tells the air between two limbs from gas inside. Returns uint8 0 or 1 on the scan's grid.
    """
    spacing_mm = scan.GetSpacing()[:2]
    image_hu = SimpleITK.GetArrayViewFromImage(scan)
    inside = np.empty(image_hu.shape, np.uint8)
    for index, part in enumerate(image_hu):
        inside[index] = _outline(part, spacing_mm)
    smallest_gap = SMALLEST_GAP_MM2 / np.prod(spacing_mm)
    padding_hu = image_hu.min()
    last = len(inside) - 1
    for here, neighbour in (
        *((index, index - 1) for index in range(1, last + 1)),
        *((index, index + 1) for index in range(last - 1, -1, -1)),
    ):
        # Rows that hold nothing were not scanned: they show no air between limbs.
        scanned = (image_hu[neighbour] > padding_hu).any(axis=1, keepdims=True)
        _open_gaps(inside[here], (inside[neighbour] == 0) & scanned, smallest_gap)
    return image_like(np.minimum(inside, 1, out=inside), scan)


def _outline(slice_hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return 1 in the limbs and the trunk of a slice, `CAVITY` in the air inside, else 0; uint8.

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
    return (1 - _outside(limbs)) * np.where(above, np.uint8(1), np.uint8(CAVITY))


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


def _open_gaps(inside: np.ndarray, air: np.ndarray, smallest_gap: float) -> None:
    """Take from a slice the cavities that lie under the neighbouring slice's outside air."""
    cavities = (inside == CAVITY).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(cavities, connectivity=4)
    pixels = np.flatnonzero(parts)
    under = np.bincount(parts.ravel()[pixels], air.ravel()[pixels], len(stats))
    share = under / stats[:, cv2.CC_STAT_AREA]
    gaps = (share > OPEN) & (stats[:, cv2.CC_STAT_AREA] >= smallest_gap)
    gaps[0] = False
    if gaps.any():
        inside[gaps[parts]] = 0


def unlabelled_bone(
    scan: SimpleITK.Image, bone: SimpleITK.Image, body: SimpleITK.Image
) -> SimpleITK.Image:
    """Return uint8 1 where `scan` may show bone that is not in `bone`, marrow included.

    All three lie on one grid; `bone` and `body` are 0 or 1. Works in the slices. Contrast
    and metal are found as well: they look like bone.
    """
    spacing_mm = scan.GetSpacing()[:2]
    image_hu, drawn, inside = map(SimpleITK.GetArrayViewFromImage, (scan, bone, body))
    found = np.empty(image_hu.shape, np.uint8)
    for index, slice_hu in enumerate(image_hu):
        # The drawn bone goes first, or its own shell would close up with what lies beside it.
        is_open = (inside[index] == 1) & (drawn[index] == 0)
        found[index] = _whole_bones(np.where(is_open, slice_hu, AIR_HU), spacing_mm) * is_open
    return image_like(found, scan)


def _whole_bones(slice_hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the bones in a slice: closed, without specks, filled, with a margin; uint8.

    Each bone is filled to its convex hull: in osteoporosis a shell is open here and there, and
    what lies between its parts is as dark as muscle.
    """
    pixel_mm2 = np.prod(spacing_mm)
    bright = apply_hysteresis_threshold(slice_hu, THIN_BONE_HU, BONE_HU)
    disk = _disk(CLOSED_GAP_MM / 2, spacing_mm)
    closed = cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_CLOSE, disk) > 0
    parts = remove_small_objects(closed, max_size=SMALLEST_BONE_MM2 / pixel_mm2, connectivity=2)
    whole = parts.astype(np.uint8)
    outlines, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for hull in map(cv2.convexHull, outlines):
        if cv2.contourArea(hull) * pixel_mm2 <= LARGEST_BONE_MM2:
            cv2.fillConvexPoly(whole, hull, 1)
    return cv2.dilate(whole, _disk(MARGIN_MM, spacing_mm))


def _disk(radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return a disk as uint8 of (row, column), of a pixel's radius at least; spacing is (x, y)."""
    radius_mm = max(radius_mm, *spacing_mm)
    reach_x, reach_y = (int(radius_mm / mm) for mm in spacing_mm)
    rows, columns = np.ogrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1]
    distance_mm = np.hypot(rows * spacing_mm[1], columns * spacing_mm[0])
    return (distance_mm <= radius_mm).astype(np.uint8)
