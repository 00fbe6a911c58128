"""Intervals and comparisons: hand-worked cases, SciPy's bootstrap as referee, invariances."""

import numpy as np
import pandas as pd
import pytest

from bonelib import metrics
from bonelib.evaluation import scoring, statistics
from tests.synthetic_results import score_rows


def bone(right, missed=0, invented=0):
    """Return the counts of a slice with this many pixels of bone."""
    return np.array([[50, 0, 0], [0, 40, invented], [0, missed, right]])


def random_series(seed, slices):
    """Return five series of slices whose share of found bone differs by a tenth."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in range(5):
        here = np.clip(0.8 + 0.1 * rng.normal(), 0.05, 1)
        pixels = rng.integers(20, 200, slices)
        right = rng.binomial(pixels, here)
        found[f"s{name}"] = [bone(a, b - a) for a, b in zip(right, pixels, strict=True)]
    return found


def test_two_series_give_the_interval_that_can_be_worked_out():
    """Of two series of one slice each, a quarter of the resamples has one of them twice."""
    rows = score_rows({"a": [bone(4, 6)], "b": [bone(10)]})
    assert statistics.intervals(rows, "iou")["bone"] == (40, 100)


def test_two_stages_equal_a_loop_that_draws_series_and_then_slices():
    series = random_series(2, slices=8)
    rng, values = np.random.default_rng(3), []
    for _ in range(4000):
        drawn = [series[f"s{name}"] for name in rng.integers(0, 5, 5)]
        pooled = sum(slices[index] for slices in drawn for index in rng.integers(0, 8, 8))
        values.append(100 * metrics.iou(pooled)[2])
    limits = statistics.intervals(score_rows(series), "iou")["bone"]
    expected = np.quantile(values, [0.025, 0.975])
    assert limits == pytest.approx(expected, abs=0.08 * np.ptp(expected))


def test_differences_meet_the_same_resamples():
    """The difficulty of a slice for both methods leaves no doubt about which is better."""
    series = random_series(7, slices=30)
    rows_a = score_rows({name: [20 * one for one in slices] for name, slices in series.items()})
    rows_b = score_rows({
        name: [bone(19 * one[2, 2], 20 * one[2, 1] + one[2, 2]) for one in slices]
        for name, slices in series.items()
    })  # fmt: skip
    value, low, high = statistics.difference(rows_a, rows_b, "iou")["bone"]
    pooled = scoring.pooled(rows_a, "iou")[3] - scoring.pooled(rows_b, "iou")[3]
    assert value == pytest.approx(pooled, abs=0.006) and 0 < low < value < high
    own = statistics.intervals(rows_a, "iou")["bone"]
    assert high - low < (own[1] - own[0]) / 5
    turned = statistics.difference(rows_b, rows_a, "iou")["bone"]
    assert turned == pytest.approx((-value, -high, -low))
    with pytest.raises(ValueError, match="same slices"):
        statistics.difference(rows_a, rows_b.iloc[1:], "iou")


def test_a_single_slice_and_an_absent_class_have_no_interval():
    limits = statistics.intervals(score_rows({"a": [bone(8, 2)]}), "iou")
    assert np.isnan(list(limits.values())).all()
    rows = score_rows({name: [np.diag([9, 9, 0])] * 2 for name in "ab"})
    limits = statistics.intervals(rows, "iou")
    assert limits["patient"] == (100, 100)
    assert np.isnan([*limits["bone"], *limits["mean"]]).all()


@pytest.mark.parametrize(
    ("differences", "p", "effect"),
    [
        ([-1, 2, -3, 4, 5], 14 / 32, 7 / 15),  # ranks 1 and 3 are negative: W = 4, (11 - 4) / 15
        ([0, 0, 5], 1, 3 / 6),  # equal slices pull the effect towards 0
        ([0, 0, 0, 0], 1, 0),
    ],
)
def test_signed_ranks_as_worked_by_hand(differences, p, effect):
    assert statistics.signed_rank(np.array(differences, float)) == pytest.approx((p, effect))


def three_methods(series=5, slices=12):
    """Return scores of a good, a slightly worse and an equal method."""
    good, worse = {}, {}
    for name in map(str, range(series)):
        good[name] = [bone(90 + index % 5, 10) for index in range(slices)]
        worse[name] = [bone(85 + index % 7, 15) for index in range(slices)]
    rows = [score_rows(good), score_rows(worse, "fcn8"), score_rows(good, "segnet")]
    return pd.concat(rows), {("unet", 10): "U-net", ("fcn8", 10): "FCN8", ("segnet", 10): "SegNet"}


def test_every_pair_is_compared_once_and_a_few_series_cannot_reach_five_percent():
    scores, methods = three_methods()
    frame = statistics.comparisons(scores, methods)
    assert list(frame.columns) == list(statistics.COMPARISON_COLUMNS)
    pairs = list(zip(frame["model_a"], frame["model_b"], strict=True))
    assert pairs == [("unet", "fcn8"), ("unet", "segnet"), ("fcn8", "segnet")]
    better, equal, worse = frame.to_dict("records")
    assert better["slices"] == 60 and better["effect"] == 1 and better["p"] < 1e-6
    assert better["p_holm"] == pytest.approx(3 * better["p"])  # Holm: the smallest of three
    assert worse["p_holm"] == pytest.approx(3 * worse["p"])  # 2 p is less than the one before
    assert (better["series"], better["series_won"], better["series_lost"]) == (5, 5, 0)
    assert better["difference_low"] <= better["difference"] <= better["difference_high"]
    assert (equal["p"], equal["effect"], equal["series_won"]) == (1, 0, 0)
    assert worse["effect"] == -1 and worse["series_lost"] == 5
    assert worse["difference"] == -better["difference"]
    assert better["first"] == "U-net" and better["against"] == "FCN8"
    assert statistics.comparisons(scores, {("unet", 10): "U-net"}).empty
    assert frame["p_series"].isna().all() and "0.0625" in frame["reason"][0]
    six = statistics.comparisons(*three_methods(series=6))
    assert six["p_series"].tolist() == pytest.approx([0.03125, 1, 0.03125])
    assert (six["reason"] == "").all()


def test_a_slice_without_bone_is_right():
    nothing, invented = bone(0), bone(0, invented=3)
    scores = pd.concat([
        score_rows({"a": [bone(9, 1), nothing, nothing]}),
        score_rows({"a": [bone(9, 1), nothing, invented]}, "fcn8"),
    ])  # fmt: skip
    pair = statistics.comparisons(scores, {("unet", 10): "a", ("fcn8", 10): "b"}).iloc[0]
    assert pair["slices"] == 3 and pair["median_difference"] == 0
    assert pair["effect"] == pytest.approx(3 / 6)  # 100 against 0 in one slice of three
