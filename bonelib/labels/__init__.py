"""Bone mask + scan -> label map: 0 background, 1 patient, 2 bone.

A mask holds ids of structures, or just zero and not zero; a label map holds classes. Both
are integers and are resampled by nearest neighbour only.
"""

import cv2
import numpy as np
import SimpleITK

from bonelib.errors import InputError
from bonelib.settings import BONE, IGNORE, PATIENT

SKIN_HU = -300.0  # air, foam and cloth lie below; skin, blurred with air, above
THIN_MM = 9.0  # couch shells, blankets and tubes are thinner; limbs are thicker
SMALLEST_LIMB_MM2 = 500.0  # cross-section of a child's wrist; rails of a couch are smaller
FATTEST_LIMB_HU = -180.0  # the parts of a couch have a lower mean
ENCLOSED = 0.6  # share of a cavity's rim that is thick tissue, if the cavity is gas inside
OPEN = 0.5  # share of a cavity under outside air, if it is a gap between limbs
SMALLEST_GAP_MM2 = 50.0  # a smaller cavity is never a gap between limbs

IGNORE_NAME = "ignore"  # among bone names: the id of voxels of which nobody knows the class


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
    last = len(body) - 1
    for here, neighbour in (
        *((index, index - 1) for index in range(1, last + 1)),
        *((index, index + 1) for index in range(last - 1, -1, -1)),
    ):
        _open_gaps(body[here], cavities[here], 1 - body[neighbour], smallest_gap)
    mask = SimpleITK.GetImageFromArray(body)
    mask.CopyInformation(scan)
    return mask


def label_map(
    scan: SimpleITK.Image, mask: SimpleITK.Image, bone_names: dict[int, str] | None = None
) -> SimpleITK.Image:
    """Return classes 0, 1, 2 and `IGNORE` as uint8 on the scan's grid; bone wins over patient.

    `mask` may have another grid and order of axes. `bone_names` as for `bone_of`. Raises
    InputError where mask and scan do not overlap in space.
    """
    bone = SimpleITK.GetArrayFromImage(on_grid(bone_of(mask, bone_names), scan))
    classes = SimpleITK.GetArrayFromImage(body_mask(scan)) * np.uint8(PATIENT)
    classes[bone == 1] = BONE
    classes[bone == IGNORE] = IGNORE
    labels = SimpleITK.GetImageFromArray(classes)
    labels.CopyInformation(scan)
    return labels


def bone_of(mask: SimpleITK.Image, bone_names: dict[int, str] | None = None) -> SimpleITK.Image:
    """Return 1 where `mask` is bone, `IGNORE` where unknown, else 0, as uint8 on its grid.

    Without `bone_names` (id to name) every value above 0.5 is bone. With them only their
    ids are; the id named "ignore" is unknown.
    """
    values = SimpleITK.GetArrayViewFromImage(mask)
    if bone_names is None:
        found = (values > 0.5).astype(np.uint8)
    else:
        unknown = [number for number, name in bone_names.items() if name == IGNORE_NAME]
        found = np.isin(values, list(bone_names)).astype(np.uint8)
        found[np.isin(values, unknown)] = IGNORE
    bone = SimpleITK.GetImageFromArray(found)
    bone.CopyInformation(mask)
    return bone


def on_grid(mask: SimpleITK.Image, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Bring a mask to the scan's grid by nearest neighbour; beyond the mask is 0.

    Raises InputError where the two do not overlap in space.
    """
    (low, high), (mask_low, mask_high) = _extent_mm(scan), _extent_mm(mask)
    if (np.minimum(high, mask_high) <= np.maximum(low, mask_low)).any():
        raise InputError(
            "mask and scan lie apart in space "
            f"(scan from {_point(low)} to {_point(high)} mm, mask from {_point(mask_low)} to "
            f"{_point(mask_high)} mm); export both with the same origin"
        )
    return SimpleITK.Resample(
        mask, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0, mask.GetPixelID()
    )


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
    inner = (1 - above) & (1 - _outside(above))
    count, parts = cv2.connectedComponents(inner, connectivity=4)
    # Each rim pixel of a cavity is seen from it, by its four neighbours.
    rim, thick_rim = np.zeros(count), np.zeros(count)
    padded = np.pad(parts, 1)
    rows, columns = above.shape
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        seen = np.where(above, padded[down : down + rows, right : right + columns], 0)
        rim += np.bincount(seen.ravel(), minlength=count)
        thick_rim += np.bincount(seen[thick > 0], minlength=count)
    enclosed = thick_rim >= ENCLOSED * rim
    enclosed[0] = False
    return enclosed[parts].astype(np.uint8)


def _outside(body: np.ndarray) -> np.ndarray:
    """Return 1 where air reaches the edge of the slice, else 0."""
    _, parts = cv2.connectedComponents(np.pad(1 - body, 1, constant_values=1), connectivity=4)
    return (parts == parts[0, 0])[1:-1, 1:-1].astype(np.uint8)


def _open_gaps(
    body: np.ndarray, cavities: np.ndarray, air: np.ndarray, smallest_gap: float
) -> None:
    """Take from `body` the cavities that lie under the neighbouring slice's outside air."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(cavities & body, connectivity=4)
    share = np.bincount(parts.ravel(), weights=air.ravel()) / stats[:, cv2.CC_STAT_AREA]
    gaps = (share > OPEN) & (stats[:, cv2.CC_STAT_AREA] >= smallest_gap)
    gaps[0] = False
    body[gaps[parts]] = 0


def _extent_mm(image: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest x, y, z of an image's corners in millimetres."""
    ends = [(-0.5, size - 0.5) for size in image.GetSize()]
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3)
    points_mm = np.array(
        [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in corners.tolist()]
    )
    return points_mm.min(axis=0), points_mm.max(axis=0)


def _point(point_mm: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in point_mm) + ")"
