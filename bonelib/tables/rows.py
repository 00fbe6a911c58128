"""What the tables of scores share: rows beside the paper's, and notes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bonelib import published
from bonelib.evaluation import statistics
from bonelib.evaluation.scoring import SCORE_COLUMNS, method_name, named, pooled
from bonelib.settings import BONE, CLASS_NAMES, Settings
from bonelib.tables.cells import ABOVE, BELOW

MARKS_NOTE = (
    f"{ABOVE} ({BELOW}): ours lies above (below) the paper's value, and the interval leaves that "
    "out; the patients are others."
)

BEST_NOTE = (
    "Bold: the best of ours in its column and measure, the baseline included; none where the "
    "best are printed alike."
)

BASELINE_NOTE = "The threshold baseline is this project's; the paper has none."

NO_BASELINE_NOTE = "The threshold baseline tells no bone from another, so it has no scores here."

LACKS_A_CLASS = "A class that a series lacks has no score, or 0 where it is predicted nevertheless."


def compare(
    ours: dict,
    paper: dict,
    compared: Sequence[str] | None = None,
    limits: dict[str, tuple[float, float]] | None = None,
) -> dict:
    """Interleave our values with their limits, and those `compared` with the paper's."""
    row = {}
    for name, value in ours.items():
        row[name] = value
        if limits:
            row[f"{name}_low"], row[f"{name}_high"] = limits[name]
        if compared is None or name in compared:
            row[f"{name}_paper"] = theirs = paper.get(name, np.nan)
            row[f"{name}_difference"] = round(value - theirs, 2)
    return row


def scores_of(rows: pd.DataFrame, measure: str, paper: Sequence[float], settings: Settings) -> dict:
    """Return the scores and their intervals by name, beside the paper's where it has the same."""
    same = SCORE_COLUMNS if settings.has_papers_classes else CLASS_NAMES[:BONE]
    theirs = dict(zip(SCORE_COLUMNS, paper, strict=False))
    limits = statistics.intervals(rows, measure, settings)
    return compare(named(pooled(rows, measure), settings), theirs, same, limits)


def method_rows(
    rows: pd.DataFrame, model: str, paper: dict, settings: Settings, records: dict | None
) -> list[dict]:
    """Return one row a measure for one method at one horizon."""
    return [
        {
            "name": method_name(model, records),
            "epoch": rows["epoch"].iloc[0] or pd.NA,  # the baseline knows no epochs
            "epoch_paper": paper.get("epoch", pd.NA),
            "measure": name,
            **scores_of(rows, measure, paper.get(measure, ()), settings),
        }
        for measure, name in published.MEASURE_NAMES.items()
    ]


def scheme_note(settings: Settings) -> str:
    """Say, for the end of a caption, which classes there are, where they are not the paper's."""
    if settings.has_papers_classes:
        return ""
    names = ", ".join(settings.class_names)
    return f" Class scheme {settings.class_scheme}: {names}; as bone, all but the first two."


def score_notes(parts: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Say on how much the scores rest, once for each size that occurs, and what is marked."""
    sizes = dict.fromkeys((len(part), part["series"].nunique()) for part in parts)
    notes = tuple(
        f"{images} test slices of {series} series; counts pooled over all their pixels, then "
        "averaged over the classes; %, differences in percentage points."
        for images, series in sizes
    )
    return (*notes, interval_note(parts), MARKS_NOTE) if notes else ()


def interval_note(parts: Sequence[pd.DataFrame]) -> str:
    """Say how the intervals are made, and what they leave out."""
    series = min(part["series"].nunique() for part in parts)
    few = (
        f"With only {series} series they are too narrow rather than too wide."
        if series > 1
        else "With one series only its slices are drawn, so other patients are not in them."
    )
    return (
        f"In small print: {100 * statistics.CONFIDENCE:.0f} % intervals, percentiles of "
        f"{statistics.RESAMPLES} bootstrap resamples that draw series with replacement, then "
        f"slices within each. {few} How far trainings differ is not in them."
    )


def method_keys(model: str, epochs: int, records: dict | None = None) -> dict:
    """Return the columns that tell one method at one horizon."""
    return {"name": method_name(model, records), "epochs": int(epochs) or pd.NA}


def framed(rows: Sequence[dict], *whole: str) -> pd.DataFrame:
    """Return rows as a frame whose columns `whole` hold whole numbers, or none."""
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64") if rows else {})


def not_run(missing: Sequence[str]) -> tuple[str, ...]:
    """Return the note that names the methods which were not run, if any."""
    return (f"Not run: {', '.join(missing)}.",) if missing else ()


def random_encoders(models: Sequence[str], records: dict) -> tuple[str, ...]:
    """Return the note on those of `models` whose encoder started from random weights, if any."""
    names = [
        published.METHOD_NAMES[model]
        for model in models
        if records.get(model, {}).get("encoder_weights") == "random"
    ]
    note = "started from a random encoder; the paper's was trained on ImageNet."
    return (f"{' and '.join(names)} {note}",) if names else ()
