"""Margin of bone -> the same without implants, without small islands and with small holes filled.

Label map and surface are both made of the margin, so each step changes it in place.
"""

import numpy as np
import SimpleITK
from scipy import ndimage

METAL_HU = 2000.0  # above the densest cortical bone of a pelvis
SMALLEST_BONE_ML = 2.0  # smaller islands are contrast agent, calcification or noise
LARGEST_HOLE_ML = 0.1  # larger cavities are anatomy: a joint space or a canal
NEIGHBOURS = np.ones((3, 3, 3), bool)


def clean(margin: SimpleITK.Image, scan: SimpleITK.Image, body: SimpleITK.Image) -> SimpleITK.Image:
    """Return the margin of `probabilities.predict_bone` without what cannot be bone.

    `scan` in HU and `body`, the mask of the patient, share a grid.
    """
    values = SimpleITK.GetArrayFromImage(margin)
    voxel_ml = np.prod(margin.GetSpacing()) / 1000
    remove_metal(values, _on_grid(scan, margin, SimpleITK.sitkLinear))
    values[_on_grid(body, margin, SimpleITK.sitkNearestNeighbor) == 0] = -1
    remove_islands(values, voxel_ml)
    fill_holes(values, voxel_ml)
    cleaned = SimpleITK.GetImageFromArray(values)
    cleaned.CopyInformation(margin)
    return cleaned


def remove_metal(margin: np.ndarray, image_hu: np.ndarray) -> None:
    """Remove bone above `METAL_HU`, which only implants reach."""
    margin[image_hu > METAL_HU] = -1


def remove_islands(margin: np.ndarray, voxel_ml: float) -> None:
    """Remove separate pieces of bone below `SMALLEST_BONE_ML`."""
    bone = margin > 0
    islands = _small_parts(bone, SMALLEST_BONE_ML / voxel_ml)
    # Interpolation would bring back a speck from its blurred edge.
    margin[ndimage.binary_dilation(islands, NEIGHBOURS) & (~bone | islands)] = -1


def fill_holes(margin: np.ndarray, voxel_ml: float) -> None:
    """Fill cavities in bone up to `LARGEST_HOLE_ML`, so that its surface has no bubbles."""
    bone = margin > 0
    holes = ndimage.binary_fill_holes(bone) & ~bone
    margin[_small_parts(holes, LARGEST_HOLE_ML / voxel_ml)] = 1


def _on_grid(image: SimpleITK.Image, grid: SimpleITK.Image, interpolator: int) -> np.ndarray:
    resampled = SimpleITK.Resample(image, grid, SimpleITK.Transform(), interpolator)
    return SimpleITK.GetArrayFromImage(resampled)  # a view would not outlive the image


def _small_parts(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Return the connected parts of a mask with fewer than `smallest` voxels."""
    parts, _ = ndimage.label(mask)
    small = np.bincount(parts.ravel()) < smallest
    small[0] = False  # outside of the mask
    return small[parts]
