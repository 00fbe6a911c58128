"""A mask in space -> the same on a scan's grid, or a refusal where the two lie apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from bonelib.errors import InputError


def on_grid(
    mask: SimpleITK.Image, scan: SimpleITK.Image, path: Path | None = None
) -> SimpleITK.Image:
    """Resample a mask to the scan's grid by nearest neighbour; outside the mask is 0.

    Raises InputError, naming `path`, where the two do not overlap in space.
    """
    check_overlap(path, scan, *_extent_mm(mask))
    return SimpleITK.Resample(
        mask, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0, mask.GetPixelID()
    )


def check_overlap(
    path: Path | None, scan: SimpleITK.Image, mask_low_mm: np.ndarray, mask_high_mm: np.ndarray
) -> None:
    """Raise InputError where the box of a mask lies outside the scan."""
    low_mm, high_mm = _extent_mm(scan)
    if (np.minimum(high_mm, mask_high_mm) <= np.maximum(low_mm, mask_low_mm)).any():
        raise InputError(
            f"{path}: " * (path is not None) + "mask and scan lie apart in space "
            f"(scan from {_point(low_mm)} to {_point(high_mm)} mm, mask from "
            f"{_point(mask_low_mm)} to {_point(mask_high_mm)} mm); export both with the same origin"
        )


def image_like(values: np.ndarray, grid: SimpleITK.Image) -> SimpleITK.Image:
    """Return an array (slice, row, column) as an image that lies where `grid` does."""
    image = SimpleITK.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image


def merge(
    chosen: Sequence[tuple[str, Any]], draw: Callable[[Any], np.ndarray], grid: SimpleITK.Image
) -> tuple[SimpleITK.Image, dict[int, str]]:
    """Draw the chosen structures over each other, as ids from 1 on `grid`; later ones win.

    `chosen` holds a bone's name and what `draw` takes to return true where it is, (slice,
    row, column). Returns the ids, uint8 or int32, and the bones' names by id.
    """
    ids = np.zeros(grid.GetSize()[::-1], np.uint8 if len(chosen) < 256 else np.int32)
    for number, (_, source) in enumerate(chosen, start=1):
        ids[draw(source)] = number
    return image_like(ids, grid), {number: bone for number, (bone, _) in enumerate(chosen, start=1)}


def _extent_mm(image: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest x, y, z of an image's corners."""
    ends = [(-0.5, size - 0.5) for size in image.GetSize()]
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3).tolist()
    points_mm = np.array([image.TransformContinuousIndexToPhysicalPoint(item) for item in corners])
    return points_mm.min(axis=0), points_mm.max(axis=0)


def _point(point_mm: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in point_mm) + ")"
