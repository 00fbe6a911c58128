"""Tables 1 to 4: ours, the paper's and the difference in every row."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib import published
from bonelib.evaluation import statistics
from bonelib.evaluation.scoring import SCORE_COLUMNS, method_name, named, pooled, select
from bonelib.settings import BONE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from bonelib.tables.render import Table, made, shared

Records = dict[str, dict]  # of the evaluations, by model


def table1(scores: pd.DataFrame, settings: Settings) -> Table:
    """Return IoU, Dice and pixel accuracy of the five networks after the short training."""
    methods = {model: settings.epochs for model in TABLE1_MODELS}
    methods |= dict.fromkeys(settings.methods([]), 0)
    words = {"epochs": settings.epochs, "papers_epochs": Settings.epochs}
    return score_table("table1", scores, methods, published.TABLE1, words, settings, {})


def table2(records: Records, settings: Settings) -> Table:
    """Return the time per slice and the number of parameters of every method."""
    rows = []
    for model in [name for name in published.METHOD_NAMES if name in records]:
        ours = {
            "milliseconds": round(records[model]["milliseconds_per_slice"], 1),
            "parameters": records[model]["parameters"],
            "trainable": records[model]["trainable_parameters"],
        }
        paper = published.TABLE2.get(model, {})
        rows.append({"name": method_name(model)} | beside_paper(ours, paper))
    missing = [model for model in TABLE1_MODELS if model not in records]
    return made(
        "table2", rows, {}, notes_on(not_run=missing), decimals=1, best={"milliseconds": min}
    )


def table3(scores: pd.DataFrame, records: Records, settings: Settings) -> Table:
    """Return the scores of U-net and of its two backbones after the long training."""
    methods = {model: settings.epochs_long for model in TABLE3_MODELS}
    words = {"epochs": settings.epochs_long, "papers_epochs": Settings.epochs_long}
    return score_table("table3", scores, methods, published.TABLE3, words, settings, records)


def table4(scores: pd.DataFrame, records: Records, settings: Settings, model: str | None) -> Table:
    """Return the IoU of a model, the best on the validation series, on each test series."""
    rows = select(scores, model).sort_values(["series", "slice"])
    series = dict(list(rows.groupby("series")))
    papers = dict(zip(series, published.TABLE4, strict=False))
    papers["Combined"] = published.TABLE4_COMBINED
    table = [
        {
            "series": name,
            **beside_paper({"images": len(part)}, papers.get(name, {})),
            **scores_of(part, "iou", papers.get(name, {}).get("iou", ()), settings),
        }
        for name, part in (series | {"Combined": rows} if series else {}).items()
    ]
    words = {
        "model": method_name(model, records),
        "epochs": rows["epochs"].max(),
        "papers_model": published.METHOD_NAMES[published.TABLE4_MODEL],
    }
    return made("table4", table, words, score_notes([rows]))


def score_table(
    name: str,
    scores: pd.DataFrame,
    methods: Mapping[str, int],
    paper: Mapping[str, dict],
    words: Mapping,
    settings: Settings,
    records: Records,
) -> Table:
    """Return the scores of models after some epochs, `methods`, beside the `paper`'s."""
    parts = {model: select(scores, model, epochs) for model, epochs in methods.items()}
    run = {model: part for model, part in parts.items() if not part.empty}
    rows = [
        row
        for model, part in run.items()
        for row in method_rows(part, model, paper.get(model, {}), settings, records)
    ]
    missing = [model for model in parts if model not in run]
    notes = score_notes(run.values()) + notes_on(missing, records)
    best = dict.fromkeys(("mean", *settings.class_names), max)
    return made(name, rows, words, notes, blocks="measure", best=best)


def method_rows(
    rows: pd.DataFrame, model: str, paper: dict, settings: Settings, records: Records
) -> list[dict]:
    """Return one row per measure for one method at one horizon."""
    return [
        {
            "name": method_name(model, records),
            "epoch": rows["epoch"].iloc[0] or pd.NA,  # the baseline has no epochs
            "epoch_paper": paper.get("epoch", pd.NA),
            "measure": name,
            **scores_of(rows, measure, paper.get(measure, ()), settings),
        }
        for measure, name in published.MEASURE_NAMES.items()
    ]


def scores_of(rows: pd.DataFrame, measure: str, paper: Sequence[float], settings: Settings) -> dict:
    """Return scores and intervals by name, beside the paper's for the classes that it has."""
    same = SCORE_COLUMNS if settings.has_papers_classes else CLASS_NAMES[:BONE]
    theirs = dict(zip(SCORE_COLUMNS, paper, strict=False))
    limits = statistics.intervals(rows, measure, settings)
    return beside_paper(named(pooled(rows, measure), settings), theirs, same, limits)


def beside_paper(
    ours: dict,
    paper: dict,
    compared: Sequence[str] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> dict:
    """Return our values with their limits, and the paper's of those `compared` (default: all)."""
    row = {}
    for name, value in ours.items():
        row[name] = value
        if limits:
            row[f"{name}_low"], row[f"{name}_high"] = limits[name]
        if compared is None or name in compared:
            row[f"{name}_paper"] = theirs = paper.get(name, np.nan)
            row[f"{name}_difference"] = round(value - theirs, 2)
    return row


def scheme_note(settings: Settings) -> str:
    """Return a note that lists the classes where they are not the paper's."""
    if settings.has_papers_classes:
        return ""
    return shared("scheme", scheme=settings.class_scheme, names=", ".join(settings.class_names))


def score_notes(parts: Iterable[pd.DataFrame]) -> list[str]:
    """Return the notes on sample size, pooling, intervals and marks of score rows."""
    sizes = dict.fromkeys((len(part), part["series"].nunique()) for part in parts)
    pooling = [shared("pooling", slices=slices, series=series) for slices, series in sizes]
    series = min((series for _, series in sizes), default=0)
    return [*pooling, interval_note(series), shared("marks"), shared("best")]


def interval_note(series: int) -> str:
    """Return the note on how the intervals are made and what they leave out."""
    confidence, resamples = 100 * statistics.CONFIDENCE, statistics.RESAMPLES
    return shared("intervals", confidence=confidence, resamples=resamples, series=series)


def notes_on(not_run: Iterable[str] = (), records: Records | None = None) -> list[str]:
    """Return the notes on models that were not run and on encoders that were not pretrained."""
    random = [
        model for model, one in (records or {}).items() if one.get("encoder_weights") == "random"
    ]
    return [
        shared(note, names=", ".join(published.METHOD_NAMES[model] for model in models))
        for note, models in {"not_run": not_run, "random_encoders": random}.items()
        if models
    ]
