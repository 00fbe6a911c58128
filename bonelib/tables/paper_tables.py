"""Tables 1 to 4: ours, the paper's and the difference in every row."""

from dataclasses import replace

import pandas as pd

from bonelib import published
from bonelib.evaluation.scoring import best_model, method_name, select
from bonelib.settings import CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from bonelib.tables.rows import (
    BASELINE_NOTE,
    BEST_NOTE,
    LACKS_A_CLASS,
    NO_BASELINE_NOTE,
    compare,
    framed,
    method_rows,
    not_run,
    random_encoders,
    scheme_note,
    score_notes,
    scores_of,
)
from bonelib.tables.table import Table


def _score_table(scores, methods, paper, caption, settings, records=None) -> Table:
    """Assemble a table of (model, epochs) pairs; `paper` maps the pair's model to its values."""
    rows, parts, missing = [], [], []
    for model, epochs in methods:
        part = select(scores, model, epochs)
        if len(part):
            rows += method_rows(part, model, paper.get(model, {}), settings, records)
            parts.append(part)
        else:
            missing.append(published.METHOD_NAMES[model])
    notes = (*score_notes(parts), *((BEST_NOTE,) if rows else ()), *not_run(missing))
    return Table(
        framed(rows, "epoch", "epoch_paper"),
        caption + scheme_note(settings),
        notes,
        blocks="measure" if rows else "",
        best=dict.fromkeys(("mean", *settings.class_names), max),
    )


def table1(scores: pd.DataFrame, settings: Settings) -> Table:
    """Return IoU, Dice and pixel accuracy of the five networks after the short training."""
    baseline = [(model, 0) for model in settings.methods([])]
    table = _score_table(
        scores,
        [(model, settings.epochs) for model in TABLE1_MODELS] + baseline,
        published.TABLE1,
        "Table 1. IoU, Dice coefficient and pixel accuracy of FCN, PSPNet, U-net and SegNet, "
        f"best of {settings.epochs} epochs (paper: {Settings().epochs}).",
        settings,
    )
    return replace(table, notes=(*table.notes, BASELINE_NOTE if baseline else NO_BASELINE_NOTE))


def table2(records: dict[str, dict], settings: Settings) -> Table:
    """Return the time a slice takes and the parameters of every method."""
    rows, slices = [], set()
    for model in published.METHOD_NAMES:
        if model not in records:
            continue
        record = records[model]
        slices.add(record["slices"])
        paper = published.TABLE2.get(model, {})
        values = {
            "milliseconds": round(record["milliseconds_per_slice"], 1),
            "parameters": record["parameters"],
            "trainable": record["trainable_parameters"],
        }
        rows.append({"name": method_name(model)} | compare(values, paper))
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if name.startswith(("parameters", "trainable")):
            frame[name] = frame[name].astype("Int64")
    missing = [published.METHOD_NAMES[model] for model in TABLE1_MODELS if model not in records]
    notes = [
        "The paper timed 512 x 512 slices on an NVIDIA RTX 2080 Ti; times here are of this "
        "machine and of this profile's slices."
    ]
    if slices:
        notes.append(f"Mean over {', '.join(map(str, sorted(slices)))} test slices.")
    if not settings.has_papers_classes:
        notes.append(
            f"The networks end in {settings.num_classes} classes, the paper's in "
            f"{len(CLASS_NAMES)}: hence the difference in parameters."
        )
    caption = "Table 2. Mean execution time of a slice and number of parameters."
    return Table(
        frame, caption, (*notes, *not_run(missing)), decimals=1, best={"milliseconds": min}
    )


def table3(scores: pd.DataFrame, records: dict[str, dict], settings: Settings) -> Table:
    """Return the scores of U-net and of its two backbones after the long training."""
    table = _score_table(
        scores,
        [(model, settings.epochs_long) for model in TABLE3_MODELS],
        published.TABLE3,
        "Table 3. IoU, Dice coefficient and pixel accuracy of U-net with its own encoder, VGG16 "
        f"and ResNet50, best of {settings.epochs_long} epochs "
        f"(paper: {Settings().epochs_long}).",
        settings,
        records,
    )
    return replace(table, notes=(*table.notes, *random_encoders(TABLE3_MODELS, records)))


def table4(
    scores: pd.DataFrame,
    records: dict[str, dict],
    settings: Settings,
    histories: dict[str, pd.DataFrame] | None = None,
) -> Table:
    """Return the IoU of the best model on each test series.

    Rows stand beside the paper's sets by order alone: they are other patients.
    """
    title = "Table 4. IoU on each test series"
    try:
        model, rule = best_model(scores, settings, histories)
    except ValueError as error:
        return Table(pd.DataFrame(), f"{title}.", (f"Not run: {error}.",))
    rows = select(scores, model).sort_values(["series", "slice"])
    series = list(dict.fromkeys(rows["series"]))
    parts = [(name, rows[rows["series"] == name]) for name in series]
    papers = [*published.TABLE4[: len(parts)], *[{}] * (len(parts) - len(published.TABLE4))]
    lines = [*zip(parts, papers, strict=True), (("Combined", rows), published.TABLE4_COMBINED)]
    frame = pd.DataFrame(
        [
            {
                "series": name,
                **compare({"images": len(part)}, paper),
                **scores_of(part, "iou", paper.get("iou", ()), settings),
            }
            for (name, part), paper in lines
        ]
    ).astype({f"images{suffix}": "Int64" for suffix in ("", "_paper", "_difference")})
    paper_model = published.METHOD_NAMES[published.TABLE4_MODEL]
    notes = (
        f"Ours: {method_name(model, records)}, {rule}, best of {rows['epochs'].iloc[0]} epochs. "
        f"Paper: {paper_model}.",
        "Our series are not the paper's; they stand beside its sets by order alone.",
        *score_notes([rows]),
        "The intervals of single series are of their slices alone.",
        *((LACKS_A_CLASS,) if frame["mean"].isna().any() else ()),
    )
    caption = f"{title}, {method_name(model, records)}.{scheme_note(settings)}"
    return Table(frame, caption, notes)


def paper_of(model: str, epochs: int, settings: Settings) -> dict:
    """Return the paper's row for a model at one of its two horizons."""
    if epochs == settings.epochs and model in published.TABLE1:
        return published.TABLE1[model]
    return published.TABLE3.get(model, {}) if epochs == settings.epochs_long else {}
