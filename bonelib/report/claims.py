"""The paper's claims, of claims.yaml.j2, tested on a run: which of them hold here.

A measure takes an Evidence, the groups of the claim's networks by name, and the claim's options.
It returns our numbers and the margins, both by name; `evidence.judge` turns the margins into a
verdict.
"""

import math
from itertools import pairwise, product
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import yaml

from bonelib import published
from bonelib.evaluation import scoring
from bonelib.evaluation.error_analysis import CAUSES
from bonelib.report.evidence import (
    FAILS,
    HOLDS,
    LONG,
    SHORT,
    UNCERTAIN,
    UNTESTED,
    VERDICTS,
    Estimate,
    Evidence,
    Group,
    NotTestable,
    exact,
    extreme,
    judge,
    listed,
    name_of,
    same,
)
from bonelib.settings import BONE, CLASS_NAMES, Settings

TEMPLATES = Path(__file__).parent / "templates"
CLAIMS = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
).get_template("claims.yaml.j2")
FINDINGS, COUNTS, OWN = "Findings", "Counts and times", "Not in the paper"
WORDS = {  # of one finding, and of several
    HOLDS: ("holds", "hold"),
    UNCERTAIN: ("holds within uncertainty", "hold within uncertainty"),
    FAILS: ("does not hold", "do not hold"),
}
AGAINST = "Our number by itself points the other way."

# The horizon and encoder of a network, by the names of claims.yaml.j2.
TRAININGS = {"none": (), "short": (SHORT,), "long": (LONG,), "imagenet": (LONG, "imagenet")}

HALF_DIGIT = 0.005  # of a printed score

OTHERS = CLASS_NAMES[:BONE]


def findings(evidence: Evidence) -> pd.DataFrame:
    """Test the paper's claims on a run; return one row per claim, in the order of its sections.

    Columns: list (FINDINGS, COUNTS or OWN), part (the heading in claims.yaml.j2), section (where
    the paper makes the claim), claim, paper and ours (numbers in words), verdict, why. A claim is
    not testable where one of its networks was not run, trained less than the paper's or finds
    no bone. `evidence.judge` defines the other verdicts.
    """
    rows = [
        {"list": part if part in (COUNTS, OWN) else FINDINGS, "part": part, "section": part}
        | row
        | tested(evidence, row)
        for part, rows in claims(evidence).items()
        for row in rows
    ]
    columns = ["list", "part", "section", "claim", "paper", "ours", "verdict", "why"]
    return pd.DataFrame(rows)[columns].astype(str)


def claims(evidence: Evidence) -> dict[str, list[dict]]:
    """Return the rows of claims.yaml.j2 by part, with their numbers filled in."""
    try:
        best, distances = evidence.best.model, evidence.distances(evidence.best)
    except NotTestable:
        best, distances = "", pd.Series()
    text = CLAIMS.render(
        vars(published), name_of=name_of, in_words=in_words, settings=evidence.settings,
        paper_settings=Settings, best=best, distances=distances,
    )  # fmt: skip
    return {str(part): rows for part, rows in yaml.safe_load(text).items()}


def tested(evidence: Evidence, row: dict) -> dict[str, str]:
    """Return our number, the verdict and a remark on one claim, a row of `claims`."""
    found = {"ours": "", "verdict": UNTESTED, "why": row.get("why", "")}
    if "measure" not in row:
        return found
    groups = {
        model: Group(model, *TRAININGS[training])
        for training, models in row.get("networks", {}).items()
        for model in models.split()
    }
    untrained = ""
    try:
        evidence.require(groups)
        untrained = evidence.untrained(groups)
        measure = MEASURES[row["measure"]]
        numbers, margins = measure(evidence, groups, **row.get("options", {}))
    except NotTestable as reason:
        return found | {"why": untrained or str(reason)}
    verdict = judge(margins.values())
    ours = listed(numbers, row.get("unit", " %"))
    if uncertain := {name: one for name, one in margins.items() if one.low < one.value < math.inf}:
        name, smallest = extreme(uncertain)
        ours += f"; smallest margin, {name}: {smallest}"
    if untrained or verdict == UNTESTED:
        return found | {"ours": ours, "why": untrained or "a number is missing"}
    is_against = verdict != FAILS and any(margin.value <= 0 for margin in margins.values())
    why = f"{found['why']} {AGAINST}".strip() if is_against else found["why"]
    return {"ours": ours, "verdict": verdict, "why": why}


def verdict(found: pd.DataFrame) -> str:
    """Return the outcome for the paper's findings in one sentence."""
    verdicts = found.loc[found["list"] == FINDINGS, "verdict"]
    number = verdicts.value_counts().reindex(VERDICTS, fill_value=0)
    decided = len(verdicts) - number.pop(UNTESTED)
    outcome = [f"{count} {WORDS[name][count > 1]}" for name, count in number.items() if count]
    start = f"Of the paper's {len(verdicts)} findings, {decided or 'none'} could be tested here"
    return start + (f": {', '.join(outcome)}." if outcome else ".")


def pairs(order: str) -> list[tuple[str, str]]:
    """Return the pairs of an order such as "unet > fcn8 > pspnet segnet", neighbours only."""
    tiers = [tier.split() for tier in order.split(">")]
    return [pair for neighbours in pairwise(tiers) for pair in product(*neighbours)]


def in_words(key: str) -> str:
    """Return a class and measure such as "bone iou" in words."""
    name, measure = key.split()
    return f"{name} {published.MEASURE_NAMES[measure]}"


# Measures of networks' scores


def leads(evidence, groups, order, of=("mean",), points=None, level=""):
    """Test that networks have the `order` by IoU, with more than `points` over the lower one."""
    if level:
        groups = {key: evidence.parts(one, "level", level)[level] for key, one in groups.items()}
    values, margins = {}, {}
    for name in of:
        scores = evidence.scores_of(groups, name)
        values |= {f"{name_of(model)} {name}": score for model, score in scores.items()}
        for higher, lower in pairs(order):
            lead = evidence.leads(groups[higher], groups[lower])[name]
            pair = f"{name}, {name_of(higher)} over {name_of(lower)}"
            margins[pair] = lead - (points or {}).get(lower, 0)
    return values, margins


def above(evidence, groups, limits, below=(), each=""):
    """Test that scores are above `limits`, by class and measure; those of `below` are below.

    With `each`, such as "series", the best network's scores in each of them are tested.
    """
    if each:
        groups = evidence.parts(evidence.best, each)
    values, margins = {}, {}
    for key, limit in limits.items():
        for model, score in evidence.scores_of(groups, *key.split()).items():
            name = f"{name_of(model)} {in_words(key)}"
            values[name] = score
            margins[name] = exact(limit) - score if model in below else score - limit
    return values, margins


def quoted(evidence, groups, scores):
    """Test that a network has the paper's `scores`, by class and measure."""
    values, margins = {}, {}
    for key, paper in scores.items():
        _, values[in_words(key)] = extreme(evidence.scores_of(groups, *key.split()))
        margins[key] = same(values[in_words(key)], paper)
    return values, margins


def spread(evidence, groups, name, measure="iou"):
    """Return the points by which the best network exceeds the worst."""
    values = evidence.scores_of(groups, name, measure)
    (worst, _), (best, _) = extreme(values), extreme(values, max)
    return evidence.leads(groups[best], groups[worst], measure)[name]


def bone_differs_most(evidence, groups):
    """Test that networks differ more in the IoU of bone than in that of the other classes."""
    values = {name: spread(evidence, groups, name) for name in CLASS_NAMES}
    return values, {f"bone to {name}": values["bone"] - values[name] for name in OTHERS}


def accuracy_says_little(evidence, groups, part):
    """Test that networks differ in the accuracy of bone by a small part of their IoU's spread."""
    accuracy, iou = (spread(evidence, groups, "bone", measure) for measure in ("accuracy", "iou"))
    limit = Estimate(*(part * end for end in iou))
    return {"accuracy within": accuracy, "IoU within": iou}, {"accuracy": limit - accuracy}


def bone_is_lowest(evidence, groups, times):
    """Test that bone has the lowest IoU of all classes, and by far the fewest pixels."""
    (group,) = groups.values()
    pixels = scoring.counts(evidence.rows(group)).sum(axis=(0, 2))
    shares = dict(zip(CLASS_NAMES, 100 * pixels / pixels.sum(), strict=True))
    iou = evidence.estimates(group)
    margins = {f"IoU of {name}": iou[name] - iou["bone"] for name in OTHERS}
    for name in OTHERS:
        margins[f"pixels of {name}"] = exact(shares[name] - times * shares["bone"])
    pixels = {f"pixels of {name}": exact(share) for name, share in shares.items()}
    return {f"IoU of {name}": iou[name] for name in CLASS_NAMES} | pixels, margins


def gains_little(evidence, groups, points):
    """Test that longer training changes the mean IoU by less than a limit."""
    (long,) = groups.values()
    short = long._replace(horizon=SHORT)
    evidence.require({"short": short})
    if reason := evidence.untrained({"short": short}):
        raise NotTestable(reason)
    gains = {name: evidence.leads(long, short)[name] for name in published.LONGER_TRAINING_GAIN}
    margins = {"gain": exact(points) - gains["mean"], "loss": gains["mean"] - (-points)}
    return gains, margins


# Scores of levels, slices and series


def level_is(evidence, groups, level, best):
    """Test that a network's IoU of bone is best, or worst, at `level`."""
    (group,) = groups.values()
    levels = evidence.scores_of(evidence.parts(group, "level", level), "bone")
    one, others = levels[level], {name: levels[name] for name in levels if name != level}
    return levels, {name: one - two if best else two - one for name, two in others.items()}


def single_slices(evidence, groups):
    """Test that bone IoU over slices has the paper's mean and standard deviation."""
    (group,) = groups.values()
    values, statistics = evidence.bone_iou(group), {"mean": np.mean, "standard_deviation": np.std}
    ours = {name: evidence.over_slices(group, one) for name, one in statistics.items()}
    margins = {name: same(one, published.UNET_IMAGES[name]) for name, one in ours.items()}
    ours |= {"minimum": exact(values.min()), "maximum": exact(values.max())}
    return {name.replace("_", " "): one for name, one in ours.items()}, margins


def series_spread(evidence, groups, name):
    """Test that the best network's test series lie no farther apart than the paper's.

    The interval of their range is the widest that theirs allow.
    """
    values = evidence.scores_of(evidence.parts(evidence.best, "series"), name)
    middle, low, high = zip(*values.values(), strict=True)
    widest, narrowest = max(high) - min(low), max(0, max(low) - min(high))
    span = Estimate(max(middle) - min(middle), narrowest, widest)
    limit = exact(published.SERIES_SPREAD[name] + HALF_DIGIT)
    return {"range": span} | values, {"range": limit - span}


def false_bone(evidence, groups, causes):
    """Test that a network wrongly calls pixels bone for one of `causes`."""
    (group,) = groups.values()
    pixels = evidence.false_bone_of(group)
    found = {cause: int(pixels.get(cause, 0)) for cause in CAUSES if cause in causes}
    margins = {"all causes": exact(sum(found.values()))}
    return found | {"of all false bone": int(pixels.sum())}, margins


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
    start = published.CURVE_EPOCHS[name]
    lowest = exact(curves(evidence)[name].loc[start:].min())
    return {f"lowest from epoch {start} on": lowest}, {name: lowest - published.CURVE_FLOOR}


def only_bone_moves(evidence, groups, still):
    """Test that bone makes the largest step, and the other classes none that is large."""
    start = max(published.CURVE_EPOCHS.values())
    steps = curves(evidence).loc[start:].diff().abs().max()
    others = steps[list(OTHERS)].max()
    margins = {"bone": exact(steps["bone"] - others), "others": exact(still - others)}
    return {f"largest step of {name}": step for name, step in steps.items()}, margins


def bone_flattens(evidence, groups, step):
    """Test that bone makes smaller steps after the paper's epoch than before, and small ones."""
    flat = published.BONE_FLAT_EPOCH
    steps = curves(evidence)["bone"].diff().abs()
    before, after = steps.loc[:flat].mean(), steps.loc[flat + 1 :].mean()
    values = {f"mean step to epoch {flat} of": before, "mean step after it of": after}
    return values, {"smaller": exact(before - after), "small": exact(step - after)}


def bone_level(evidence, groups, step, near):
    """Test that bone flattens, and near the paper's level."""
    flat = published.BONE_FLAT_EPOCH
    level = curves(evidence)["bone"].loc[flat:].mean()
    _, margins = bone_flattens(evidence, groups, step)
    margins["level"] = exact(near - abs(level - published.BONE_FLAT))
    return {f"mean from epoch {flat} on": level}, margins


def iou_is_stricter(evidence, groups):
    """Test that mean Dice exceeds mean IoU more in the worst epoch than in the best."""
    history = evidence.history()
    gap = 100 * (history["val_mean_dice"] - history["val_mean_iou"])
    worst, best = history["val_mean_iou"].idxmin(), history["val_mean_iou"].idxmax()
    values = {"worst epoch's Dice - IoU": gap[worst], "best epoch's": gap[best]}
    return values, {"worst over best": exact(gap[worst] - gap[best])}


# Counts and times, which need no trained network


def same_parameters(evidence, groups):
    """Test that all parameters, total and trainable, are those of Table 2."""
    total, trainable = evidence.costs("parameters"), evidence.costs("trainable_parameters")
    is_equal = {
        model: (total[model], trainable[model]) == (row["parameters"], row["trainable"])
        for model, row in published.TABLE2.items()
    }
    return total, {model: exact(1 if equal else -1) for model, equal in is_equal.items()}


def costlier(evidence, groups, column, times):
    """Test that models have each order of `times` by cost, by more than that factor."""
    factors = {pair: factor for order, factor in times.items() for pair in pairs(order)}
    costs = evidence.costs(column, dict.fromkeys(model for pair in factors for model in pair))
    return costs, {
        f"ratio of {name_of(one)} to {name_of(two)}": exact(costs[one] / costs[two] - factor)
        for (one, two), factor in factors.items()
    }


def similar_times(evidence, groups, models, ratio):
    """Test that the times of `models` for a slice are similar."""
    times = evidence.costs("milliseconds_per_slice", models)
    return times, {"ratio": exact(ratio - max(times.values()) / min(times.values()))}


FUNCTIONS = (
    leads, above, quoted, bone_differs_most, accuracy_says_little, bone_is_lowest, gains_little,
    level_is, single_slices, series_spread, false_bone, stays_above, only_bone_moves,
    bone_flattens, bone_level, iou_is_stricter, same_parameters, costlier, similar_times,
)  # fmt: skip
MEASURES = {function.__name__: function for function in FUNCTIONS}
