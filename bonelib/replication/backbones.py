"""Section 5.4: what the paper finds about longer training and encoders, Tables 3 and 4."""

from bonelib import published
from bonelib.replication.claims import Claims, Outcome, extreme, listed
from bonelib.replication.evidence import NAMES, Evidence
from bonelib.replication.verdicts import Estimate
from bonelib.settings import Settings

claims = Claims("5.4")

LITTLE_GAIN = 1.0  # points of mean IoU; the paper calls 0.73 not significant
BACKBONES = ("vgg_unet", "resnet50_unet")


def _paper(place: int) -> dict[str, float]:
    return {model: row["iou"][place] for model, row in published.TABLE3.items()}


MEAN_IOU, BONE_IOU = _paper(0), _paper(3)


def _each(name: str, values: dict) -> str:
    return f"{name} {listed(values, ' %')}"


@claims.add(
    f"Longer training gains U-net little: less than {LITTLE_GAIN:g} point of mean IoU.",
    ", ".join(f"{name} {gain:+} points" for name, gain in published.LONGER_TRAINING_GAIN.items()),
)
def _longer_training(evidence):
    short, long = evidence.short(["unet"])["unet"], evidence.long(["unet"])["unet"]
    gains = {name: evidence.lead(long, short, name) for name in published.LONGER_TRAINING_GAIN}
    why = (
        f"{long.epochs} epochs instead of {short.epochs}; the paper: {Settings().epochs_long} "
        f"instead of {Settings().epochs}. The limit is this project's."
    )
    ours = ", ".join(f"{name} {gain} points" for name, gain in gains.items())
    return Outcome(ours, [gains["mean"].below(LITTLE_GAIN)], why)


@claims.add(
    "U-net on either encoder trained on ImageNet is clearly better than U-net.",
    f"{_each('mean', MEAN_IOU)}; {_each('bone', BONE_IOU)}",
)
def _backbones_better(evidence):
    groups = evidence.imagenet(("unet", *BACKBONES))
    leads = {
        name: {model: evidence.lead(groups[model], groups["unet"], name) for model in BACKBONES}
        for name in ("mean", "bone")
    }
    ours = "; ".join(
        f"lead by {name}: {listed(values, ' points')}" for name, values in leads.items()
    )
    return Outcome(ours, [lead for values in leads.values() for lead in values.values()])


@claims.add(
    f"With either encoder the IoU of bone is above {published.BACKBONE_BONE_FLOOR:.0f} %.",
    listed({model: BONE_IOU[model] for model in BACKBONES}, " %"),
)
def _backbones_above(evidence):
    groups = evidence.imagenet(BACKBONES)
    values = {model: evidence.score(group, "bone") for model, group in groups.items()}
    margins = [value.above(published.BACKBONE_BONE_FLOOR) for value in values.values()]
    return Outcome(listed(values, " %"), margins)


@claims.add(
    "ResNet-U-net is the best of all, by mean IoU and by IoU of bone.",
    f"{_each('mean', MEAN_IOU)}; {_each('bone', BONE_IOU)}",
    section="Abstract, 5.4, 6",
)
def _resnet_best(evidence):
    groups = evidence.imagenet(published.TABLE3)
    resnet = groups.pop("resnet50_unet")
    leads = {
        name: {model: evidence.lead(resnet, group, name) for model, group in groups.items()}
        for name in ("mean", "bone")
    }
    ours = "; ".join(f"{name}: {listed(values, ' points')}" for name, values in leads.items())
    margins = [lead for values in leads.values() for lead in values.values()]
    return Outcome(f"lead over the others by {ours}", margins)


def _of_series(evidence: Evidence, name: str) -> tuple[dict[str, Estimate], str]:
    """Return the IoU of each test series by the best model, and which model that is."""
    best = evidence.best()
    parts = evidence.of_each_series(best)
    why = f"{NAMES[best.model]}, as in Table 4; the paper's is ResNet-U-net. Other patients."
    return {series: evidence.score(part, name) for series, part in parts.items()}, why


def _spread(values: dict[str, Estimate]) -> Estimate:
    """Return the range of several estimates, and the least and most that their intervals allow."""
    middle, low, high = zip(*values.values(), strict=True)
    return Estimate(max(middle) - min(middle), max(0, max(low) - min(high)), max(high) - min(low))


def _series_spread(name: str) -> None:
    """Add the claim on how far apart the test series lie."""
    limit = published.SERIES_SPREAD[name]

    @claims.add(
        f"The test series differ by {limit} points of {name} IoU at most (best model).",
        f"at most {limit} points",
    )
    def test(evidence):
        values, why = _of_series(evidence, name)
        if len(values) < 2:
            return Outcome("", [], "fewer than two test series have bone and a score")
        spread = _spread(values)
        ours = f"{spread} points: {listed({key: one.value for key, one in values.items()}, ' %')}"
        return Outcome(ours, [spread.below(limit + 0.005)], why)  # half of the last digit


for score_name in published.SERIES_SPREAD:
    _series_spread(score_name)


@claims.add(
    f"Every test series has an IoU of bone above {published.SERIES_BONE_FLOOR:.0f} % (best model), "
    "so the model serves different input.",
    f"lowest {min(row['iou'][3] for row in published.TABLE4)} %",
)
def _every_series(evidence):
    values, why = _of_series(evidence, "bone")
    if not values:
        return Outcome("", [], "no test series has bone and a score")
    series, lowest = extreme(values)
    margins = [value.above(published.SERIES_BONE_FLOOR) for value in values.values()]
    return Outcome(f"lowest {lowest} % ({series})", margins, why)
