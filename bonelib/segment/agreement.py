"""Bone as found and as drawn -> how far the two agree, in overlap and in millimetres."""

import numpy as np
import pandas as pd
import SimpleITK
import trimesh

from bonelib import metrics
from bonelib.datasets import Case
from bonelib.paths import SegmentationFolder
from bonelib.segment import surfaces
from bonelib.settings import BONE, IGNORE


def of_masks(found: np.ndarray, drawn: np.ndarray, spacing_mm: tuple[float, ...]) -> dict:
    """Return overlap and distances of two masks (slice, row, column); NaN where one is empty."""
    both = found.any() and drawn.any()
    far_mm = metrics.surface_distances(drawn, found, spacing_mm) if both else np.array([np.nan])
    counts = metrics.confusion_matrix(drawn, found, 2)
    voxel_ml = np.prod(spacing_mm) / 1000
    return {
        "Dice %": 100 * metrics.dice(counts)[1],
        "Hausdorff mm": far_mm.max(),
        "95 % mm": np.percentile(far_mm, 95),
        "mean mm": far_mm.mean(),
        "false bone ml": counts[0, 1] * voxel_ml,
        "missed bone ml": counts[1, 0] * voxel_ml,
    }


def of_surfaces(found: trimesh.Trimesh, drawn: trimesh.Trimesh) -> dict:
    """Return the distances from either surface to the other in mm, by mean and by median.

    The mean is that of both directions; a median tells how well what was found is placed, a
    mean also what was missed or invented. NaN where either is empty.
    """
    if found.is_empty or drawn.is_empty:
        names = ("mean mm", "to the drawn mm", "from the drawn mm", "median mm")
        return dict.fromkeys(names, np.nan)
    there, back = surfaces.distances(found, drawn), surfaces.distances(drawn, found)
    return {
        "mean mm": (there.mean() + back.mean()) / 2,
        "to the drawn mm": there.mean(),
        "from the drawn mm": back.mean(),
        "median mm": (np.median(there) + np.median(back)) / 2,
    }


def with_reference(folder: SegmentationFolder, case: Case) -> pd.DataFrame:
    """Compare what `segmentation.segment` has written with a case's own label map.

    Returns one row of `of_masks` on the scan's grid, where the case knows the class, and
    `of_surfaces`, with half the scan's pixel to measure them by.
    """
    scan = case.scan()
    reference = SimpleITK.GetArrayFromImage(case.label_map(scan))
    found = SimpleITK.Resample(
        SimpleITK.ReadImage(str(folder.label_map)), scan, SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor,
    )  # fmt: skip
    spacing_mm = scan.GetSpacing()[::-1]
    drawn = (reference >= BONE) & (reference != IGNORE)
    found = (SimpleITK.GetArrayFromImage(found) == BONE) & (reference != IGNORE)
    surface = surfaces.bone_surface(drawn, spacing_mm, scan.GetOrigin(), scan.GetDirection())
    of_both = {
        f"surface, {name}": value
        for name, value in of_surfaces(surfaces.read_surface(folder.surface), surface).items()
    }
    row = of_masks(found, drawn, spacing_mm) | of_both | {"half a pixel mm": spacing_mm[1] / 2}
    return pd.DataFrame([row])
