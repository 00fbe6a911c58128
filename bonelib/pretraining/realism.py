"""Phantoms beside real scans: one table of HU and class shares, and one gallery.

The real HU are of one radiotherapy-planning CT of a male pelvis (163 slices of 1 x 1 x 3 mm,
bones and muscles labelled by hand); another patient differs by tens of HU. The real class shares
are those of the paper's test set.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pandas as pd
import SimpleITK
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.morphology import disk

from bonelib import figures
from bonelib.phantom.patient import Patient
from bonelib.phantom.rendering import Protocol
from bonelib.phantom.series import PhantomSeries, make_series, series_seed
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.phantom.tissues import Tissue
from bonelib.settings import Settings

SURFACE_MM = 2.0  # depth of the surface layer of a bone
PAPER_FIELD_MM2 = 800.0**2
LENGTH_MM = 450.0  # of a phantom series, from the thighs to the spine
REAL = {
    "femur, surface (HU)": 428, "femur, inside (HU)": 329, "hip, surface (HU)": 355,
    "hip, inside (HU)": 153, "sacrum, surface (HU)": 185, "sacrum, inside (HU)": 72,
    "vertebra, surface (HU)": 155, "vertebra, inside (HU)": 155, "muscle (HU)": 30,
    "fat (HU)": -100, "background (%)": 87.5, "patient (%)": 11.4, "bone (%)": 1.05,
}  # fmt: skip
FINDINGS = {
    "thin": lambda patient: patient.fat < 12,
    "obese": lambda patient: patient.fat > 52,
    "arms in view": lambda patient: patient.arms and not patient.replaced_hips,
    "hip prosthesis": lambda patient: patient.replaced_hips and not patient.arms,
}
WINDOW_HU = (-200, 600)
GALLERY_ROW_MM = 38.0


def examples(
    settings: Settings,
    number: int = 1,
    num_slices: int = 15,
    wanted: Callable[[Patient], bool] = lambda patient: True,
) -> list[PhantomSeries]:
    """Return the first `number` phantoms of `wanted` patients, scanned by the usual protocol."""
    seeds = (series_seed(f"example{index}", settings) for index in count())
    chosen = islice((seed for seed in seeds if wanted(Patient(seed))), number)
    distance_mm = LENGTH_MM / num_slices
    fine = replace(settings, phantom_matrix=512, phantom_slice_distance_mm=distance_mm)
    return [make_series(seed, num_slices, fine, Protocol()) for seed in chosen]


def compare(all_series: list[PhantomSeries]) -> pd.DataFrame:
    """Return median HU of tissues, class shares at 800 mm: phantom beside real."""
    phantom = pd.DataFrame([measure(series) for series in all_series]).mean()
    table = pd.DataFrame({"phantom": phantom, "real": pd.Series(REAL)}).loc[list(REAL)]
    return table.assign(difference=table["phantom"] - table["real"]).round(2)


def measure(series: PhantomSeries) -> dict[str, float]:
    """Return the measures that `REAL` names, for one series."""
    image_hu, bones = map(SimpleITK.GetArrayViewFromImage, (series.scan, series.bones))
    voxel_mm = series.scan.GetSpacing()[::-1]
    found = {}
    surface_disk = disk(round(SURFACE_MM / voxel_mm[2]))[None]
    for kind in ("femur", "hip", "sacrum", "vertebra"):
        numbers = [number for number, name in BONE_NAMES.items() if name.startswith(kind)]
        mask = np.isin(bones, numbers)
        inside = ndimage.binary_erosion(mask, surface_disk)
        found[f"{kind}, surface (HU)"] = np.median(image_hu[mask & ~inside])
        found[f"{kind}, inside (HU)"] = np.median(image_hu[inside])
    for tissue in (Tissue.MUSCLE, Tissue.FAT):
        found[f"{tissue.name.lower()} (HU)"] = np.median(image_hu[series.tissues == tissue])
    pixel_share = 100 * voxel_mm[1] * voxel_mm[2] / PAPER_FIELD_MM2 / len(bones)
    body, bone = pixel_share * series.body.sum(), pixel_share * (bones > 0).sum()
    return found | {"background (%)": 100 - body, "patient (%)": body - bone, "bone (%)": bone}


def draw_gallery(settings: Settings) -> Figure:
    """Draw the first phantom of each finding, from the thighs to the spine."""
    figure, axes = figures.canvas(len(FINDINGS), 5, GALLERY_ROW_MM * len(FINDINGS))
    for row, (finding, wanted) in zip(axes, FINDINGS.items(), strict=True):
        (series,) = examples(settings, num_slices=9, wanted=wanted)
        volume_hu = SimpleITK.GetArrayViewFromImage(series.scan)
        for panel, slice_hu in zip(row, volume_hu[::2], strict=True):
            panel.imshow(slice_hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(finding)
    return figure
