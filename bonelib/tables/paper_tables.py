"""Tables 1 to 4: ours, the paper's and the difference in every row."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from bonelib import published
from bonelib.evaluation import statistics
from bonelib.evaluation.scoring import SCORE_COLUMNS, best_model, method_name, named, pooled, select
from bonelib.settings import BONE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from bonelib.tables.render import ABOVE, BELOW, Table

# Columns of whole numbers, some of which may be missing.
WHOLE = {"epochs", "epoch", "images", "parameters", "trainable"}

Records = dict[str, dict]  # of the evaluations, by model

MARKS_NOTE = (
    f"{ABOVE} ({BELOW}): our score is above (below) the paper's, and the interval excludes the "
    "paper's; the patients differ."
)
BEST_NOTE = (
    "Bold: our best score of a column and measure, the baseline included; none where the best "
    "scores are printed alike."
)


def table1(scores: pd.DataFrame, settings: Settings) -> Table:
    """Return IoU, Dice and pixel accuracy of the five networks after the short training."""
    baseline = [(model, 0) for model in settings.methods([])]
    return score_table(
        scores,
        [(model, settings.epochs) for model in TABLE1_MODELS] + baseline,
        published.TABLE1,
        "Table 1. IoU, Dice coefficient and pixel accuracy of FCN, PSPNet, U-net and SegNet, "
        f"best of {settings.epochs} epochs (paper: {Settings().epochs}).",
        settings,
        notes=[
            "The threshold baseline is this project's; the paper has none."
            if baseline
            else "The threshold baseline cannot tell bones apart, so it has no scores here."
        ],
    )


def table2(records: Records, settings: Settings) -> Table:
    """Return the time per slice and the number of parameters of every method."""
    run = [model for model in published.METHOD_NAMES if model in records]
    rows = []
    for model in run:
        ours = {
            "milliseconds": round(records[model]["milliseconds_per_slice"], 1),
            "parameters": records[model]["parameters"],
            "trainable": records[model]["trainable_parameters"],
        }
        paper = published.TABLE2.get(model, {})
        rows.append({"name": method_name(model)} | beside_paper(ours, paper))
    notes = [
        "The paper timed 512 x 512 slices on an NVIDIA RTX 2080 Ti; our times are of this machine "
        "and of this profile's slices."
    ]
    if sizes := sorted({records[model]["slices"] for model in run}):
        notes.append(f"Mean over {', '.join(map(str, sizes))} test slices.")
    if not settings.has_papers_classes:
        notes.append(
            f"The networks have {settings.num_classes} classes, the paper's {len(CLASS_NAMES)}: "
            "hence the difference in parameters."
        )
    notes += not_run(model for model in TABLE1_MODELS if model not in records)
    caption = "Table 2. Mean execution time per slice and number of parameters."
    return Table(framed(rows), caption, tuple(notes), decimals=1, best={"milliseconds": min})


def table3(scores: pd.DataFrame, records: Records, settings: Settings) -> Table:
    """Return the scores of U-net and of its two backbones after the long training."""
    return score_table(
        scores,
        [(model, settings.epochs_long) for model in TABLE3_MODELS],
        published.TABLE3,
        "Table 3. IoU, Dice coefficient and pixel accuracy of U-net with its own encoder, VGG16 "
        f"and ResNet50, best of {settings.epochs_long} epochs "
        f"(paper: {Settings().epochs_long}).",
        settings,
        records,
        random_encoders(TABLE3_MODELS, records),
    )


def table4(
    scores: pd.DataFrame,
    records: Records,
    settings: Settings,
    histories: dict[str, pd.DataFrame] | None = None,
) -> Table:
    """Return the IoU of the best model on each test series."""
    title = "Table 4. IoU on each test series"
    try:
        model, rule = best_model(scores, settings, histories)
    except ValueError as error:
        return Table(pd.DataFrame(), f"{title}.", (f"Not run: {error}.",))
    rows = select(scores, model).sort_values(["series", "slice"])
    parts = dict(list(rows.groupby("series")))
    papers = dict(zip(parts, published.TABLE4, strict=False))
    papers["Combined"] = published.TABLE4_COMBINED
    frame = framed(
        {
            "series": name,
            **beside_paper({"images": len(part)}, papers.get(name, {})),
            **scores_of(part, "iou", papers.get(name, {}).get("iou", ()), settings),
        }
        for name, part in (parts | {"Combined": rows}).items()
    )
    notes = [
        f"Ours: {method_name(model, records)}, {rule}, best of {rows['epochs'].iloc[0]} epochs. "
        f"Paper: {published.METHOD_NAMES[published.TABLE4_MODEL]}.",
        "Our series are other patients; they are paired with the paper's by order alone.",
        *score_notes([rows]),
        "The interval of a single series is of its slices alone.",
    ]
    if frame["mean"].isna().any():
        notes.append("A class that a series lacks has no score, or 0 where it is predicted anyway.")
    caption = f"{title}, {method_name(model, records)}.{scheme_note(settings)}"
    return Table(frame, caption, tuple(notes))


def score_table(
    scores: pd.DataFrame,
    methods: Iterable[tuple[str, int]],
    paper: Mapping[str, dict],
    caption: str,
    settings: Settings,
    records: Records | None = None,
    notes: Iterable[str] = (),
) -> Table:
    """Return the scores of (model, epochs) pairs beside the `paper`'s, which maps models."""
    rows, parts, missing = [], [], []
    for model, epochs in methods:
        part = select(scores, model, epochs)
        if part.empty:
            missing.append(model)
            continue
        rows += method_rows(part, model, paper.get(model, {}), settings, records)
        parts.append(part)
    shown = (*score_notes(parts), *((BEST_NOTE,) if rows else ()), *not_run(missing))
    return Table(
        framed(rows),
        caption + scheme_note(settings),
        (*shown, *notes),
        blocks="measure",
        best=dict.fromkeys(("mean", *settings.class_names), max),
    )


def method_rows(
    rows: pd.DataFrame, model: str, paper: dict, settings: Settings, records: Records | None
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
    limits: dict[str, tuple[float, float]] | None = None,
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


def framed(rows: Iterable[dict]) -> pd.DataFrame:
    """Return rows as a frame in which columns of whole numbers may have gaps."""
    frame = pd.DataFrame(list(rows))
    whole = [name for name in frame.columns if name.split("_")[0] in WHOLE]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def scheme_note(settings: Settings) -> str:
    """Return the end of a caption that lists the classes where they are not the paper's."""
    if settings.has_papers_classes:
        return ""
    names = ", ".join(settings.class_names)
    return f" Class scheme {settings.class_scheme}: {names}; bone is all but the first two."


def score_notes(parts: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Return the notes on sample size, pooling, intervals and marks of score rows."""
    if not parts:
        return ()
    sizes = dict.fromkeys((len(part), part["series"].nunique()) for part in parts)
    pooling = (
        f"{images} test slices of {series} series; counts pooled over all their pixels, then "
        "averaged over the classes; %, differences in percentage points."
        for images, series in sizes
    )
    return (*pooling, interval_note(parts), MARKS_NOTE)


def interval_note(parts: Sequence[pd.DataFrame]) -> str:
    """Return the note on how the intervals are made and what they leave out."""
    series = min(part["series"].nunique() for part in parts)
    few = (
        f"With only {series} series they are too narrow rather than too wide."
        if series > 1
        else "With one series only its slices are drawn, so they ignore other patients."
    )
    return (
        f"In small print: {100 * statistics.CONFIDENCE:.0f} % intervals, percentiles of "
        f"{statistics.RESAMPLES} bootstrap resamples that draw series with replacement, then "
        f"slices within each. {few} They ignore the variation between trainings."
    )


def not_run(models: Iterable[str]) -> list[str]:
    """Return the note that lists the models that were not run, if any."""
    names = [published.METHOD_NAMES[model] for model in models]
    return [f"Not run: {', '.join(names)}."] if names else []


def random_encoders(models: Iterable[str], records: Records) -> list[str]:
    """Return the note that lists the models whose encoder started from random weights, if any."""
    names = [
        published.METHOD_NAMES[model]
        for model in models
        if records.get(model, {}).get("encoder_weights") == "random"
    ]
    note = "started from a random encoder; the paper's was trained on ImageNet."
    return [f"{' and '.join(names)} {note}"] if names else []
