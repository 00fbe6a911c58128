"""Files of an evaluation -> frames, and scores pooled from them.

Counts are pooled over all test pixels, then classes are averaged: the paper's Dice values
equal 2 IoU / (1 + IoU), which holds for pooled counts only. Scores are percentages, rounded
to two decimals like the paper's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import metrics, published
from bonelib.evaluation.error_analysis import LEVELS
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json
from bonelib.settings import BONE, CLASS_NAMES, NUM_CLASSES, TABLE1_MODELS, TABLE3_MODELS, Settings

MEASURES = {"iou": metrics.iou, "dice": metrics.dice, "accuracy": metrics.pixel_accuracy}

SCORE_COLUMNS = ("mean", *CLASS_NAMES)
KEY_COLUMNS = ["model", "epochs", "epoch", "resolution", "series", "slice"]
# n<reference class><predicted class> counts pixels.
COUNT_COLUMNS = [f"n{row}{column}" for row, column in np.ndindex(NUM_CLASSES, NUM_CLASSES)]
COLUMNS = {  # of the tables of an evaluation, by kind
    # One row per image, horizon and resolution ("native": the network's own output grid).
    "": KEY_COLUMNS + COUNT_COLUMNS,
    # One row per horizon, series and structure: the state is found, missed, invented or absent.
    "surfaces": ["model", "epochs", "series", "structure", "state", *metrics.SURFACE_SCORES],
    # `pixels` lie in the bin, `probability` is the sum of their probabilities of the class, and
    # `positive` of them belong to it.
    "reliability": [
        "model", "epochs", "series", "class", "bin", "pixels", "probability", "positive",
    ],
    # False positive pixels of bone.
    "false_bone": ["model", "epochs", "series", "slice", "cause", "pixels"],
}  # fmt: skip
SLICE_COLUMNS = ["series", "slice", "position_mm", "spacing", "level", "bone_mm2"]

MIN_BONE_FOUND = 0.3  # share of the reference's bone pixels that a surface needs


def read_scores(results: ResultFolder, models: Sequence[str], kind: str = "") -> pd.DataFrame:
    """Return the rows of `models` in the tables of a kind of `COLUMNS`: the confusion counts."""
    return _read([results.scores(model, kind) for model in models], COLUMNS[kind])


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


def select(scores: pd.DataFrame, model: str, epochs: int | None = None) -> pd.DataFrame:
    """Return a method's rows on the input grid at `epochs`, by default its longest horizon."""
    rows = scores[(scores["model"] == model) & (scores["resolution"] == "input")]
    return rows[rows["epochs"] == (rows["epochs"].max() if epochs is None else epochs)]


def counts(rows: pd.DataFrame) -> np.ndarray:
    """Return the counts of score rows, shape (rows, reference class, predicted class)."""
    return rows[COUNT_COLUMNS].to_numpy(np.int64).reshape(-1, NUM_CLASSES, NUM_CLASSES)


def pooled(rows: pd.DataFrame, measure: str) -> tuple[float, ...]:
    """Return the mean and each class's score in %, pooled over all pixels of score rows.

    The mean is NaN where a class is absent, so no class drops out of it silently.
    """
    classes = MEASURES[measure](counts(rows).sum(axis=0))
    return tuple(np.round(100 * np.array([classes.mean(), *classes]), 2))


def bone_iou(rows: pd.DataFrame) -> np.ndarray:
    """Return the IoU in % of bone in each score row, NaN where neither side has bone."""
    return 100 * metrics.iou(counts(rows))[:, BONE]


def pooled_bone_iou(rows: pd.DataFrame) -> float:
    """Return the IoU in % of bone, pooled over all pixels of score rows."""
    return float(100 * metrics.iou(counts(rows).sum(axis=0))[BONE])


def named(values: Sequence) -> dict:
    """Return the values of the mean and of each class by name."""
    return dict(zip(SCORE_COLUMNS, values, strict=True))


def methods(scores: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the (model, epochs) pairs of a frame, in the paper's order."""
    found = set(zip(scores["model"], scores["epochs"], strict=True))
    order = list(published.METHOD_NAMES)
    return sorted(found, key=lambda method: (order.index(method[0]), method[1]))


def method_name(model: str, records: dict[str, dict] | None = None) -> str:
    """Return the printed name of a method; a random encoder is part of it."""
    name = published.METHOD_NAMES.get(model, model)
    is_random = (records or {}).get(model, {}).get("encoder_weights") == "random"
    return f"{name} (random encoder)" if is_random else name


def method_names(
    frame: pd.DataFrame, records: dict[str, dict] | None = None
) -> dict[tuple[str, int], str]:
    """Return the printed name and horizon of each (model, epochs), in the paper's order."""
    return {
        (model, epochs): method_name(model, records) + (f", {epochs} epochs" if epochs else "")
        for model, epochs in methods(frame)
    }


def best_model(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame]
) -> str | None:
    """Return the model of Table 3 with the best mean IoU on the validation series.

    Without a network of Table 3, those of Table 1 are compared; None without scores.
    """
    trained = set(scores["model"]) & set(histories)
    models = [model for model in TABLE3_MODELS if model in trained]
    models = models or [model for model in TABLE1_MODELS if model in trained]
    curves = {model: histories[model].head(settings.epochs_long) for model in models}
    return max(models, key=lambda model: curves[model]["val_mean_iou"].max(), default=None)


def network_with_bone(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame]
) -> str | None:
    """Return the best model, or None if it found too little bone for a surface.

    A network trained for seconds may find little bone, and specks have no surface.
    """
    model = best_model(scores, settings, histories)
    pixels = counts(select(scores, model)).sum(axis=0)[BONE]
    return model if pixels[BONE] >= MIN_BONE_FOUND * pixels.sum() else None
