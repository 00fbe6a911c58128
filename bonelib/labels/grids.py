"""A mask in space -> the same on a scan's grid, or a refusal where the two lie apart."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import SimpleITK

from bonelib.errors import InputError
from bonelib.labels.structures import Choice


def on_grid(mask: SimpleITK.Image, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Bring a mask to the scan's grid by nearest neighbour; beyond the mask is 0.

    Raises InputError where the two do not overlap in space.
    """
    check_overlap(scan, *_extent_mm(mask))
    return SimpleITK.Resample(
        mask, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0, mask.GetPixelID()
    )


def check_overlap(scan: SimpleITK.Image, mask_low: np.ndarray, mask_high: np.ndarray) -> None:
    """Raise InputError where a box from `mask_low` to `mask_high` (mm) lies off the scan."""
    low, high = _extent_mm(scan)
    if (np.minimum(high, mask_high) <= np.maximum(low, mask_low)).any():
        raise InputError(
            "mask and scan lie apart in space "
            f"(scan from {_point(low)} to {_point(high)} mm, mask from {_point(mask_low)} to "
            f"{_point(mask_high)} mm); export both with the same origin"
        )


def image_like(values: np.ndarray, grid: SimpleITK.Image) -> SimpleITK.Image:
    """Return an array (slice, row, column) as an image that lies where `grid` does."""
    image = SimpleITK.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image


def merge(
    chosen: Sequence[Choice], draw: Callable[[Any], np.ndarray], grid: SimpleITK.Image
) -> tuple[SimpleITK.Image, dict[int, str]]:
    """Draw what was chosen over each other, as ids from 1 on `grid`.

    `draw(source)` returns true where a structure is, of shape (slice, row, column). Later
    ones win. Returns the ids, uint8 or int32, and the bones' names by id.
    """
    names = {number: choice.bone for number, choice in enumerate(chosen, start=1)}
    ids = np.zeros(grid.GetSize()[::-1], np.uint8 if len(names) < 256 else np.int32)
    for number, choice in enumerate(chosen, start=1):
        ids[draw(choice.source)] = number
    return image_like(ids, grid), names


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
