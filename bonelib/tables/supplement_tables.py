"""Tables that the paper does not have."""

import numpy as np
import pandas as pd

from bonelib import published
from bonelib.evaluation.scoring import bone_iou, methods, select
from bonelib.settings import Settings
from bonelib.tables.paper_tables import paper_of
from bonelib.tables.rows import (
    BEST_NOTE,
    compare,
    framed,
    method_keys,
    method_rows,
    scheme_note,
    score_notes,
)
from bonelib.tables.table import Table


def per_image_table(
    scores: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return the spread of bone IoU over single test slices (section 5.3 quotes U-net's).

    Classes of bone count as one.
    """
    rows = []
    for model, epochs in methods(scores):
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
                **method_keys(model, epochs, records),
                "images": len(known),
                "without_bone": len(values) - len(known),
                **compare(
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
    return Table(framed(rows, "epochs"), caption, notes if rows else ("Not run.",))


def native_table(
    scores: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return the scores on each scan's own grid, beside the paper's."""
    rows, parts = [], []
    for model, epochs in methods(scores):
        part = select(scores, model, epochs, "native")
        if len(part):
            paper = paper_of(model, epochs, settings)
            lines = method_rows(part, model, paper, settings, records)
            rows += [{**method_keys(model, epochs, records), **line} for line in lines]
            parts.append(part)
    notes = ("The paper does not say on which grid it scored.", *score_notes(parts), BEST_NOTE)
    return Table(
        framed(rows, "epochs", "epoch", "epoch_paper"),
        f"Scores on the native grid.{scheme_note(settings)}",
        notes if rows else ("Not run.",),
        blocks="measure" if rows else "",
        best=dict.fromkeys(("mean", *settings.class_names), max),
        unprinted=("epoch", "epoch_paper") if rows else (),
    )
