"""Scores -> the paper's tables: ours, the paper's and the difference in every row.

Counts are pooled over all test pixels, then classes are averaged (the paper's Dice values
equal 2 IoU / (1 + IoU), which only pooled counts do). Scores are percentages, rounded to
two decimals as the paper's; differences are ours less the paper's, in percentage points.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import metrics, published
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json, replacing
from bonelib.settings import BONE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings

MEASURES = {"iou": metrics.iou, "dice": metrics.dice, "accuracy": metrics.pixel_accuracy}
SCORE_COLUMNS = ("mean", *CLASS_NAMES)  # of the paper
COUNT_COLUMNS = metrics.count_columns()
KEY_COLUMNS = ["model", "epochs", "epoch", "resolution", "series", "slice"]


@dataclass(frozen=True)
class Table:
    """A table: tidy `frame`, what it shows, and what its reader must know.

    A column `x` may have companions `x_paper` and `x_difference`.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    decimals: int = 2

    def printed(self) -> pd.DataFrame:
        """Return the frame as text, with a header of two levels: quantity and origin."""
        if self.frame.empty:
            return pd.DataFrame([["not run"]], columns=pd.MultiIndex.from_tuples([("Result", "")]))
        cells = {
            _header(name, self.frame.columns): self.frame[name].map(
                lambda value, name=name: _cell(value, name, self.decimals)
            )
            for name in self.frame.columns
        }
        columns = pd.MultiIndex.from_tuples(list(cells))
        return pd.DataFrame(list(cells.values()), index=columns, dtype=object).T

    def _repr_html_(self) -> str:
        printed = self.printed().to_html(index=False, border=0, classes="scores", escape=True)
        notes = "".join(f"<li>{_html(note)}</li>" for note in self.notes)
        return f"<p><b>{_html(self.caption)}</b></p>{printed}<ul>{notes}</ul>"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _header(name: str, columns) -> tuple[str, str]:
    quantity = re.sub("_(paper|difference)$", "", name)
    origin = {"_paper": "paper", "_difference": "diff."}.get(name[len(quantity) :], "ours")
    title = quantity.replace("_", " ")
    title = title[0].upper() + title[1:]
    return (title, origin if f"{quantity}_paper" in columns else "")


def _cell(value, name: str, decimals: int) -> str:
    if pd.isna(value):
        return ""
    sign = "+" if name.endswith("_difference") else ""
    if isinstance(value, (int, np.integer)):
        return f"{value:{sign},}" if value else "0"
    return f"{value:{sign}.{decimals}f}" if isinstance(value, (float, np.floating)) else str(value)


def save(table: Table, name: str, folder: Path) -> None:
    """Write `table` to `folder` as `name`.csv (tidy), .md and .tex (booktabs)."""
    printed = table.printed()
    flat = printed.set_axis([", ".join(filter(None, header)) for header in printed], axis=1)
    notes = "\n".join(f"- {note}" for note in table.notes)
    latex_notes = r"\\ ".join(_latex(note) for note in table.notes)
    tabular = printed.to_latex(index=False, escape=True, multicolumn_format="c")
    texts = {
        "csv": table.frame.to_csv(index=False),
        "md": f"**{table.caption}**\n\n{flat.to_markdown(index=False, disable_numparse=True)}"
        f"\n\n{notes}\n",
        "tex": "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\\footnotesize\n"
        f"\\setlength{{\\tabcolsep}}{{3pt}}\n\\caption{{{_latex(table.caption)}}}\n"
        f"\\label{{tab:{name}}}\n{tabular}\n\n\\raggedright {latex_notes}\n\\end{{table}}\n",
    }
    for suffix, text in texts.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            scratch.write_text(text)


def _latex(text: str) -> str:
    return re.sub(r"([%&#_$])", r"\\\1", text)


def read_scores(results: ResultFolder, models: Sequence[str]) -> pd.DataFrame:
    """Return the per-image counts of those `models` that have any, a row an image.

    Columns: model, epochs, epoch, resolution, series, slice, n00 to n22 or beyond.
    """
    files = [results.scores(model) for model in models if results.scores(model).exists()]
    if not files:
        return pd.DataFrame(columns=KEY_COLUMNS + COUNT_COLUMNS)
    scores = pd.concat([pd.read_csv(file, dtype={"series": str}) for file in files])
    return scores.drop_duplicates(KEY_COLUMNS, ignore_index=True)


def read_records(results: ResultFolder, models: Sequence[str]) -> dict[str, dict]:
    """Return the evaluation record of each of `models` that has one."""
    records = {model: read_json(results.score_record(model)) for model in models}
    return {model: record for model, record in records.items() if record}


def read_histories(results: ResultFolder, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the training history of each of `models` that has one."""
    return {
        model: pd.read_csv(results.history(model))
        for model in models
        if results.history(model).exists()
    }


def select(
    scores: pd.DataFrame, model: str, epochs: int | None = None, resolution: str = "input"
) -> pd.DataFrame:
    """Return the rows of one method at `epochs`, by default its longest horizon."""
    rows = scores[(scores["model"] == model) & (scores["resolution"] == resolution)]
    if epochs is None and len(rows):
        epochs = rows["epochs"].max()
    return rows[rows["epochs"] == epochs]


def counts(rows: pd.DataFrame) -> np.ndarray:
    """Return the counts of score rows, shape (rows, reference class, predicted class)."""
    found = rows.filter(regex=r"^n\d\d$").to_numpy(np.int64)
    num_classes = math.isqrt(found.shape[1])
    return found.reshape(-1, num_classes, num_classes)


def pooled(rows: pd.DataFrame, measure: str) -> tuple[float, ...]:
    """Return the mean and each class's score in % over all pixels of score rows.

    The mean of a set that lacks a class is NaN: no class drops out of it unseen.
    """
    classes = MEASURES[measure](counts(rows).sum(axis=0))
    return tuple(np.round(100 * np.array([classes.mean(), *classes]), 2))


def pooled_scores(scores: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return IoU, Dice and accuracy in %, a row each model, horizon and resolution."""
    keys = ["model", "epochs", "epoch", "resolution"]
    return pd.DataFrame(
        [
            dict(zip(keys, key, strict=True))
            | {"measure": name}
            | _named(pooled(rows, measure), settings)
            for key, rows in scores.groupby(keys)
            for measure, name in published.MEASURE_NAMES.items()
        ]
    )


def bone_iou(rows: pd.DataFrame) -> np.ndarray:
    """Return the bone IoU in % of each score row, NaN where neither side has bone.

    Classes of bone count as one.
    """
    return 100 * metrics.iou(metrics.bone_as_one(counts(rows)))[:, BONE]


def _named(values: Sequence[float], settings: Settings) -> dict[str, float]:
    return dict(zip(("mean", *settings.class_names), values, strict=True))


def _compare(ours: dict, paper: dict, compared: Sequence[str] | None = None) -> dict:
    """Interleave our values, or those `compared`, with the paper's and the differences."""
    row = {}
    for name, value in ours.items():
        row[name] = value
        if compared is None or name in compared:
            row[f"{name}_paper"] = theirs = paper.get(name, np.nan)
            row[f"{name}_difference"] = round(value - theirs, 2)
    return row


def _scores_of(
    rows: pd.DataFrame, measure: str, paper: Sequence[float], settings: Settings
) -> dict:
    """Return the scores by name, beside the paper's where it has the same."""
    same = SCORE_COLUMNS if settings.has_papers_classes else CLASS_NAMES[:BONE]
    theirs = dict(zip(SCORE_COLUMNS, paper, strict=False))
    return _compare(_named(pooled(rows, measure), settings), theirs, same)


def method_name(model: str, records: dict[str, dict] | None = None) -> str:
    """Return the printed name of a method, which owns up to a random encoder."""
    random = (records or {}).get(model, {}).get("encoder_weights") == "random"
    return published.METHOD_NAMES.get(model, model) + (" (random encoder)" if random else "")


def _method_rows(
    rows: pd.DataFrame, model: str, paper: dict, settings: Settings, records: dict | None
) -> list[dict]:
    """Return one row a measure for one method at one horizon."""
    return [
        {
            "name": method_name(model, records),
            "epoch": rows["epoch"].iloc[0] or pd.NA,  # the baseline knows no epochs
            "epoch_paper": paper.get("epoch", pd.NA),
            "measure": name,
            **_scores_of(rows, measure, paper.get(measure, ()), settings),
        }
        for measure, name in published.MEASURE_NAMES.items()
    ]


def _score_table(scores, methods, paper, caption, settings, records=None) -> Table:
    """Assemble a table of (model, epochs) pairs; `paper` maps the pair's model to its values."""
    rows, parts, missing = [], [], []
    for model, epochs in methods:
        part = select(scores, model, epochs)
        if len(part):
            rows += _method_rows(part, model, paper.get(model, {}), settings, records)
            parts.append(part)
        else:
            missing.append(published.METHOD_NAMES[model])
    frame = pd.DataFrame(rows)
    if rows:
        frame = frame.astype({"epoch": "Int64", "epoch_paper": "Int64"})
    notes = (*_size(parts), *_not_run(missing))
    return Table(frame, caption + scheme_note(settings), notes)


def scheme_note(settings: Settings) -> str:
    """Say, for the end of a caption, which classes there are, where they are not the paper's."""
    if settings.has_papers_classes:
        return ""
    names = ", ".join(settings.class_names)
    return f" Class scheme {settings.class_scheme}: {names}; as bone, all but the first two."


def _size(parts: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Say on how much the scores rest, once for each size that occurs."""
    sizes = dict.fromkeys((len(part), part["series"].nunique()) for part in parts)
    return tuple(
        f"{images} test slices of {series} series; counts pooled over all their pixels, then "
        "averaged over the classes; %, differences in percentage points."
        for images, series in sizes
    )


def _not_run(missing: Sequence[str]) -> tuple[str, ...]:
    return (f"Not run: {', '.join(missing)}.",) if missing else ()


def _random_encoders(models: Sequence[str], records: dict) -> tuple[str, ...]:
    names = [
        published.METHOD_NAMES[model]
        for model in models
        if records.get(model, {}).get("encoder_weights") == "random"
    ]
    note = "started from a random encoder; the paper's was trained on ImageNet."
    return (f"{' and '.join(names)} {note}",) if names else ()


LEAST_BONE = 0.1  # of the reference's pixels: enough for a surface
BASELINE_NOTE = "The threshold baseline is this project's; the paper has none."
NO_BASELINE_NOTE = "The threshold baseline tells no bone from another, so it has no scores here."
LACKS_A_CLASS = "A class that a series lacks has no score, or 0 where it is predicted nevertheless."


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
    notes = (*table.notes, BASELINE_NOTE if baseline else NO_BASELINE_NOTE)
    return Table(table.frame, table.caption, notes)


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
        rows.append({"name": method_name(model)} | _compare(values, paper))
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
    return Table(frame, caption, (*notes, *_not_run(missing)), decimals=1)


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
    notes = (*table.notes, *_random_encoders(TABLE3_MODELS, records))
    return Table(table.frame, table.caption, notes)


def best_model(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame] | None = None
) -> tuple[str, str]:
    """Return the best model of Table 3 and the rule that chose it.

    The best mean IoU on the validation series decides, so that the test series choose
    nothing; where a history is missing, the pooled mean IoU on the test series. Networks
    of Table 1 stand in where none of Table 3 was run. Raises ValueError without scores.
    """
    scored = set(scores["model"])
    models = [model for model in TABLE3_MODELS if model in scored]
    models = models or [model for model in TABLE1_MODELS if model in scored]
    if not models:
        raise ValueError("no network has scores yet: run the evaluation notebook first")
    if histories and all(model in histories for model in models):
        values = {
            model: histories[model].head(settings.epochs_long)["val_mean_iou"].max()
            for model in models
        }
        rule = "best mean IoU on the validation series"
    else:
        values = {model: pooled(select(scores, model), "iou")[0] for model in models}
        rule = "best mean IoU on the test series, for want of training histories"
    return max(values, key=values.get), rule


def network_with_bone(
    scores: pd.DataFrame, settings: Settings, histories: dict[str, pd.DataFrame] | None = None
) -> tuple[str | None, str]:
    """Return the best model and why; None where that found next to no bone.

    A network that was trained for seconds may find none, and specks have no surface.
    """
    model, rule = best_model(scores, settings, histories)
    pixels = counts(select(scores, model)).sum(axis=0)
    if pixels[:, BONE:].sum() >= LEAST_BONE * pixels[BONE:].sum():
        return model, rule
    return None, f"{published.METHOD_NAMES[model]}, with the {rule}, found next to no bone"


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
                **_compare({"images": len(part)}, paper),
                **_scores_of(part, "iou", paper.get("iou", ()), settings),
            }
            for (name, part), paper in lines
        ]
    ).astype({f"images{suffix}": "Int64" for suffix in ("", "_paper", "_difference")})
    paper_model = published.METHOD_NAMES[published.TABLE4_MODEL]
    notes = (
        f"Ours: {method_name(model, records)}, {rule}, best of {rows['epochs'].iloc[0]} epochs. "
        f"Paper: {paper_model}.",
        "Our series are not the paper's; they stand beside its sets by order alone.",
        *_size([rows]),
        *((LACKS_A_CLASS,) if frame["mean"].isna().any() else ()),
    )
    caption = f"{title}, {method_name(model, records)}.{scheme_note(settings)}"
    return Table(frame, caption, notes)


def _methods(scores: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the (model, epochs) pairs that have scores, in the paper's order."""
    found = set(zip(scores["model"], scores["epochs"], strict=True))
    order = list(published.METHOD_NAMES)
    return sorted(found, key=lambda method: (order.index(method[0]), method[1]))


def _paper_of(model: str, epochs: int, settings: Settings) -> dict:
    """Return the paper's row for a model at one of its two horizons."""
    if epochs == settings.epochs and model in published.TABLE1:
        return published.TABLE1[model]
    return published.TABLE3.get(model, {}) if epochs == settings.epochs_long else {}


def per_image_table(
    scores: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return the spread of bone IoU over single test slices (section 5.3 quotes U-net's).

    Classes of bone count as one.
    """
    rows = []
    for model, epochs in _methods(scores):
        values = bone_iou(select(scores, model, epochs))
        known = values[~np.isnan(values)]
        if not known.size:
            continue
        ours = {
            "minimum": known.min(),
            "maximum": known.max(),
            "mean": known.mean(),
            "standard_deviation": known.std(),
        }
        is_papers = model == "unet" and epochs == settings.epochs
        rows.append(
            {
                "name": method_name(model, records),
                "epochs": int(epochs),
                "images": len(known),
                "without_bone": len(values) - len(known),
                **_compare(
                    {name: round(value, 2) for name, value in ours.items()},
                    published.UNET_IMAGES if is_papers else {},
                ),
            }
        )
    notes = (
        "Slices without bone in both reference and prediction have no IoU and are left out; "
        "'without bone' counts them. Bone predicted where there is none scores 0.",
        "Standard deviation over slices, of the population (divided by n).",
    )
    caption = f"Bone IoU of single test slices, %.{scheme_note(settings)}"
    return Table(pd.DataFrame(rows), caption, notes if rows else ("Not run.",))


def native_table(
    scores: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return the scores on each scan's own grid, beside the paper's."""
    rows, parts = [], []
    for model, epochs in _methods(scores):
        part = select(scores, model, epochs, "native")
        if len(part):
            paper = _paper_of(model, epochs, settings)
            lines = _method_rows(part, model, paper, settings, records)
            rows += [{"name": line.pop("name"), "epochs": int(epochs), **line} for line in lines]
            parts.append(part)
    frame = pd.DataFrame(rows)
    if rows:
        frame = frame.astype({"epoch": "Int64", "epoch_paper": "Int64"})
    notes = ("The paper does not say on which grid it scored.", *_size(parts))
    caption = f"Scores on the native grid.{scheme_note(settings)}"
    return Table(frame, caption, notes if rows else ("Not run.",))
