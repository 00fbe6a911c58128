"""Phantom series -> numbers that tell a phantom from a patient, beside a real patient's.

The real numbers are of one radiotherapy-planning CT of a male pelvis: 163 slices of
1 x 1 x 3 mm from mid-thigh to L4, bones and muscles labelled by hand. Another patient
differs by tens of HU.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import SimpleITK
from matplotlib.figure import Figure
from scipy import ndimage

from bonelib import figures
from bonelib.phantom import (
    PhantomSeries,
    Protocol,
    Tissue,
    make_series,
    series_seed,
)
from bonelib.phantom.patient import Patient
from bonelib.pretraining.annotation import bones_of
from bonelib.pretraining.label_maps import read_label_maps
from bonelib.scans import read_volume
from bonelib.settings import Settings

QUANTILES = (5, 25, 50, 75, 95)
SHELL_MM = 2.0  # what counts as the outside of a bone
REAL_HU = {
    "hip, outer 2 mm": (95, 240, 355, 527, 857),
    "hip, inside": (-8, 72, 153, 300, 806),
    "femur, outer 2 mm": (107, 277, 428, 739, 1253),
    "femur, inside": (10, 146, 329, 1283, 1506),
    "sacrum, outer 2 mm": (-14, 94, 185, 313, 601),
    "sacrum, inside": (-66, -3, 72, 203, 612),
    "vertebra, outer 2 mm": (40, 89, 155, 245, 405),
    "vertebra, inside": (65, 103, 155, 243, 433),
}
REAL_MEAN_HU = {"muscle": (30, 24), "fat": (-100, 16)}  # mean, standard deviation
NORMAL_QUANTILES = (-1.645, -0.674, 0.0, 0.674, 1.645)
REAL_SHARES = {"fat of the body": 46.0, "soft tissue above 200 HU of the body": 1.1}  # %
PAPER_SHARES = {"background": 87.5, "patient": 11.4, "bone": 1.05}  # % at 800 mm, test set
PAPER_FIELD_MM2 = 800.0**2
CONTRAST_HU = 200
MATRIX, NUM_SLICES, DISTANCE_MM = 512, 30, 15.0  # of the phantoms that are measured
WINDOW_HU = (-200, 600)
MEASURES = {"area": "area (mm²)", "perimeter": "perimeter (mm)"}


# Mean of three annotated men by height above the joints' roof: first height, area and
# perimeter every 20 mm.
REAL_LEVELS = {
    "femur": (
        -200,
        (1585, 1292, 1314, 1339, 1429, 1774, 2386, 2891, 3286, 3057, 1110),
        (212, 188, 189, 191, 197, 224, 261, 306, 356, 331, 156),
    ),
    "hip": (
        -100,
        (109, 941, 1897, 2567, 2735, 3345, 2909, 3562, 4229, 4167, 2532),
        (40, 219, 363, 455, 526, 442, 354, 525, 703, 674, 496),
    ),
    "sacrum": (
        -40,
        (75, 144, 293, 727, 1730, 3834, 3902, 2033),
        (30, 48, 105, 180, 265, 355, 338, 274),
    ),
    "vertebra": (60, (599, 644, 1255), (124, 108, 212)),
}
LEVEL_STEP_MM = 20
# What few patients have, looked for in this order among as many seeds.
UNUSUAL = {
    "thin": lambda patient: patient.fat < 12,
    "obese": lambda patient: patient.fat > 52,
    "arms beside the body": lambda patient: patient.arms and not patient.replaced_hips,
    "hip prosthesis": lambda patient: patient.replaced_hips and not patient.arms,
}


def _voxel_mm(series: PhantomSeries) -> np.ndarray:
    return np.array(series.scan.GetSpacing()[::-1])


def _kinds(names: dict[int, str]) -> dict[str, list[int]]:
    """Return the ids of each kind of bone that a real patient's numbers are known of.

    hip is the kind of hip_left.
    """
    kinds = {}
    for number, name in names.items():
        kinds.setdefault(name.split("_")[0], []).append(number)
    return {kind: ids for kind, ids in kinds.items() if f"{kind}, inside" in REAL_HU}


def _erode(mask: np.ndarray, spacing_mm: float, width_mm: float, closing_mm: float = 0.0):
    """Return each plane of a mask closed and then eroded, to be clear of its edges."""

    def kernel(size_mm):
        size = 2 * max(round(size_mm / spacing_mm), 1) + 1
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))

    planes = mask.astype(np.uint8)
    if closing_mm:
        planes = [cv2.morphologyEx(plane, cv2.MORPH_CLOSE, kernel(closing_mm)) for plane in planes]
    return np.stack([cv2.erode(plane, kernel(width_mm)) for plane in planes]) > 0


def example_series(number: int, settings: Settings) -> list[PhantomSeries]:
    """Return `number` phantoms from the thighs to the spine, as many as can be kept in memory.

    All are taken by the usual protocol, as the real patient was.
    """
    fine = replace(settings, phantom_matrix=MATRIX, phantom_slice_distance_mm=DISTANCE_MM)
    seeds = [series_seed(f"example{index}", settings) for index in range(number)]
    return [make_series(seed, NUM_SLICES, fine, Protocol()) for seed in seeds]


def unusual_series(settings: Settings) -> dict[str, PhantomSeries]:
    """Return the first phantom with each of `UNUSUAL`, seven slices from thighs to spine."""
    fine = replace(settings, phantom_matrix=MATRIX, phantom_slice_distance_mm=70.0)
    found = {}
    for name, wanted in UNUSUAL.items():
        seeds = (series_seed(f"example{index}", settings) for index in count())
        seed = next(seed for seed in seeds if wanted(Patient.from_seed(seed)))
        found[name] = make_series(seed, 7, fine)
    return found


def real_levels() -> pd.DataFrame:
    """Return `bone_levels` of the mean of three annotated men."""
    rows = [
        (kind, first + index * LEVEL_STEP_MM, *measures)
        for kind, (first, areas, perimeters) in REAL_LEVELS.items()
        for index, measures in enumerate(zip(areas, perimeters, strict=True))
    ]
    return pd.DataFrame(rows, columns=["kind", "height", *MEASURES])


def compare_levels(phantoms: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean area and perimeter of each kind of bone, ours and real, in mm2 and mm.

    `phantoms` are `bone_levels`. Means are over the levels that both show, each with the
    same weight.
    """
    ours = pd.concat(phantoms)
    steps = (ours["height"] / LEVEL_STEP_MM).round() * LEVEL_STEP_MM
    ours = ours.assign(height=steps).groupby(["kind", "height"])[list(MEASURES)].mean()
    real = real_levels().set_index(["kind", "height"]).add_suffix(" real")
    table = ours.join(real, how="inner").groupby("kind").mean().round()
    for measure in MEASURES:
        table[f"{measure} ratio"] = (table[measure] / table[f"{measure} real"]).round(2)
    return table.reset_index()


def annotated_bones(directory: str) -> dict[str, tuple]:
    """Return the bones, an image of ids and their names, of each subject of `label_maps`.

    `directory` is the data set's folder; "" gives none.
    """
    if not directory:
        return {}
    subjects, names = read_label_maps(Path(directory))
    bones = bones_of(names)
    found = {}
    for subject in subjects:
        image = read_volume(subject.label_path)
        if subject.slices:
            image = image[:, :, subject.slices[0] : subject.slices[1] + 1]
        found[subject.name] = image, bones
    return found


def tissue_hu(all_series: Iterable[PhantomSeries], names: dict[int, str]) -> pd.DataFrame:
    """Return the quantiles in HU of each tissue, ours and the real patient's.

    `names` are the bones by id. One row a tissue: `5 %` to `95 %`, the same with ` real`,
    the difference of the medians, and whether the quartiles overlap.
    """
    values = {}
    for series in all_series:
        image = SimpleITK.GetArrayViewFromImage(series.scan)
        bones = SimpleITK.GetArrayViewFromImage(series.bones)
        voxel_mm = _voxel_mm(series)
        for kind, ids in _kinds(names).items():
            mask = np.isin(bones, ids)
            for box in ndimage.find_objects(mask.astype(np.uint8)):
                padded = np.pad(mask[box], 1)
                depth = ndimage.distance_transform_edt(padded, voxel_mm)[1:-1, 1:-1, 1:-1]
                outer = depth <= SHELL_MM
                values.setdefault(f"{kind}, outer 2 mm", []).append(image[box][mask[box] & outer])
                values.setdefault(f"{kind}, inside", []).append(image[box][mask[box] & ~outer])
        muscle = _erode(series.tissues == Tissue.MUSCLE, voxel_mm[1], 3.0, closing_mm=4.0)
        fat = _erode(series.tissues == Tissue.FAT, voxel_mm[1], 2.0)
        values.setdefault("muscle", []).append(image[muscle & (bones == 0)])
        values.setdefault("fat", []).append(image[fat])
    rows = []
    for tissue, parts in values.items():
        ours = np.percentile(np.concatenate(parts), QUANTILES)
        real = _real_quantiles(tissue)
        row = {"tissue": tissue}
        row |= {f"{level} %": round(value) for level, value in zip(QUANTILES, ours, strict=True)}
        row |= {f"{level} % real": value for level, value in zip(QUANTILES, real, strict=True)}
        row["median difference"] = round(ours[2] - real[2])
        row["quartiles overlap"] = bool(ours[1] <= real[3] and real[1] <= ours[3])
        rows.append(row)
    return pd.DataFrame(rows)


def _real_quantiles(tissue: str) -> list[int]:
    if tissue in REAL_HU:
        return list(REAL_HU[tissue])
    mean, deviation = REAL_MEAN_HU[tissue]
    return [round(mean + score * deviation) for score in NORMAL_QUANTILES]


def shares(all_series: Iterable[PhantomSeries]) -> pd.DataFrame:
    """Return class shares in % at 800 mm field of view, and of what the body consists."""
    areas, parts = [], []
    for series in all_series:
        pixel_mm2 = np.prod(_voxel_mm(series)[1:])
        body, bone = series.body, SimpleITK.GetArrayViewFromImage(series.bones) > 0
        image = SimpleITK.GetArrayViewFromImage(series.scan)
        slice_mm2 = [(mask.sum(axis=(1, 2)) * pixel_mm2).tolist() for mask in (body & ~bone, bone)]
        areas.append(np.transpose(slice_mm2))
        bright = body & ~bone & (image > CONTRAST_HU)
        parts.append(((series.tissues == Tissue.FAT).sum(), bright.sum(), body.sum()))
    patient, bone = 100 * np.concatenate(areas).mean(axis=0) / PAPER_FIELD_MM2
    fat, bright, body = np.sum(parts, axis=0)
    ours = [100 - patient - bone, patient, bone, 100 * fat / body, 100 * bright / body]
    reference = PAPER_SHARES | REAL_SHARES
    table = pd.DataFrame({"share": reference.keys(), "ours": ours, "real": reference.values()})
    return table.round(2)


def bone_levels(bones: SimpleITK.Image, names: dict[int, str]) -> pd.DataFrame:
    """Return area in mm2 and perimeter in mm of each kind of bone in each slice that shows it.

    `height` is in mm above the highest slice of a femur, which is the joint's roof.
    """
    volume = SimpleITK.GetArrayViewFromImage(bones)
    column_mm, row_mm, distance_mm = bones.GetSpacing()
    kinds = _kinds(names)
    femur = np.flatnonzero(np.isin(volume, kinds["femur"]).any(axis=(1, 2)))
    if not len(femur):
        raise ValueError("no femur in view: levels are counted from its top")
    rows = []
    for kind, ids in kinds.items():
        mask = np.isin(volume, ids).astype(np.uint8)
        for index in np.flatnonzero(mask.any(axis=(1, 2))):
            contours, _ = cv2.findContours(mask[index], cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            rows.append(
                {
                    "kind": kind,
                    "height": (index - femur[-1]) * distance_mm,
                    "area": int(mask[index].sum()) * column_mm * row_mm,
                    "perimeter": sum(cv2.arcLength(line, True) for line in contours) * column_mm,
                }
            )
    return pd.DataFrame(rows)


def noise(scan: SimpleITK.Image, patch_mm: float = 16.0, share: float = 0.2) -> dict[str, float]:
    """Return the noise of a scan's calmest soft tissue: HU, and how far it is correlated.

    `deviation` is the standard deviation in HU, `grain` the distance in mm at which the
    autocorrelation in plane falls to one half. Patches of soft tissue are taken, the calmest
    `share` of them. Raises ValueError for a scan without any.
    """
    image = SimpleITK.GetArrayFromImage(scan).astype(np.float32)
    spacing_mm = scan.GetSpacing()[0]
    size = max(round(patch_mm / spacing_mm), 8)
    rows, columns = (length // size for length in image.shape[1:])
    blocks = image[:, : rows * size, : columns * size]
    blocks = blocks.reshape(len(image), rows, size, columns, size).swapaxes(2, 3)
    blocks = blocks.reshape(-1, size, size)
    soft = (blocks.min(axis=(1, 2)) > -60) & (blocks.max(axis=(1, 2)) < 160)
    blocks = blocks[soft]
    if not len(blocks):
        raise ValueError("no patch of soft tissue in the scan")
    axis = np.linspace(-1, 1, size)
    plane = np.stack([np.ones((size, size)), *np.meshgrid(axis, axis)]).reshape(3, -1).T
    flat = blocks.reshape(len(blocks), -1).T
    residual = (flat - plane @ np.linalg.lstsq(plane, flat, rcond=None)[0]).T
    residual = residual.reshape(-1, size, size)  # shading is no noise
    calmest = np.argsort(residual.std(axis=(1, 2)))[: max(round(share * len(residual)), 1)]
    residual = residual[calmest]
    power = np.abs(np.fft.fft2(residual, s=(2 * size, 2 * size))) ** 2
    correlation = np.fft.ifft2(power.mean(axis=0)).real
    overlap = np.outer(*[size - np.arange(size // 2)] * 2) / size**2
    correlation = correlation[: size // 2, : size // 2] / correlation[0, 0] / overlap
    line = (correlation[0] + correlation[:, 0]) / 2
    below = int(np.argmax(line < 0.5))
    if not below:
        grain = np.inf
    else:
        grain = below - 1 + (line[below - 1] - 0.5) / (line[below - 1] - line[below])
    return {"deviation": float(residual.std()), "grain": float(grain * spacing_mm)}


def noise_table(phantoms: list[SimpleITK.Image], real: list[SimpleITK.Image]) -> pd.DataFrame:
    """Return `noise` of each scan, one row each."""
    rows = [{"scan": "phantom", **noise(scan)} for scan in phantoms]
    rows += [{"scan": "real", **noise(scan)} for scan in real]
    return pd.DataFrame(rows).round(2)


def draw_levels(phantoms: list[pd.DataFrame], annotated: list[pd.DataFrame]) -> Figure:
    """Draw area and perimeter of each kind of bone by height, from `bone_levels` of each."""
    kinds = list(dict.fromkeys(kind for table in phantoms for kind in table["kind"]))
    figure, axes = figures.canvas(len(MEASURES), len(kinds), 2.6, 2.4)
    groups = (("phantom", phantoms, "#d95f02"), ("annotated patient", annotated, "#555555"))
    for row, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            for name, tables, colour in groups:
                for number, table in enumerate(tables):
                    part = table[table["kind"] == kind]
                    panel.plot(
                        part["height"], part[measure], color=colour, linewidth=1,
                        label=name if number == 0 else None,
                    )  # fmt: skip
            panel.set_title(kind)
            panel.set_ylim(bottom=0)
        row[0].set_ylabel(label)
    figure.supxlabel("height above the hip joints' roof (mm)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def draw_slices(all_series: dict[str, PhantomSeries], heights: Iterable[float]) -> Figure:
    """Draw each series at the given shares of its length, in a window for soft tissue and bone."""
    heights = list(heights)
    figure, axes = figures.canvas(len(all_series), len(heights), 2.0, 2.1)
    for row, (name, series) in zip(axes, all_series.items(), strict=True):
        volume = SimpleITK.GetArrayViewFromImage(series.scan)
        for panel, share in zip(row, heights, strict=True):
            index = round(share * (len(volume) - 1))
            panel.imshow(volume[index], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            panel.set(xticks=[], yticks=[], xlabel=f"slice {index}")
        row[0].set_ylabel(name)
    return figure
