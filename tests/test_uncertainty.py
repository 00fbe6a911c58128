"""How sure scores are: against hand-worked cases, SciPy's own bootstrap and invariances."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bonelib import metrics
from bonelib.evaluation import scoring, statistics
from bonelib.settings import Settings

BONES = Settings(class_scheme="bones")


def made(series, model="unet", epochs=10):
    """Return score rows of {series: counts of each slice}."""
    rows = [
        [model, epochs, epochs, "input", name, index, *np.ravel(counts)]
        for name, slices in series.items()
        for index, counts in enumerate(slices)
    ]
    size = len(next(iter(series.values()))[0])
    return pd.DataFrame(rows, columns=scoring.KEY_COLUMNS + metrics.count_columns(size))


def bone(right, missed=0, invented=0):
    """Return the counts of a slice with so many pixels of bone."""
    return np.array([[50, 0, 0], [0, 40, invented], [0, missed, right]])


def random_series(seed, series=5, slices=30, share=0.8, spread=0.0):
    """Return slices whose share of bone that is found differs by `spread` between series."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in range(series):
        here = np.clip(share + spread * rng.normal(), 0.05, 1)
        pixels = rng.integers(20, 200, slices)
        right = rng.binomial(pixels, here)
        found[f"s{name}"] = [bone(a, b - a) for a, b in zip(right, pixels, strict=True)]
    return found


def test_equal_slices_leave_no_doubt():
    rows = made({"a": [bone(8, 2)] * 3, "b": [bone(8, 2)] * 5})
    limits = statistics.intervals(rows, "iou")
    for name, value in scoring.named(scoring.pooled(rows, "iou"), Settings()).items():
        assert limits[name] == (value, value)


def test_two_series_give_the_interval_that_can_be_worked_out():
    """Of two series of one slice each, a quarter of the resamples has one of them twice."""
    rows = made({"a": [bone(4, 6)], "b": [bone(10)]})
    assert statistics.intervals(rows, "iou")["bone"] == (40, 100)


def test_a_single_series_is_scipys_bootstrap_of_its_slices():
    counts = random_series(1, series=1, slices=60)["s0"]
    rows = made({"s0": counts})
    right, pixels = np.array([(one[2, 2], one[2].sum()) for one in counts]).T

    def share(right, pixels, axis):
        return 100 * right.sum(axis=axis) / pixels.sum(axis=axis)

    expected = stats.bootstrap(
        (right, pixels), share, paired=True, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert statistics.intervals(rows, "iou")["bone"] == pytest.approx(expected, abs=0.25)


def test_two_stages_equal_a_loop_that_draws_series_and_then_slices():
    series = random_series(2, slices=8, spread=0.1)
    rng, values = np.random.default_rng(3), []
    for _ in range(4000):
        drawn = [series[f"s{name}"] for name in rng.integers(0, 5, 5)]
        pooled = sum(slices[index] for slices in drawn for index in rng.integers(0, 8, 8))
        values.append(100 * metrics.iou(pooled)[2])
    low, high = statistics.intervals(made(series), "iou")["bone"]
    expected = np.quantile(values, [0.025, 0.975])
    assert (low, high) == pytest.approx(expected, abs=0.08 * np.ptp(expected))


def test_series_that_differ_widen_the_interval():
    """Slices taken as independent would hide that patients differ."""
    rows = made(random_series(4, spread=0.1))
    low, high = statistics.intervals(rows, "iou")["bone"]
    alone = statistics.intervals(rows.assign(series="s0", slice=range(len(rows))), "iou")["bone"]
    assert high - low > 3 * (alone[1] - alone[0])


def test_the_same_rows_give_the_same_interval_in_any_order():
    rows = made(random_series(5))
    shuffled = rows.sample(frac=1, random_state=0)
    for measure in scoring.MEASURES:
        first = statistics.intervals(rows, measure)
        assert statistics.intervals(rows, measure) == first
        assert statistics.intervals(shuffled, measure) == first


def test_an_interval_around_a_method_that_is_its_own_rival_is_nothing():
    rows = made(random_series(6))
    assert set(statistics.difference(rows, rows, "dice").values()) == {(0, 0, 0)}


def test_differences_meet_the_same_resamples():
    """What makes a slice hard for both is no doubt about which of them is better."""
    series = random_series(7, spread=0.1)
    worse = {
        name: [bone(one[2, 2] * 0.95, one[2, 1] + one[2, 2] * 0.05) for one in slices]
        for name, slices in series.items()
    }
    scaled = {name: [one * 20 for one in slices] for name, slices in series.items()}
    worse = {name: [(one * 20).astype(int) for one in slices] for name, slices in worse.items()}
    rows_a, rows_b = made(scaled), made(worse)
    value, low, high = statistics.difference(rows_a, rows_b, "iou")["bone"]
    pooled = scoring.pooled(rows_a, "iou")[3] - scoring.pooled(rows_b, "iou")[3]
    assert value == pytest.approx(pooled, abs=0.006) and 0 < low < value < high
    own = statistics.intervals(rows_a, "iou")["bone"]
    assert high - low < (own[1] - own[0]) / 5
    turned = statistics.difference(rows_b, rows_a, "iou")["bone"]
    assert turned == pytest.approx((-value, -high, -low))


def test_other_slices_are_refused():
    rows = made(random_series(8))
    with pytest.raises(ValueError, match="same slices"):
        statistics.difference(rows, rows.iloc[1:], "iou")


def test_one_slice_has_no_interval():
    limits = statistics.intervals(made({"a": [bone(8, 2)]}), "iou")
    assert np.isnan(list(limits.values())).all()


def test_a_class_that_is_absent_has_no_interval_and_neither_has_the_mean():
    rows = made({"a": [np.diag([9, 9, 5, 4, 3, 0])] * 2, "b": [np.diag([9, 9, 5, 4, 3, 0])] * 2})
    limits = statistics.intervals(rows, "iou", BONES)
    assert limits["femur"] == (100, 100)
    assert np.isnan([*limits["vertebra"], *limits["mean"]]).all()


def test_holm_as_worked_by_hand():
    """Four p-values: times 4, 3, 2 and 1 in rising order, and never below the one before."""
    assert statistics.holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert statistics.holm([0.9, 0.6]) == pytest.approx([1, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(deadline=None)
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(p):
    p, adjusted = np.array(p), statistics.holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    order = np.argsort(p)
    assert (np.diff(adjusted[order]) >= 0).all()


def test_signed_ranks_as_worked_by_hand():
    """Ranks 1 to 5 of which 1 and 3 are negative: W = 4, p = 14/32, effect (11 - 4) / 15."""
    p, effect = statistics.signed_rank(np.array([-1.0, 2, -3, 4, 5]))
    assert (p, effect) == pytest.approx((14 / 32, 7 / 15))


def test_equal_slices_pull_the_effect_towards_nothing():
    p, effect = statistics.signed_rank(np.array([0.0, 0, 5]))
    assert effect == pytest.approx(3 / 6) and 0 < p <= 1
    assert statistics.signed_rank(np.zeros(4)) == (1, 0)


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=6).filter(any))
@settings(deadline=None, max_examples=25)
def test_few_signed_ranks_have_the_p_of_all_their_permutations(differences):
    """SciPy tries every sign."""
    differences = np.array(differences, float)
    every_sign = stats.PermutationMethod(n_resamples=np.inf)
    expected = stats.wilcoxon(differences, zero_method="zsplit", method=every_sign).pvalue
    assert statistics.signed_rank(differences)[0] == pytest.approx(expected)


@given(st.integers(0, 10**6), st.integers(5, 50))
@settings(deadline=None, max_examples=25)
def test_signed_ranks_without_ties_have_scipys_exact_p(seed, size):
    differences = np.random.default_rng(seed).normal(0.3, 1, size)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert statistics.signed_rank(differences)[0] == pytest.approx(expected)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_the_effect_turns_its_sign_with_the_pair(seed):
    differences = np.random.default_rng(seed).normal(0.3, 1, 70).round(1)
    p, effect = statistics.signed_rank(differences)
    turned = statistics.signed_rank(-differences)
    assert turned == pytest.approx((p, -effect)) and -1 <= effect <= 1


def three_methods(series=5, slices=12):
    """Return scores of a good, a slightly worse and an equal method."""
    good, worse = {}, {}
    for name in map(str, range(series)):
        good[name] = [bone(90 + index % 5, 10) for index in range(slices)]
        worse[name] = [bone(85 + index % 7, 15) for index in range(slices)]
    scores = pd.concat([made(good), made(worse, "fcn8"), made(good, "segnet")])
    return scores, [("unet", 10), ("fcn8", 10), ("segnet", 10)]


def test_every_pair_is_compared_once():
    scores, methods = three_methods()
    frame = statistics.comparisons(scores, methods)
    assert list(frame.columns) == list(statistics.COMPARISON_COLUMNS)
    pairs = list(zip(frame["model_a"], frame["model_b"], strict=True))
    assert pairs == [("unet", "fcn8"), ("unet", "segnet"), ("fcn8", "segnet")]
    better, equal, worse = frame.to_dict("records")
    assert better["slices"] == 60 and better["effect"] == 1 and better["p"] < 1e-6
    assert better["p_holm"] == pytest.approx(3 * better["p"])
    assert (better["series"], better["series_won"], better["series_lost"]) == (5, 5, 0)
    assert better["difference_low"] <= better["difference"] <= better["difference_high"]
    assert (equal["p"], equal["effect"], equal["series_won"]) == (1, 0, 0)
    assert worse["effect"] == -1 and worse["series_lost"] == 5
    assert worse["difference"] == -better["difference"]


def test_five_series_cannot_reach_five_percent_and_six_can():
    frame = statistics.comparisons(*three_methods(series=5))
    assert frame["p_series"].isna().all()
    assert "0.0625" in frame["reason"].iloc[0]
    frame = statistics.comparisons(*three_methods(series=6))
    assert frame["p_series"].tolist() == pytest.approx([0.03125, 1, 0.03125])
    assert (frame["reason"] == "").all()


def test_a_slice_without_bone_is_right_and_stays():
    nothing, invented = bone(0), bone(0, invented=3)
    scores = pd.concat([
        made({"a": [bone(9, 1), nothing, nothing]}),
        made({"a": [bone(9, 1), nothing, invented]}, "fcn8"),
    ])  # fmt: skip
    pair = statistics.comparisons(scores, [("unet", 10), ("fcn8", 10)]).iloc[0]
    assert pair["slices"] == 3 and pair["median_difference"] == 0
    assert pair["effect"] == pytest.approx(3 / 6)  # 100 against 0 in one slice of three


def test_classes_of_bone_count_as_one():
    """A femur that is called a hip bone is bone."""
    wrong = np.diag([9, 9, 0, 4, 3, 2])
    wrong[2, 3] = 5
    scores = pd.concat([
        made({"a": [np.diag([9, 9, 5, 4, 3, 2])] * 3}), made({"a": [wrong] * 3}, "fcn8"),
    ])  # fmt: skip
    pair = statistics.comparisons(scores, [("unet", 10), ("fcn8", 10)]).iloc[0]
    assert pair["difference"] == 0 and pair["p"] == 1


def test_one_method_has_nobody_to_be_compared_with():
    scores, methods = three_methods()
    assert statistics.comparisons(scores, methods[:1]).empty
