"""Tables -> which of the paper's claims hold here: a verdict on the reproduction."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scipy.stats import spearmanr

from bonelib import published, tables
from bonelib.settings import BASELINE, CLASS_NAMES, TABLE1_MODELS, Settings

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested here"
LITTLE_GAIN = 1.0  # percentage points of mean IoU; the paper calls 0.73 not significant
NAMES = published.METHOD_NAMES


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, its numbers and ours, and whether it holds here."""

    claim: str
    paper: str
    ours: str
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What the claims are tested on: tables by method."""

    short: dict  # Table 1: (model, measure) -> row
    long: dict  # Table 3
    costs: dict  # Table 2: model -> row
    series: list  # Table 4: a row a series with bone
    records: dict


def gather(scores, records: dict, settings: Settings, histories: dict | None = None) -> Evidence:
    """Return the rows of Tables 1 to 4 by method, without those that lack a class."""
    models = {name: model for model, name in NAMES.items()}
    measures = {name: measure for measure, name in published.MEASURE_NAMES.items()}
    short, long = tables.table1(scores, settings), tables.table3(scores, {}, settings)
    by_measure = [
        {
            (models[row["name"]], measures[row["measure"]]): row
            for row in table.frame.to_dict("records")
            if not math.isnan(row["mean"])
        }
        for table in (short, long)
    ]
    table2 = tables.table2(records, settings)
    costs = {models[row["name"]]: row for row in table2.frame.to_dict("records")}
    by_series = tables.table4(scores, records, settings, histories).frame.to_dict("records")
    series = [row for row in by_series[:-1] if not math.isnan(row["bone"])]
    return Evidence(*by_measure, costs, series, records)


def _iou(rows: dict, models: Sequence[str], column: str = "mean") -> dict[str, float]:
    return {model: rows[model, "iou"][column] for model in models}


def _list(values: dict[str, float], unit: str = "%") -> str:
    return ", ".join(
        f"{NAMES[name]} {value:,{'' if isinstance(value, int) else '.2f'}} {unit}"
        for name, value in values.items()
    )


def _ranking(values: dict[str, float]) -> list[str]:
    return sorted(values, key=values.get, reverse=True)


def findings(
    scores, records: dict[str, dict], settings: Settings, histories: dict | None = None
) -> list[Finding]:
    """Test the paper's findings on our scores, in the order in which the paper makes them.

    One training with one seed stands behind each number, here as in the paper, so a verdict
    says what happened and not how likely it is. A claim whose methods were not all run is
    not tested, nor is any where the classes are not the paper's.
    """
    if not settings.has_papers_classes:
        nothing = Evidence({}, {}, {}, [], {})
        why = f"class scheme {settings.class_scheme}, not the paper's classes"
        return [replace(claim(nothing), ours="", why=why) for claim in CLAIMS]
    evidence = gather(scores, records, settings, histories)
    return [claim(evidence) for claim in CLAIMS]


def _claim(text: str, paper: str, short=(), long=(), costs=()) -> Callable:
    """Turn a function that returns (ours, holds, why) into one that returns a Finding.

    The claim is not tested where Table 1, 3 or 2 lacks one of the models it names, or
    where the function returns None for `holds`.
    """

    def decorate(test: Callable) -> Callable:
        def tested(evidence: Evidence) -> Finding:
            missing = [model for model in short if (model, "iou") not in evidence.short]
            missing += [model for model in long if (model, "iou") not in evidence.long]
            missing += [model for model in costs if model not in evidence.costs]
            if missing:
                names = ", ".join(NAMES[model] for model in dict.fromkeys(missing))
                return Finding(text, paper, "", UNTESTED, f"no complete score: {names}")
            ours, holds, why = test(evidence)
            verdict = UNTESTED if holds is None else HOLDS if holds else FAILS
            return Finding(text, paper, ours, verdict, why)

        return tested

    return decorate


PAPER_SHORT = {model: row["iou"][0] for model, row in published.TABLE1.items()}
PAPER_LONG = {model: row["iou"][0] for model, row in published.TABLE3.items()}
PAPER_BONE = {model: row["iou"][3] for model, row in published.TABLE1.items()}


def _ordered(values: dict[str, float]) -> str:
    return _list({model: values[model] for model in _ranking(values)})


@_claim(
    "The five networks rank by mean IoU as in Table 1.",
    _ordered(PAPER_SHORT),
    short=TABLE1_MODELS,
)
def _same_ranking(evidence):
    ours = _iou(evidence.short, TABLE1_MODELS)
    rho = spearmanr(list(ours.values()), [PAPER_SHORT[model] for model in ours]).statistic
    why = f"Spearman's rank correlation with the paper {rho:.2f}; 'holds' asks for the same order"
    return _ordered(ours), _ranking(ours) == _ranking(PAPER_SHORT), why


@_claim(
    "U-net is the best of the five, by mean IoU and by bone IoU.",
    f"mean {PAPER_SHORT['unet']} %, bone {PAPER_BONE['unet']} %",
    short=TABLE1_MODELS,
)
def _unet_best(evidence):
    best = {
        column: _ranking(_iou(evidence.short, TABLE1_MODELS, column))[0]
        for column in ("mean", "bone")
    }
    row = evidence.short["unet", "iou"]
    why = ", ".join(f"best {column}: {NAMES[model]}" for column, model in best.items())
    ours = f"mean {row['mean']} %, bone {row['bone']} %"
    return ours, set(best.values()) == {"unet"}, why


@_claim(
    "FCN32 and PSPNet are behind U-net on bone.",
    _list({model: PAPER_BONE[model] for model in ("unet", "fcn32", "pspnet")}),
    short=("unet", "fcn32", "pspnet"),
)
def _coarse_networks_behind(evidence):
    ours = _iou(evidence.short, ("unet", "fcn32", "pspnet"), "bone")
    return _list(ours), max(ours["fcn32"], ours["pspnet"]) < ours["unet"], "bone IoU"


@_claim(
    "Bone is the class with the lowest IoU in every network.",
    "in all eight rows of Tables 1 and 3",
)
def _bone_lowest(evidence):
    rows = [
        row
        for part in (evidence.short, evidence.long)
        for (model, measure), row in part.items()
        if measure == "iou" and model != BASELINE
    ]
    lowest = sum(row["bone"] < min(row[name] for name in CLASS_NAMES[:2]) for row in rows)
    holds = lowest == len(rows) if rows else None
    return f"in {lowest} of {len(rows)} rows", holds, "" if rows else "no network was run"


@_claim(
    f"Mean pixel accuracy is above {published.ACCURACY_FLOOR:.0f} % in every network.",
    f"lowest {min(row['accuracy'][0] for row in published.TABLE1.values())} %",
)
def _accuracy_high(evidence):
    values = {
        model: row["mean"]
        for part in (evidence.short, evidence.long)
        for (model, measure), row in part.items()
        if measure == "accuracy" and model != BASELINE
    }
    if not values:
        return "", None, "no network was run"
    lowest = min(values, key=values.get)
    why = "mean over classes: Table 1 itself has FCN32's patient class below"
    ours = f"lowest {values[lowest]} % ({NAMES[lowest]})"
    return ours, values[lowest] > published.ACCURACY_FLOOR, why


@_claim(
    "The parameter counts are those of Table 2, total and trainable.",
    "five networks",
)
def _same_parameters(evidence):
    models = [model for model in TABLE1_MODELS if model in evidence.costs]
    same = [
        model
        for model in models
        if evidence.costs[model]["parameters_difference"] == 0
        and evidence.costs[model]["trainable_difference"] == 0
    ]
    why = "" if len(models) == len(TABLE1_MODELS) else "only these were run"
    return f"{len(same)} of {len(models)} equal", same == models if models else None, why


def _compare_costs(column: str, unit: str, rows: dict) -> str:
    return _list({model: rows[model][column] for model in ("unet", "fcn8")}, unit)


@_claim(
    "U-net is smaller than FCN8.",
    _compare_costs("parameters", "parameters", published.TABLE2),
    costs=("unet", "fcn8"),
)
def _unet_smaller(evidence):
    costs = evidence.costs
    ours = _compare_costs("parameters", "parameters", costs)
    return ours, costs["unet"]["parameters"] < costs["fcn8"]["parameters"], ""


@_claim(
    "U-net is faster than FCN8.",
    _compare_costs("milliseconds", "ms", published.TABLE2),
    costs=("unet", "fcn8"),
)
def _unet_faster(evidence):
    costs = evidence.costs
    ours = _compare_costs("milliseconds", "ms", costs)
    return ours, costs["unet"]["milliseconds"] < costs["fcn8"]["milliseconds"], "this machine"


@_claim(
    f"Longer training gains U-net little (less than {LITTLE_GAIN} point of mean IoU).",
    f"{published.LONGER_TRAINING_GAIN['mean']:+} points",
    short=("unet",),
    long=("unet",),
)
def _longer_training(evidence):
    rows = evidence.long["unet", "iou"], evidence.short["unet", "iou"]
    gain = round(rows[0]["mean"] - rows[1]["mean"], 2)
    return f"{gain:+} points", gain < LITTLE_GAIN, "the limit is this project's"


def _backbone(better: str, worse: str) -> Callable:
    """Return the claim that one row of Table 3 beats another by mean IoU."""

    @_claim(
        f"{NAMES[better]} beats {NAMES[worse]} by mean IoU (encoders trained on ImageNet).",
        _list({model: PAPER_LONG[model] for model in (worse, better)}),
        long=(worse, better),
    )
    def test(evidence):
        ours = _iou(evidence.long, (worse, better))
        random = [
            NAMES[model]
            for model in (worse, better)
            if evidence.records.get(model, {}).get("encoder_weights") == "random"
        ]
        if random:
            return _list(ours), None, f"random encoder, not ImageNet's: {', '.join(random)}"
        return _list(ours), ours[better] > ours[worse], ""

    return test


@_claim(
    f"Every test series has a bone IoU above {published.SERIES_BONE_FLOOR:.0f} % (best model).",
    f"lowest {min(row['iou'][3] for row in published.TABLE4)} %",
)
def _every_series(evidence):
    if not evidence.series:
        return "", None, "no network was run"
    lowest = min(evidence.series, key=lambda row: row["bone"])
    holds = lowest["bone"] > published.SERIES_BONE_FLOOR
    return f"lowest {lowest['bone']} % ({lowest['series']})", holds, ""


@_claim(
    "U-net beats a classical threshold segmentation on bone.",
    "not in the paper: this project's check",
    short=(BASELINE,),
    long=("unet",),
)
def _beats_baseline(evidence):
    ours = _iou(evidence.long, ("unet",), "bone") | _iou(evidence.short, (BASELINE,), "bone")
    return _list(ours), ours["unet"] > ours[BASELINE], "bone IoU after the longer training"


CLAIMS = (
    _same_ranking,
    _unet_best,
    _coarse_networks_behind,
    _bone_lowest,
    _accuracy_high,
    _same_parameters,
    _unet_smaller,
    _unet_faster,
    _longer_training,
    _backbone("vgg_unet", "unet"),
    _backbone("resnet50_unet", "vgg_unet"),
    _every_series,
    _beats_baseline,
)


def verdict(tested: Sequence[Finding]) -> str:
    """Return the outcome in one sentence."""
    number = {name: sum(item.verdict == name for item in tested) for name in (HOLDS, FAILS)}
    untested = len(tested) - sum(number.values())
    return (
        f"{number[HOLDS]} of {sum(number.values())} findings tested here hold, "
        f"{number[FAILS]} do not; {untested} of {len(tested)} were not tested."
    )
