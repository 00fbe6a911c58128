"""Mask and scan -> label map: 0 background, 1 patient, 2 bone, 255 unknown."""

import numpy as np
import SimpleITK

from bonelib.labels.body import body_mask
from bonelib.labels.grids import image_like, on_grid
from bonelib.labels.naming import IGNORE_NAME
from bonelib.labels.undrawn import unlabelled_bone
from bonelib.settings import BONE, IGNORE, PATIENT


def label_map(
    scan: SimpleITK.Image,
    mask: SimpleITK.Image,
    bone_names: dict[int, str] | None = None,
    unlabelled: bool = False,
) -> SimpleITK.Image:
    """Return classes 0, 1, 2 and `IGNORE` as uint8 on the scan's grid; bone wins over patient.

    `mask` may have another grid and order of axes. `bone_names` as for `bone_of`. With
    `unlabelled`, bone that `mask` leaves out is looked for and becomes `IGNORE`. Raises
    InputError where mask and scan do not overlap in space.
    """
    bone = on_grid(bone_of(mask, bone_names), scan)
    body = body_mask(scan)
    drawn = SimpleITK.GetArrayViewFromImage(bone)
    classes = SimpleITK.GetArrayFromImage(body) * np.uint8(PATIENT)
    if unlabelled:
        undrawn = unlabelled_bone(scan, image_like((drawn == 1).astype(np.uint8), scan), body)
        classes[SimpleITK.GetArrayViewFromImage(undrawn) == 1] = IGNORE
    classes[drawn == 1] = BONE
    classes[drawn == IGNORE] = IGNORE
    return image_like(classes, scan)


def bone_of(mask: SimpleITK.Image, bone_names: dict[int, str] | None = None) -> SimpleITK.Image:
    """Return 1 where `mask` is bone, `IGNORE` where unknown, else 0, as uint8 on its grid.

    Without `bone_names` (id to name) every value above 0.5 is bone. With them only their
    ids are; the id named "ignore" is unknown.
    """
    values = SimpleITK.GetArrayViewFromImage(mask)
    if bone_names is None:
        found = (values > 0.5).astype(np.uint8)
    else:
        unknown = [number for number, name in bone_names.items() if name == IGNORE_NAME]
        found = np.isin(values, list(bone_names)).astype(np.uint8)
        found[np.isin(values, unknown)] = IGNORE
    return image_like(found, mask)
