"""Section 5.2: what the paper sees in U-net's training, Figures 3 to 5."""

import pandas as pd

from bonelib import published, scoring
from bonelib.replication.claims import Claims, Outcome, listed
from bonelib.replication.evidence import Evidence, NotTestable
from bonelib.replication.verdicts import Estimate, apart, exact, whether
from bonelib.settings import BONE, CLASS_NAMES, Settings

claims = Claims("5.2")

NEAR = 5.0  # points of IoU that "approximately" allows; the limit is this project's
NO_INTERVAL = "One training, one validation series: no interval."
FLOOR, FLAT = published.CURVE_FLOOR, published.BONE_FLAT_EPOCH


def shorter_epochs(settings: Settings) -> str:
    """Say how an epoch differs from the paper's; "" where it does not."""
    ours, paper = (one.batch_size * one.steps_per_epoch for one in (settings, Settings()))
    return "" if ours == paper else f"An epoch is {ours:,} slices here, {paper:,} in the paper."


def _only_if_epochs_are_the_papers(evidence: Evidence, ours: str) -> None:
    why = shorter_epochs(evidence.settings)
    if why:
        raise NotTestable(f"{why} Here: {ours}.")


def _curve(evidence: Evidence, name: str) -> pd.Series:
    return 100 * evidence.history()[f"val_iou_{name}"]


def _beyond_flat(evidence: Evidence) -> pd.Series:
    """Return the curve of bone, which must go on after the epoch that flattens it."""
    curve = _curve(evidence, "bone")
    if curve.index.max() <= FLAT:
        raise NotTestable(f"The training ends with epoch {curve.index.max()}.")
    return curve


def _stays_above(name: str) -> None:
    """Add the claim on the epoch from which a class stays above 90 %."""
    epoch = published.CURVE_EPOCHS[name]

    @claims.add(
        f"On the validation series U-net's IoU of {name} is above {FLOOR:.0f} % from epoch "
        f"{epoch} on.",
        f"above {FLOOR:.0f} % from epoch {epoch} on",
    )
    def test(evidence):
        curve = _curve(evidence, name)
        below = curve.index[curve <= FLOOR]
        first = below.max() + 1 if len(below) else curve.index[0]
        reached = f"from epoch {first} on" if first in curve.index else "in no epoch to the last"
        lowest = curve.loc[epoch:].min()
        ours = f"above {FLOOR:.0f} % {reached}; lowest from epoch {epoch} on {lowest:.2f} %"
        if first > epoch:
            _only_if_epochs_are_the_papers(evidence, ours)
        why = f"{NO_INTERVAL} {shorter_epochs(evidence.settings)}".strip()
        return Outcome(ours, [exact(lowest - FLOOR)], why)


for class_name in published.CURVE_EPOCHS:
    _stays_above(class_name)


@claims.add(
    "After that the curves of background and patient hardly move, while that of bone does.",
    "in words only",
)
def _bone_moves_most(evidence):
    start = max(published.CURVE_EPOCHS.values())
    steps = {name: _curve(evidence, name).loc[start:].diff().abs().max() for name in CLASS_NAMES}
    ours = f"largest step between epochs from epoch {start} on: {listed(steps, ' points')}"
    others = max(steps[name] for name in CLASS_NAMES[:BONE])
    return Outcome(ours, [exact(steps["bone"] - others)], NO_INTERVAL)


@claims.add(
    f"The IoU of bone moves a lot up to epoch {FLAT} and flattens after it.",
    "in words only",
)
def _bone_flattens(evidence):
    steps = _beyond_flat(evidence).diff().abs()
    before, after = steps.loc[:FLAT].mean(), steps.loc[FLAT + 1 :].mean()
    ours = f"mean step {before:.2f} points up to epoch {FLAT}, {after:.2f} after it"
    _only_if_epochs_are_the_papers(evidence, ours)
    return Outcome(ours, [exact(before - after)], NO_INTERVAL)


@claims.add(
    "The level on which the IoU of bone flattens is about 80 %.",
    f"about {published.BONE_FLAT:.0f} %",
)
def _bone_level(evidence):
    level = _beyond_flat(evidence).loc[FLAT:].mean()
    ours = f"mean from epoch {FLAT} on {level:.2f} %"
    _only_if_epochs_are_the_papers(evidence, ours)
    why = f"{NO_INTERVAL} 'About' is taken as within {NEAR:.0f} points. Other patients."
    return Outcome(ours, [exact(NEAR - abs(level - published.BONE_FLAT))], why)


@claims.add(
    "Bone has the lowest IoU, and it has by far the fewest pixels, which may be why.",
    f"{listed(published.CLASS_SHARES, ' %')} of the test pixels (implied by its scores)",
)
def _bone_is_rare(evidence):
    groups = evidence.networks()
    counts = scoring.counts(evidence.rows(next(iter(groups.values()))))
    pixels = counts.sum(axis=(0, 2))
    shares = dict(zip(CLASS_NAMES, 100 * pixels / pixels.sum(), strict=True))
    margins = [
        apart(_lowest_other(evidence, group), evidence.score(group, "bone"))
        for group in groups.values()
    ]
    lowest = sum(margin.value > 0 for margin in margins)
    rarest = exact(min(shares[name] for name in CLASS_NAMES[:BONE]) - shares["bone"])
    ours = f"{listed(shares, ' %')}; bone lowest in {lowest} of {len(margins)} rows"
    why = "The interval of a difference of two classes is the widest that theirs allow."
    return Outcome(ours, [rarest, *margins], why)


def _lowest_other(evidence, group) -> Estimate:
    return min(evidence.score(group, name) for name in CLASS_NAMES[:BONE])


@claims.add(
    "IoU judges a bad segmentation more severely than Dice does: in Figure 5 the two lie "
    "farther apart where they are low.",
    "in words and in Figure 5",
)
def _iou_is_stricter(evidence):
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
