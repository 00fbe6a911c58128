"""Score rows -> bootstrap intervals, differences, paired comparisons.

Slices of one series look alike, so the bootstrap has two stages (Davison & Hinkley 1997,
section 3.8): series are drawn with replacement, then slices within each. The seed is fixed,
and all methods meet the same resamples. The intervals cover the spread of patients and
slices, not that of trainings; with few series they are too narrow rather than too wide.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bonelib import metrics
from bonelib.evaluation import scoring
from bonelib.settings import BONE, Settings

CONFIDENCE = 0.95
RESAMPLES = 2000  # the ends are steady to about a twentieth of the interval's width
SEED = Settings.seed

COMPARISON_COLUMNS = (
    "first", "against", "model_a", "epochs_a", "model_b", "epochs_b", "slices", "difference",
    "difference_low", "difference_high", "median_difference", "p", "p_holm", "effect", "series",
    "series_won", "series_lost", "p_series", "reason",
)  # fmt: skip


def intervals(rows: pd.DataFrame, measure: str) -> dict[str, tuple[float, float]]:
    """Return the interval in % of the mean and of each class's score, by name.

    `rows` are score rows of one method, `measure` is a key of scoring.MEASURES. With a single
    series its slices are drawn alone; a single slice has no interval (NaN). Resamples that
    lack a class do not count for its interval.
    """
    return scoring.named(_limits(_resampled(_ordered(rows), measure)))


def difference(
    rows_a: pd.DataFrame, rows_b: pd.DataFrame, measure: str
) -> dict[str, tuple[float, float, float]]:
    """Return the scores of method a minus those of b, with the interval, in points, by name.

    Both meet the same resamples, so the difficulty of a slice cancels out. Raises ValueError
    where the methods were not scored on the same slices.
    """
    rows_a, rows_b = _ordered(rows_a), _ordered(rows_b)
    _check_same_slices(rows_a, rows_b)
    limits = _limits(_resampled(rows_a, measure) - _resampled(rows_b, measure))
    values = np.subtract(scoring.pooled(rows_a, measure), scoring.pooled(rows_b, measure))
    found = [(round(float(value), 2), *ends) for value, ends in zip(values, limits, strict=True)]
    return scoring.named(found)


def comparisons(scores: pd.DataFrame, names: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """Compare every pair of methods by IoU of bone; return one row per pair.

    `names` are the printed names of (model, epochs), as of `scoring.method_names`. Differences are
    a minus b in points: `difference` of the pooled IoU with its interval, `median_difference`
    over slices. `p` is from the two-sided Wilcoxon signed-rank test on
    slices, `p_holm` its Holm correction over all pairs, `effect` the matched-pairs
    rank-biserial correlation (Kerby 2014), -1 to 1. A slice without bone in reference and
    prediction counts as 100 %. Slices of one series are not independent, so the pooled IoU of
    each series is compared too: `series_won` and `series_lost` by a, and `p_series` of the same
    test, NaN with a `reason` where there are too few series to reach 5 %.
    """
    rows = {method: _ordered(scoring.select(scores, *method)) for method in names}
    bone = {method: _bone_scores(one) for method, one in rows.items()}
    pairs = []
    for a, b in combinations(names, 2):
        _check_same_slices(rows[a], rows[b])
        pair = (names[a], names[b], *a, *b)
        pair = dict(zip(COMPARISON_COLUMNS, pair, strict=False))
        pairs.append(pair | _compared(*(bone[a][part] - bone[b][part] for part in bone[a])))
    frame = pd.DataFrame(pairs, columns=COMPARISON_COLUMNS)
    frame["p_holm"] = multipletests(frame["p"].astype(float), method="holm")[1]
    return frame


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """Return p of the two-sided Wilcoxon signed-rank test and the rank-biserial effect.

    Differences of 0 split their ranks (zsplit). If all differences are 0, p is 1 and the
    effect 0.
    """
    if not differences.any():
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(differences))
    effect = (np.sign(differences) * ranks).sum() / ranks.sum()
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue), float(effect)


def _bone_scores(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return IoU in % of bone: pooled, of each resample, series and slice of ordered rows."""
    counts, sizes = scoring.counts(rows), _sizes(rows)
    parts = {
        "pooled": counts.sum(axis=0),
        "resamples": _drawn(counts, sizes),
        "series": np.add.reduceat(counts, np.cumsum((0, *sizes[:-1]))),
        "slices": counts,
    }
    return {name: _bone_iou(part) for name, part in parts.items()}


def _bone_iou(counts: np.ndarray) -> np.ndarray:
    """Return the bone IoU in % of counts; 100 where neither side has bone, NaN where unknown."""
    has_no_bone = counts[..., BONE, :].sum(axis=-1) + counts[..., BONE].sum(axis=-1) == 0
    return np.where(has_no_bone, 100.0, 100 * metrics.iou(counts)[..., BONE])


def _compared(pooled, resamples, series, slices) -> dict:
    """Return the columns of `comparisons` that depend on the differences of one pair."""
    p, effect = signed_rank(slices)
    [(low, high)] = _limits(resamples[:, None])
    smallest_p = 2 * 0.5 ** len(series)  # all series won by one method
    is_testable = smallest_p <= 1 - CONFIDENCE
    too_few = f"{len(series)} series: p cannot fall below {smallest_p:.4g}"
    return {
        "slices": len(slices),
        "difference": round(float(pooled), 2),
        "difference_low": low,
        "difference_high": high,
        "median_difference": round(float(np.median(slices)), 2),
        "p": p,
        "effect": round(effect, 3),
        "series": len(series),
        "series_won": int((series > 0).sum()),
        "series_lost": int((series < 0).sum()),
        "p_series": signed_rank(series)[0] if is_testable else np.nan,
        "reason": "" if is_testable else too_few,
    }


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["series", "slice"], ignore_index=True)


def _check_same_slices(rows_a: pd.DataFrame, rows_b: pd.DataFrame) -> None:
    keys = ["series", "slice"]
    if not rows_a[keys].equals(rows_b[keys]):
        raise ValueError("the two methods were not scored on the same slices")


def _sizes(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return the number of slices of each series of ordered rows."""
    return tuple(rows.groupby("series").size())


def _resampled(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """Return the mean and each class's score in % of every resample of ordered rows."""
    classes = scoring.MEASURES[measure](_drawn(scoring.counts(rows), _sizes(rows)))
    return 100 * np.column_stack([classes.mean(axis=-1), classes])


def _drawn(counts: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the pooled counts of every resample, shape (resamples, classes, classes)."""
    if len(counts) < 2:
        return np.full((RESAMPLES, *counts.shape[1:]), np.nan)
    pooled = _times_drawn(sizes) @ counts.reshape(len(counts), -1).astype(float)
    return pooled.reshape(-1, *counts.shape[1:])


@lru_cache(maxsize=16)
def _times_drawn(sizes: tuple[int, ...]) -> np.ndarray:
    """Return how often each resample draws each slice, shape (resamples, slices).

    A series of n slices that is drawn k times contributes k n draws of its slices. With a
    single series, its slices are the units of the first stage.
    """
    units = np.array(sizes if len(sizes) > 1 else (1,) * sizes[0])
    rng = np.random.default_rng(SEED)
    series = rng.integers(len(units), size=(RESAMPLES, len(units)))
    slices = [
        rng.multinomial((series == index).sum(axis=1) * size, np.full(size, 1 / size))
        for index, size in enumerate(units)
    ]
    return np.concatenate(slices, axis=1).astype(float)


def _limits(values: np.ndarray) -> list[tuple[float, float]]:
    """Return the ends of the interval of each column of resamples, ignoring NaN."""
    ends = pd.DataFrame(values).quantile([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return list(ends.round(2).T.itertuples(index=False, name=None))
