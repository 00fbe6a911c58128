"""A smooth random texture that all tissues of a patient share."""

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

TEXTURE_VOXEL_MM = 4.0


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
