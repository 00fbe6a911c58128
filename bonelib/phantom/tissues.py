"""The tissues of a phantom and their HU."""

from enum import IntEnum

import numpy as np

from bonelib.settings import AIR_HU


class Tissue(IntEnum):
    """The content of a voxel; from GAS on it is body, from MARROW on it is bone.

    `hu` holds mean HU at 120 kV, then the standard deviations between patients, of the coarse
    and of the fine texture.
    """

    def __new__(cls, number: int, *hu: float):  # noqa: D102
        tissue = int.__new__(cls, number)
        tissue._value_, tissue.hu = number, hu
        return tissue

    AIR = 0, AIR_HU, 0, 0, 0
    COUCH_CORE = 1, -930, 15, 0, 8
    COUCH_SHELL = 2, 150, 60, 0, 30
    CUSHION = 3, -955, 20, 0, 6
    SKIN_MARKER = 4, 1200, 400, 0, 0
    GAS = 5, -960, 5, 0, 0
    FAT = 6, -102, 4, 9, 5
    SKIN = 7, 10, 10, 15, 10
    MUSCLE = 8, 42, 6, 10, 12
    BOWEL_WALL = 9, 40, 5, 8, 5
    FLUID = 10, 12, 6, 12, 5
    BLOOD = 11, 45, 8, 3, 3
    CARTILAGE = 12, 75, 8, 6, 5
    ENHANCED_BLOOD = 13, 240, 60, 5, 5
    BOWEL_CONTRAST = 14, 330, 90, 60, 15
    CALCIFICATION = 15, 750, 150, 100, 100
    GOLD_SEED = 16, 2500, 200, 0, 0
    CATHETER = 17, 180, 60, 0, 0
    METAL = 18, 6000, 1500, 0, 0  # of a prosthesis
    MARROW = 19, -15, 20, 25, 15
    SPARSE_TRABECULAR = 20, 70, 30, 60, 55
    TRABECULAR = 21, 185, 35, 55, 70
    VERTEBRAL_SHELL = 22, 420, 50, 110, 90  # thinner than a voxel
    THIN_CORTICAL = 23, 620, 80, 150, 110
    CORTICAL = 24, 1380, 110, 120, 80


TISSUE_HU = np.array([tissue.hu for tissue in Tissue], np.float32)  # (tissue, 4)

# Lowest density of each filling of a bone, on an arbitrary scale; below the first is marrow.
SPONGY_LEVELS = (
    (-0.5, Tissue.SPARSE_TRABECULAR),
    (0.5, Tissue.TRABECULAR),
    (1.5, Tissue.VERTEBRAL_SHELL),
    (2.1, Tissue.THIN_CORTICAL),
)


def spongy(density: np.ndarray) -> np.ndarray:
    """Return the tissue that fills bone of each density, uint8."""
    filling = np.full(density.shape, Tissue.MARROW, np.uint8)
    for least, tissue in SPONGY_LEVELS:
        filling[density > least] = tissue
    return filling
