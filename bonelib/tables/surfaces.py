"""How far surfaces lie apart, in millimetres."""

import pandas as pd

from bonelib.evaluation.scoring import methods
from bonelib.tables.rows import framed, method_keys
from bonelib.tables.table import Table

DISTANCES = ("assd_mm", "hd95_mm")
SHARES = ("nsd_1mm", "nsd_2mm")
BEST = dict.fromkeys(DISTANCES, min) | dict.fromkeys(SHARES, max)
NOTES = (
    "In three dimensions, on each series as a whole, with its own spacing. ASSD: mean distance of "
    "both surfaces to each other. HD95: the larger 95th percentile of either direction. NSD: share "
    "of both surfaces within 1 or 2 mm of the other, by voxels; larger ones have to be the same.",
    "A structure that is missed or invented counts as worst: the diagonal of the series for both "
    "distances, 0 % for both shares. One that neither side has does not count.",
)


def surface_table(surfaces: pd.DataFrame, records: dict[str, dict] | None = None) -> Table:
    """Return each method's surface scores, means over the test series."""
    rows = []
    for structure, part in surfaces.groupby("structure", sort=False):
        for model, epochs in methods(part):
            here = part[(part["model"] == model) & (part["epochs"] == epochs)]
            states = here["state"].value_counts()
            rows.append(
                {
                    **method_keys(model, epochs, records),
                    "structure": _name(structure),
                    **_scores(here).mean().round(2),
                    "series": len(here) - states.get("absent", 0),
                    "missed": states.get("missed", 0),
                    "invented": states.get("invented", 0),
                }
            )
    bold = "Bold: the best of a column and structure, the baseline included."
    return Table(
        framed(rows, "epochs"),
        "Distances between the surfaces of prediction and reference, means over the test series.",
        (*NOTES, bold) if rows else ("Not run.",),
        blocks="structure" if rows else "",
        best=BEST,
    )


def surface_series_table(surfaces: pd.DataFrame, model: str, name: str) -> Table:
    """Return the surface scores of one model at its longest horizon, series by series."""
    rows = surfaces[surfaces["model"] == model]
    rows = rows[rows["epochs"] == rows["epochs"].max()]
    frame = pd.concat([rows[["series", "structure", "state"]], _scores(rows).round(2)], axis=1)
    frame["structure"] = frame["structure"].map(_name)
    frame = frame.sort_values(["structure", "series"], ignore_index=True)
    return Table(
        frame,
        f"Distances between the surfaces of prediction and reference, series by series: {name}.",
        NOTES if len(rows) else ("Not run.",),
        blocks="structure" if len(rows) else "",
    )


def _name(structure: str) -> str:
    return "Outline of the patient" if structure == "patient" else structure.capitalize()


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the distances in mm and the shares in %."""
    scores = rows[[*DISTANCES, *SHARES]].astype(float)
    scores[list(SHARES)] *= 100
    return scores
