"""The test of a claim: scores, curves and costs -> our numbers in words, and margins.

A measure takes the evidence and the groups that the claim compares, by name. A margin is how
far a number lies on the claimed side; `verdicts.judge` decides by them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from scipy.stats import spearmanr

from bonelib import published
from bonelib.evaluation import scoring
from bonelib.replication.evidence import Evidence, Group, NotTestable
from bonelib.replication.verdicts import (
    NAMES,
    Estimate,
    apart,
    exact,
    extreme,
    listed,
    name_of,
    same,
    whether,
)
from bonelib.settings import BONE, CLASS_NAMES, Settings

Groups = Mapping[str, Group]

# The paper says "about", "similar", "hardly", "not significantly": these limits are this project's.
NEAR = 5.0  # points of IoU that "about" allows
SIMILAR = 1.5  # times: how far apart times may be and still be similar
SMALL_PART = 0.1  # of the spread in IoU: "hardly" any
LITTLE_GAIN = 1.0  # points of mean IoU; the paper calls 0.73 not significant
PROJECTS_LIMIT = "The limit is this project's."
MOST_SHOWN = 2  # numbers in words; of more, the least is shown
NO_INTERVAL = "One training, one validation series: no interval."
OTHER_PATIENTS = "Other patients than the paper's."
THIS_MACHINE = "Times are this machine's, without an interval."
HAPPENS = "It happens or not: no interval."


class Outcome(NamedTuple):
    """Our numbers in words, and the margin of each number that decides."""

    ours: str
    margins: Sequence[Estimate]
    why: str = ""


# Scores of networks


def _scores(evidence: Evidence, groups: Groups, name="mean", measure="iou") -> dict[str, Estimate]:
    return {key: evidence.score(group, name, measure) for key, group in groups.items()}


def over(best: str, *others: str) -> list[tuple[str, str]]:
    """Return the pairs of `best` with each of `others`."""
    return [(best, other) for other in others]


def ahead(
    evidence: Evidence,
    groups: Groups,
    pairs: Sequence[tuple[str, str]],
    names: Iterable[str] = ("mean",),
    points: Mapping[str, float] | None = None,
    why: str = "",
) -> Outcome:
    """Test that the first of each pair leads the second by IoU: by more than `points`, or 0."""
    parts, margins = [], []
    for name in names:
        leads = {pair: evidence.lead(*(groups[model] for model in pair), name) for pair in pairs}
        margins += [lead.above((points or {}).get(pair[1], 0)) for pair, lead in leads.items()]
        words = {f"{name_of(a)} over {name_of(b)} by": lead for (a, b), lead in leads.items()}
        label, shown = "lead", words
        if len(words) > MOST_SHOWN:
            label, shown = "least lead", dict([extreme(words)])
        scores = listed(_scores(evidence, groups, name), " %")
        parts.append(f"{name}: {scores}; {label}: {listed(shown, ' points')}")
    return Outcome("; ".join(parts), margins, why)


def ranked(evidence: Evidence, groups: Groups, paper: Mapping[str, float]) -> Outcome:
    """Test that networks rank by mean IoU as in `paper`."""
    order = sorted(paper, key=paper.get, reverse=True)
    ours = [evidence.score(groups[model]).value for model in order]
    rho = spearmanr(ours, [paper[model] for model in order]).statistic
    pairs = list(zip(order, order[1:], strict=False))
    return ahead(evidence, groups, pairs, why=f"Spearman's rank correlation {rho:.2f}.")


def above(
    evidence: Evidence,
    groups: Groups,
    limits: Mapping[tuple[str, str], float],
    below: Sequence[str] = (),
    why: str = "",
) -> Outcome:
    """Test that scores are above `limits`, by measure and class; those of `below` are below."""
    parts, margins = [], []
    for (measure, name), limit in limits.items():
        values = _scores(evidence, groups, name, measure)
        margins += [
            value.below(limit) if model in below else value.above(limit)
            for model, value in values.items()
        ]
        model, lowest = extreme(values)
        one = f"lowest {name} {published.MEASURE_NAMES[measure]} {lowest} % ({name_of(model)})"
        parts.append(listed(values, " %") if below or len(values) <= MOST_SHOWN else one)
    return Outcome(", ".join(parts), margins, why)


def _spread(evidence: Evidence, groups: Groups, name: str, measure="iou") -> tuple[Estimate, str]:
    """Return the lead of the best over the worst network, and both scores in words."""
    values = _scores(evidence, groups, name, measure)
    (worst, low), (best, high) = extreme(values), extreme(values, max)
    lead = evidence.lead(groups[best], groups[worst], name, measure)
    return lead, f"{low.value:.2f} to {high.value:.2f} %"


def bone_differs_most(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that networks differ more in the IoU of bone than in that of another class."""
    spreads = {name: _spread(evidence, groups, name) for name in reversed(CLASS_NAMES)}
    margins = [apart(spreads["bone"][0], spreads[name][0]) for name in CLASS_NAMES[:BONE]]
    ours = ", ".join(f"{name} {words}" for name, (_, words) in spreads.items())
    return Outcome(ours, margins, "Margin: of the best over the worst network.")


def accuracy_says_little(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that accuracy of bone spreads less than a small part of its IoU."""
    accuracy, iou = (_spread(evidence, groups, "bone", one)[0] for one in ("accuracy", "iou"))
    part = Estimate(*(SMALL_PART * end for end in iou))
    ours = f"accuracy within {accuracy} points, IoU within {iou}"
    why = f"'Hardly' is taken as {SMALL_PART:g} of the spread in IoU or less. {PROJECTS_LIMIT}"
    return Outcome(ours, [apart(part, accuracy)], why)


def bone_is_lowest(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that bone has the fewest pixels and, in every network, the lowest IoU."""
    pixels = scoring.counts(evidence.rows(next(iter(groups.values())))).sum(axis=(0, 2))
    shares = dict(zip(CLASS_NAMES, 100 * pixels / pixels.sum(), strict=True))
    margins = []
    for group in groups.values():
        *others, bone = (evidence.score(group, name) for name in CLASS_NAMES)
        margins.append(apart(min(others), bone))
    lowest = sum(margin.value > 0 for margin in margins)
    ours = f"{listed(shares, ' %')}; bone lowest in {lowest} of {len(margins)} rows"
    why = "The interval of a difference of two classes is the widest that theirs allow."
    rarest = exact(min(shares[name] for name in CLASS_NAMES[:BONE]) - shares["bone"])
    return Outcome(ours, [rarest, *margins], why)


def quoted(evidence: Evidence, groups: Groups, paper: Mapping[tuple[str, str], float]) -> Outcome:
    """Test that the only group has the scores of `paper`, by measure and class."""
    (group,) = groups.values()
    ours = {key: evidence.score(group, key[1], key[0]) for key in paper}
    margins = [same(value, paper[key]) for key, value in ours.items()]
    return Outcome(scores_in_words(ours), margins, OTHER_PATIENTS)


def scores_in_words(values: Mapping[tuple[str, str], float | Estimate]) -> str:
    """Return scores by measure and class in words."""
    return ", ".join(
        f"{name} {published.MEASURE_NAMES[measure]} {value} %"
        for (measure, name), value in values.items()
    )


def gains_little(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that U-net's longer training gains less than a limit of mean IoU."""
    short, long = groups["short"], groups["long"]
    gains = {name: evidence.lead(long, short, name) for name in published.LONGER_TRAINING_GAIN}
    why = (
        f"{long.epochs} epochs instead of {short.epochs}; the paper: {long.papers_epochs} instead "
        f"of {short.papers_epochs}. {PROJECTS_LIMIT}"
    )
    return Outcome(listed(gains, " points"), [gains["mean"].below(LITTLE_GAIN)], why)


# Scores of slices, levels and series


def wings(evidence: Evidence, groups: Groups, level: str, firm: Sequence[str]) -> Outcome:
    """Test that the networks of `firm` lead all others by IoU of bone at `level`."""
    parts = {model: evidence.of_each_level(group).get(level) for model, group in groups.items()}
    if None in parts.values():
        raise NotTestable(f"no test slice is at the level '{level}'")
    pairs = [pair for model in firm for pair in over(model, *(set(groups) - set(firm)))]
    return ahead(evidence, parts, pairs, ["bone"], why=f"All test slices that show {level}.")


def level_is(evidence: Evidence, groups: Groups, level: str, best: bool) -> Outcome:
    """Test that the only group's IoU of bone is best, or worst, at `level`."""
    (group,) = groups.values()
    levels = _scores(evidence, evidence.of_each_level(group), "bone")
    if level not in levels or len(levels) < 2:
        raise NotTestable(f"no test slice is at the level '{level}', or none at another")
    one = levels[level]
    margins = [
        apart(one, other) if best else apart(other, one)
        for name, other in levels.items()
        if name != level
    ]
    why = "Levels have no slice in common: intervals of differences are the widest possible."
    return Outcome(listed(levels, " %"), margins, why)


def single_slices(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that the mean over slices of the only group's IoU of bone is the paper's."""
    (group,) = groups.values()
    values = pd.Series(scoring.bone_iou(evidence.rows(group))).dropna()
    if values.empty:
        raise NotTestable("no test slice has bone")
    mean = evidence.mean_of_slices(group)
    ours = (
        f"minimum {values.min():.2f} %, maximum {values.max():.2f} %, mean {mean} %, "
        f"standard deviation {values.std(ddof=0):.2f} %"
    )
    margins = [same(mean, published.UNET_IMAGES["mean"])]
    return Outcome(ours, margins, f"Decided by the mean. {OTHER_PATIENTS}")


def _series(evidence: Evidence, groups: Groups) -> tuple[Groups, str]:
    (group,) = groups.values()
    series = evidence.of_each_series(group)
    if len(series) < 2:
        raise NotTestable("fewer than two test series have bone and a score")
    paper = NAMES[published.TABLE4_MODEL]
    return series, f"{NAMES[group.model]}, as in Table 4; the paper's is {paper}. {OTHER_PATIENTS}"


def series_spread(evidence: Evidence, groups: Groups, name: str) -> Outcome:
    """Test that the only group's series lie no farther apart by IoU than the paper's.

    The interval of their range is the widest that theirs allow.
    """
    series, why = _series(evidence, groups)
    values = _scores(evidence, series, name)
    middle, low, high = zip(*values.values(), strict=True)
    widest, narrowest = max(high) - min(low), max(0, max(low) - min(high))
    spread = Estimate(max(middle) - min(middle), narrowest, widest)
    ours = f"{spread} points: {listed({key: one.value for key, one in values.items()}, ' %')}"
    limit = published.SERIES_SPREAD[name] + 0.005  # half of the last digit
    return Outcome(ours, [spread.below(limit)], why)


def series_above(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that the only group's IoU of bone is above the paper's limit in every series."""
    series, why = _series(evidence, groups)
    return above(evidence, series, {("iou", "bone"): published.SERIES_BONE_FLOOR}, why=why)


def false_bone(evidence: Evidence, groups: Groups, causes: Sequence[str], why="") -> Outcome:
    """Test that the only group wrongly calls pixels bone for one of `causes`."""
    (group,) = groups.values()
    pixels = evidence.false_bone_of(group)
    found = {cause: int(pixels.get(cause, 0)) for cause in causes}
    total = sum(found.values())
    ours = f"{total:,} of {pixels.sum():,} pixels of false bone: {listed(found)}"
    return Outcome(ours, [exact(total)], f"{why} {HAPPENS}".strip())


# Curves of U-net on the validation series


def _curves(evidence: Evidence) -> pd.DataFrame:
    """Return IoU in % by epoch and class of a training whose epochs are the paper's."""
    history = evidence.history()
    slices, papers = (one.batch_size * one.steps_per_epoch for one in (evidence.settings, Settings))
    if slices != papers or len(history) < Settings.epochs_long:
        raise NotTestable(
            f"{len(history)} epochs of {slices:,} slices, the paper's are "
            f"{Settings.epochs_long} of {papers:,}"
        )
    columns = {f"val_iou_{name}": name for name in CLASS_NAMES}
    return 100 * history[list(columns)].rename(columns=columns)


def stays_above(evidence: Evidence, groups: Groups, name: str) -> Outcome:
    """Test that a class stays above the paper's limit from the paper's epoch on."""
    curve, floor, epoch = (
        _curves(evidence)[name],
        published.CURVE_FLOOR,
        published.CURVE_EPOCHS[name],
    )
    below = curve.index[curve <= floor]
    first = below.max() + 1 if len(below) else curve.index[0]
    reached = f"from epoch {first} on" if first in curve.index else "in no epoch to the last"
    lowest = curve.loc[epoch:].min()
    ours = f"above {floor:.0f} % {reached}; lowest from epoch {epoch} on {lowest:.2f} %"
    return Outcome(ours, [exact(lowest - floor)], NO_INTERVAL)


def bone_moves_most(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that, where all classes stay above the limit, bone makes the largest step."""
    start = max(published.CURVE_EPOCHS.values())
    steps = _curves(evidence).loc[start:].diff().abs().max().to_dict()
    ours = f"largest step between epochs from epoch {start} on: {listed(steps, ' points')}"
    others = max(steps[name] for name in CLASS_NAMES[:BONE])
    return Outcome(ours, [exact(steps["bone"] - others)], NO_INTERVAL)


def bone_flattens(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that the curve of bone makes larger steps up to the paper's epoch than after it."""
    flat = published.BONE_FLAT_EPOCH
    steps = _curves(evidence)["bone"].diff().abs()
    before, after = steps.loc[:flat].mean(), steps.loc[flat + 1 :].mean()
    ours = f"mean step {before:.2f} points up to epoch {flat}, {after:.2f} after it"
    return Outcome(ours, [exact(before - after)], NO_INTERVAL)


def bone_level(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that the curve of bone flattens near the paper's level."""
    flat = published.BONE_FLAT_EPOCH
    level = _curves(evidence)["bone"].loc[flat:].mean()
    why = f"{NO_INTERVAL} 'About' is taken as within {NEAR:.0f} points. {OTHER_PATIENTS}"
    margin = exact(NEAR - abs(level - published.BONE_FLAT))
    return Outcome(f"mean from epoch {flat} on {level:.2f} %", [margin], why)


def iou_is_stricter(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that mean Dice exceeds mean IoU more in the worst epoch than in the best."""
    curves = 100 * evidence.history()[["val_mean_iou", "val_mean_dice"]]
    gap = curves["val_mean_dice"] - curves["val_mean_iou"]
    worst, best = curves["val_mean_iou"].idxmin(), curves["val_mean_iou"].idxmax()
    ours = (
        f"Dice - IoU: {gap[worst]:.2f} points in the worst epoch ({worst}), "
        f"{gap[best]:.2f} in the best ({best})"
    )
    margins = [exact(gap[worst] - gap[best]), whether(bool((gap >= 0).all()))]
    why = f"{NO_INTERVAL} For one class the gap is IoU (1 - IoU) / (1 + IoU), largest at 41 %."
    return Outcome(ours, margins, why)


# Counts and times, which need no trained network


def same_parameters(evidence: Evidence, groups: Groups) -> Outcome:
    """Test that all parameters, total and trainable, are those of Table 2."""
    total, trainable = evidence.costs("parameters"), evidence.costs("trainable_parameters")
    equal = [
        (total[model], trainable[model]) == (row["parameters"], row["trainable"])
        for model, row in published.TABLE2.items()
    ]
    return Outcome(f"{sum(equal)} of {len(equal)} equal", [whether(all(equal))])


def costlier(
    evidence: Evidence,
    groups: Groups,
    column: str,
    times: Mapping[tuple[str, str], float],
    unit: str = "",
    why: str = "",
) -> Outcome:
    """Test that the first of each pair of models costs more than `times` the second."""
    costs = evidence.costs(column, dict.fromkeys(model for pair in times for model in pair))
    ratios = {(one, two): costs[one] / costs[two] for one, two in times}
    margins = [exact(ratio - times[pair]) for pair, ratio in ratios.items()]
    ours = f"{listed(costs, unit, 1)}; least ratio {min(ratios.values()):.2f}"
    return Outcome(ours, margins, why)


def similar_times(evidence: Evidence, groups: Groups, models: Sequence[str]) -> Outcome:
    """Test that the times of `models` for a slice are similar."""
    times = evidence.costs("milliseconds_per_slice", models)
    ratio = max(times.values()) / min(times.values())
    why = f"Slowest to fastest {ratio:.2f}; up to {SIMILAR:g} counts. {THIS_MACHINE}"
    return Outcome(listed(times, " ms", 1), [exact(SIMILAR - ratio)], why)


# What no results of ours can test


def never(evidence: Evidence, groups: Groups, why: str) -> Outcome:
    """Raise NotTestable."""
    raise NotTestable(why)


def good_enough(evidence: Evidence, groups: Groups) -> Outcome:
    """Raise NotTestable, with the distances of the best model's surfaces."""
    why = "The paper names no criterion."
    (best,) = evidence.best().values()
    distances = evidence.distances(best)
    if len(distances):
        why += (
            f" Here: the surface of bone lies {distances.median():.2f} mm from the reference's on "
            f"average in the median test series, {distances.max():.2f} mm in the worst."
        )
    raise NotTestable(why)
