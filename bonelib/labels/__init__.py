"""Bone mask of any format + scan -> label map: 0 background, 1 patient, from 2 on bone.

A mask holds ids of structures, or only zero and not zero; a label map holds classes. Both are
integers and are resampled by nearest neighbour only.
"""

import numpy as np
import SimpleITK

from bonelib.bone_names import IGNORE_NAME, class_of, looks_like_bone
from bonelib.labels.body import body_mask, unlabelled_bone
from bonelib.labels.masks import read_mask
from bonelib.scans.volumes import image_like, on_grid
from bonelib.settings import BONE, PATIENT

__all__ = [
    "IGNORE_NAME", "UNNAMED", "body_mask", "bone_of", "class_of", "image_like", "label_map",
    "looks_like_bone", "on_grid", "read_mask", "unlabelled_bone",
]  # fmt: skip

UNNAMED = "bone"  # the name of bones in a mask without names


def label_map(
    scan: SimpleITK.Image,
    mask: SimpleITK.Image,
    bone_names: dict[int, str] | None = None,
    class_scheme: str = "bone",
) -> SimpleITK.Image:
    """Return the scheme's classes and `IGNORE` as uint8 on the scan's grid.

    Bone wins over patient; bone of no class is `IGNORE`. `mask` may have another grid and
    order of axes. `bone_names` as for `bone_of`. Raises InputError where mask and scan do not
    overlap in space.
    """
    drawn = on_grid(_classes_of(mask, bone_names, class_scheme), scan)
    bones = SimpleITK.GetArrayViewFromImage(drawn)
    patient = SimpleITK.GetArrayFromImage(body_mask(scan)) * np.uint8(PATIENT)
    return image_like(np.where(bones > 0, bones, patient), scan)


def bone_of(mask: SimpleITK.Image, bone_names: dict[int, str] | None = None) -> SimpleITK.Image:
    """Return 1 where `mask` is bone, `IGNORE` where unknown, else 0, as uint8 on its grid.

    Without `bone_names` (id to name) every value above 0.5 is bone. With them only their
    ids are; the id named "ignore" is unknown.
    """
    found = SimpleITK.GetArrayFromImage(_classes_of(mask, bone_names, "bone"))
    found[found == BONE] = 1
    return image_like(found, mask)


def _classes_of(
    mask: SimpleITK.Image, bone_names: dict[int, str] | None, class_scheme: str
) -> SimpleITK.Image:
    """Return the class of each bone in `mask`, see `class_of`, else 0, as uint8 on its grid."""
    values = SimpleITK.GetArrayViewFromImage(mask)
    if bone_names is None:
        return image_like((values > 0.5) * np.uint8(class_of(UNNAMED, class_scheme)), mask)
    found = np.zeros(values.shape, np.uint8)
    classes = {number: class_of(name, class_scheme) for number, name in bone_names.items()}
    for label in set(classes.values()):
        numbers = [number for number, other in classes.items() if other == label]
        found[np.isin(values, numbers)] = label
    return image_like(found, mask)
