"""Where and why methods err: levels of the pelvis, probabilities, false bone."""

import numpy as np
import pandas as pd

from bonelib.evaluation.error_analysis import BINS, CAUSES, expected_calibration_error
from bonelib.evaluation.scoring import methods, pooled_bone_iou, select
from bonelib.settings import BONE, Settings
from bonelib.tables.rows import framed, method_keys, scheme_note
from bonelib.tables.table import Table


def level_table(
    scores: pd.DataFrame,
    slices: pd.DataFrame,
    settings: Settings,
    records: dict[str, dict] | None = None,
) -> Table:
    """Return the bone IoU of each method at each level of the pelvis, from feet to head."""
    caption = f"Bone IoU by level of the pelvis, from feet to head, %.{scheme_note(settings)}"
    placed = scores[scores["resolution"] == "input"].merge(
        slices[["series", "slice", "level"]], on=["series", "slice"]
    )
    rows = []
    for model, epochs in methods(placed):
        part = select(placed, model, epochs)
        by_level = {
            level: round(pooled_bone_iou(rows_there), 2)
            for level, rows_there in part.groupby("level", observed=False)
        }
        rows.append(
            {
                **method_keys(model, epochs, records),
                **by_level,
                "all": round(pooled_bone_iou(part), 2),
            }
        )
    sizes = slices["level"].value_counts(sort=False)
    notes = (
        "Counts pooled over all slices of a level. Bold: the best of a column, the baseline "
        "included.",
        f"Test slices: {', '.join(f'{level} {number}' for level, number in sizes.items())}.",
    )
    return Table(
        framed(rows, "epochs"),
        caption,
        notes if rows else ("Not run.",),
        best=dict.fromkeys((*sizes.index, "all"), max),
    )


def calibration_table(
    reliability: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return the expected calibration error of each network."""
    names = settings.class_names
    rows = []
    for model, epochs in methods(reliability):
        part = reliability[(reliability["model"] == model) & (reliability["epochs"] == epochs)]
        errors = {
            name: expected_calibration_error(part[part["class"] == name]) for name in names[BONE:]
        }
        unsure = {
            f"{name}_beyond_first_bin": expected_calibration_error(
                part[(part["class"] == name) & (part["bin"] > 0)]
            )
            for name in names[BONE:]
        }
        every = np.mean([expected_calibration_error(part[part["class"] == name]) for name in names])
        values = {**errors, **unsure, "ece": every}
        rows.append(
            method_keys(model, epochs, records)
            | {name: round(value, 3) for name, value in values.items()}
        )
    columns = [name for name in (rows[0] if rows else ()) if name not in ("name", "epochs")]
    notes = (
        f"ECE: over {BINS} bins of equal width, the gap between a bin's mean probability and the "
        "share of its pixels that are of the class, averaged with the bins' pixels as weights; "
        "pixels of all test series together. Of all classes: the mean over the classes.",
        f"Most pixels are plainly no bone. Beyond first bin: the same over pixels whose "
        f"probability is above {100 / BINS:.0f} %.",
        "Bold: the best of a column. The baseline has no probabilities.",
    )
    return Table(
        framed(rows, "epochs"),
        f"Expected calibration error (ECE), %: bone, and all classes.{scheme_note(settings)}",
        notes if rows else ("Not run.",),
        decimals=3,
        best=dict.fromkeys(columns, min),
    )


def false_bone_table(
    false_bone: pd.DataFrame,
    scores: pd.DataFrame,
    slices: pd.DataFrame,
    records: dict[str, dict] | None = None,
) -> Table:
    """Return how much bone each method invents, and which share of it has which cause."""
    spacing_mm = slices["spacing"].str.split(expand=True).astype(float)
    voxels = slices.assign(voxel_ml=spacing_mm.prod(axis=1, skipna=False) / 1000)
    placed = false_bone.merge(voxels, on=["series", "slice"], how="left")
    placed["ml"] = placed["pixels"] * placed["voxel_ml"]
    unit = "pixels" if placed["ml"].isna().any() else "ml"
    rows = []
    for model, epochs in methods(scores):
        part = placed[(placed["model"] == model) & (placed["epochs"] == epochs)]
        total, by_cause = part[unit].sum(), part.groupby("cause")[unit].sum()
        shares = {
            cause: round(100 * by_cause.get(cause, 0) / total, 1) if total else np.nan
            for cause in CAUSES
        }
        rows.append({**method_keys(model, epochs, records), unit: round(total, 1), **shares})
    run = len(false_bone) > 0
    notes = (
        "Pixels that are called bone and are none in the reference, over all test series. Place "
        "and grey level tell the cause: background of the reference (couch, cushions, markers on "
        "the skin); saturated grey; within a few millimetres of bone; grey from the usual "
        "threshold of bone up; the rest.",
        "Bold: the least in all, the baseline included.",
    )
    return Table(
        framed(rows if run else [], "epochs"),
        "False bone, and the share of each cause in it, %.",
        notes if run else ("Not run.",),
        decimals=1,
        best={unit: min},
    )
