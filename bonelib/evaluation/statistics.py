"""Score rows -> how sure the scores are: intervals, differences, paired comparisons.

Slices of one series look alike, so the bootstrap has two stages (Davison & Hinkley 1997,
section 3.8): SciPy draws series with replacement, then slices are drawn within each. The
same rows give the same interval, and all methods meet the same resamples. Such intervals
know the spread of patients and slices, not that of trainings; few series make them too
narrow rather than too wide.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from bonelib import metrics
from bonelib.evaluation import scoring
from bonelib.settings import BONE, Settings

CONFIDENCE = 0.95
RESAMPLES = 2000  # steady to about a twentieth of the interval's width
SEED = Settings.seed
MOST_EXACT = 50  # differences, as in SciPy, which knows no exact p where some are tied

COMPARISON_COLUMNS = (
    "model_a", "epochs_a", "model_b", "epochs_b", "slices", "difference", "difference_low",
    "difference_high", "median_difference", "p", "p_holm", "effect", "series", "series_won",
    "series_lost", "p_series", "reason",
)  # fmt: skip


def intervals(
    rows: pd.DataFrame, measure: str, settings: Settings | None = None
) -> dict[str, tuple[float, float]]:
    """Return the interval in % of the mean and of each class's score, by name.

    `rows` are score rows of one method, `measure` is one of scoring.MEASURES; names are
    those of scoring.named, by default for the paper's classes. A single series has its
    slices drawn alone, a single slice has no interval: NaN. Resamples that lack a class
    are left out of its interval.
    """
    found = _limits(_resampled(_ordered(rows), measure))
    return scoring.named([_pair(limits) for limits in found], settings or Settings())


def difference(
    rows_a: pd.DataFrame, rows_b: pd.DataFrame, measure: str, settings: Settings | None = None
) -> dict[str, tuple[float, float, float]]:
    """Return the first method's scores less the second's with the interval, in points, by name.

    Both meet the same resamples, so what makes a slice hard for both cancels out. Raises
    ValueError where the methods were not scored on the same slices.
    """
    rows_a, rows_b = _matched(rows_a, rows_b)
    found = _limits(_resampled(rows_a, measure) - _resampled(rows_b, measure))
    values = np.subtract(scoring.pooled(rows_a, measure), scoring.pooled(rows_b, measure))
    both = [
        (round(float(value), 2), *_pair(limits))
        for value, limits in zip(values, found, strict=True)
    ]
    return scoring.named(both, settings or Settings())


def comparisons(scores: pd.DataFrame, methods: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Compare every pair of (model, epochs) by bone IoU on the same slices; a row a pair.

    Classes of bone count as one. Differences are the first's less the second's in points:
    `difference` of the pooled bone IoU with its interval, `median_difference` over slices.
    `p` is that of Wilcoxon's two-sided signed-rank test on slices, where equal slices split
    their ranks (zsplit); `p_holm` is Holm's over all pairs; `effect` is the matched-pairs
    rank-biserial correlation (Kerby 2014), from -1 to 1. A slice where neither reference nor
    prediction has bone is right: 100. Slices of a series are not independent, so the series'
    pooled bone IoU counts too: `series_won` and `series_lost` by the first, and `p_series`
    of the same test, NaN with a `reason` where so few series cannot reach 5 %.
    """
    rows = [_ordered(scoring.select(scores, *method)) for method in methods]
    bone = [_bone_scores(one) for one in rows]
    pairs = []
    for a, b in combinations(range(len(rows)), 2):
        _matched(rows[a], rows[b])
        keys = dict(zip(COMPARISON_COLUMNS, (*methods[a], *methods[b]), strict=False))
        pairs.append(keys | _compared(*(bone[a][name] - bone[b][name] for name in bone[a])))
    frame = pd.DataFrame(pairs, columns=COMPARISON_COLUMNS)
    frame["p_holm"] = holm(frame["p"].astype(float))
    return frame


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for their number, step by step (Holm 1979)."""
    p = np.asarray(p)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """Return p of Wilcoxon's two-sided signed-rank test and the rank-biserial effect.

    Differences of 0 split their ranks. Few differences have their exact p, tied or not; it
    is 1 and the effect 0 where all differences are 0.
    """
    if not differences.any():
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(differences))
    effect = (np.sign(differences) * ranks).sum() / ranks.sum()
    if len(ranks) > MOST_EXACT:
        p = stats.wilcoxon(differences, zero_method="zsplit", method="asymptotic").pvalue
    else:
        p = _exact_p(ranks[differences != 0], ranks[differences > 0].sum())
    return float(p), float(effect)


def _exact_p(ranks: np.ndarray, positive: float) -> float:
    """Return how likely a sum of positive ranks as far out is if each sign is a coin's."""
    likely = np.ones(1)  # of each sum of the ranks so far, in halves since tied ranks are
    for half_ranks in (2 * ranks).astype(int):
        likely = np.pad(likely, (0, half_ranks)) / 2 + np.pad(likely, (half_ranks, 0)) / 2
    index = int(2 * positive)
    return min(1.0, 2 * min(likely[: index + 1].sum(), likely[index:].sum()))


def _bone_scores(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return bone IoU in % of all slices, of each resample, series and slice of ordered rows."""
    counts = metrics.bone_as_one(scoring.counts(rows))
    starts = np.cumsum((0, *_sizes(rows)[:-1]))
    return {
        "all": _bone(counts.sum(axis=0)),
        "resamples": _bone(_drawn(counts, _sizes(rows))),
        "series": _bone(np.add.reduceat(counts, starts)),
        "slices": _bone(counts),
    }


def _compared(all_slices, resamples, series, slices) -> dict:
    """Return what COMPARISON_COLUMNS says of the differences of one pair."""
    p, effect = signed_rank(slices)
    p_series, reason = _series_test(series)
    low, high = _pair(_limits(resamples[:, None])[0])
    return {
        "slices": len(slices),
        "difference": round(float(all_slices), 2),
        "difference_low": low,
        "difference_high": high,
        "median_difference": round(float(np.median(slices)), 2),
        "p": p,
        "effect": round(effect, 3),
        "series": len(series),
        "series_won": int((series > 0).sum()),
        "series_lost": int((series < 0).sum()),
        "p_series": p_series,
        "reason": reason,
    }


def _series_test(differences: np.ndarray) -> tuple[float, str]:
    """Return p of the signed-rank test on series, or NaN and why it says nothing."""
    least = 2 * 0.5 ** len(differences)
    if least > 1 - CONFIDENCE:
        return np.nan, f"{len(differences)} series: p cannot fall below {least:.4g}"
    return signed_rank(differences)[0], ""


def _bone(counts: np.ndarray) -> np.ndarray:
    """Return bone IoU in % of counts of three classes, 100 where neither side has bone."""
    values = 100 * metrics.iou(counts)[..., BONE]
    is_without = counts[..., BONE, :].sum(axis=-1) + counts[..., BONE].sum(axis=-1) == 0
    return np.where(is_without, 100.0, values)


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["series", "slice"], ignore_index=True)


def _matched(rows_a: pd.DataFrame, rows_b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both in one order; raise ValueError where they differ in a slice."""
    both = _ordered(rows_a), _ordered(rows_b)
    if not both[0][["series", "slice"]].equals(both[1][["series", "slice"]]):
        raise ValueError("the two methods were not scored on the same slices")
    return both


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
    pooled = _weights(sizes) @ counts.reshape(len(counts), -1).astype(float)
    return pooled.reshape(-1, *counts.shape[1:])


@lru_cache(maxsize=16)
def _weights(sizes: tuple[int, ...]) -> np.ndarray:
    """Return how often each resample draws each slice, shape (resamples, slices).

    A series that is drawn k times has k times its number of slices drawn from it. A single
    series is no sample of series: then each of its slices is one.
    """
    units = np.array(sizes if len(sizes) > 1 else (1,) * sizes[0])
    rng = np.random.default_rng(SEED)

    def times_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        times = (drawn[..., None] == np.arange(len(units))).sum(axis=-2)
        parts = [
            rng.multinomial(number * size, np.full(size, 1 / size))
            for number, size in zip(times.T, units, strict=True)
        ]
        return np.concatenate(parts, axis=1).T.astype(float)

    resamples = stats.bootstrap(
        (np.arange(len(units)),),
        times_drawn,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=rng,
    )
    return resamples.bootstrap_distribution.T


def _limits(values: np.ndarray) -> list[np.ndarray]:
    """Return the percentiles of each column of resamples, without those that are NaN."""
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    known = [column[~np.isnan(column)] for column in values.T]
    return [np.quantile(one, tails) if one.size else np.full(2, np.nan) for one in known]


def _pair(limits: np.ndarray) -> tuple[float, float]:
    low, high = np.round(limits, 2)
    return float(low), float(high)
