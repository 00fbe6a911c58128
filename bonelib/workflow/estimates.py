"""Settings and machine -> how long a step will take, from recorded epochs or timed steps."""

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from bonelib import devices, paths, provenance
from bonelib.settings import BASELINE, PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, SPLITS, Settings

START_SECONDS = 9.0  # a kernel, TensorFlow and the first compilation
FEEDING = 1.15  # a step in training relative to one on a batch that is always there
SCORING_SECONDS = 0.05  # a 512 x 512 slice: mostly distances between surfaces
STEP_SECONDS = {  # two 512 x 512 slices on two cores with bfloat16 (docs/speed.md)
    "fcn8": 2.0, "fcn32": 2.2, "pspnet": 0.9, "unet": 1.8, "segnet": 1.8, "vgg_unet": 4.5,
    "resnet50_unet": 3.0,
}  # fmt: skip
SHORT_SECONDS = 300.0  # work for which STEP_SECONDS will do
TIMED_STEPS, BUDGET_SECONDS = 2, 60.0  # steps of a network; after the budget, no other is timed
KEPT_SECONDS = 3600.0  # a machine that was busy then may be idle now
CACHE = Path(os.path.expanduser("~"), ".cache", "bonelib", "step_seconds.json")


def _slices(split: str, settings: Settings) -> float:
    paper = sum(count for _, kind, count in PAPER_SERIES if kind == split)
    return paper * PAPER_SLICE_DISTANCE_MM / settings.phantom_slice_distance_mm


def preparation_seconds(settings: Settings) -> float:
    """Estimate the phantom's generation and the preparation of its slices."""
    slices = sum(_slices(split, settings) for split in SPLITS)
    return START_SECONDS + slices * (0.15 + 0.25 * (settings.phantom_matrix / 512) ** 2)


def training_work(
    model: str, results: paths.ResultFolder, settings: Settings, force: bool = False
) -> tuple[float, float]:
    """Return seconds of a training, and network steps to add where it has recorded no epoch."""
    epochs, history = max(settings.horizons(model)), results.history(model)
    record = provenance.read_json(results.training_record(model))
    if history.exists() and record.get("settings") == asdict(settings):
        with history.open() as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        left = epochs - (len(seconds) if results.state(model).exists() and not force else 0)
        return START_SECONDS + left * median(seconds), 0.0
    validation = _slices("validation", settings) / (3 * settings.batch_size)
    return START_SECONDS, epochs * (FEEDING * settings.steps_per_epoch + validation)


def evaluation_work(method: str, settings: Settings, horizons: int) -> tuple[float, float]:
    """Return seconds of an evaluation, and network steps to add: forward is a third of one."""
    slices = _slices("test", settings) * horizons
    seconds = START_SECONDS + slices * SCORING_SECONDS * (settings.image_size / 512) ** 2
    return seconds, 0.0 if method == BASELINE else slices / (3 * settings.batch_size)


def step_seconds(
    steps: dict[str, float], settings: Settings, environment: dict[str, str]
) -> dict[str, float]:
    """Return the seconds of a training step of each network; `steps` is their number of steps.

    Times are measured and kept for an hour. `STEP_SECONDS` serves short work, and scaled by
    the measured times, networks without one.
    """
    scale = settings.batch_size / 2 * (settings.image_size / 512) ** 2
    guessed = {model: scale * STEP_SECONDS[model] for model in steps}
    if sum(steps[model] * guessed[model] for model in steps) < SHORT_SECONDS:
        return guessed
    setting = settings.image_size, settings.batch_size, settings.precision
    machine = devices.machine(), provenance.versions(), os.environ.get("KERAS_BACKEND")
    keys = {model: provenance.text_hash(model, setting, machine) for model in steps}
    now, kept = time.time(), provenance.read_json(CACHE)
    kept = {key: one for key, one in kept.items() if now - one["time"] < KEPT_SECONDS}
    if missing := [model for model in steps if keys[model] not in kept]:
        busy = f"other programs use {psutil.cpu_percent(1.0):.0f} % of the processor"
        print(f"Timing a step of {', '.join(missing)} ({busy}): about a minute", file=sys.stderr)
        task = [json.dumps(asdict(settings)), *missing]
        run = subprocess.run(  # apart: the driver does not import TensorFlow
            [sys.executable, "-m", "bonelib.workflow.estimates", *task], cwd=paths.REPOSITORY,
            env=environment | os.environ, capture_output=True, text=True,
        )  # fmt: skip
        timed = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {}
        kept |= {keys[model]: {"seconds": timed[model], "time": now} for model in timed}
        with contextlib.suppress(OSError):  # no home to write to
            provenance.write_json(CACHE, kept)
    timed = {model: kept[key]["seconds"] for model, key in keys.items() if key in kept}
    ratio = sum(timed.values()) / sum(guessed[model] for model in timed) if timed else 1.0
    return {model: ratio * seconds for model, seconds in guessed.items()} | timed


def time_steps(models: list[str], settings: Settings) -> dict[str, float]:
    """Return the seconds of a training step of each network, as many as the budget allows."""
    from bonelib import training

    devices.set_precision(settings)
    found, started = {}, time.perf_counter()
    for name in models:
        if time.perf_counter() - started > BUDGET_SECONDS:
            break
        model, _ = training.new_model(name, replace(settings, encoder_weights="none"))
        images = np.zeros((settings.batch_size, *model.input_shape[1:]), np.float32)
        labels = np.zeros((settings.batch_size, *model.output_shape[1:3]), np.uint8)
        model.train_on_batch(images, labels)  # compiles
        compiled = time.perf_counter()
        for _ in range(TIMED_STEPS):
            model.train_on_batch(images, labels)
        found[name] = (time.perf_counter() - compiled) / TIMED_STEPS
    return found


if __name__ == "__main__":
    print(json.dumps(time_steps(sys.argv[2:], Settings(**json.loads(sys.argv[1])))))
