"""A mask in space -> the same on a scan's grid, or a refusal where the two lie apart."""

from pathlib import Path

import numpy as np
import SimpleITK

from bonelib.errors import InputError
from bonelib.scans import Grid

SAMPLES = 1_000_000  # voxels of a mask that mean HU are taken from


def on_grid(
    mask: SimpleITK.Image, scan: SimpleITK.Image, path: Path | None = None
) -> SimpleITK.Image:
    """Resample a mask to the scan's grid by nearest neighbour; outside the mask is 0.

    Raises InputError, naming `path`, where the two do not overlap in space.
    """
    resampled = SimpleITK.Resample(
        mask, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0, mask.GetPixelID()
    )
    check_overlap(path, SimpleITK.GetArrayViewFromImage(mask), resampled)
    return resampled


def check_overlap(path: Path | None, drawn: np.ndarray, on_scan: SimpleITK.Image) -> None:
    """Raise InputError where a mask holds something, and nothing of it lies in the scan."""
    if np.any(drawn) and not SimpleITK.GetArrayViewFromImage(on_scan).any():
        raise InputError(
            f"{path}: " * (path is not None) + "mask and scan lie apart in space; export both "
            "with the same origin"
        )


def image_like(values: np.ndarray, image: SimpleITK.Image) -> SimpleITK.Image:
    """Return an array (slice, row, column) as an image that lies where `image` does."""
    return Grid.of(image).image(values)


def sample(scan: SimpleITK.Image, mask: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of voxels in a mask, evenly chosen, and the scan's values at their places."""
    held = np.flatnonzero(SimpleITK.GetArrayViewFromImage(mask))
    held = held[:: 1 + len(held) // SAMPLES]
    indices = np.stack(np.unravel_index(held, mask.GetSize()[::-1])[::-1], axis=1)
    of, to = Grid.of(mask), Grid.of(scan)
    points_mm = indices @ (of.axes * of.spacing_mm).T + of.origin_mm
    places = np.rint((points_mm - to.origin_mm) @ np.linalg.inv(to.axes * to.spacing_mm).T)
    reached = ((places >= 0) & (places < to.size)).all(axis=1)
    return tuple(
        SimpleITK.GetArrayViewFromImage(image)[tuple(voxels[reached, ::-1].astype(int).T)]
        for image, voxels in ((mask, indices), (scan, places))
    )
