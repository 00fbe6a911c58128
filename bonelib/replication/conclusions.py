"""Abstract and section 6: what the paper concludes, and this project's own check."""

from bonelib import published
from bonelib.replication.claims import Claims, Outcome, listed
from bonelib.replication.evidence import NotTestable
from bonelib.replication.verdicts import exact, same

claims = Claims("6")

OWN = "not in the paper"

ABSTRACT = (  # measure, class, as the abstract quotes them
    ("iou", "mean"), ("iou", "bone"), ("dice", "mean"), ("dice", "bone"),
    ("accuracy", "mean"), ("accuracy", "bone"),
)  # fmt: skip


def _paper(measure: str, name: str) -> float:
    return published.TABLE3["resnet50_unet"][measure][{"mean": 0, "bone": 3}[name]]


def _named(values: dict) -> str:
    return ", ".join(
        f"{name} {published.MEASURE_NAMES[measure]} {value} %"
        for (measure, name), value in values.items()
    )


@claims.add(
    "ResNet-U-net reaches the scores that the abstract quotes.",
    _named({key: _paper(*key) for key in ABSTRACT}),
    section="Abstract, 6",
)
def _headline(evidence):
    group = evidence.imagenet(["resnet50_unet"])["resnet50_unet"]
    ours = {(measure, name): evidence.score(group, name, measure) for measure, name in ABSTRACT}
    margins = [same(value, _paper(*key)) for key, value in ours.items()]
    return Outcome(_named(ours), margins, "Other patients than the paper's.")


@claims.add(
    "The changed U-net surpasses all four networks of the first comparison.",
    f"mean IoU {published.TABLE3['resnet50_unet']['iou'][0]} %, before at most "
    f"{max(row['iou'][0] for row in published.TABLE1.values())} %",
    section="Abstract",
)
def _outperforms(evidence):
    resnet = evidence.imagenet(["resnet50_unet"])["resnet50_unet"]
    leads = {model: evidence.lead(resnet, group) for model, group in evidence.short().items()}
    ours = f"lead by mean IoU over {listed(leads, ' points')}"
    return Outcome(ours, list(leads.values()))


def _compared_costs(name: str, recorded: str, unit: str, words: str, why: str) -> None:
    """Add the claim that U-net costs less than FCN8."""
    models = ("unet", "fcn8")

    @claims.add(words, listed({model: published.TABLE2[model][name] for model in models}, unit, 1))
    def test(evidence):
        costs = evidence.costs(recorded, models)
        return Outcome(listed(costs, unit, 1), [exact(costs["fcn8"] - costs["unet"])], why)


_compared_costs(
    "parameters", "parameters", " parameters", "U-net is more compact than FCN8.", "A count."
)
_compared_costs(
    "milliseconds", "milliseconds_per_slice", " ms", "U-net is faster than FCN8.",
    "This machine's times, without an interval.",
)  # fmt: skip


@claims.add(
    "Published Dice coefficients of bone segmentation range up to 97.9 %, and only one work has a "
    "higher mean than ResNet-U-net.",
    f"{published.LITERATURE_DICE[0]} to {published.LITERATURE_DICE[1]} %, own "
    f"{_paper('dice', 'mean')} %",
)
def _literature(evidence):
    raise NotTestable(
        "Those works segment other bones in other patients, and the paper itself calls the "
        "numbers not comparable; none of their data is here."
    )


@claims.add(
    "Experts differ from one another, so that no segmentation reaches 100 %.",
    "in words only",
)
def _experts(evidence):
    raise NotTestable("Each scan here has one reference; a second reader would be needed.")


@claims.add(
    "The segmentation is good enough to build bone models from.",
    "in words only",
)
def _good_enough(evidence):
    why = "The paper names no criterion."
    best = evidence.best()
    table = evidence.surfaces
    chosen = (table["model"] == best.model) & (table["epochs"] == best.epochs)
    distances = table[chosen & (table["structure"] == "bone")]["assd_mm"].dropna()
    if len(distances):
        why += (
            f" Here: the surface of bone lies {distances.median():.2f} mm from the reference's on "
            f"average in the median test series, {distances.max():.2f} mm in the worst."
        )
    raise NotTestable(why)


own = Claims(OWN)


@own.add(
    "U-net beats a classical threshold segmentation on bone.",
    "this project's own check",
)
def _beats_baseline(evidence):
    baseline, unet = evidence.baseline(), evidence.long(["unet"])["unet"]
    ours = {
        "threshold": evidence.score(baseline, "bone"),
        "unet": evidence.score(unet, "bone"),
    }
    why = "IoU of bone after the longer training."
    return Outcome(listed(ours, " %"), [evidence.lead(unet, baseline, "bone")], why)
