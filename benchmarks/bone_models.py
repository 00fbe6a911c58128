"""Measure what `python -m bonelib segment` does, on phantoms that no training has seen.

python benchmarks/bone_models.py             scores of steps, region and surfaces
python benchmarks/bone_models.py --speed     seconds and memory of long scans
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import SimpleITK

from bonelib import labels, metrics, pretrained
from bonelib.labels import image_like
from bonelib.phantom.series import make_series, series_seed
from bonelib.scans import Grid
from bonelib.segment import probabilities, surfaces
from bonelib.segment.probabilities import bone_on_grid, find_region, predict_bone
from bonelib.settings import PAPER_SERIES, PRETRAINING

SERIES = {name: count for name, split, count in PAPER_SERIES if split == "test"}
MATRIX, SLICE_DISTANCE_MM = 512, 2.5  # as in the paper
TRIANGLES = (100_000, 30_000, 10_000)  # of a pelvis, for display
LONG_SCANS, THIN_MM = (1200, 2400), 0.36  # slices of 512 x 512


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
    tables = {"steps": [], "surface from": [], "segmented": []}
    for name in series:
        scan, bone = make_patient(name)
        region = find_region(network, scan, labels.body_mask(scan))
        for part, chosen in (("whole scan", whole(region, scan)), ("region", region)):
            started = time.perf_counter()
            with pretrained.predictor(network) as predict:
                margin, _ = predict_bone(predict, scan, chosen)
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
    """Print seconds and peak memory, all processes together, of the command on long scans."""
    patient, _ = make_patient(min(SERIES, key=SERIES.get))
    planes = SimpleITK.GetArrayFromImage(patient)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ct.nrrd"
        command = [sys.executable, "-m", "bonelib", "segment", file, "--overwrite", "-o"]
        for count in LONG_SCANS:
            repeated = (np.arange(count) * THIN_MM / SLICE_DISTANCE_MM).astype(int) % len(planes)
            scan = SimpleITK.GetImageFromArray(planes[repeated])
            scan.SetSpacing((*patient.GetSpacing()[:2], THIN_MM))
            SimpleITK.WriteImage(scan, file)
            del scan
            for options in ([], ["--bones"]):
                started, peak = time.perf_counter(), 0
                process = psutil.Popen([*command, Path(folder) / "out", *options])
                while process.poll() is None:
                    with suppress(psutil.NoSuchProcess):
                        alive = [process, *process.children(recursive=True)]
                        peak = max(peak, sum(one.memory_info().rss for one in alive))
                    time.sleep(0.1)
                print(
                    f"{count} slices of {THIN_MM} mm {' '.join(options)}: exit "
                    f"{process.returncode}, {time.perf_counter() - started:.0f} s, "
                    f"{peak / 2**30:.2f} GiB",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    show_speed() if options.speed else show_scores(options.series)
