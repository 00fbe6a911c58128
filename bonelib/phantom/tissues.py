"""The tissues of a phantom, their HU, which `tissues.csv` lists, and the texture they share.

Its columns: mean HU at 120 kV; standard deviations between patients, of the coarse and of the
fine texture; whether the tissue holds calcium, iodine or metal; the least density of the bone
that it fills, on an arbitrary scale.
"""

from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
import pandas
from scipy.ndimage import gaussian_filter

_TABLE = pandas.read_csv(Path(__file__).with_suffix(".csv"), index_col="tissue")

# The content of a voxel; from GAS on it is body, from MARROW on it is bone of growing density.
Tissue = IntEnum("Tissue", _TABLE["number"].to_dict())

TISSUE_HU = _TABLE.loc[:, "mean_hu":"fine_hu"].to_numpy(np.float32)  # (tissue, 4)
TEXTURE_VOXEL_MM = 4.0
HEAVY = np.flatnonzero(_TABLE["is_heavy"])  # HU depend on the tube voltage


def spongy(density: np.ndarray) -> np.ndarray:
    """Return the tissue that fills bone of each density, uint8."""
    levels = _TABLE["least_density"].dropna().to_numpy(density.dtype)
    return (Tissue.MARROW + np.searchsorted(levels, density)).astype(np.uint8)


def draw_texture(random) -> np.ndarray:
    """Return a cyclic (slice, row, column) texture of `TEXTURE_VOXEL_MM`, unit variance."""
    texture = gaussian_filter(random.normal(size=(48, 128, 128)), 0.9, mode="wrap")
    return (texture / texture.std()).astype(np.float32)


def texture_plane(texture, shape, spacing_mm: float, z_mm: float) -> np.ndarray:
    """Return the plane at `z_mm` of a texture, (row, column) of `shape` and `spacing_mm`."""
    level = z_mm / TEXTURE_VOXEL_MM
    below = int(np.floor(level))
    weight = np.float32(level - below)
    planes = texture[[below % len(texture), (below + 1) % len(texture)]]
    plane = (1 - weight) * planes[0] + weight * planes[1]
    plane /= np.sqrt((1 - weight) ** 2 + weight**2)
    extent = [int(np.ceil(size * spacing_mm / TEXTURE_VOXEL_MM)) for size in shape]
    return cv2.resize(plane[: extent[0], : extent[1]], shape[::-1])
