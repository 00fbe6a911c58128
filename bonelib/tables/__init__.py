"""Scores -> the paper's tables and those of the supplement; `render` prints and writes them.

Every row has ours, the paper's and the difference where the paper has a value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bonelib import metrics, published
from bonelib.evaluation import scoring, statistics, variants
from bonelib.evaluation.error_analysis import BINS, CAUSES, expected_calibration_error
from bonelib.evaluation.scoring import SCORE_COLUMNS, method_name, named, pooled, select
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from bonelib.tables.render import (
    Records,
    Table,
    interval_note,
    made,
    notes_on,
    save,
    score_notes,
    shared,
)

__all__ = [
    "Table", "ablation_table", "all_tables", "save", "table1", "table2", "table3", "table4",
]  # fmt: skip

ALPHA = 1 - statistics.CONFIDENCE
BEST_SCORES = dict.fromkeys(SCORE_COLUMNS, max)
SHARES = ["nsd_1mm", "nsd_2mm"]
PRINTED_OF_PAIRS = [
    "first", "against", "difference", "difference_low", "difference_high", "median_difference",
    "effect", "p_holm", "won", "result",
]  # fmt: skip


def all_tables(
    results: ResultFolder, methods: Sequence[str], settings: Settings, data_note: str = ""
) -> dict[str, Table]:
    """Return every table of `methods` by its file name; missing results are shown as not run.

    `data_note`, from `bonelib.datasets.note`, becomes the last note of each table.
    """
    scores, surfaces, reliability, false_bone = (
        scoring.read_scores(results, methods, kind) for kind in scoring.COLUMNS
    )
    records = scoring.read_records(results, methods)
    best = scoring.best_model(scores, settings, scoring.read_histories(results, methods))
    slices = scoring.read_slices(results)
    tables = {
        "table1": table1(scores, settings),
        "table2": table2(records),
        "table3": table3(scores, records, settings),
        "table4": table4(scores, records, best),
        "per_image": per_image_table(scores, settings, records),
        "native": native_table(scores, settings, records),
        "comparisons": comparison_table(scores, records),
        "surfaces": surface_table(surfaces, records),
        "surfaces_series": surface_series_table(surfaces, best),
        "levels": level_table(scores, slices, records),
        "calibration": calibration_table(reliability, records),
        "false_bone": false_bone_table(false_bone, scores, slices, records),
        "ablations": ablation_table(results, settings),
    }
    notes = (data_note,) if data_note else ()
    return {name: replace(table, notes=(*table.notes, *notes)) for name, table in tables.items()}


# The paper's tables


def table1(scores: pd.DataFrame, settings: Settings) -> Table:
    """Return IoU, Dice and pixel accuracy of the five networks after the short training."""
    methods = dict.fromkeys(TABLE1_MODELS, settings.epochs) | {BASELINE: 0}
    words = {"epochs": settings.epochs, "papers_epochs": Settings.epochs}
    return score_table("table1", scores, methods, published.TABLE1, words, {})


def table2(records: Records) -> Table:
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
    return made("table2", rows, notes_on(missing), decimals=1, best={"milliseconds": min})


def table3(scores: pd.DataFrame, records: Records, settings: Settings) -> Table:
    """Return the scores of U-net and of its two backbones after the long training."""
    methods = dict.fromkeys(TABLE3_MODELS, settings.epochs_long)
    words = {"epochs": settings.epochs_long, "papers_epochs": Settings.epochs_long}
    return score_table("table3", scores, methods, published.TABLE3, words, records)


def table4(scores: pd.DataFrame, records: Records, model: str | None) -> Table:
    """Return the IoU of a model, the best on the validation series, on each test series."""
    rows = select(scores, model).sort_values(["series", "slice"])
    series = dict(list(rows.groupby("series")))
    papers = dict(zip(series, published.TABLE4, strict=False))
    papers["Combined"] = published.TABLE4_COMBINED
    table = [
        {
            "series": name,
            **beside_paper({"images": len(part)}, papers.get(name, {})),
            **scores_of(part, "iou", papers.get(name, {}).get("iou", ())),
        }
        for name, part in (series | {"Combined": rows} if series else {}).items()
    ]
    words = {
        "model": method_name(model, records),
        "epochs": rows["epochs"].max(),
        "papers_model": published.METHOD_NAMES[published.TABLE4_MODEL],
    }
    return made("table4", table, score_notes([rows]), words)


def score_table(
    name: str, scores: pd.DataFrame, methods: Mapping[str, int], paper: Mapping[str, dict],
    words: Mapping, records: Records,
) -> Table:  # fmt: skip
    """Return the scores of models after some epochs, `methods`, beside the `paper`'s."""
    parts = {model: select(scores, model, epochs) for model, epochs in methods.items()}
    run = {model: part for model, part in parts.items() if not part.empty}
    rows = [
        row
        for model, part in run.items()
        for row in method_rows(part, model, paper.get(model, {}), records)
    ]
    missing = [model for model in parts if model not in run]
    notes = score_notes(run.values()) + notes_on(missing, records)
    return made(name, rows, notes, words, blocks="measure", best=BEST_SCORES)


def method_rows(rows: pd.DataFrame, model: str, paper: dict, records: Records) -> list[dict]:
    """Return one row per measure for one method at one horizon."""
    return [
        {
            "name": method_name(model, records),
            "epoch": rows["epoch"].iloc[0] or pd.NA,  # the baseline has no epochs
            "epoch_paper": paper.get("epoch", pd.NA),
            "measure": name,
            **scores_of(rows, measure, paper.get(measure, ())),
        }
        for measure, name in published.MEASURE_NAMES.items()
    ]


def scores_of(rows: pd.DataFrame, measure: str, paper: Sequence[float]) -> dict:
    """Return scores and intervals by name, beside the paper's."""
    theirs = dict(zip(SCORE_COLUMNS, paper, strict=False))
    return beside_paper(named(pooled(rows, measure)), theirs, statistics.intervals(rows, measure))


def beside_paper(
    ours: dict, paper: dict, limits: Mapping[str, tuple[float, float]] | None = None
) -> dict:
    """Return our values with their limits, each beside the paper's and the difference."""
    row = {}
    for name, value in ours.items():
        row[name] = value
        if limits:
            row[f"{name}_low"], row[f"{name}_high"] = limits[name]
        row[f"{name}_paper"] = theirs = paper.get(name, np.nan)
        row[f"{name}_difference"] = round(value - theirs, 2)
    return row


# The supplement


def by_method(frame: pd.DataFrame, records: Records) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Yield for each method and horizon the columns that name it, and its rows."""
    for model, epochs in scoring.methods(frame):
        names = {"name": method_name(model, records), "epochs": int(epochs) or pd.NA}
        yield names, frame[(frame["model"] == model) & (frame["epochs"] == epochs)]


def per_image_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the spread of the IoU of bone over test slices (section 5.3 quotes U-net's)."""
    rows = []
    for names, part in by_method(scores[scores["resolution"] == "input"], records):
        values = pd.Series(scoring.bone_iou(part))
        found = values.min(), values.max(), values.mean(), values.std(ddof=0)
        ours = dict(zip(published.UNET_IMAGES, np.round(found, 2), strict=True))
        is_papers = part["model"].iloc[0] == "unet" and names["epochs"] == settings.epochs
        sizes = {"images": values.count(), "without_bone": values.isna().sum()}
        rows.append(names | sizes | beside_paper(ours, published.UNET_IMAGES if is_papers else {}))
    return made("per_image", rows)


def native_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the scores on each network's own output grid, beside the paper's."""
    papers = {settings.epochs_long: published.TABLE3}
    papers[settings.epochs] = papers.get(settings.epochs, {}) | published.TABLE1
    rows, parts = [], []
    for names, part in by_method(scores[scores["resolution"] == "native"], records):
        model, epochs = part[["model", "epochs"]].iloc[0]
        paper = papers.get(epochs, {}).get(model, {})
        rows += [names | row for row in method_rows(part, model, paper, records)]
        parts.append(part)
    return made(
        "native", rows, score_notes(parts), blocks="measure", best=BEST_SCORES,
        unprinted=("epoch", "epoch_paper"),
    )  # fmt: skip


def comparison_table(scores: pd.DataFrame, records: Records) -> Table:
    """Return every pair of methods at the horizons of Tables 1 and 3, by bone IoU."""
    scores = scores[scores["resolution"] == "input"]
    pairs = statistics.comparisons(scores, scoring.method_names(scores))
    pairs["won"] = pairs["series_won"].astype(str) + " of " + pairs["series"].astype(str)
    is_sure = pairs["p_holm"] < ALPHA
    is_better = is_sure & (pairs["difference_low"] > 0) & (pairs["effect"] > 0)
    is_worse = is_sure & (pairs["difference_high"] < 0) & (pairs["effect"] < 0)
    pairs["result"] = np.select([is_better, is_worse], ["better", "worse"], "unclear")
    csv_only = [name for name in statistics.COMPARISON_COLUMNS if name not in PRINTED_OF_PAIRS]
    return made(
        "comparisons",
        pairs[[*PRINTED_OF_PAIRS, *csv_only]].to_dict("records"),
        [interval_note(scores["series"].nunique()), *notes_on(records=records)],
        {"pairs": len(pairs), "alpha": 100 * ALPHA},
        blocks="first",
        formats={"p_holm": lambda p: "<0.001" if p < 0.001 else f"{p:.3f}"},
        unprinted=tuple(csv_only),
    )


def surface_table(surfaces: pd.DataFrame, records: Records) -> Table:
    """Return each method's surface scores, means over the test series."""
    rows = []
    for structure, part in _readable(surfaces).groupby("structure", sort=False):
        for names, here in by_method(part, records):
            states = here["state"].value_counts()
            means = here[[*metrics.SURFACE_SCORES]].mean().round(2)
            counts = {
                "series": len(here) - states.get("absent", 0),
                "missed": states.get("missed", 0),
                "invented": states.get("invented", 0),
            }
            rows.append(names | {"structure": structure, **means} | counts)
    wrong = [
        f"{row['structure']} by {row['name']}" for row in rows if row["missed"] + row["invented"]
    ]
    notes = [shared("wrong", names="; ".join(dict.fromkeys(wrong)))] if wrong else []
    best = dict.fromkeys(metrics.SURFACE_SCORES, min) | dict.fromkeys(SHARES, max)
    return made(
        "surfaces", rows, [*notes, shared("best")], blocks="structure", best=best,
        unprinted=_repeated(rows),
    )  # fmt: skip


def surface_series_table(surfaces: pd.DataFrame, model: str | None) -> Table:
    """Return the surface scores of a model, that of Table 4, series by series."""
    rows = _readable(surfaces[surfaces["model"] == model])
    rows = rows[rows["epochs"] == rows["epochs"].max()].sort_values(["structure", "series"])
    rows = rows[["series", "structure", "state", *metrics.SURFACE_SCORES]].round(2)
    rows = rows.to_dict("records")
    return made("surfaces_series", rows, blocks="structure", unprinted=_repeated(rows))


def _repeated(rows: list[dict]) -> tuple[str, ...]:
    """Return the narrower share if it equals the wider: voxels are coarser than both tolerances."""
    narrow, wide = SHARES
    return (narrow,) if all(row[narrow] == row[wide] for row in rows) else ()


def _readable(surfaces: pd.DataFrame) -> pd.DataFrame:
    """Return surface scores with shares in %, and the structure in words."""
    scores = surfaces.astype(dict.fromkeys(metrics.SURFACE_SCORES, float))
    scores[SHARES] *= 100
    structure = scores["structure"].replace("patient", "outline of the patient")
    return scores.assign(structure=structure.str.capitalize())


def level_table(scores: pd.DataFrame, slices: pd.DataFrame, records: Records) -> Table:
    """Return the bone IoU of each method at each level of the pelvis, from feet to head."""
    placed = scores[scores["resolution"] == "input"].merge(
        slices[["series", "slice", "level"]], on=["series", "slice"]
    )
    rows = []
    for names, part in by_method(placed, records):
        levels = dict(list(part.groupby("level", observed=False))) | {"all": part}
        scored = {level: round(scoring.pooled_bone_iou(one), 2) for level, one in levels.items()}
        rows.append(names | scored)
    sizes = slices["level"].value_counts(sort=False)
    words = {"slices": ", ".join(f"{level} {number}" for level, number in sizes.items())}
    best = dict.fromkeys((*sizes.index, "all"), max)
    return made("levels", rows, [shared("best")], words, best=best)


def calibration_table(reliability: pd.DataFrame, records: Records) -> Table:
    """Return the expected calibration error of each network."""
    rows, errors = [], {}
    for names, part in by_method(reliability, records):
        of_class = {name: part[part["class"] == name] for name in CLASS_NAMES}
        bone = of_class["bone"]
        parts = {"bone": bone, "bone_beyond_first_bin": bone[bone["bin"] > 0]}
        errors = {name: expected_calibration_error(one) for name, one in parts.items()}
        errors["ece"] = np.mean([expected_calibration_error(one) for one in of_class.values()])
        rows.append(names | {name: round(error, 3) for name, error in errors.items()})
    words, best = {"bins": BINS, "first_bin": 100 / BINS}, dict.fromkeys(errors, min)
    return made("calibration", rows, [shared("best")], words, decimals=3, best=best)


def false_bone_table(
    false_bone: pd.DataFrame, scores: pd.DataFrame, slices: pd.DataFrame, records: Records
) -> Table:
    """Return the volume of false bone of each method and the share of each cause."""
    voxel_mm3 = slices["spacing"].str.split(expand=True).astype(float).prod(axis=1)
    placed = false_bone.merge(slices.assign(voxel_mm3=voxel_mm3), on=["series", "slice"])
    placed["ml"] = (placed["pixels"] * placed["voxel_mm3"] / 1000).astype(float)
    rows = []
    for names, part in by_method(scores, records):
        is_its_own = (placed[["model", "epochs"]] == part[["model", "epochs"]].iloc[0]).all(axis=1)
        volume_ml = placed[is_its_own].groupby("cause")["ml"].sum().reindex(CAUSES, fill_value=0)
        shares = (100 * volume_ml / volume_ml.sum()).round(1)
        rows.append({**names, "ml": round(volume_ml.sum(), 1), **shares})
    return made("false_bone", rows, [shared("best")], decimals=1, best={"ml": min})


def ablation_table(results: ResultFolder, settings: Settings) -> Table:
    """Return the scores of each variant beside those of the run's own settings.

    One row per variant and measure: the scores of the replicates in %, their mean and
    sample standard deviation, the difference from the mean of the run's own settings, and
    whether it is larger than both standard deviations.
    """
    scores = variants.read_ablations(results, settings)
    known = {variant.name: variant for variant in variants.VARIANTS}
    own = scores[scores["variant"] == variants.OWN.name]
    rows = []
    for name, part in scores.groupby("variant", sort=False):
        for measure, title in {"bone": "IoU of bone", "mean": "mean IoU"}.items():
            values = part.set_index("replicate")[measure]
            difference = values.mean() - own[measure].mean()
            spread = np.fmax(values.std(), own[measure].std())
            beyond = "" if np.isnan(spread) else "yes" if abs(difference) > spread else "no"
            trainings = values.reindex(range(variants.REPLICATES))
            is_own = name == variants.OWN.name
            rows.append(
                {"setting": known[name].title, "measure": title}
                | {f"training_{index + 1}": value for index, value in trainings.items()}
                | {"mean": round(values.mean(), 2), "spread": round(values.std(), 2)}
                | {"difference": np.nan if is_own else round(difference, 2)}
                | {"beyond_spread": "" if is_own else beyond}
            )
    questions = [
        f"'{known[name].title}': {known[name].question} Open because {known[name].reason}."
        for name in scores["variant"].unique()
    ]
    words = {"epochs": settings.epochs_long, "replicates": variants.REPLICATES}
    return made("ablations", rows, questions, words, blocks="setting")
