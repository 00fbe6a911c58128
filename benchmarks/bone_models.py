"""Measure what `python -m bonelib segment` does, on made-up patients that no training has seen.

python benchmarks/bone_models.py             tables of scores: steps, surfaces, region
python benchmarks/bone_models.py --speed     seconds and memory, beside plain model.predict
"""

import argparse
import tempfile
import threading
import time
from dataclasses import replace
from importlib.util import find_spec

import keras
import numpy as np
import pandas as pd
import psutil
import SimpleITK

from bonelib import devices, phantom, prediction, slices
from bonelib.preparation import to_grid
from bonelib.segment import agreement, postprocess, pretrained, regions, surfaces
from bonelib.segment.probabilities import Probabilities, fit_to_scan, predict_scan, to_scan
from bonelib.settings import BONE, PAPER_SERIES, PRETRAINING

SERIES = {name: count for name, split, count in PAPER_SERIES if split == "test"}
MATRIX, SLICE_DISTANCE_MM = 512, 2.5  # as in the paper
BUDGETS = (100_000, 30_000, 10_000)  # triangles of a pelvis
TIMED_SLICES = 32
REPEATS = 3
LARGE_SCAN = 1000  # slices


def make_patient(series: str) -> tuple[SimpleITK.Image, SimpleITK.Image]:
    """Return scan and bones of a test series, whose patient is not in the corpus."""
    settings = replace(
        PRETRAINING, phantom_matrix=MATRIX, phantom_slice_distance_mm=SLICE_DISTANCE_MM
    )
    seed = phantom.series_seed(series, PRETRAINING)
    made = phantom.make_series(seed, SERIES[series], settings)
    return made.scan, made.bones


def predict(scan: SimpleITK.Image, network, roi: bool) -> tuple[Probabilities, float]:
    """Return the probabilities of a scan and the seconds that they took."""
    settings = fit_to_scan(network.settings, scan)
    size = (settings.image_size, settings.image_size)
    model, region = network.sized(*size), None
    model.predict_on_batch(np.zeros((prediction.BATCH_SIZE, *size, 3), np.float32))
    started = time.perf_counter()
    if roi:
        region, size = regions.find_region(model, scan, settings)
        model = network.sized(*size)
    probabilities = predict_scan(model, scan, settings, region)
    return probabilities, time.perf_counter() - started


def score(probabilities: Probabilities, scan: SimpleITK.Image, bone: np.ndarray) -> dict:
    """Return overlap and distances of the bone on the scan's grid."""
    found = SimpleITK.GetArrayFromImage(to_scan(probabilities, scan)) == BONE
    return agreement.of_masks(found, bone, scan.GetSpacing()[::-1])


def copy(probabilities: Probabilities) -> Probabilities:
    """Return the same probabilities, to be changed."""
    return replace(probabilities, values=probabilities.values.copy())


def step_rows(probabilities: Probabilities, scan, bone) -> list[dict]:
    """Return the scores without any step, with each alone, and with all."""
    choices = {"none": (), **{name: (name,) for name in postprocess.STEPS}}
    choices["all"] = tuple(postprocess.STEPS)
    rows = []
    for name, steps in choices.items():
        changed = copy(probabilities)
        postprocess.apply(changed, scan, steps)
        rows.append({"steps": name, **score(changed, scan, bone)})
    return rows


def surface_rows(probabilities: Probabilities, scan, bone) -> list[dict]:
    """Return how far surfaces lie from that of the reference, in mm.

    `probabilities` are the network's after all steps; "reference" are the shares of bone in
    each voxel of the same grid, as a network without an error would give them.
    """
    reference = surfaces.bone_surface(
        bone, scan.GetSpacing()[::-1], scan.GetOrigin(), scan.GetDirection()
    )
    meshes = {
        "reference's shares of bone": surfaces.probability_surface(
            shares(probabilities, scan, bone)
        ),
        "network's label map": surfaces.bone_surface(
            probabilities.label_map(), probabilities.spacing_mm, probabilities.origin_mm,
            probabilities.direction,
        ),
        "network's probabilities": surfaces.probability_surface(probabilities),
    }  # fmt: skip
    whole = meshes["network's probabilities"]
    meshes |= {
        f"  at most {budget:,} triangles": surfaces.coarsen(whole, budget) for budget in BUDGETS
    }
    rows = []
    for name, surface in surfaces.items():
        rows.append(
            {
                "surface from": name,
                "triangles": len(surface.faces),
                "closed": int(surface.is_watertight),
                **agreement.of_surfaces(surface, reference),
                "half a pixel mm": probabilities.spacing_mm[1] / 2,
            }
        )
    return rows


def shares(probabilities: Probabilities, scan, bone) -> Probabilities:
    """Return the bone's share of each voxel in place of its probability."""
    settings = fit_to_scan(PRETRAINING, scan)
    image = SimpleITK.GetImageFromArray(bone.astype(np.float32))
    image.CopyInformation(scan)
    part = SimpleITK.Resample(
        to_grid(image, settings),
        probabilities.image(np.empty(probabilities.values.shape[:3], np.uint8)),
    )
    share = np.clip(SimpleITK.GetArrayFromImage(part), 0, 1)
    values = np.stack([np.zeros_like(share), 1 - share, share], axis=-1)
    return replace(probabilities, values=values.astype(np.float16))


def show_scores(series: list[str]) -> None:
    """Print the tables of scores, each the mean over the series."""
    network = pretrained.find_network("unet")
    devices.set_precision(network.settings)
    steps, surfaces, region = [], [], []
    for name in series:
        scan, bones = make_patient(name)
        bone = SimpleITK.GetArrayFromImage(bones) > 0
        for roi in (False, True):
            probabilities, seconds = predict(scan, network, roi)
            if not roi:
                steps += [{"series": name, **row} for row in step_rows(probabilities, scan, bone)]
            postprocess.apply(probabilities, scan)
            row = {"segmented": "region" if roi else "all of the scan", "seconds": seconds}
            region.append({"series": name, **row, **score(probabilities, scan, bone)})
            if not roi:
                surfaces += [
                    {"series": name, **row} for row in surface_rows(probabilities, scan, bone)
                ]
        print(f"{name} done", flush=True)
    for key, rows in (("steps", steps), ("surface from", surfaces), ("segmented", region)):
        table = pd.DataFrame(rows)
        table.to_csv(f"results/bone_models-{key.split()[0]}.csv", index=False)
        means = table.groupby(key, sort=False).mean(numeric_only=True)
        print(f"\nmean of {', '.join(series)}\n\n{means.to_markdown(floatfmt='.2f')}", flush=True)


class PeakMemory:
    """Watches the largest resident size of this process, in GiB."""

    def __enter__(self):
        self.peak, self.stopped = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        process = psutil.Process()
        while not self.stopped.wait(0.05):
            self.peak = max(self.peak, process.memory_info().rss / 2**30)

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def show_speed() -> None:
    """Print seconds beside plain model.predict, and the memory of a scan of 1,000 slices."""
    network = pretrained.find_network("unet")
    patient, _ = make_patient(min(SERIES, key=SERIES.get))
    scan = repeated(patient, TIMED_SLICES)
    settings = fit_to_scan(network.settings, scan)
    size = settings.image_size
    images = slices.window(SimpleITK.GetArrayFromImage(to_grid(scan, settings)), settings)
    shifted = np.concatenate([np.roll(images, (-y, -x), (1, 2)) for y in (0, 1) for x in (0, 1)])
    keras.config.set_dtype_policy("float32")
    plain = network.sized(size, size)
    precision = devices.set_precision(network.settings)
    ours = network.sized(size, size)
    runs = {
        "model.predict, float32": lambda: plain.predict(slices.network_input(shifted), verbose=0),
        **other_engines(plain, slices.network_input(shifted)),
        f"predict_scan, {precision}": lambda: predict_scan(ours, scan, settings),
    }
    rows = []
    for name, run in runs.items():
        run()
        seconds = [timed(run) for _ in range(REPEATS)]
        rows.append({"engine": name, "ms a slice": 1000 * np.median(seconds) / TIMED_SLICES})
    table = pd.DataFrame(rows)
    table["times as fast"] = table["ms a slice"].iloc[0] / table["ms a slice"]
    print(f"{size} x {size} pixels, each slice four times\n")
    print(table.round(2).to_markdown(index=False), "\n", flush=True)
    with PeakMemory() as memory:
        started = time.perf_counter()
        scan = repeated(patient, LARGE_SCAN)
        print(f"scan of {LARGE_SCAN} slices alone: {scan.GetNumberOfPixels() * 2 / 2**30:.2f} GiB")
        probabilities = predict_scan(ours, scan, settings)
        postprocess.apply(probabilities, scan)
        to_scan(probabilities, scan)
        surface = surfaces.probability_surface(probabilities)
        seconds = time.perf_counter() - started
    print(f"{LARGE_SCAN} slices: {seconds:.0f} s, peak {memory.peak:.1f} GiB in all, "
          f"{len(surface.faces):,} triangles")  # fmt: skip


def timed(run) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def other_engines(model: keras.Model, images: np.ndarray) -> dict:
    """Return runs by other engines on a CPU, of those that are installed."""
    batches = [
        images[first : first + prediction.BATCH_SIZE]
        for first in range(0, len(images), prediction.BATCH_SIZE)
    ]
    model.predict_on_batch(batches[0])  # a model that was never called is not exported
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("onnxruntime") and find_spec("tf2onnx"):
            import onnxruntime

            model.export(f"{folder}/model.onnx", format="onnx", verbose=False)
            session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
            name = session.get_inputs()[0].name
            runs["ONNX Runtime, float32"] = lambda: [
                session.run(None, {name: batch}) for batch in batches
            ]
        if find_spec("openvino"):
            import openvino

            model.export(f"{folder}/model.xml", format="openvino", verbose=False)
            for precision in ("f32", "bf16"):
                compiled = openvino.Core().compile_model(
                    f"{folder}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": precision}
                )
                runs[f"OpenVINO, {precision}"] = lambda compiled=compiled: [
                    compiled(batch) for batch in batches
                ]
    return runs


def repeated(scan: SimpleITK.Image, count: int) -> SimpleITK.Image:
    """Return the slices of a scan again and again, `count` in all."""
    image_hu = SimpleITK.GetArrayFromImage(scan)
    longer = SimpleITK.GetImageFromArray(image_hu[np.arange(count) % len(image_hu)])
    longer.SetSpacing(scan.GetSpacing())
    return longer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    show_speed() if options.speed else show_scores(options.series)
