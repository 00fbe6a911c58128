"""Files of an evaluation -> frames, and scores pooled from them.

Counts are pooled over all test pixels, then classes are averaged: the paper's Dice values
equal 2 IoU / (1 + IoU), which holds for pooled counts only. Scores are percentages, rounded
to two decimals like the paper's.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import metrics, published
from bonelib.evaluation.error_analysis import LEVELS
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json
from bonelib.settings import BONE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings

MEASURES = {"iou": metrics.iou, "dice": metrics.dice, "accuracy": metrics.pixel_accuracy}

SCORE_COLUMNS = ("mean", *CLASS_NAMES)  # of the paper

KEY_COLUMNS = ["model", "epochs", "epoch", "resolution", "series", "slice"]
COUNT_COLUMNS = metrics.count_columns()
SURFACE_COLUMNS = [
    "model", "epochs", "series", "structure", "state", "assd_mm", "hd95_mm",
    *(f"nsd_{tolerance:g}mm" for tolerance in metrics.TOLERANCES_MM),
]  # fmt: skip
RELIABILITY_COLUMNS = [
    "model", "epochs", "series", "class", "bin", "pixels", "probability", "positive",
]  # fmt: skip
FALSE_BONE_COLUMNS = ["model", "epochs", "series", "slice", "cause", "pixels"]
SLICE_COLUMNS = ["series", "slice", "position_mm", "spacing", "level", "bone_mm2"]

MIN_BONE_FOUND = 0.3  # share of the reference's bone pixels that a surface needs


def read_scores(results: ResultFolder, models: Sequence[str]) -> pd.DataFrame:
    """Return the confusion counts of `models`, one row per image, horizon and resolution.

    Columns: model, epochs, epoch, resolution, series, slice, n00 to n22 or beyond.
    """
    scores = _read(map(results.scores, models), KEY_COLUMNS + COUNT_COLUMNS)
    return scores.drop_duplicates(KEY_COLUMNS, ignore_index=True)


def read_surfaces(results: ResultFolder, models: Sequence[str]) -> pd.DataFrame:
    """Return surface distances of `models`, one row per horizon, test series and structure.

    The structure is "patient" or a class of bone; the state is found, missed, invented or
    absent; the scores are those of `metrics.surface_scores`.
    """
    return _read(map(results.surfaces, models), SURFACE_COLUMNS)


def read_reliability(results: ResultFolder, models: Sequence[str]) -> pd.DataFrame:
    """Return how often probabilities came true, per horizon, series, class and bin.

    `pixels` lie in the bin, `probability` is the sum of their probabilities, and `positive`
    of them belong to the class.
    """
    return _read(map(results.reliability, models), RELIABILITY_COLUMNS)


def read_false_bone(results: ResultFolder, models: Sequence[str]) -> pd.DataFrame:
    """Return the false-positive bone pixels of `models`, one row per slice and cause."""
    return _read(map(results.false_bone, models), FALSE_BONE_COLUMNS)


def read_slices(results: ResultFolder) -> pd.DataFrame:
    """Return position, spacing, level (ordered from feet to head) and bone of the test slices."""
    table = _read([results.scored_slices], SLICE_COLUMNS)
    found = [level for level in LEVELS if level in set(table["level"])]
    return table.assign(level=pd.Categorical(table["level"], found, ordered=True))


def _read(files: Iterable[Path], columns: list[str]) -> pd.DataFrame:
    """Return the rows of the files that exist, or an empty frame with `columns`."""
    frames = [pd.read_csv(file, dtype={"series": str}) for file in files if file.exists()]
    frames = [frame for frame in frames if len(frame)] or [pd.DataFrame(columns=columns)]
    return pd.concat(frames, ignore_index=True)


def read_records(results: ResultFolder, models: Sequence[str]) -> dict[str, dict]:
    """Return the evaluation records that exist, by model."""
    records = {model: read_json(results.score_record(model)) for model in models}
    return {model: record for model, record in records.items() if record}


def read_histories(results: ResultFolder, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the training histories that exist, by model."""
    files = {model: results.history(model) for model in models}
    return {model: pd.read_csv(file) for model, file in files.items() if file.exists()}


def select(
    scores: pd.DataFrame, model: str, epochs: int | None = None, resolution: str = "input"
) -> pd.DataFrame:
    """Return the score rows of one method at `epochs`, by default its longest horizon."""
    rows = scores[(scores["model"] == model) & (scores["resolution"] == resolution)]
    return rows[rows["epochs"] == (rows["epochs"].max() if epochs is None else epochs)]


def counts(rows: pd.DataFrame) -> np.ndarray:
    """Return the counts of score rows, shape (rows, reference class, predicted class)."""
    found = rows.filter(regex=r"^n\d\d$").to_numpy(np.int64)
    num_classes = math.isqrt(found.shape[1])
    return found.reshape(-1, num_classes, num_classes)


def pooled(rows: pd.DataFrame, measure: str) -> tuple[float, ...]:
    """Return the mean and each class's score in %, pooled over all pixels of score rows.

    The mean is NaN where a class is absent, so no class drops out of it silently.
    """
    classes = MEASURES[measure](counts(rows).sum(axis=0))
    return tuple(np.round(100 * np.array([classes.mean(), *classes]), 2))


def pooled_scores(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return IoU, Dice and accuracy in %, one row per method, resolution and measure."""
    keys = ["model", "epochs", "epoch", "resolution"]
    return pd.DataFrame(
        [
            dict(zip(keys, key, strict=True))
            | {"measure": name}
            | named(pooled(rows, measure), settings)
            for key, rows in scores.groupby(keys)
            for measure, name in published.MEASURE_NAMES.items()
        ]
    )


def bone_iou(rows: pd.DataFrame) -> np.ndarray:
    """Return the IoU in % of all bone in each score row, NaN where neither side has bone."""
    return 100 * metrics.iou(metrics.bone_as_one(counts(rows)))[:, BONE]


def pooled_bone_iou(rows: pd.DataFrame) -> float:
    """Return the IoU in % of all bone, pooled over all pixels of score rows."""
    return float(100 * metrics.iou(metrics.bone_as_one(counts(rows).sum(axis=0)))[BONE])


def named(values: Sequence, settings: Settings) -> dict:
    """Return the values of the mean and of each class by name."""
    return dict(zip(("mean", *settings.class_names), values, strict=True))


def methods(scores: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the (model, epochs) pairs of a frame, in the paper's order."""
    found = set(zip(scores["model"], scores["epochs"], strict=True))
    order = list(published.METHOD_NAMES)
    return sorted(found, key=lambda method: (order.index(method[0]), method[1]))


def method_name(model: str, records: dict[str, dict] | None = None) -> str:
    """Return the printed name of a method; a random encoder is part of it."""
    random = (records or {}).get(model, {}).get("encoder_weights") == "random"
    return published.METHOD_NAMES.get(model, model) + (" (random encoder)" if random else "")


def best_model(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame] | None = None
) -> tuple[str, str]:
    """Return the best model of Table 3 and the rule that chose it.

    The mean IoU on the validation series decides; where a training history is missing, the
    mean IoU on the test series does. Without a network of Table 3, those of Table 1 are
    compared. Raises ValueError without scores.
    """
    scored = set(scores["model"])
    models = [model for model in TABLE3_MODELS if model in scored]
    models = models or [model for model in TABLE1_MODELS if model in scored]
    if not models:
        raise ValueError("no network has scores yet: run the evaluation notebook first")
    if histories and all(model in histories for model in models):
        trained = {model: histories[model].head(settings.epochs_long) for model in models}
        values = {model: history["val_mean_iou"].max() for model, history in trained.items()}
        rule = "best mean IoU on the validation series"
    else:
        values = {model: pooled(select(scores, model), "iou")[0] for model in models}
        rule = "best mean IoU on the test series, because a training history is missing"
    return max(values, key=values.get), rule


def network_with_bone(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame] | None = None
) -> tuple[str | None, str]:
    """Return the best model and why it was chosen, or None and why it cannot make a bone model.

    A network trained for seconds may find little bone, and specks have no surface.
    """
    model, rule = best_model(scores, settings, histories)
    pixels = counts(select(scores, model)).sum(axis=0)
    if pixels[BONE:, BONE:].sum() >= MIN_BONE_FOUND * pixels[BONE:].sum():
        return model, rule
    return None, f"{published.METHOD_NAMES[model]}, with the {rule}, found little of the bone"
