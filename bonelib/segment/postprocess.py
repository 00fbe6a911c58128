"""Margin of bone -> the same without implants, without small islands and with small holes filled.

Label map and surface are both made of the margin, so each step changes it in place.
"""

import numpy as np
import SimpleITK
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

from bonelib.labels import image_like, on_grid

METAL_HU = 2000.0  # above the densest cortical bone of a pelvis
SMALLEST_BONE_ML = 2.0  # smaller islands are contrast agent, calcification or noise
LARGEST_HOLE_ML = 0.1  # larger cavities are anatomy: a joint space or a canal


def clean(margin: SimpleITK.Image, scan: SimpleITK.Image, body: SimpleITK.Image) -> SimpleITK.Image:
    """Return the margin of `probabilities.predict_bone` without what cannot be bone.

    `scan` in HU and `body`, the mask of the patient, share a grid.
    """
    values = SimpleITK.GetArrayFromImage(margin)
    voxel_ml = np.prod(margin.GetSpacing()) / 1000
    remove_metal(values, SimpleITK.GetArrayFromImage(SimpleITK.Resample(scan, margin)))
    values[SimpleITK.GetArrayFromImage(on_grid(body, margin)) == 0] = -1
    remove_islands(values, voxel_ml)
    fill_holes(values, voxel_ml)
    return image_like(values, margin)


def remove_metal(margin: np.ndarray, image_hu: np.ndarray) -> None:
    """Remove bone above `METAL_HU`, which only implants reach."""
    margin[image_hu > METAL_HU] = -1


def remove_islands(margin: np.ndarray, voxel_ml: float) -> None:
    """Remove separate pieces of bone below `SMALLEST_BONE_ML`."""
    bone = margin > 0
    large = remove_small_objects(bone, max_size=SMALLEST_BONE_ML / voxel_ml)
    # Interpolation would bring back a speck from its blurred edge.
    around = ndimage.binary_dilation(bone & ~large, np.ones((3, 3, 3), bool))
    margin[around & ~large] = -1


def fill_holes(margin: np.ndarray, voxel_ml: float) -> None:
    """Fill cavities in bone up to `LARGEST_HOLE_ML`, so that its surface has no bubbles."""
    bone = margin > 0
    margin[remove_small_holes(bone, max_size=LARGEST_HOLE_ML / voxel_ml) & ~bone] = 1
