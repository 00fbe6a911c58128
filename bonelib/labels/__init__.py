"""Bone mask of any format + scan -> label map: 0 background, 1 patient, 2 bone.

A mask holds ids of structures, or only zero and not zero; a label map holds classes. Both are
integers and are resampled by nearest neighbour only.
"""

import numpy as np
import SimpleITK

from bonelib.bone_names import IGNORE_NAME, looks_like_bone
from bonelib.labels.body import BONE_HU, body_mask, unlabelled_bone
from bonelib.labels.masks import read_mask
from bonelib.scans.volumes import image_like, on_grid
from bonelib.settings import BONE, IGNORE, PATIENT

__all__ = [
    "BONE_HU", "IGNORE_NAME", "body_mask", "bone_of", "image_like", "label_map", "looks_like_bone",
    "on_grid", "read_mask", "unlabelled_bone",
]  # fmt: skip


def label_map(
    scan: SimpleITK.Image, mask: SimpleITK.Image, bone_names: dict[int, str] | None = None
) -> SimpleITK.Image:
    """Return background, patient, bone and `IGNORE` as uint8 on the scan's grid.

    Bone wins over patient. `mask` may have another grid and order of axes. `bone_names` as for
    `bone_of`. Raises InputError where mask and scan do not overlap in space.
    """
    bone = SimpleITK.GetArrayFromImage(on_grid(bone_of(mask, bone_names), scan))
    classes = SimpleITK.GetArrayFromImage(body_mask(scan)) * np.uint8(PATIENT)
    classes[bone == 1] = BONE
    classes[bone == IGNORE] = IGNORE
    return image_like(classes, scan)


def bone_of(mask: SimpleITK.Image, bone_names: dict[int, str] | None = None) -> SimpleITK.Image:
    """Return 1 where `mask` is bone, `IGNORE` where unknown, else 0, as uint8 on its grid.

    Without `bone_names` (id to name) every value above 0.5 is bone. With them only their
    ids are; the id named "ignore" is unknown.
    """
    values = SimpleITK.GetArrayViewFromImage(mask)
    if bone_names is None:
        return image_like((values > 0.5).astype(np.uint8), mask)
    unknown = [number for number, name in bone_names.items() if name == IGNORE_NAME]
    bone = np.isin(values, list(bone_names)).astype(np.uint8)
    bone[np.isin(values, unknown)] = IGNORE
    return image_like(bone, mask)
