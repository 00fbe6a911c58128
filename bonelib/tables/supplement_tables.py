"""Tables beyond the paper: single images, native grid, comparisons, surfaces, errors, ablations."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from bonelib import published
from bonelib.evaluation import statistics, variants
from bonelib.evaluation.error_analysis import BINS, CAUSES, expected_calibration_error
from bonelib.evaluation.scoring import (
    best_model,
    bone_iou,
    method_name,
    methods,
    pooled_bone_iou,
)
from bonelib.evaluation.variants import OWN, REPLICATES, VARIANTS, Variant
from bonelib.paths import ResultFolder
from bonelib.settings import BONE, Settings
from bonelib.tables.paper_tables import (
    BEST_NOTE,
    Records,
    beside_paper,
    framed,
    interval_note,
    method_rows,
    random_encoders,
    scheme_note,
    score_notes,
)
from bonelib.tables.render import Table

ALPHA = 1 - statistics.CONFIDENCE

DISTANCES, SHARES = ["assd_mm", "hd95_mm"], ["nsd_1mm", "nsd_2mm"]
SURFACE_NOTES = (
    "Measured in three dimensions on each series, with its own spacing. ASSD: mean distance of the "
    "surfaces. HD95: the larger 95th percentile of the two directions. NSD: share of both surfaces "
    "within 1 or 2 mm of the other, by voxels; coarser voxels must coincide.",
    "A missed or invented structure gets the worst scores: the diagonal of the series as both "
    "distances, 0 % as both shares. A structure absent from both sides is left out.",
)

NATIVE = Variant(
    "native_grid",
    "scored on the native grid",
    "Does it matter on which grid the scores are taken?",
    "the paper does not say, and its networks' outputs are not as large as their inputs",
)


def made(rows: Iterable[dict], caption: str, notes: Iterable[str], **options) -> Table:
    """Return a table of rows, or one that says that it was not run."""
    frame = framed(rows)
    return Table(frame, caption, ("Not run.",) if frame.empty else tuple(notes), **options)


def by_method(frame: pd.DataFrame, records: Records) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Yield for each method and horizon the columns that name it, and its rows."""
    for model, epochs in methods(frame):
        names = {"name": method_name(model, records), "epochs": int(epochs) or pd.NA}
        yield names, frame[(frame["model"] == model) & (frame["epochs"] == epochs)]


def per_image_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the spread of the IoU of all bone over test slices (section 5.3 quotes U-net's)."""
    rows = []
    for names, part in by_method(scores[scores["resolution"] == "input"], records):
        values = bone_iou(part)
        known = values[~np.isnan(values)]
        if not known.size:
            continue
        ours = {
            "minimum": round(known.min(), 2),
            "maximum": round(known.max(), 2),
            "mean": round(known.mean(), 2),
            "standard_deviation": round(known.std(), 2),
        }
        is_papers = part["model"].iloc[0] == "unet" and names["epochs"] == settings.epochs
        sizes = {"images": len(known), "without_bone": len(values) - len(known)}
        rows.append(names | sizes | beside_paper(ours, published.UNET_IMAGES if is_papers else {}))
    notes = (
        "Slices without bone in both reference and prediction have no IoU and are left out; "
        "'without bone' counts them. Bone predicted where there is none scores 0.",
        "Standard deviation over slices, of the population (divided by n).",
    )
    return made(rows, f"Bone IoU of single test slices, %.{scheme_note(settings)}", notes)


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
        rows,
        f"Scores on the native grid.{scheme_note(settings)}",
        ("The paper does not say on which grid it scored.", *score_notes(parts), BEST_NOTE),
        blocks="measure",
        best=dict.fromkeys(("mean", *settings.class_names), max),
        unprinted=("epoch", "epoch_paper"),
    )


def comparison_table(scores: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return every pair of methods at the horizons of Tables 1 and 3, by bone IoU."""
    caption = (
        f"All pairs of methods by bone IoU on the same test slices.{scheme_note(settings)} "
        "Difference: pooled bone IoU of the first method minus that of the second, in percentage "
        "points. Effect: matched-pairs rank-biserial correlation over slices; 1 where the first "
        "method is better on every slice, −1 where it is worse on every slice."
    )
    scores = scores[scores["resolution"] == "input"]
    pairs = statistics.comparisons(scores, methods(scores))
    if pairs.empty:
        return Table(pd.DataFrame(), caption, ("Not run: it takes two methods.",))
    names = {
        (model, epochs): method_name(model) + (f", {epochs} epochs" if epochs else "")
        for model, epochs in methods(scores)
    }
    first = [names[pair] for pair in zip(pairs["model_a"], pairs["epochs_a"], strict=True)]
    against = [names[pair] for pair in zip(pairs["model_b"], pairs["epochs_b"], strict=True)]
    won = pairs["series_won"].astype(str) + " of " + pairs["series"].astype(str)
    is_sure = pairs["p_holm"] < ALPHA
    is_better = is_sure & (pairs["difference_low"] > 0) & (pairs["effect"] > 0)
    is_worse = is_sure & (pairs["difference_high"] < 0) & (pairs["effect"] < 0)
    result = np.select([is_better, is_worse], ["better", "worse"], "unclear")
    frame = pairs.assign(first=first, against=against, won=won, result=result)
    printed = [
        "first", "against", "difference", "difference_low", "difference_high",
        "median_difference", "effect", "p_holm", "won", "result",
    ]  # fmt: skip
    csv_only = [name for name in pairs.columns if name not in printed]
    slices = " or ".join(map(str, sorted(set(pairs["slices"]))))
    reasons = sorted(set(pairs["reason"]) - {""})
    notes = (
        f"p: two-sided Wilcoxon signed-rank test on {slices} slices, with Holm's correction for "
        f"{len(pairs)} pairs. A slice without bone in reference and prediction counts as 100 %. "
        "Slices of one patient are not independent: the test finds differences too easily.",
        f"Better or worse: p is below {100 * ALPHA:.0f} % and the interval excludes 0; else "
        "unclear.",
        f"A test on whole series cannot reach {100 * ALPHA:.0f} % here ({'; '.join(reasons)}), so "
        "the table counts the series won: the first method has the higher pooled bone IoU."
        if reasons
        else "p_series in the CSV: the same test on the pooled bone IoU of each series.",
        interval_note([scores]),
        *random_encoders(sorted(set(scores["model"])), records),
    )
    return Table(
        frame[[*printed, *csv_only]],
        caption,
        notes,
        blocks="first",
        formats={"p_holm": lambda p: "<0.001" if p < 0.001 else f"{p:.3f}"},
        unprinted=tuple(csv_only),
    )


def surface_table(surfaces: pd.DataFrame, records: Records) -> Table:
    """Return each method's surface scores, means over the test series."""
    rows = []
    for structure, part in surfaces.groupby("structure", sort=False):
        for names, here in by_method(part, records):
            states = here["state"].value_counts()
            rows.append(
                {
                    **names,
                    "structure": _structure_name(structure),
                    **_in_percent(here)[[*DISTANCES, *SHARES]].mean().round(2),
                    "series": len(here) - states.get("absent", 0),
                    "missed": states.get("missed", 0),
                    "invented": states.get("invented", 0),
                }
            )
    return made(
        rows,
        "Distances between the surfaces of prediction and reference, means over the test series.",
        (*SURFACE_NOTES, "Bold: the best of a column and structure, the baseline included."),
        blocks="structure",
        best=dict.fromkeys(DISTANCES, min) | dict.fromkeys(SHARES, max),
    )


def surface_series_table(
    surfaces: pd.DataFrame,
    scores: pd.DataFrame,
    records: Records,
    settings: Settings,
    histories: dict[str, pd.DataFrame] | None = None,
) -> Table:
    """Return the surface scores of the model of Table 4, series by series."""
    try:
        model, _ = best_model(scores, settings, histories)
    except ValueError:
        model = ""
    rows = _in_percent(surfaces[surfaces["model"] == model])
    rows = rows[rows["epochs"] == rows["epochs"].max()]
    rows["structure"] = rows["structure"].map(_structure_name)
    rows = rows[["series", "structure", "state", *DISTANCES, *SHARES]].round(2)
    return made(
        rows.sort_values(["structure", "series"]).to_dict("records"),
        "Distances between the surfaces of prediction and reference, series by series: "
        f"{method_name(model, records)}.",
        SURFACE_NOTES,
        blocks="structure",
    )


def _structure_name(structure: str) -> str:
    return "Outline of the patient" if structure == "patient" else structure.capitalize()


def _in_percent(surfaces: pd.DataFrame) -> pd.DataFrame:
    """Return surface scores with shares in %."""
    scores = surfaces.astype(dict.fromkeys((*DISTANCES, *SHARES), float))
    scores[SHARES] *= 100
    return scores


def level_table(
    scores: pd.DataFrame, slices: pd.DataFrame, settings: Settings, records: Records
) -> Table:
    """Return the bone IoU of each method at each level of the pelvis, from feet to head."""
    placed = scores[scores["resolution"] == "input"].merge(
        slices[["series", "slice", "level"]], on=["series", "slice"]
    )
    rows = []
    for names, part in by_method(placed, records):
        levels = dict(list(part.groupby("level", observed=False))) | {"all": part}
        rows.append(
            names | {level: round(pooled_bone_iou(here), 2) for level, here in levels.items()}
        )
    sizes = slices["level"].value_counts(sort=False)
    return made(
        rows,
        f"Bone IoU by level of the pelvis, from feet to head, %.{scheme_note(settings)}",
        (
            "Counts pooled over all slices of a level. Bold: the best of a column, the baseline "
            "included.",
            f"Test slices: {', '.join(f'{level} {number}' for level, number in sizes.items())}.",
        ),
        best=dict.fromkeys((*sizes.index, "all"), max),
    )


def calibration_table(reliability: pd.DataFrame, settings: Settings, records: Records) -> Table:
    """Return the expected calibration error of each network."""
    rows, errors = [], {}
    for names, part in by_method(reliability, records):
        of_class = {name: part[part["class"] == name] for name in settings.class_names}
        every = [expected_calibration_error(one) for one in of_class.values()]
        bones = {name: of_class[name] for name in settings.class_names[BONE:]}
        unsure = {f"{name}_beyond_first_bin": one[one["bin"] > 0] for name, one in bones.items()}
        errors = {name: expected_calibration_error(one) for name, one in (bones | unsure).items()}
        errors["ece"] = np.mean(every)
        rows.append(names | {name: round(error, 3) for name, error in errors.items()})
    return made(
        rows,
        f"Expected calibration error (ECE), %: bone, and all classes.{scheme_note(settings)}",
        (
            "ECE: gap between the mean probability and the share of pixels of the class in a bin, "
            f"averaged over {BINS} bins, weighted by pixels. All classes: mean over the classes. "
            f"Beyond first bin: pixels with a probability above {100 / BINS:.0f} % only, since "
            "most pixels are obviously no bone.",
            "Bold: the best of a column. The baseline has no probabilities.",
        ),
        decimals=3,
        best=dict.fromkeys(errors, min),
    )


def false_bone_table(
    false_bone: pd.DataFrame, scores: pd.DataFrame, slices: pd.DataFrame, records: Records
) -> Table:
    """Return the volume of false bone of each method and the share of each cause."""
    spacing_mm = slices["spacing"].str.split(expand=True).astype(float)
    voxels = slices.assign(voxel_ml=spacing_mm.prod(axis=1, skipna=False) / 1000)
    placed = false_bone.merge(voxels, on=["series", "slice"], how="left")
    placed["ml"] = placed["pixels"] * placed["voxel_ml"]
    unit = "pixels" if placed["ml"].isna().any() else "ml"
    rows = []
    for names, part in by_method(scores if len(false_bone) else scores.head(0), records):
        model, epochs = part["model"].iloc[0], part["epochs"].iloc[0]
        false = placed[(placed["model"] == model) & (placed["epochs"] == epochs)]
        total, by_cause = false[unit].sum(), false.groupby("cause")[unit].sum()
        shares = {
            cause: round(100 * by_cause.get(cause, 0) / total, 1) if total else np.nan
            for cause in CAUSES
        }
        rows.append({**names, unit: round(total, 1), **shares})
    return made(
        rows,
        "False bone, and the share of each cause in it, %.",
        (
            "False-positive pixels of all test series. Place and grey level tell the cause: "
            "background of the reference (couch, cushions, markers on the skin); saturated grey; a "
            "few millimetres from bone; grey above the usual threshold of bone; all others.",
            "Bold: the least in total, the baseline included.",
        ),
        decimals=1,
        best={unit: min},
    )


def ablation_table(results: ResultFolder, settings: Settings) -> Table:
    """Return the scores of each variant beside those of the run's own settings.

    One row per network, variant and measure: the scores of the replicates in %, their mean and
    sample standard deviation, the difference from the mean of the run's own settings, and
    whether it is larger than both standard deviations.
    """
    caption = (
        f"Variants of the training, best of {settings.epochs_long} epochs: scores of "
        f"{REPLICATES} trainings each, which differ in their random numbers only."
    )
    scores = variants.read_ablations(results, settings)
    if scores.empty:
        note = "Not run: `python run_all.py --profile quick --ablations`."
        return Table(pd.DataFrame(), caption, (note,))
    # The native grid of the run's own trainings counts as a variant.
    is_native = scores["resolution"] == "native"
    scores.loc[is_native & (scores["variant"] == OWN.name), "variant"] = NATIVE.name
    scores = scores[~is_native | (scores["variant"] == NATIVE.name)]
    rows, shown = [], []
    for model, part in scores.groupby("model", sort=False):
        groups = dict(list(part.groupby("variant")))
        found = [one for one in (OWN, NATIVE, *VARIANTS[1:]) if one.name in groups]
        shown += [one for one in found if one not in shown]
        own = groups.get(OWN.name, part.head(0))
        for variant in found:
            rows += _ablation_rows(model, variant, groups[variant.name], own)
    random_encoder = VARIANTS[-1]
    rows += [
        {
            "name": method_name(model),
            "setting": random_encoder.title,
            "measure": "not run: no ImageNet weights here",
        }
        for model in random_encoder.models
        if model not in set(scores["model"])
        and not variants.starts_from_imagenet(results, model, settings)
    ]
    notes = (
        "%, counts pooled over all pixels of the test slices. Difference: from the mean of the "
        f"trainings {OWN.title}. Beyond spread: larger than both sample standard deviations, "
        "which is weak evidence with so few trainings.",
        *(f"{each.title[0].upper()}{each.title[1:]}: {each.question} Open because {each.reason}."
          for each in shown),
    )  # fmt: skip
    return Table(pd.DataFrame(rows), caption, notes, blocks="name", formats={"difference": _signed})


def _ablation_rows(
    model: str, variant: Variant, part: pd.DataFrame, own: pd.DataFrame
) -> Iterator[dict]:
    for measure, title in {"bone": "IoU of bone", "mean": "mean IoU"}.items():
        values = part.set_index("replicate")[measure]
        difference, beyond = np.nan, ""
        if variant != OWN:
            difference = values.mean() - own[measure].mean()
            spread = np.fmax(values.std(), own[measure].std())
            beyond = "" if np.isnan(spread) else "yes" if abs(difference) > spread else "no"
        yield {
            "name": method_name(model),
            "setting": variant.title,
            "measure": title,
            **{f"training_{one + 1}": values.get(one, np.nan) for one in range(REPLICATES)},
            "mean": round(values.mean(), 2),
            "spread": round(values.std(), 2),
            "difference": round(difference, 2),
            "beyond_spread": beyond,
        }


def _signed(points: float) -> str:
    return "" if np.isnan(points) else f"{points:+.2f}".replace("-", "−")
