"""The tissues of a phantom and their HU, which `tissues.csv` lists.

Its columns: mean HU at 120 kV; standard deviations between patients, of the coarse and of the
fine texture; whether the tissue holds calcium, iodine or metal; the least density of the bone
that it fills, on an arbitrary scale.
"""

from enum import IntEnum
from pathlib import Path

import numpy as np
import pandas

_TABLE = pandas.read_csv(Path(__file__).with_suffix(".csv"), index_col="tissue")

# The content of a voxel; from GAS on it is body, from MARROW on it is bone of growing density.
Tissue = IntEnum("Tissue", _TABLE["number"].to_dict())

TISSUE_HU = _TABLE.loc[:, "mean_hu":"fine_hu"].to_numpy(np.float32)  # (tissue, 4)
HEAVY = np.flatnonzero(_TABLE["is_heavy"])  # HU depend on the tube voltage


def spongy(density: np.ndarray) -> np.ndarray:
    """Return the tissue that fills bone of each density, uint8."""
    levels = _TABLE["least_density"].dropna().to_numpy(density.dtype)
    return (Tissue.MARROW + np.searchsorted(levels, density)).astype(np.uint8)
