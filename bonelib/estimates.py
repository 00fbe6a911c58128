"""How long the first run of a step takes on this machine; later runs go by measured times."""

import time

import numpy as np

from bonelib import provenance
from bonelib.settings import BASELINE, PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, SPLITS, Settings

GIGA_MULTIPLY_ADDS = {  # of one 512 x 512 slice, forward; counted by models.multiply_adds
    "fcn8": 30.6, "fcn32": 30.6, "pspnet": 13.4, "unet": 35.6, "segnet": 28.3,
    "vgg_unet": 97.2, "resnet50_unet": 47.8, BASELINE: 0.0,
}  # fmt: skip
START_SECONDS = 9.0  # a kernel, TensorFlow and the first compilation
UPDATE_SECONDS = {"fcn8": 0.7, "fcn32": 0.7}  # Adadelta on 69.7 million parameters, on a CPU
GPU_GIGAFLOPS = 10_000.0  # what a training reaches on a card of the RTX 2080 Ti's class


def gigaflops() -> float:
    """Measure how many thousand million operations a second this machine's products make."""
    if provenance.device()["gpus"]:
        return GPU_GIGAFLOPS
    matrix = np.ones((1024, 1024), np.float32)
    matrix @ matrix
    started = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    return 4 * 2 * 1.024**3 / (time.perf_counter() - started)


def _slices(split: str, distance_mm: float) -> float:
    paper = sum(count for _, kind, count in PAPER_SERIES if kind == split)
    return paper * PAPER_SLICE_DISTANCE_MM / distance_mm


def _forward_seconds(model: str, settings: Settings, speed: float) -> float:
    """Estimate one slice's way through a network."""
    pixels = (settings.image_size / 512) ** 2
    return 2 * GIGA_MULTIPLY_ADDS[model] * pixels / speed


def preparation_seconds(settings: Settings) -> float:
    """Estimate the phantom's generation and the preparation of its slices."""
    slices = sum(_slices(split, settings.phantom_slice_distance_mm) for split in SPLITS)
    return START_SECONDS + slices * (0.15 + 0.25 * (settings.phantom_matrix / 512) ** 2)


def training_seconds(model: str, settings: Settings, speed: float) -> float:
    """Estimate a training: forward, twice that backward, the update, the validation."""
    steps = max(settings.horizons(model)) * settings.steps_per_epoch
    step = 3 * settings.batch_size * _forward_seconds(model, settings, speed)
    step += UPDATE_SECONDS.get(model, 0.0) if speed < GPU_GIGAFLOPS else 0.0
    return START_SECONDS + steps * step * 1.15


def evaluation_seconds(method: str, settings: Settings, speed: float, horizons: int = 0) -> float:
    """Estimate the prediction of the test slices, once for each horizon, of one or of all."""
    slices = _slices("test", settings.phantom_slice_distance_mm)
    horizons = horizons or (1 if method == BASELINE else len(settings.horizons(method)))
    return START_SECONDS + slices * horizons * (0.01 + _forward_seconds(method, settings, speed))
