"""Results -> what a reader sees in a table or figure, in a sentence."""

from collections.abc import Callable

import numpy as np

from bonelib import published
from bonelib.evaluation import scoring
from bonelib.replication.evidence import Evidence, Group, NotTestable
from bonelib.replication.verdicts import NAMES, extreme, listed
from bonelib.settings import CLASS_NAMES

WRITERS: dict[str, Callable[[Evidence], str]] = {}


def sentences(evidence: Evidence) -> dict[str, str]:
    """Return a sentence for each table and figure that has the results it needs, by name."""
    if not evidence.settings.has_papers_classes:
        return {}
    made = {}
    for name, write in WRITERS.items():
        try:
            made[name] = write(evidence)
        except NotTestable:
            continue
    return made


def _about(name: str) -> Callable:
    def decorate(write: Callable[[Evidence], str]) -> Callable:
        WRITERS[name] = write
        return write

    return decorate


def _ends(evidence: Evidence):
    """Return the first, the best and the last epoch of U-net's training, in %, and the best's."""
    history = evidence.history()
    best = history["val_mean_iou"].idxmax()
    return 100 * history.iloc[0], 100 * history.loc[best], 100 * history.iloc[-1], best


@_about("summary")
def _summary(evidence):
    parts = []
    for groups, table in (
        (evidence.short(), published.TABLE1),
        (evidence.long(), published.TABLE3),
    ):
        values = {model: evidence.score(group) for model, group in groups.items()}
        best, value = extreme(values, max)
        theirs = max(table, key=lambda model: table[model]["iou"][0])
        parts.append(
            f"Of the {len(values)} networks of Table {1 if table is published.TABLE1 else 3}, "
            f"{NAMES[best]} has the best mean IoU, {value} % with its 95 % interval "
            f"(paper: {NAMES[theirs]}, {table[theirs]['iou'][0]} %)."
        )
    return " ".join(parts)


@_about("figure3")
def _accuracy(evidence):
    first, _, last, _ = _ends(evidence)
    return (
        f"U-net's accuracy rises from {first['accuracy']:.2f} to {last['accuracy']:.2f} % on the "
        f"training slices and from {first['val_accuracy']:.2f} to {last['val_accuracy']:.2f} % on "
        "the validation series."
    )


@_about("figure4")
def _class_curves(evidence):
    _, best, _, epoch = _ends(evidence)
    values = {name: best[f"val_iou_{name}"] for name in CLASS_NAMES}
    return f"In the best epoch, {epoch}, the IoU by class is: {listed(values, ' %')}."


@_about("figure5")
def _mean_curves(evidence):
    first, best, _, epoch = _ends(evidence)
    return (
        f"Mean IoU rises from {first['val_mean_iou']:.2f} to {best['val_mean_iou']:.2f} % in epoch "
        f"{epoch}, mean Dice from {first['val_mean_dice']:.2f} to {best['val_mean_dice']:.2f} %."
    )


def _best_and_worst(evidence: Evidence, groups: dict[str, Group], name: str) -> str:
    values = {model: evidence.score(group, name) for model, group in groups.items()}
    (worst, low), (best, high) = extreme(values), extreme(values, max)
    if len(values) == 1:
        return f"{NAMES[best]} reaches {high} %"
    return f"{NAMES[best]} is first with {high} % and {NAMES[worst]} last with {low} %"


@_about("table1")
def _networks(evidence):
    groups = evidence.short()
    return (
        f"By mean IoU {_best_and_worst(evidence, groups, 'mean')}; by IoU of bone "
        f"{_best_and_worst(evidence, groups, 'bone')}. The paper has U-net first with "
        f"{published.TABLE1['unet']['iou'][0]} % and {published.TABLE1['unet']['iou'][3]} %."
    )


@_about("table2")
def _costs(evidence):
    times = evidence.costs("milliseconds_per_slice")
    parameters = evidence.costs("parameters")
    same = sum(
        value == published.TABLE2[model]["parameters"] for model, value in parameters.items()
    )
    fastest, slowest = min(times, key=times.get), max(times, key=times.get)
    return (
        f"{same} of {len(parameters)} networks have the paper's number of parameters. A slice "
        f"takes from {times[fastest]:.1f} ms ({NAMES[fastest]}) to {times[slowest]:.1f} ms "
        f"({NAMES[slowest]})."
    )


@_about("figure7")
def _slices(evidence):
    group = evidence.short("unet")["unet"]
    values = scoring.bone_iou(evidence.rows(group))
    least, lower, middle, upper, most = np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1])
    return (
        f"After {group.epochs} epochs U-net's IoU of bone on single slices has the median "
        f"{middle:.2f} % and the quartiles {lower:.2f} and {upper:.2f} %, between {least:.2f} and "
        f"{most:.2f} %."
    )


@_about("table3")
def _backbones(evidence):
    groups = evidence.long()
    return (
        f"By mean IoU {_best_and_worst(evidence, groups, 'mean')}; by IoU of bone "
        f"{_best_and_worst(evidence, groups, 'bone')}. The paper has ResNet-U-net first with "
        f"{published.TABLE3['resnet50_unet']['iou'][0]} % and "
        f"{published.TABLE3['resnet50_unet']['iou'][3]} %."
    )


@_about("table4")
def _series(evidence):
    (best,) = evidence.best().values()
    parts = evidence.of_each_series(best)
    if not parts:
        raise NotTestable("no series has bone")
    values = {series: evidence.score(part, "bone") for series, part in parts.items()}
    (worst, low), (easiest, high) = extreme(values), extreme(values, max)
    return (
        f"{NAMES[best.model]}'s IoU of bone lies between {low} % ({worst}) and {high} % "
        f"({easiest}) in the {len(values)} test series."
    )


@_about("levels")
def _levels(evidence):
    (best,) = evidence.best().values()
    levels = evidence.of_each_level(best)
    if len(levels) < 2:
        raise NotTestable("fewer than two levels have bone")
    values = {level: evidence.score(group, "bone") for level, group in levels.items()}
    (worst, low), (easiest, high) = extreme(values), extreme(values, max)
    return (
        f"{NAMES[best.model]} segments bone best at the level '{easiest}' ({high} %) and worst at "
        f"the level '{worst}' ({low} %)."
    )


@_about("surfaces")
def _surfaces(evidence):
    (best,) = evidence.best().values()
    distances = evidence.distances(best)
    if distances.empty:
        raise NotTestable("no distances are recorded")
    return (
        f"The surface of bone by {NAMES[best.model]} lies {distances.median():.2f} mm from the "
        f"reference's on average in the median test series and {distances.max():.2f} mm in the "
        "worst."
    )


@_about("false_bone")
def _false_bone(evidence):
    (best,) = evidence.best().values()
    pixels = evidence.false_bone_of(best)
    shares = 100 * pixels / pixels.sum()
    return f"Of {NAMES[best.model]}'s false bone: {listed(shares.to_dict(), ' %')}."
