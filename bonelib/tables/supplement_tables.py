"""Tables beyond the paper: single images, native grid, comparisons, surfaces, errors, ablations."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bonelib import metrics, published
from bonelib.evaluation import statistics, variants
from bonelib.evaluation.error_analysis import BINS, CAUSES, expected_calibration_error
from bonelib.evaluation.scoring import bone_iou, method_name, methods, pooled_bone_iou
from bonelib.paths import ResultFolder
from bonelib.settings import BONE, Settings
from bonelib.tables.paper_tables import (
    Records,
    beside_paper,
    interval_note,
    method_rows,
    notes_on,
    score_notes,
)
from bonelib.tables.render import Table, made, shared

ALPHA = 1 - statistics.CONFIDENCE
SHARES = ["nsd_1mm", "nsd_2mm"]

PRINTED_OF_PAIRS = [
    "first", "against", "difference", "difference_low", "difference_high", "median_difference",
    "effect", "p_holm", "won", "result",
]  # fmt: skip


def by_method(frame: pd.DataFrame, records: Records) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Yield for each method and horizon the columns that name it, and its rows."""
    for model, epochs in methods(frame):
        names = {"name": method_name(model, records), "epochs": int(epochs) or pd.NA}
        yield names, frame[(frame["model"] == model) & (frame["epochs"] == epochs)]


def per_image_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the spread of the IoU of all bone over test slices (section 5.3 quotes U-net's)."""
    rows = []
    for names, part in by_method(scores[scores["resolution"] == "input"], records):
        values = pd.Series(bone_iou(part))
        ours = {
            "minimum": round(values.min(), 2),
            "maximum": round(values.max(), 2),
            "mean": round(values.mean(), 2),
            "standard_deviation": round(values.std(ddof=0), 2),
        }
        is_papers = part["model"].iloc[0] == "unet" and names["epochs"] == settings.epochs
        sizes = {"images": values.count(), "without_bone": values.isna().sum()}
        rows.append(names | sizes | beside_paper(ours, published.UNET_IMAGES if is_papers else {}))
    return made("per_image", rows, {})


def native_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the scores on each network's own output grid, beside the paper's."""
    papers = {settings.epochs_long: published.TABLE3}
    papers[settings.epochs] = papers.get(settings.epochs, {}) | published.TABLE1
    rows, parts = [], []
    for names, part in by_method(scores[scores["resolution"] == "native"], records):
        model, epochs = part[["model", "epochs"]].iloc[0]
        paper = papers.get(epochs, {}).get(model, {})
        rows += [names | row for row in method_rows(part, model, paper, settings, records)]
        parts.append(part)
    return made(
        "native",
        rows,
        {},
        score_notes(parts),
        blocks="measure",
        best=dict.fromkeys(("mean", *settings.class_names), max),
        unprinted=("epoch", "epoch_paper"),
    )


def comparison_table(scores: pd.DataFrame, records: Records) -> Table:
    """Return every pair of methods at the horizons of Tables 1 and 3, by bone IoU."""
    scores = scores[scores["resolution"] == "input"]
    pairs = statistics.comparisons(scores, methods(scores))
    for column, side in (("first", "a"), ("against", "b")):
        epochs = pairs[f"epochs_{side}"].map(lambda epochs: f", {epochs} epochs" if epochs else "")
        pairs[column] = pairs[f"model_{side}"].map(method_name) + epochs
    pairs["won"] = pairs["series_won"].astype(str) + " of " + pairs["series"].astype(str)
    is_sure = pairs["p_holm"] < ALPHA
    is_better = is_sure & (pairs["difference_low"] > 0) & (pairs["effect"] > 0)
    is_worse = is_sure & (pairs["difference_high"] < 0) & (pairs["effect"] < 0)
    pairs["result"] = np.select([is_better, is_worse], ["better", "worse"], "unclear")
    csv_only = [name for name in statistics.COMPARISON_COLUMNS if name not in PRINTED_OF_PAIRS]
    return made(
        "comparisons",
        pairs[[*PRINTED_OF_PAIRS, *csv_only]].to_dict("records"),
        {"pairs": len(pairs), "alpha": 100 * ALPHA},
        [interval_note(scores["series"].nunique()), *notes_on(records=records)],
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
            rows.append(
                {
                    **names,
                    "structure": structure,
                    **here[[*metrics.SURFACE_SCORES]].mean().round(2),
                    "series": len(here) - states.get("absent", 0),
                    "missed": states.get("missed", 0),
                    "invented": states.get("invented", 0),
                }
            )
    best = dict.fromkeys(metrics.SURFACE_SCORES, min) | dict.fromkeys(SHARES, max)
    wrong = [
        f"{row['structure']} by {row['name']}" for row in rows if row["missed"] + row["invented"]
    ]
    notes = [shared("wrong", names="; ".join(dict.fromkeys(wrong)))] if wrong else []
    return made(
        "surfaces", rows, {}, [*notes, shared("best")], blocks="structure", best=best,
        unprinted=_repeated(rows),
    )  # fmt: skip


def surface_series_table(surfaces: pd.DataFrame, model: str | None) -> Table:
    """Return the surface scores of a model, that of Table 4, series by series."""
    rows = _readable(surfaces[surfaces["model"] == model])
    rows = rows[rows["epochs"] == rows["epochs"].max()].sort_values(["structure", "series"])
    rows = rows[["series", "structure", "state", *metrics.SURFACE_SCORES]].round(2)
    rows = rows.to_dict("records")
    return made("surfaces_series", rows, {}, blocks="structure", unprinted=_repeated(rows))


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
        scored = {level: round(pooled_bone_iou(here), 2) for level, here in levels.items()}
        rows.append(names | scored)
    sizes = slices["level"].value_counts(sort=False)
    words = {"slices": ", ".join(f"{level} {number}" for level, number in sizes.items())}
    best = dict.fromkeys((*sizes.index, "all"), max)
    return made("levels", rows, words, [shared("best")], best=best)


def calibration_table(reliability: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the expected calibration error of each network."""
    rows, errors = [], {}
    for names, part in by_method(reliability, records):
        of_class = {name: part[part["class"] == name] for name in settings.class_names}
        bones = {name: of_class[name] for name in settings.class_names[BONE:]}
        unsure = {f"{name}_beyond_first_bin": one[one["bin"] > 0] for name, one in bones.items()}
        errors = {name: expected_calibration_error(one) for name, one in (bones | unsure).items()}
        errors["ece"] = np.mean([expected_calibration_error(one) for one in of_class.values()])
        rows.append(names | {name: round(error, 3) for name, error in errors.items()})
    words = {"bins": BINS, "first_bin": 100 / BINS}
    best = dict.fromkeys(errors, min)
    return made("calibration", rows, words, [shared("best")], decimals=3, best=best)


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
    return made("false_bone", rows, {}, [shared("best")], decimals=1, best={"ml": min})


def ablation_table(results: ResultFolder, settings: Settings) -> Table:
    """Return the scores of each variant beside those of the run's own settings.

    One row per network, variant and measure: the scores of the replicates in %, their mean and
    sample standard deviation, the difference from the mean of the run's own settings, and
    whether it is larger than both standard deviations.
    """
    scores = variants.read_ablations(results, settings)
    known = {variant.name: variant for variant in variants.VARIANTS}
    rows = []
    for (model, name), part in scores.groupby(["model", "variant"], sort=False):
        own = scores[(scores["model"] == model) & (scores["variant"] == variants.OWN.name)]
        for measure, title in {"bone": "IoU of bone", "mean": "mean IoU"}.items():
            values = part.set_index("replicate")[measure]
            difference, beyond = np.nan, ""
            if name != variants.OWN.name:
                difference = values.mean() - own[measure].mean()
                spread = np.fmax(values.std(), own[measure].std())
                beyond = "" if np.isnan(spread) else "yes" if abs(difference) > spread else "no"
            trainings = values.reindex(range(variants.REPLICATES))
            rows.append(
                {
                    "name": method_name(model),
                    "setting": known[name].title,
                    "measure": title,
                    **{f"training_{index + 1}": value for index, value in trainings.items()},
                    "mean": round(values.mean(), 2),
                    "spread": round(values.std(), 2),
                    "difference": round(difference, 2),
                    "beyond_spread": beyond,
                }
            )
    questions = [
        f"'{known[name].title}': {known[name].question} Open because {known[name].reason}."
        for name in scores["variant"].unique()
    ]
    words = {"epochs": settings.epochs_long, "replicates": variants.REPLICATES}
    return made("ablations", rows, words, questions, blocks="name")
