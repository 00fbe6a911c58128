"""The tests of claims: results -> our numbers in words, and the margins that decide.

A measure takes an Evidence, the groups of the claim's networks by name, and the claim's options.
It returns a text and margins; `verdicts.judge` turns the margins into a verdict.
"""

from itertools import pairwise, product

import numpy as np

from bonelib import published
from bonelib.evaluation import scoring
from bonelib.evaluation.error_analysis import CAUSES
from bonelib.report.evidence import SHORT
from bonelib.report.verdicts import (
    Estimate,
    NotTestable,
    exact,
    extreme,
    listed,
    name_of,
    same,
)
from bonelib.settings import BONE, CLASS_NAMES, Settings

# Limits for words to which the paper gives no number.
NEAR = 5.0  # points of IoU: "about"
FLAT_STEP = NEAR  # points between epochs, mean: "flattens"; as far as "about" allows from a level
STILL_STEP = 100 - published.CURVE_FLOOR  # points: "hardly move"; the most that fits above it
SIMILAR = 1.5  # ratio of times: "about the same", "much longer"
SMALL_PART = 0.1  # of the spread in IoU: "hardly"
LITTLE_GAIN = 1.0  # points of mean IoU: "little"; the paper calls 0.73 not significant
MAGNITUDE = 10  # ratio: "an order of magnitude", "by far"
HALF_DIGIT = 0.005  # of a printed score

OTHERS = CLASS_NAMES[:BONE]


def pairs(order: str) -> list[tuple[str, str]]:
    """Return the pairs of an order such as "unet > fcn8 > pspnet segnet", neighbours only."""
    tiers = [tier.split() for tier in order.split(">")]
    return [pair for neighbours in pairwise(tiers) for pair in product(*neighbours)]


def in_words(values: dict[str, float | Estimate]) -> str:
    """Return scores in words, by class and measure such as "bone iou"."""
    named = [(*key.split(), value) for key, value in values.items()]
    return ", ".join(
        f"{name} {published.MEASURE_NAMES[measure]} {value} %" for name, measure, value in named
    )


# Scores of networks


def leads(evidence, groups, order, of=("mean",), points=None, level=""):
    """Test that networks have the `order` by IoU, with more than `points` over the lower one."""
    if level:
        groups = {key: evidence.parts(one, "level", level)[level] for key, one in groups.items()}
    parts, margins = [], []
    for name in of:
        found = {(a, b): evidence.leads(groups[a], groups[b])[name] for a, b in pairs(order)}
        margins += [lead - (points or {}).get(lower, 0) for (_, lower), lead in found.items()]
        (higher, lower), least = extreme(found)
        scores = listed(evidence.scores_of(groups, name), " %")
        lead = f"smallest lead: {name_of(higher)} over {name_of(lower)} by {least} points"
        parts.append(f"{name}: {scores}; {lead}")
    return "; ".join(parts), margins


def above(evidence, groups, limits, below=(), each=""):
    """Test that scores are above `limits`, by class and measure; those of `below` are below.

    With `each`, such as "series", the best network's scores in each of them are tested.
    """
    if each:
        groups = evidence.parts(evidence.best, each)
    parts, margins = [], []
    for key, limit in limits.items():
        values = evidence.scores_of(groups, *key.split())
        margins += [
            limit - value if model in below else value - limit for model, value in values.items()
        ]
        model, lowest = extreme(values)
        one = f"lowest {in_words({key: lowest})} ({name_of(model)})"
        parts.append(listed(values, " %") if below else one)
    return ", ".join(parts), margins


def quoted(evidence, groups, scores):
    """Test that a network has the paper's `scores`, by class and measure."""
    ours = {key: extreme(evidence.scores_of(groups, *key.split()))[1] for key in scores}
    return in_words(ours), [same(ours[key], paper) for key, paper in scores.items()]


def spread(evidence, groups, name, measure="iou"):
    """Return the points by which the best network exceeds the worst."""
    values = evidence.scores_of(groups, name, measure)
    (worst, _), (best, _) = extreme(values), extreme(values, max)
    return evidence.leads(groups[best], groups[worst], measure)[name]


def bone_differs_most(evidence, groups):
    """Test that networks differ more in the IoU of bone than in that of the other classes."""
    spreads = {name: spread(evidence, groups, name) for name in CLASS_NAMES}
    return listed(spreads, " points"), [spreads["bone"] - spreads[name] for name in OTHERS]


def accuracy_says_little(evidence, groups):
    """Test that networks differ in the accuracy of bone by a small part of their IoU's spread."""
    accuracy, iou = (spread(evidence, groups, "bone", measure) for measure in ("accuracy", "iou"))
    limit = Estimate(*(SMALL_PART * end for end in iou))
    return f"accuracy within {accuracy} points, IoU within {iou}", [limit - accuracy]


def bone_is_lowest(evidence, groups):
    """Test that bone has the lowest IoU of all classes, and by far the fewest pixels."""
    (group,) = groups.values()
    pixels = scoring.counts(evidence.rows(group)).sum(axis=(0, 2))
    shares = dict(zip(CLASS_NAMES, 100 * pixels / pixels.sum(), strict=True))
    values = {name: evidence.estimates(group)[name] for name in CLASS_NAMES}
    margins = [values[name] - values["bone"] for name in OTHERS]
    margins += [exact(shares[name] - MAGNITUDE * shares["bone"]) for name in OTHERS]
    return f"IoU: {listed(values, ' %')}; test pixels: {listed(shares, ' %')}", margins


def gains_little(evidence, groups):
    """Test that longer training changes the mean IoU by less than a limit."""
    (long,) = groups.values()
    short = long._replace(horizon=SHORT)
    evidence.require({"short": short})
    if reason := evidence.untrained({"short": short}):
        raise NotTestable(reason)
    gains = {name: evidence.leads(long, short)[name] for name in published.LONGER_TRAINING_GAIN}
    margins = [LITTLE_GAIN - gains["mean"], gains["mean"] - (-LITTLE_GAIN)]
    return listed(gains, " points"), margins


# Scores of levels, slices and series


def level_is(evidence, groups, level, best):
    """Test that a network's IoU of bone is best, or worst, at `level`."""
    (group,) = groups.values()
    levels = evidence.scores_of(evidence.parts(group, "level", level), "bone")
    one, others = levels[level], [levels[name] for name in levels if name != level]
    return listed(levels, " %"), [one - other if best else other - one for other in others]


def single_slices(evidence, groups):
    """Test that bone IoU over slices has the paper's mean and standard deviation."""
    (group,) = groups.values()
    values = evidence.bone_iou(group)
    mean, deviation = (evidence.over_slices(group, statistic) for statistic in (np.mean, np.std))
    ours = (
        f"minimum {values.min():.2f} %, maximum {values.max():.2f} %, mean {mean} %, "
        f"standard deviation {deviation} %"
    )
    paper = published.UNET_IMAGES
    return ours, [same(mean, paper["mean"]), same(deviation, paper["standard_deviation"])]


def series_spread(evidence, groups, name):
    """Test that the best network's test series lie no farther apart than the paper's.

    The interval of their range is the widest that theirs allow.
    """
    values = evidence.scores_of(evidence.parts(evidence.best, "series"), name)
    middle, low, high = zip(*values.values(), strict=True)
    widest, narrowest = max(high) - min(low), max(0, max(low) - min(high))
    span = Estimate(max(middle) - min(middle), narrowest, widest)
    ours = f"{span} points: {listed({key: one.value for key, one in values.items()}, ' %')}"
    return ours, [published.SERIES_SPREAD[name] + HALF_DIGIT - span]


def false_bone(evidence, groups, causes):
    """Test that a network wrongly calls pixels bone for one of `causes`."""
    (group,) = groups.values()
    pixels = evidence.false_bone_of(group)
    found = {cause: int(pixels.get(cause, 0)) for cause in CAUSES if cause in causes}
    total = sum(found.values())
    return f"{total:,} of {pixels.sum():,} pixels of false bone: {listed(found)}", [exact(total)]


# Curves of U-net on the validation series


def curves(evidence):
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


def stays_above(evidence, groups, name):
    """Test that a class stays above the paper's limit from the paper's epoch on."""
    floor, start = published.CURVE_FLOOR, published.CURVE_EPOCHS[name]
    curve = curves(evidence)[name]
    lowest = curve.loc[start:].min()
    first = max(curve.index[curve <= floor], default=0) + 1
    reached = f"from epoch {first} on" if first in curve.index else "in no epoch to the last"
    ours = f"above {floor:.0f} % {reached}; lowest from epoch {start} on {lowest:.2f} %"
    return ours, [exact(lowest - floor)]


def only_bone_moves(evidence, groups):
    """Test that bone makes the largest step, and the other classes none that is large."""
    start = max(published.CURVE_EPOCHS.values())
    steps = curves(evidence).loc[start:].diff().abs().max().to_dict()
    others = max(steps[name] for name in OTHERS)
    ours = f"largest step between epochs from epoch {start} on: {listed(steps, ' points')}"
    return ours, [exact(steps["bone"] - others), exact(STILL_STEP - others)]


def bone_flattens(evidence, groups):
    """Test that bone makes smaller steps after the paper's epoch than before, and small ones."""
    flat = published.BONE_FLAT_EPOCH
    steps = curves(evidence)["bone"].diff().abs()
    before, after = steps.loc[:flat].mean(), steps.loc[flat + 1 :].mean()
    ours = f"mean step {before:.2f} points up to epoch {flat}, {after:.2f} after it"
    return ours, [exact(before - after), exact(FLAT_STEP - after)]


def bone_level(evidence, groups):
    """Test that bone flattens, and near the paper's level."""
    flat = published.BONE_FLAT_EPOCH
    level = curves(evidence)["bone"].loc[flat:].mean()
    _, margins = bone_flattens(evidence, groups)
    ours = f"mean from epoch {flat} on {level:.2f} %"
    return ours, [exact(NEAR - abs(level - published.BONE_FLAT)), *margins]


def iou_is_stricter(evidence, groups):
    """Test that mean Dice exceeds mean IoU more in the worst epoch than in the best."""
    history = evidence.history()
    gap = 100 * (history["val_mean_dice"] - history["val_mean_iou"])
    worst, best = history["val_mean_iou"].idxmin(), history["val_mean_iou"].idxmax()
    ours = (
        f"Dice - IoU: {gap[worst]:.2f} points in the worst epoch ({worst}), "
        f"{gap[best]:.2f} in the best ({best})"
    )
    return ours, [exact(gap[worst] - gap[best])]


# Counts and times, which need no trained network


def same_parameters(evidence, groups):
    """Test that all parameters, total and trainable, are those of Table 2."""
    total, trainable = evidence.costs("parameters"), evidence.costs("trainable_parameters")
    equal = sum(
        (total[model], trainable[model]) == (row["parameters"], row["trainable"])
        for model, row in published.TABLE2.items()
    )
    return f"{equal} of {len(total)} equal", [exact(equal - len(total) + 0.5)]


def costlier(evidence, groups, column, times, unit=""):
    """Test that models have each order of `times` by cost, by more than that factor."""
    factors = {pair: factor for order, factor in times.items() for pair in pairs(order)}
    costs = evidence.costs(column, dict.fromkeys(model for pair in factors for model in pair))
    ratios = {(one, two): costs[one] / costs[two] for one, two in factors}
    ours = f"{listed(costs, unit, 1)}; least ratio {min(ratios.values()):.2f}"
    return ours, [exact(ratios[pair] - factor) for pair, factor in factors.items()]


def similar_times(evidence, groups, models):
    """Test that the times of `models` for a slice are similar."""
    times = evidence.costs("milliseconds_per_slice", models)
    ratio = max(times.values()) / min(times.values())
    ours = f"{listed(times, ' ms', 1)}; slowest to fastest {ratio:.2f}"
    return ours, [exact(SIMILAR - ratio)]
