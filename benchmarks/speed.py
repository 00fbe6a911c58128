"""Measure the speed of training, feeding, prediction and preparation, beside the hardware's limits.

python benchmarks/speed.py                    all of it, 512 x 512 as in the paper
python benchmarks/speed.py --only feeding     one part: training feeding prediction preparation
python benchmarks/speed.py --size 192         smaller slices
python benchmarks/speed.py --keep             also writes the results into docs/speed.md

Each measurement has a process of its own, so that memory and threads are its own.
benchmarks/peer.py compares a training image with the library that the paper used.
"""

import argparse
import itertools
import math
import multiprocessing
import os
import platform
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import devices, provenance
from bonelib.settings import MODEL_NAMES, Settings, get_settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # in the processes, too

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
MARK = "<!-- what benchmarks/speed.py --keep has measured -->"
REPEATS = 3  # of each measurement; tables show the median
FED = "unet"  # the network that feeders are compared with
MATRIX = 4096  # rows and columns of the product that is the limit of arithmetic
COPY_BYTES = 2**29
PREPARED_SERIES = 12
SLICE_DISTANCE_MM = 25.0  # of the data set that is made here: the paper's in a tenth of slices


def timed(run) -> float:
    """Return the median seconds of a call, after one that is not counted."""
    run()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def apart(measure, *arguments):
    """Return what `measure` returns in a process of its own, and that process' peak GiB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_with_peak, measure, *arguments).result()


def _with_peak(measure, *arguments):
    result = measure(*arguments)
    for loader in multiprocessing.active_children():
        loader.terminate()  # this process would wait for them, and they for work
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# Limits


def limits(precision: str) -> dict:
    """Return operations a second of a large product, and bytes a second of a large copy."""
    import keras

    kind = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}.get(precision, "float32")
    matrix = keras.ops.ones((MATRIX, MATRIX), kind)

    def multiply():
        float(keras.ops.matmul(matrix, matrix)[0, 0])  # waits for the result

    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return {
        "operations": 2 * MATRIX**3 / timed(multiply),
        "bytes": 2 * COPY_BYTES / timed(lambda: np.copyto(target, source)),  # read and written
    }


# Training


def step_seconds(model, batches, steps: int) -> float:
    """Return the median seconds a step of `fit`, over epochs of `steps` after a first one."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds.append((time.perf_counter() - self.started) / steps)

    seconds = []
    model.fit(
        batches, steps_per_epoch=steps, epochs=1 + REPEATS, callbacks=[Clock()], verbose=0,
        shuffle=False,
    )  # fmt: skip
    return float(np.median(seconds[1:]))


def prepared(name: str, settings: Settings):
    """Return network `name`, ready to train, and one batch."""
    from bonelib import training
    from bonelib.devices import prepare_keras

    prepare_keras(settings)
    model, _ = training.new_model(name, settings)
    rng = np.random.default_rng(settings.seed)
    count, size, output = settings.batch_size, settings.image_size, model.output_shape[1]
    images = rng.integers(0, 256, (count, size, size, 3)).astype(np.float32)
    return model, (images, rng.integers(0, 3, (count, output, output)).astype(np.uint8))


def multiply_adds(model) -> int:
    """Count the multiply-adds of predicting one image, from the convolutions' kernels.

    A kernel acts once per output pixel; in a transposed convolution, once per input pixel.
    """
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            transposed = "Transpose" in type(layer).__name__
            grid = layer.input.shape if transposed else layer.output.shape
            total += math.prod(grid[1:-1]) * math.prod(layer.kernel.shape)
    return total


def pure_step(name: str, settings: Settings, steps: int) -> dict:
    """Measure a network's step on a batch that is always there."""
    model, batch = prepared(name, settings)
    seconds = step_seconds(model, (batch for _ in itertools.count()), steps)
    # Forward, and twice that backward; a multiply-add is two operations.
    operations = 3 * 2 * multiply_adds(model) * settings.batch_size
    return {"seconds": seconds, "operations": operations}


def training_tables(
    settings: Settings, models: list[str], steps: int, limit: dict, folder: Path
) -> dict:
    """Return the table of steps, pure and fed by imgaug."""
    rows = []
    for name in models:
        result, gib = apart(pure_step, name, settings, steps)
        fed, _ = apart(fed_step, name, folder, settings, steps)
        rows.append(
            {
                "network": name,
                "images a second": settings.batch_size / result["seconds"],
                "fed, images a second": settings.batch_size / fed["seconds"],
                "waiting for data, %": waiting(fed),
                "ms a step": 1000 * result["seconds"],
                "GFLOP a step": result["operations"] / 1e9,
                "of the product's FLOP/s, %": 100
                * result["operations"] / result["seconds"] / limit["operations"],
                "peak GiB": gib,
            }
        )  # fmt: skip
        say(rows[-1])
    title = "Training: a step on a batch that is always there, and one fed by imgaug"
    return {title: pd.DataFrame(rows)}


# Feeding


def fed_step(name: str, folder: Path, settings: Settings, steps: int) -> dict:
    """Measure a step fed by the loader, and how long the network's feeder waits for it."""
    from bonelib import training
    from bonelib.paths import SliceFolder

    model, _ = prepared(name, settings)
    samples = training.AugmentedSlices(SliceFolder(folder), settings)
    waits = []

    def watched():
        source = training.training_batches(model, samples, 0)
        while True:
            started = time.perf_counter()
            batch = next(source)
            waits.append(time.perf_counter() - started)
            yield batch

    seconds = step_seconds(model, watched(), steps)
    counted = waits[steps:]  # without what was made while the graph was compiled
    return {"seconds": seconds, "wait": float(np.median(counted)) if counted else float("nan")}


def waiting(fed: dict) -> float:
    """Return the share of a fed step in which the network waits for its batch, in %."""
    return 100 * min(fed["wait"] / fed["seconds"], 1)


def loading(folder: Path, settings: Settings, count: int) -> dict:
    """Measure the loader alone."""
    from bonelib import training
    from bonelib.paths import SliceFolder

    samples = training.AugmentedSlices(SliceFolder(folder), settings)
    size = settings.image_size
    source = samples.batches(size, 0)
    batches = count // settings.batch_size
    seconds = timed(lambda: [np.asarray(batch[0]) for batch in itertools.islice(source, batches)])
    source.close()
    return {"seconds": seconds / (batches * settings.batch_size)}


def feeding_tables(settings: Settings, steps: int, folder: Path) -> dict:
    """Return the table of feeders: each alone, and in front of the network."""
    pure, _ = apart(pure_step, FED, settings, steps)
    cores = devices.num_cores()
    feeders = {
        "no augmentation": replace(settings, augment="none"),
        'augment="imgaug"': replace(settings, augment="imgaug"),
        "imgaug in the network's process, as the library": replace(
            settings, augment="imgaug", loader_workers=0
        ),
    }
    rows = []
    for name, chosen in feeders.items():
        alone, _ = apart(loading, folder, chosen, 48)
        fed, gib = apart(fed_step, FED, folder, chosen, steps)
        rows.append(
            {
                "fed by": name,
                "loader alone, images a second": 1 / alone["seconds"],
                "fed step, images a second": settings.batch_size / fed["seconds"],
                "of the pure step, %": 100 * pure["seconds"] / fed["seconds"],
                "waiting for data, %": waiting(fed),
                "peak GiB": gib,
            }
        )
        say(rows[-1])
    title = f"Feeding {FED} on {cores} cores; pure step {1000 * pure['seconds']:.0f} ms"
    return {title: pd.DataFrame(rows)}


# Prediction


def asking(name: str, settings: Settings, count: int) -> dict:
    """Measure label maps by `network_segmenter`, and plain `model.predict`, a slice at a time."""
    from bonelib import models, prediction

    devices.prepare_keras(settings)
    model = models.build_model(name, settings.image_size)
    rng = np.random.default_rng(settings.seed)
    images = rng.integers(0, 256, (count, settings.image_size, settings.image_size), np.uint8)
    segment = prediction.network_segmenter(model)

    def one_at_a_time():
        for image in images:
            model.predict(prediction.network_input(image[None]), verbose=0).argmax(-1)

    return {
        "ours": timed(lambda: segment(images)) / count,
        "one": timed(one_at_a_time) / count,
        "operations": 2 * multiply_adds(model),
    }


def prediction_tables(settings: Settings, models: list[str], limit: dict) -> dict:
    """Return the table of milliseconds a slice."""
    rows = []
    for name in models:
        result, gib = apart(asking, name, settings, 8)
        row = {
            "network": name,
            "ms a slice": 1000 * result["ours"],
            "model.predict, one by one": 1000 * result["one"],
            "times as fast": result["one"] / result["ours"],
            "of the product's FLOP/s, %": 100
            * result["operations"] / result["ours"] / limit["operations"],
            "peak GiB": gib,
        }  # fmt: skip
        rows.append(row)
        say(row)
    return {"Prediction, ms a slice with its label map": pd.DataFrame(rows)}


# Preparation


def preparing(folder: Path, count: int, settings: Settings, workers: int) -> dict:
    """Measure the preparation of `count` series, and the bare decoding of their files."""
    import pydicom

    from bonelib import datasets, preparation

    cases = datasets.find_cases("phantom", folder, settings)[:count]
    files = [file for case in cases for file in case.source_files() if file.suffix == ".dcm"]
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        preparation.prepare(cases, Path(scratch), settings, workers)
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    for file in files:
        pydicom.dcmread(file).pixel_array  # noqa: B018
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {
        "slices": len(files),
        "seconds": seconds,
        "decoding": time.perf_counter() - started,
        "children": children,
    }


def preparation_tables(settings: Settings, folder: Path) -> dict:
    """Return the table of preparation, on one core and on all."""
    rows = []
    for workers in dict.fromkeys((1, devices.num_cores())):
        result, gib = apart(preparing, folder, PREPARED_SERIES, settings, workers)
        rows.append(
            {
                "processes": workers,
                "slices a second": result["slices"] / result["seconds"],
                "bare decoding by pydicom, one process": result["slices"] / result["decoding"],
                "peak GiB of a process": max(gib, result["children"]),
            }
        )
        say(rows[-1])
    return {"Preparation, slices a second": pd.DataFrame(rows)}


# All


def make_data(work: Path, settings: Settings) -> tuple[Path, Path]:
    """Make the phantom's series and their prepared slices; return both folders."""
    from bonelib import datasets, preparation

    scans, folder = work / "ct", work / "prepared"
    cases = datasets.find_cases("phantom", scans, settings, devices.num_cores())
    preparation.prepare(cases, folder, settings, devices.num_cores())
    return scans, folder


def say(row: dict) -> None:
    """Print one row as it comes."""
    parts = [f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row.values()]
    print("  ".join(f"{name}: {part}" for name, part in zip(row, parts, strict=True)), flush=True)


def conditions(settings: Settings, limit: dict) -> str:
    """Return the hardware, the versions and the limits that were measured beside."""
    versions, machine = provenance.versions(), devices.machine()
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    names = ", ".join(
        f"{name} {versions[name]}"
        for name in ("keras", "tensorflow", "jax", "numpy", "imgaug")
        if versions.get(name)
    )
    return (
        f"{date.today()}, {devices.num_cores()} cores ({machine['processor']}), GPUs: "
        f"{', '.join(map(str, machine['gpus'])) or 'none'}; Python {platform.python_version()}, "
        f"{names}; backend {backend}, {devices.fastest_precision()}, slices of "
        f"{settings.image_size} × {settings.image_size}, batch {settings.batch_size}.\n\n"
        f"Limits in the same run: a product of {MATRIX} × {MATRIX} makes "
        f"{limit['operations'] / 1e9:,.0f} GFLOP/s, a copy moves {limit['bytes'] / 1e9:.1f} GB/s."
    )


PARTS = ("training", "feeding", "prediction", "preparation")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512, help="pixels of a slice's side")
    parser.add_argument("--steps", type=int, default=1, help="of each repeat; 50 on a GPU")
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=MODEL_NAMES)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--keep", action="store_true", help=f"write into {PAGE.name}")
    options = parser.parse_args()
    settings = get_settings(
        "paper",
        {
            "image_size": options.size,
            "encoder_weights": "none",
            "phantom_slice_distance_mm": SLICE_DISTANCE_MM,
        },
    )
    started = time.perf_counter()
    limit, _ = apart(limits, devices.fastest_precision())
    about = conditions(settings, limit)
    print(about, flush=True)
    tables = {}
    work = Path(tempfile.mkdtemp(prefix="bonelib-speed-"))
    try:
        if set(options.only) - {"prediction"}:
            scans, folder = make_data(work, settings)
        if "training" in options.only:
            tables |= training_tables(settings, options.models, options.steps, limit, folder)
        if "feeding" in options.only:
            tables |= feeding_tables(settings, options.steps, folder)
        if "prediction" in options.only:
            tables |= prediction_tables(settings, options.models, limit)
        if "preparation" in options.only:
            tables |= preparation_tables(settings, scans)
    finally:
        shutil.rmtree(work)
    text = "\n\n".join(
        f"### {title}\n\n{table.to_markdown(index=False, floatfmt=',.4g', missingval='')}"
        for title, table in tables.items()
    )
    text = f"{about}\n\n{text}\n\nIn all {time.perf_counter() - started:.0f} s.\n"
    print(f"\n{text}")
    if options.keep:
        before, _, _ = PAGE.read_text().partition(MARK)
        PAGE.write_text(f"{before}{MARK}\n\n{text}")


if __name__ == "__main__":
    main()
