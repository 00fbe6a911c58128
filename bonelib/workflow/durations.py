"""Settings and recorded epochs -> how long a step will take, in seconds."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean

import pandas as pd

from bonelib import provenance
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, SPLITS, Settings

# Times on two idle CPU cores, for slices of 512 x 512 pixels.
START_SECONDS = 9.0  # a kernel, TensorFlow and the first compilation
STEP_SECONDS = {  # training on a batch of two slices in bfloat16 (docs/speed.md)
    "fcn8": 2.0, "fcn32": 2.2, "pspnet": 0.9, "unet": 1.8, "segnet": 1.8, "vgg_unet": 4.5,
    "resnet50_unet": 3.0,
}  # fmt: skip
FEEDING = 1.15  # a training step with its loader, relative to one without
FORWARD = 1 / 3  # a prediction, relative to a training step
SCORING_SECONDS = 0.05  # a slice: mostly distances between surfaces


def num_slices(settings: Settings, *splits: str) -> float:
    """Return the number of slices of the phantom in these splits."""
    paper = sum(count for _, split, count in PAPER_SERIES if split in splits)
    return paper * PAPER_SLICE_DISTANCE_MM / settings.phantom_slice_distance_mm


def preparation_seconds(settings: Settings) -> float:
    """Estimate the time to generate the phantom and to prepare its slices."""
    per_slice = 0.15 + 0.25 * (settings.phantom_matrix / 512) ** 2
    return START_SECONDS + num_slices(settings, *SPLITS) * per_slice


def slice_seconds(model: str, settings: Settings) -> float:
    """Return the time that training takes for a slice on two idle cores."""
    return STEP_SECONDS[model] / 2 * (settings.image_size / 512) ** 2


def epoch_seconds(model: str, settings: Settings) -> float:
    """Return the time of an epoch, with its validation, on two idle cores."""
    trained = settings.steps_per_epoch * settings.batch_size
    validated = num_slices(settings, "validation")
    return (FEEDING * trained + FORWARD * validated) * slice_seconds(model, settings)


def recorded_epochs(model: str, results: ResultFolder, settings: Settings) -> pd.Series:
    """Return the time of each epoch that was trained with these settings."""
    record = provenance.read_json(results.training_record(model))
    if not results.history(model).exists() or record.get("settings") != asdict(settings):
        return pd.Series(dtype=float)
    return pd.read_csv(results.history(model))["seconds"]


def paces(
    results: ResultFolder, settings: Settings, models: Sequence[str], unknown: float
) -> dict[str, float]:
    """Return how much longer than on two idle cores each network takes here.

    A network without a recorded epoch takes the mean of the others, or `unknown`.
    """
    known = {
        model: seconds.median() / epoch_seconds(model, settings)
        for model in models
        if len(seconds := recorded_epochs(model, results, settings))
    }
    usual = mean(known.values()) if known else unknown
    return {model: known.get(model, usual) for model in models}


def training_seconds(
    model: str, results: ResultFolder, settings: Settings, pace: float, restarts: bool
) -> float:
    """Estimate the time of the epochs that a training still has to go."""
    epochs = max(settings.horizons(model))
    if results.state(model).exists() and not restarts:
        epochs -= len(recorded_epochs(model, results, settings))
    return START_SECONDS + epochs * pace * epoch_seconds(model, settings)


def evaluation_seconds(method: str, settings: Settings, horizons: int, pace: float) -> float:
    """Estimate the time to predict and score the test slices after each of the horizons."""
    per_slice = SCORING_SECONDS * (settings.image_size / 512) ** 2
    if method != BASELINE:
        per_slice += pace * FORWARD * slice_seconds(method, settings)
    return START_SECONDS + horizons * num_slices(settings, "test") * per_slice
