"""Measure what `python -m bonelib segment` does, on phantoms that no training has seen.

python benchmarks/bone_models.py             scores of steps, region and surfaces
python benchmarks/bone_models.py --speed     seconds and memory of a long scan
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import SimpleITK

from bonelib import devices, labels, metrics
from bonelib.labels import image_like
from bonelib.phantom.series import make_series, series_seed
from bonelib.scans import Grid
from bonelib.segment import pretrained, probabilities, surfaces
from bonelib.segment.probabilities import bone_on_grid, find_region, predict_bone
from bonelib.settings import PAPER_SERIES, PRETRAINING

SERIES = {name: count for name, split, count in PAPER_SERIES if split == "test"}
MATRIX, SLICE_DISTANCE_MM = 512, 2.5  # as in the paper
TRIANGLES = (100_000, 30_000, 10_000)  # of a pelvis, for display
LONG_SCAN = 1000  # slices


def make_patient(series: str) -> tuple[SimpleITK.Image, SimpleITK.Image]:
    """Return scan and mask of bone of a test series, whose patient is not in the corpus."""
    settings = replace(
        PRETRAINING, phantom_matrix=MATRIX, phantom_slice_distance_mm=SLICE_DISTANCE_MM
    )
    seed = series_seed(series, PRETRAINING)
    made = make_series(seed, SERIES[series], settings)
    return made.scan, made.bones > 0


def whole(region, scan: SimpleITK.Image):
    """Return the region that is all of the scan."""
    size = slice(0, region.settings.image_size)
    return replace(region, slices=slice(0, scan.GetSize()[2]), rows=size, columns=size)


def score(margin: SimpleITK.Image, scan: SimpleITK.Image, bone: SimpleITK.Image) -> dict:
    """Return overlap and distances of the bone found, on the scan's grid."""
    images = bone, bone_on_grid(margin, Grid.of(scan))
    reference, found = map(SimpleITK.GetArrayFromImage, images)
    counts = metrics.confusion_matrix(reference, found, 2)
    voxel_ml = np.prod(scan.GetSpacing()) / 1000
    return {
        "Dice %": 100 * metrics.dice(counts)[1],
        **metrics.surface_scores(reference, found, scan.GetSpacing()[::-1]),
        "false bone ml": counts[0, 1] * voxel_ml,
        "missed bone ml": counts[1, 0] * voxel_ml,
    }


def step_rows(margin: SimpleITK.Image, scan: SimpleITK.Image, bone: SimpleITK.Image) -> list[dict]:
    """Return the scores without any step of post-processing, with each alone, and with all."""
    voxel_ml = np.prod(margin.GetSpacing()) / 1000
    image_hu = SimpleITK.GetArrayFromImage(SimpleITK.Resample(scan, margin))
    steps = {
        "none": lambda values: None,
        "metal": lambda values: probabilities.remove_metal(values, image_hu),
        "islands": lambda values: probabilities.remove_islands(values, voxel_ml),
        "holes": lambda values: probabilities.fill_holes(values, voxel_ml),
    }
    rows = []
    for name, step in steps.items():
        values = SimpleITK.GetArrayFromImage(margin)
        step(values)
        rows.append({"steps": name, **score(image_like(values, margin), scan, bone)})
    cleaned = probabilities.clean(margin, scan, labels.body_mask(scan))
    return [*rows, {"steps": "all", **score(cleaned, scan, bone)}]


def surface_rows(margin: SimpleITK.Image, scan: SimpleITK.Image, bone) -> list[dict]:
    """Return the distances in mm between surfaces and that of the reference."""
    reference = surfaces.bone_surface(bone)
    best = surfaces.bone_surface(margin)
    found = {
        "label map": surfaces.bone_surface(bone_on_grid(margin, Grid.of(scan))),
        "margin": best,
        **{f"at most {count:,}": surfaces.coarsen(best, count) for count in TRIANGLES},
    }
    return [
        {
            "surface from": name,
            "triangles": len(surface.faces),
            "closed": int(surface.is_watertight),
            **surfaces.compare(surface, reference),
        }
        for name, surface in found.items()
    ]


def show_scores(series: list[str]) -> None:
    """Print the tables of scores, each the mean over the series."""
    network = pretrained.find_network()
    devices.set_precision(network.settings)
    tables = {"steps": [], "surface from": [], "segmented": []}
    for name in series:
        scan, bone = make_patient(name)
        region = find_region(network.settings, scan, labels.body_mask(scan))
        for part, chosen in (("whole scan", whole(region, scan)), ("region", region)):
            started = time.perf_counter()
            margin = predict_bone(network, scan, chosen)
            seconds = time.perf_counter() - started
            cleaned = probabilities.clean(margin, scan, labels.body_mask(scan))
            row = {"segmented": part, "seconds": seconds, **score(cleaned, scan, bone)}
            tables["segmented"].append({"series": name, **row})
        tables["steps"] += step_rows(margin, scan, bone)
        tables["surface from"] += surface_rows(cleaned, scan, bone)
        print(f"{name} done", flush=True)
    for key, rows in tables.items():
        means = pd.DataFrame(rows).groupby(key, sort=False).mean(numeric_only=True)
        print(f"\nmean of {', '.join(series)}\n\n{means.to_markdown(floatfmt='.2f')}", flush=True)


def show_speed() -> None:
    """Print seconds and peak memory of a long scan, from scan to surface."""
    network = pretrained.find_network()
    precision = devices.set_precision(network.settings)
    patient, _ = make_patient(min(SERIES, key=SERIES.get))
    slices = np.arange(LONG_SCAN) % patient.GetSize()[2]
    scan = SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(patient)[slices])
    scan.SetSpacing(patient.GetSpacing())
    started = time.perf_counter()
    body = labels.body_mask(scan)
    margin = predict_bone(network, scan, find_region(network.settings, scan, body))
    predicted = time.perf_counter() - started
    cleaned = probabilities.clean(margin, scan, body)
    bone_on_grid(cleaned, Grid.of(scan))
    surface = surfaces.bone_surface(cleaned)
    seconds = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{LONG_SCAN} slices, {precision}: predicted in {predicted:.0f} s")
    print(f"surface of {len(surface.faces):,} triangles after {seconds:.0f} s, {peak_gib:.1f} GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    show_speed() if options.speed else show_scores(options.series)
