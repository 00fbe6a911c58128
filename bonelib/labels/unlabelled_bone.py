"""Scan, drawn bone and body -> bone that the annotators left out."""

import cv2
import numpy as np
import SimpleITK
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_objects

from bonelib.labels.grids import image_like
from bonelib.settings import AIR_HU

BONE_HU = 200.0  # soft tissue lies below, some of each bone's shell above
THIN_BONE_HU = 120.0  # shells that are thin or blurred, where they go on from bright ones
CLOSED_GAP_MM = 5.0  # shells of osteoporotic bone have holes of this width in a slice
LARGEST_BONE_MM2 = 6000.0  # the lower end of a large man's femur; a larger hull is of several
SMALLEST_BONE_MM2 = 50.0  # a rib across; smaller ones are calcification or noise
MARGIN_MM = 2.0  # a bone's edge is blurred, and lies below BONE_HU on its outer side


def unlabelled_bone(
    scan: SimpleITK.Image, bone: SimpleITK.Image, body: SimpleITK.Image
) -> SimpleITK.Image:
    """Return uint8 1 where `scan` may show bone that is not in `bone`, marrow included.

    All three lie on one grid; `bone` and `body` are 0 or 1. Works in the slices. Contrast
    and metal are found as well: they look like bone.
    """
    spacing_mm = scan.GetSpacing()[:2]
    image_hu, drawn, inside = map(SimpleITK.GetArrayViewFromImage, (scan, bone, body))
    # The drawn bone goes first, or its own shell would close up with what lies beside it.
    open_hu = np.where((inside == 1) & (drawn == 0), image_hu, AIR_HU)
    found = np.stack([_whole_bones(part, spacing_mm) for part in open_hu])
    return image_like(found * ((drawn == 0) & (inside == 1)).astype(np.uint8), scan)


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
