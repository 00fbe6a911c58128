"""Bone mask of any format + scan -> label map: 0 background, 1 patient, from 2 on bone.

A mask holds ids of structures, or only zero and not zero; a label map holds classes. Both are
integers and are resampled by nearest neighbour only.
"""

from bonelib.bone_names import BONE_PATTERNS, IGNORE_NAME, class_of, looks_like_bone
from bonelib.labels.body import body_mask
from bonelib.labels.grids import on_grid
from bonelib.labels.label_map import UNNAMED, bone_of, label_map
from bonelib.labels.masks import read_mask
from bonelib.labels.unlabelled_bone import unlabelled_bone

__all__ = [
    "BONE_PATTERNS", "IGNORE_NAME", "UNNAMED", "body_mask", "bone_of", "class_of", "label_map",
    "looks_like_bone", "on_grid", "read_mask", "unlabelled_bone",
]  # fmt: skip
