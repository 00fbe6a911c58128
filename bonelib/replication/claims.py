"""The paper's claims, a row each: text, the paper's numbers, networks, measure.

A claim on what networks can do is tested only where all networks that it compares were trained
as long as the paper's and find bone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import methodcaller

from bonelib import published
from bonelib.evaluation import scoring
from bonelib.evaluation.error_analysis import BESIDE, CAUSES, METAL, OUTSIDE
from bonelib.replication import measures as m
from bonelib.replication.evidence import Evidence, NotTestable
from bonelib.replication.measures import over
from bonelib.replication.verdicts import FAILS, NAMES, UNTESTED, judge, listed
from bonelib.settings import BASELINE, BONE, CLASS_NAMES, TABLE1_MODELS

AGAINST = "Our number by itself points the other way."


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, its numbers and ours, and whether it holds here.

    `part` is the section under which the claim is listed, `section` where the paper makes it.
    """

    part: str
    section: str
    claim: str
    paper: str
    ours: str
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim, the groups of networks that it needs trained, if any, and its measure."""

    part: str
    text: str
    paper: str
    networks: Callable[[Evidence], m.Groups] | None
    measure: Callable[[Evidence, m.Groups], m.Outcome]
    section: str = ""  # by default `part`

    def finding(self, evidence: Evidence) -> Finding:
        """Test the claim on a run."""
        untrained = ""
        try:
            groups = self.networks(evidence) if self.networks else {}
            untrained = evidence.untrained(groups.values())
            ours, margins, why = self.measure(evidence, groups)
        except NotTestable as reason:
            return self.found(UNTESTED, untrained or str(reason))
        verdict = judge(margins)
        if untrained:
            return self.found(UNTESTED, untrained, ours)
        if verdict == UNTESTED:
            return self.found(UNTESTED, "a number is missing")
        if verdict != FAILS and any(margin.value <= 0 for margin in margins):
            why = f"{why} {AGAINST}".strip()
        return self.found(verdict, why, ours)

    def found(self, verdict: str, why: str, ours: str = "") -> Finding:
        """Return the finding with this verdict."""
        section = self.section or self.part
        return Finding(self.part, section, self.text, self.paper, ours, verdict, why)


def _paper(name: str = "mean", measure: str = "iou", table: dict = published.TABLE1) -> dict:
    place = scoring.SCORE_COLUMNS.index(name)
    return {model: row[measure][place] for model, row in table.items()}


def _range(values: dict[str, float]) -> float:
    return max(values.values()) - min(values.values())


MEAN_IOU, BONE_IOU = _paper(), _paper("bone")
MEAN_IOU3, BONE_IOU3 = (_paper(name, table=published.TABLE3) for name in ("mean", "bone"))
TABLE3_IOU = f"mean {listed(MEAN_IOU3, ' %')}; bone {listed(BONE_IOU3, ' %')}"
RESNET = published.TABLE4_MODEL
QUOTED = {
    (measure, name): _paper(name, measure, published.TABLE3)[RESNET]
    for measure in ("iou", "dice", "accuracy")
    for name in ("mean", "bone")
}
PARAMETERS, MILLISECONDS = (
    {model: row[name] for model, row in published.TABLE2.items()}
    for name in ("parameters", "milliseconds")
)
MEAN_AND_BONE = ("mean", "bone")
FCNS, COMPACT = ("fcn8", "fcn32"), ("pspnet", "segnet", "unet")
FIRM_OUTLINES = ("fcn8", "unet")  # of the upper pelvis, in Figure 6
BACKBONES = ("vgg_unet", "resnet50_unet")
SHAFT, UPPER_PELVIS = "femur shaft", "hip bone and sacrum"
MAGNITUDE = 10  # times: an order of magnitude
FLOOR, FLAT = published.CURVE_FLOOR, published.BONE_FLAT_EPOCH

# The networks that a claim needs trained
FIVE = methodcaller("short")
UNET = methodcaller("short", "unet")
UNET_LONG = methodcaller("long", "unet")
THREE = methodcaller("imagenet")
ALL = methodcaller("networks")
BEST = methodcaller("best")


def others(*models: str) -> list[str]:
    """Return Table 1's networks without `models`."""
    return [model for model in TABLE1_MODELS if model not in models]


COUNTS, OWN = "Counts and times", "Not in the paper"

CLAIMS = (
    # Section 5.2: U-net's training, Figures 3 to 5
    *(Claim("5.2", f"On the validation series U-net's IoU of {name} is above {FLOOR:.0f} % from "
            f"epoch {epoch} on.",
            f"above {FLOOR:.0f} % from epoch {epoch} on",
            UNET_LONG, partial(m.stays_above, name=name))
      for name, epoch in published.CURVE_EPOCHS.items()),
    Claim("5.2", "After that the curves of background and patient hardly move, while that of bone "
          "does.", "in words only",
          UNET_LONG, m.bone_moves_most),
    Claim("5.2", f"The IoU of bone moves a lot up to epoch {FLAT} and flattens after it.",
          "in words only",
          UNET_LONG, m.bone_flattens),
    Claim("5.2", "The level on which the IoU of bone flattens is about 80 %.",
          f"about {published.BONE_FLAT:.0f} %",
          UNET_LONG, m.bone_level),
    Claim("5.2", "Bone has the lowest IoU, and it has by far the fewest pixels, which may be why.",
          f"{listed(published.CLASS_SHARES, ' %')} of the test pixels (implied by its scores)",
          ALL, m.bone_is_lowest),
    Claim("5.2", "IoU judges a bad segmentation more severely than Dice does: in Figure 5 the two "
          "lie farther apart where they are low.", "in words and in Figure 5",
          UNET_LONG, m.iou_is_stricter),

    # Section 5.3: five networks, Tables 1 and 2, Figures 6 and 7
    Claim("5.3", "U-net is the best of the five networks, by mean IoU and by IoU of bone.",
          f"mean {MEAN_IOU['unet']} %, bone {BONE_IOU['unet']} %",
          FIVE, partial(m.ahead, pairs=over("unet", *others("unet")), names=MEAN_AND_BONE),
          "Abstract, 5.3, 6"),
    Claim("5.3", "The five networks rank by mean IoU as in Table 1.", listed(MEAN_IOU, " %"),
          FIVE, partial(m.ranked, paper=MEAN_IOU)),
    Claim("5.3", f"Every network's mean IoU is above {published.MEAN_FLOORS['iou']:.0f} % and its "
          f"mean Dice above {published.MEAN_FLOORS['dice']:.0f} %.",
          f"lowest mean IoU {min(MEAN_IOU.values())} %, "
          f"lowest mean Dice {min(_paper(measure='dice').values())} %",
          FIVE, partial(m.above, limits={(measure, "mean"): limit
                                         for measure, limit in published.MEAN_FLOORS.items()})),
    Claim("5.3", "Only FCN8, U-net and SegNet have a mean IoU above "
          f"{published.THREE_BEST_FLOOR:.0f} %.", listed(MEAN_IOU, " %"),
          FIVE, partial(m.above, limits={("iou", "mean"): published.THREE_BEST_FLOOR},
                        below=others(*published.THREE_BEST))),
    Claim("5.3", f"All networks segment background and patient well (IoU above {FLOOR:.0f} %).",
          f"lowest background {min(_paper('background').values())} %, "
          f"patient {min(_paper('patient').values())} %",
          FIVE, partial(m.above, limits={("iou", name): FLOOR for name in CLASS_NAMES[:BONE]},
                        why=m.PROJECTS_LIMIT)),
    Claim("5.3", "Networks differ most in the IoU of bone.",
          ", ".join(f"{name} {min(values.values())} to {max(values.values())} %"
                    for name, values in ((name, _paper(name)) for name in reversed(CLASS_NAMES))),
          FIVE, m.bone_differs_most),
    Claim("5.3", "PSPNet, the only one with global context, has the lowest IoU of bone.",
          listed(BONE_IOU, " %"),
          FIVE, partial(m.ahead, pairs=[(one, "pspnet") for one in others("pspnet")],
                        names=["bone"])),
    Claim("5.3", f"Pixel accuracy is above {published.ACCURACY_FLOOR:.0f} % in every network.",
          f"lowest mean {min(_paper(measure='accuracy').values())} %",
          ALL, partial(m.above, limits={("accuracy", "mean"): published.ACCURACY_FLOOR},
                       why="Mean over classes: Table 1 itself has FCN32's patient class below.")),
    Claim("5.3", "Pixel accuracy is no reliable measure where a class is rare: it hardly tells the "
          "networks apart on bone.",
          f"bone: accuracy within {_range(_paper('bone', 'accuracy')):.2f} points, "
          f"IoU within {_range(BONE_IOU):.2f}",
          FIVE, m.accuracy_says_little),
    Claim("5.3", "In the upper pelvis only FCN8 and U-net give the wings their shape; the others "
          "miss much.", f"one slice (Figure 6), IoU of bone: {listed(published.FIGURE6, ' %')}",
          FIVE, partial(m.wings, level=UPPER_PELVIS, firm=FIRM_OUTLINES)),
    Claim("5.3", f"U-net's IoU of bone is over {published.UNET_LEAD['fcn8']:.0f} points above "
          f"FCN8's and over {published.UNET_LEAD['segnet']:.0f} above SegNet's.",
          ", ".join(f"{BONE_IOU['unet'] - BONE_IOU[model]:.2f} above {NAMES[model]}"
                    for model in published.UNET_LEAD),
          methodcaller("short", "unet", *published.UNET_LEAD),
          partial(m.ahead, pairs=over("unet", *published.UNET_LEAD), names=["bone"],
                  points=published.UNET_LEAD)),
    Claim("5.3", "FCN8 comes second by mean IoU.", listed(MEAN_IOU, " %"),
          FIVE, partial(m.ahead, pairs=[("unet", "fcn8"), *over("fcn8", *others("unet", "fcn8"))]),
          "5.3, 6"),
    Claim("5.3", "On single slices U-net's IoU of bone spreads as printed.",
          ", ".join(f"{name.replace('_', ' ')} {value} %"
                    for name, value in published.UNET_IMAGES.items()),
          UNET, m.single_slices),
    Claim("5.3", "The shaft of the femur is segmented best.",
          f"one slice (Figure 7 a), IoU of bone {published.FIGURE7[0][1]} %",
          UNET, partial(m.level_is, level=SHAFT, best=True)),
    Claim("5.3", "The upper pelvis is segmented worst, being rarer and more complex than the "
          "femur.",
          f"one slice (Figures 6 and 7 d), IoU of bone {published.FIGURE7[3][1]} %",
          UNET, partial(m.level_is, level=UPPER_PELVIS, best=False), "5.3, 6"),
    Claim("5.3", "Markers of the treatment are taken for bone.", "one slice (Figure 7 c)",
          UNET, partial(m.false_bone, causes=(CAUSES[METAL], CAUSES[OUTSIDE]), why="A marker on "
                        "the skin lies outside the patient, and so do couch and cushions.")),
    Claim("5.3", "Small groups of pixels apart from any bone are taken for bone.",
          "one slice (Figure 7 d)",
          UNET, partial(m.false_bone, causes=[one for one in CAUSES if one != CAUSES[BESIDE]])),

    # Section 5.4: longer training, other encoders, Tables 3 and 4
    Claim("5.4", f"Longer training gains U-net little: less than {m.LITTLE_GAIN:g} point of mean "
          "IoU.", ", ".join(f"{name} {gain:+} points"
                            for name, gain in published.LONGER_TRAINING_GAIN.items()),
          lambda evidence: {"short": UNET(evidence)["unet"], "long": UNET_LONG(evidence)["unet"]},
          m.gains_little),
    Claim("5.4", "U-net on either encoder trained on ImageNet is clearly better than U-net.",
          TABLE3_IOU,
          THREE, partial(m.ahead, pairs=[(one, "unet") for one in BACKBONES], names=MEAN_AND_BONE)),
    Claim("5.4", f"With either encoder the IoU of bone is above "
          f"{published.BACKBONE_BONE_FLOOR:.0f} %.",
          listed({model: BONE_IOU3[model] for model in BACKBONES}, " %"),
          methodcaller("imagenet", *BACKBONES),
          partial(m.above, limits={("iou", "bone"): published.BACKBONE_BONE_FLOOR})),
    Claim("5.4", "ResNet-U-net is the best of all, by mean IoU and by IoU of bone.", TABLE3_IOU,
          THREE, partial(m.ahead, pairs=over(RESNET, "unet", "vgg_unet"), names=MEAN_AND_BONE),
          "Abstract, 5.4, 6"),
    *(Claim("5.4", f"The test series differ by {limit} points of {name} IoU at most (best model).",
            f"at most {limit} points",
            BEST, partial(m.series_spread, name=name))
      for name, limit in published.SERIES_SPREAD.items()),
    Claim("5.4", f"Every test series has an IoU of bone above {published.SERIES_BONE_FLOOR:.0f} % "
          "(best model), so the model serves different input.",
          f"lowest {min(row['iou'][3] for row in published.TABLE4)} %",
          BEST, m.series_above),

    # Abstract and section 6: conclusions
    Claim("6", "ResNet-U-net reaches the scores that the abstract quotes.",
          m.scores_in_words(QUOTED),
          methodcaller("imagenet", RESNET), partial(m.quoted, paper=QUOTED), "Abstract, 6"),
    Claim("6", "The changed U-net surpasses all four networks of the first comparison.",
          f"mean IoU {MEAN_IOU3[RESNET]} %, before at most {max(MEAN_IOU.values())} %",
          lambda evidence: {**FIVE(evidence), **evidence.imagenet(RESNET)},
          partial(m.ahead, pairs=over(RESNET, *TABLE1_MODELS)), "Abstract"),
    Claim("6", "Published Dice coefficients of bone segmentation range up to 97.9 %, and only one "
          "work has a higher mean than ResNet-U-net.",
          f"{published.LITERATURE_DICE[0]} to {published.LITERATURE_DICE[1]} %, own "
          f"{QUOTED['dice', 'mean']} %",
          None, partial(m.never, why="Those works segment other bones in other patients, and the "
                        "paper itself calls the numbers not comparable; none of their data is "
                        "here.")),
    Claim("6", "Experts differ from one another, so that no segmentation reaches 100 %.",
          "in words only",
          None, partial(m.never, why="Each scan here has one reference; a second reader would be "
                        "needed.")),
    Claim("6", "The segmentation is good enough to build bone models from.", "in words only",
          None, m.good_enough),

    # Whatever the networks have learnt
    Claim(COUNTS, "The parameters of all five networks are those of Table 2, total and trainable.",
          listed(PARAMETERS),
          None, m.same_parameters, "5.3"),
    Claim(COUNTS, "PSPNet is the smallest, then SegNet, then U-net; both FCN are an order of "
          "magnitude larger.", listed(PARAMETERS),
          None, partial(m.costlier, column="parameters",
                        times={("segnet", "pspnet"): 1, ("unet", "segnet"): 1}
                        | {(one, "unet"): MAGNITUDE for one in FCNS}), "5.3"),
    Claim(COUNTS, "PSPNet, SegNet and U-net take about the same time for a slice.",
          listed({model: MILLISECONDS[model] for model in COMPACT}, " ms", 1),
          None, partial(m.similar_times, models=COMPACT), "5.3"),
    Claim(COUNTS, "Both FCN take much longer than the other three.", listed(MILLISECONDS, " ms", 1),
          None, partial(m.costlier, column="milliseconds_per_slice", unit=" ms",
                        times={(one, two): m.SIMILAR for one in FCNS for two in COMPACT},
                        why=f"'Much' is taken as over {m.SIMILAR:g} times. {m.THIS_MACHINE}"),
          "5.3"),
    Claim(COUNTS, "U-net is more compact than FCN8.",
          listed({model: PARAMETERS[model] for model in ("fcn8", "unet")}, " parameters"),
          None, partial(m.costlier, column="parameters", unit=" parameters",
                        times={("fcn8", "unet"): 1}), "6"),
    Claim(COUNTS, "U-net is faster than FCN8.",
          listed({model: MILLISECONDS[model] for model in ("fcn8", "unet")}, " ms", 1),
          None, partial(m.costlier, column="milliseconds_per_slice", unit=" ms",
                        times={("fcn8", "unet"): 1}, why=m.THIS_MACHINE), "6"),

    # This project's own check
    Claim(OWN, "U-net beats a classical threshold segmentation on bone.",
          "this project's own check",
          lambda evidence: {**evidence.baseline(), **UNET_LONG(evidence)},
          partial(m.ahead, pairs=[("unet", BASELINE)], names=["bone"],
                  why="IoU of bone after the longer training.")),
)  # fmt: skip
