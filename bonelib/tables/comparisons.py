"""Every pair of methods on the same slices: which is better, and how sure that is."""

import pandas as pd

from bonelib.evaluation import statistics
from bonelib.evaluation.scoring import method_name, methods
from bonelib.settings import Settings
from bonelib.tables.rows import interval_note, random_encoders, scheme_note
from bonelib.tables.table import Table

ALPHA = 1 - statistics.CONFIDENCE
LEVEL = f"{100 * ALPHA:.0f} %"

CSV_ONLY = (
    "model_a", "epochs_a", "model_b", "epochs_b", "slices", "p", "series", "series_won",
    "series_lost", "p_series", "reason",
)  # fmt: skip


def comparison_table(
    scores: pd.DataFrame, settings: Settings, records: dict[str, dict] | None = None
) -> Table:
    """Return every pair of methods at the horizons of Tables 1 and 3, by bone IoU."""
    caption = (
        f"All pairs of methods by bone IoU on the same test slices.{scheme_note(settings)} "
        "Difference: of the pooled bone IoU, the heading's method less that of the row, in "
        "percentage points. Effect: matched-pairs rank-biserial correlation of the slices; 1 where "
        "the heading's method is better on every slice, −1 where it is worse on every slice."
    )
    scores = scores[scores["resolution"] == "input"]
    pairs = statistics.comparisons(scores, methods(scores))
    if pairs.empty:
        return Table(pd.DataFrame(), caption, ("Not run: it takes two methods.",))
    names = {
        method: method_name(method[0]) + (f", {method[1]} epochs" if method[1] else "")
        for method in methods(scores)
    }
    frame = pairs.assign(
        first=[names[key] for key in zip(pairs["model_a"], pairs["epochs_a"], strict=True)],
        against=[names[key] for key in zip(pairs["model_b"], pairs["epochs_b"], strict=True)],
        won=[f"{pair.series_won} of {pair.series}" for pair in pairs.itertuples()],
        result=[_result(pair) for pair in pairs.itertuples()],
    )
    printed = [
        "first", "against", "difference", "difference_low", "difference_high",
        "median_difference", "effect", "p_holm", "won", "result",
    ]  # fmt: skip
    notes = (
        f"p: Wilcoxon's signed-rank test on {' or '.join(map(str, sorted(set(pairs['slices']))))} "
        f"slices, two-sided, with Holm's correction for {len(pairs)} pairs. A slice without bone "
        "in both reference and prediction counts as 100 %. The test takes slices as independent, "
        "which those of one patient are not: it finds differences too easily.",
        f"Better or worse: where p is below {LEVEL} and the interval, which knows that slices "
        "belong to series, leaves out 0; else unclear.",
        *_series_notes(pairs),
        interval_note([scores]),
        *random_encoders(sorted(set(scores["model"])), records or {}),
    )
    return Table(
        frame[[*printed, *CSV_ONLY]],
        caption,
        notes,
        blocks="first",
        formats={"p_holm": probability},
        unprinted=CSV_ONLY,
    )


def probability(value: float) -> str:
    """Write a p-value with three decimals."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _result(pair) -> str:
    """Return how the first of a pair is, by both the test and the interval."""
    if pair.p_holm < ALPHA:
        if pair.difference_low > 0 and pair.effect > 0:
            return "better"
        if pair.difference_high < 0 and pair.effect < 0:
            return "worse"
    return "unclear"


def _series_notes(pairs: pd.DataFrame) -> tuple[str, ...]:
    """Say what whole series tell: a test where there are enough, else how many were won."""
    reasons = sorted(set(pairs["reason"]) - {""})
    if not reasons:
        return ("p_series in the CSV: the same test on the series' pooled bone IoU.",)
    return (
        f"A test on whole series cannot reach {LEVEL} here ({'; '.join(reasons)}), so the "
        "table counts the series won: where the heading's method has the higher pooled bone IoU.",
    )
