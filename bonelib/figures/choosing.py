"""Tables of slices and scores -> which slices and networks are shown, by rule."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bonelib.evaluation import scoring
from bonelib.settings import BASELINE, BONE


def choose_series(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test series with the most slices, from feet to head."""
    test = table[table["split"] == "test"]
    if test.empty:
        raise ValueError("slices.csv has no test series, so there is no prediction to draw")
    return test[test["series"] == test["series"].value_counts().idxmax()].sort_values("slice")


def choose_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Choose Figure 1's four slices, from head to feet, out of the rows of slices.csv.

    Two levels show hip and sacrum, one hip and femur, one the femur alone, all of one
    training series. Where no series names such structures, its slices with bone are cut
    into four at even distances. A column `level` holds the letter.
    """
    training = table[table["split"] == "train"] if "split" in table else table
    training = training if len(training) else table
    by_series = [rows.sort_values("slice") for _, rows in training.groupby("series")]
    chosen = next((rows for rows in map(_anatomical, by_series) if rows is not None), None)
    if chosen is None:
        rows = by_series[0]
        with_bone = rows[rows["bone_pixels"] > 0] if "bone_pixels" in rows else rows
        rows = with_bone if len(with_bone) else rows
        chosen = rows.iloc[np.linspace(len(rows) - 1, 0, 4).round().astype(int)]
    return chosen.assign(level=list("abcd"))


def _anatomical(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Pick the four levels of one series, whose slices go from feet to head."""
    if "structures" not in rows:
        return None
    hip, sacrum, femur = (
        rows["structures"].astype("string").fillna("").str.contains(name)
        for name in ("hip", "sacrum", "femur")
    )
    upper, joint, shaft = rows[hip & sacrum], rows[hip & femur & ~sacrum], rows[femur & ~hip]
    if upper.empty or joint.empty or shaft.empty:
        return None
    places = ((upper, 0.75), (upper, 0.35), (joint, 0.35), (shaft, 0.5))
    return pd.concat([part.iloc[[round(place * (len(part) - 1))]] for part, place in places])


def choose_compared(scores: pd.DataFrame) -> pd.Series:
    """Choose Figure 6's slice: average bone IoU of the networks nearest its lower quartile."""
    rows = _longest(scores[scores["model"] != BASELINE])
    rows = rows[_has_bone(rows)]
    average = rows.groupby(["series", "slice"])["bone_iou"].mean().reset_index()
    if average.empty:
        raise ValueError("no network has scores on a slice that shows bone")
    order = (average["bone_iou"] - average["bone_iou"].quantile(0.25)).abs()
    return average.loc[order.idxmin()]


def choose_quartiles(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """Choose Figure 7's slices: maximum, upper and lower quartile, minimum of bone IoU."""
    rows = _longest(scores[scores["model"] == model])
    rows = rows[_has_bone(rows)].sort_values("bone_iou", ascending=False)
    if rows.empty:
        raise ValueError(f"{model} has no scores on a slice that shows bone")
    return rows.iloc[np.linspace(0, len(rows) - 1, 5).round().astype(int)[[0, 1, 3, 4]]]


def choose_model(available: Sequence[str]) -> str:
    """Return U-net, whose curves and slices the paper shows, or the first that there is."""
    return "unet" if "unet" in available else next(iter(available))


def _longest(scores: pd.DataFrame) -> pd.DataFrame:
    """Return every model's rows at its longest horizon, which its predictions are of."""
    parts = [scoring.select(scores, model) for model in scores["model"].unique()]
    rows = pd.concat(parts) if parts else scores
    return rows.assign(bone_iou=scoring.bone_iou(rows))


def _has_bone(rows: pd.DataFrame) -> np.ndarray:
    return scoring.counts(rows)[:, BONE:].sum(axis=(1, 2)) > 0
