"""What a voxel of a phantom can hold."""

from enum import IntEnum

import numpy as np


class Tissue(IntEnum):
    """What a voxel holds; from GAS on it is body, from MARROW on it is bone."""

    AIR = 0
    COUCH_CORE = 1
    COUCH_SHELL = 2
    CUSHION = 3
    SKIN_MARKER = 4
    GAS = 5
    FAT = 6
    SKIN = 7
    MUSCLE = 8
    BOWEL_WALL = 9
    FLUID = 10
    BLOOD = 11
    CARTILAGE = 12
    ENHANCED_BLOOD = 13
    BOWEL_CONTRAST = 14
    CALCIFICATION = 15
    GOLD_SEED = 16
    CATHETER = 17
    METAL = 18  # of a prosthesis
    MARROW = 19
    SPARSE_TRABECULAR = 20
    TRABECULAR = 21
    VERTEBRAL_SHELL = 22  # thinner than a voxel
    THIN_CORTICAL = 23
    CORTICAL = 24


# Density of the inside of a bone from which it is more than marrow, on a scale of its own.
SPONGY_LEVELS = (
    (-0.5, Tissue.SPARSE_TRABECULAR),
    (0.5, Tissue.TRABECULAR),
    (1.5, Tissue.VERTEBRAL_SHELL),
    (2.1, Tissue.THIN_CORTICAL),
)


def spongy(density: np.ndarray) -> np.ndarray:
    """Return which tissue fills bone of this density, uint8 of the same shape."""
    filling = np.full(density.shape, Tissue.MARROW, np.uint8)
    for least, tissue in SPONGY_LEVELS:
        filling[density > least] = tissue
    return filling
