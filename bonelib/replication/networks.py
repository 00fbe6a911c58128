"""Section 5.3: what the paper finds about the five networks, Tables 1 and 2, Figures 6 and 7."""

from scipy.stats import spearmanr

from bonelib import published, scoring
from bonelib.replication.claims import Claims, Outcome, extreme, listed
from bonelib.replication.evidence import NAMES, Evidence, Group, NotTestable
from bonelib.replication.verdicts import Estimate, apart, exact, same, whether
from bonelib.settings import BONE, CLASS_NAMES

claims = Claims("5.3")

FCNS, COMPACT = ("fcn8", "fcn32"), ("pspnet", "segnet", "unet")
SHAFT, UPPER_PELVIS = "femur shaft", "hip bone and sacrum"
FIRM_OUTLINES = ("fcn8", "unet")  # of the upper pelvis, in Figure 6
SIMILAR = 1.5  # times: how far apart times may be and still be called similar
MAGNITUDE = 10  # times: an order of magnitude
SMALL_PART = 0.1  # of the spread in IoU: what is no measure of it any more
PROJECTS_LIMIT = "The limit is this project's."
ANOTHER_MACHINE = "Times are this machine's, without an interval."


def _paper(measure: str = "iou", name: str = "mean", table: dict = published.TABLE1) -> dict:
    place = scoring.SCORE_COLUMNS.index(name)
    return {model: row[measure][place] for model, row in table.items()}


def _scores(evidence: Evidence, groups: dict[str, Group], name="mean", measure="iou") -> dict:
    return {model: evidence.score(group, name, measure) for model, group in groups.items()}


def _ranked(values: dict) -> list[str]:
    return sorted(values, key=values.get, reverse=True)


MEAN_IOU, BONE_IOU = _paper(), _paper(name="bone")


@claims.add(
    "U-net is the best of the five networks, by mean IoU and by IoU of bone.",
    f"mean {MEAN_IOU['unet']} %, bone {BONE_IOU['unet']} %",
    section="Abstract, 5.3, 6",
)
def _unet_best(evidence):
    groups = evidence.short()
    unet = groups.pop("unet")
    leads = {
        name: {model: evidence.lead(unet, group, name) for model, group in groups.items()}
        for name in ("mean", "bone")
    }
    least = {name: extreme(values) for name, values in leads.items()}
    ours = f"mean {evidence.score(unet)} %, bone {evidence.score(unet, 'bone')} %; " + ", ".join(
        f"least lead by {name} {lead} points (over {NAMES[model]})"
        for name, (model, lead) in least.items()
    )
    return Outcome(ours, [lead for values in leads.values() for lead in values.values()])


@claims.add("The five networks rank by mean IoU as in Table 1.", listed(MEAN_IOU, " %"))
def _same_ranking(evidence):
    groups = evidence.short()
    ours, order = _scores(evidence, groups), _ranked(MEAN_IOU)
    margins = [
        evidence.lead(groups[better], groups[worse])
        for better, worse in zip(order, order[1:], strict=False)
    ]
    values = [ours[model].value for model in order]
    rho = spearmanr(values, [MEAN_IOU[model] for model in order]).statistic
    return Outcome(listed(ours, " %"), margins, f"Spearman's rank correlation {rho:.2f}.")


@claims.add(
    f"Every network's mean IoU is above {published.MEAN_FLOORS['iou']:.0f} % and its mean Dice "
    f"above {published.MEAN_FLOORS['dice']:.0f} %.",
    f"lowest mean IoU {min(MEAN_IOU.values())} %, "
    f"lowest mean Dice {min(_paper('dice').values())} %",
)
def _floors(evidence):
    groups, parts, margins = evidence.short(), [], []
    for measure, floor in published.MEAN_FLOORS.items():
        values = _scores(evidence, groups, measure=measure)
        model, lowest = extreme(values)
        parts.append(f"lowest mean {published.MEASURE_NAMES[measure]} {lowest} % ({NAMES[model]})")
        margins += [value.above(floor) for value in values.values()]
    return Outcome(", ".join(parts), margins)


@claims.add(
    f"Only FCN8, U-net and SegNet have a mean IoU above {published.THREE_BEST_FLOOR:.0f} %.",
    listed(MEAN_IOU, " %"),
)
def _three_above(evidence):
    values = _scores(evidence, evidence.short())
    margins = [
        value.above(published.THREE_BEST_FLOOR)
        if model in published.THREE_BEST
        else value.below(published.THREE_BEST_FLOOR)
        for model, value in values.items()
    ]
    return Outcome(listed(values, " %"), margins)


@claims.add(
    f"All networks segment background and patient well (IoU above {published.CURVE_FLOOR:.0f} %).",
    f"lowest background {min(_paper(name='background').values())} %, "
    f"patient {min(_paper(name='patient').values())} %",
)
def _other_classes(evidence):
    groups, parts, margins = evidence.short(), [], []
    for name in CLASS_NAMES[:BONE]:
        values = _scores(evidence, groups, name)
        model, lowest = extreme(values)
        parts.append(f"{name} {lowest} % ({NAMES[model]})")
        margins += [value.above(published.CURVE_FLOOR) for value in values.values()]
    return Outcome(f"lowest {', '.join(parts)}", margins, PROJECTS_LIMIT)


def _range(values: dict) -> float:
    return max(values.values()) - min(values.values())


@claims.add(
    "Networks differ most in the IoU of bone.",
    ", ".join(
        f"{name} {min(values.values())} to {max(values.values())} %"
        for name in reversed(CLASS_NAMES)
        for values in [_paper(name=name)]
    ),
)
def _bone_differs_most(evidence):
    groups, spreads, parts = evidence.short(), {}, []
    for name in reversed(CLASS_NAMES):
        values = _scores(evidence, groups, name)
        (worst, low), (best, high) = extreme(values), extreme(values, max)
        spreads[name] = evidence.lead(groups[best], groups[worst], name)
        parts.append(f"{name} {low.value:.2f} to {high.value:.2f} %")
    margins = [apart(spreads["bone"], spreads[name]) for name in CLASS_NAMES[:BONE]]
    return Outcome(", ".join(parts), margins, "Margin: of the best over the worst network.")


@claims.add(
    "PSPNet, the only one with global context, has the lowest IoU of bone.",
    listed(BONE_IOU, " %"),
)
def _pspnet_lowest(evidence):
    groups = evidence.short()
    ours, pspnet = _scores(evidence, groups, "bone"), groups.pop("pspnet")
    margins = [evidence.lead(group, pspnet, "bone") for group in groups.values()]
    return Outcome(listed(ours, " %"), margins)


@claims.add(
    f"Pixel accuracy is above {published.ACCURACY_FLOOR:.0f} % in every network.",
    f"lowest mean {min(_paper('accuracy').values())} %",
)
def _accuracy_high(evidence):
    values = _scores(evidence, evidence.networks(), measure="accuracy")
    name, lowest = extreme(values)
    why = "Mean over classes: Table 1 itself has FCN32's patient class below."
    margins = [value.above(published.ACCURACY_FLOOR) for value in values.values()]
    return Outcome(f"lowest mean {lowest} % ({NAMES.get(name, name)})", margins, why)


@claims.add(
    "Pixel accuracy is no reliable measure where a class is rare: it hardly tells the networks "
    "apart on bone.",
    f"bone: accuracy within {_range(_paper('accuracy', 'bone')):.2f} points, "
    f"IoU within {_range(BONE_IOU):.2f}",
)
def _accuracy_says_little(evidence):
    groups, spreads = evidence.short(), {}
    for measure in ("accuracy", "iou"):
        values = _scores(evidence, groups, "bone", measure)
        worst, best = extreme(values)[0], extreme(values, max)[0]
        spreads[measure] = evidence.lead(groups[best], groups[worst], "bone", measure)
    part = Estimate(*(SMALL_PART * end for end in spreads["iou"]))
    ours = f"accuracy within {spreads['accuracy']} points, IoU within {spreads['iou']}"
    why = f"'Hardly' is taken as {SMALL_PART:g} of the spread in IoU or less. {PROJECTS_LIMIT}"
    return Outcome(ours, [apart(part, spreads["accuracy"])], why)


@claims.add(
    "In the upper pelvis only FCN8 and U-net give the wings their shape; the others miss much.",
    f"one slice (Figure 6), IoU of bone: {listed(published.FIGURE6, ' %')}",
)
def _wings(evidence):
    groups = {
        model: evidence.of_each_level(group).get(UPPER_PELVIS)
        for model, group in evidence.short().items()
    }
    if None in groups.values():
        raise NotTestable(f"no test slice is at the level '{UPPER_PELVIS}'")
    ours = listed(_scores(evidence, groups, "bone"), " %")
    margins = [
        evidence.lead(groups[firm], group, "bone")
        for firm in FIRM_OUTLINES
        for model, group in groups.items()
        if model not in FIRM_OUTLINES
    ]
    return Outcome(ours, margins, f"IoU of bone on all test slices that show {UPPER_PELVIS}.")


@claims.add(
    "The parameters of all five networks are those of Table 2, total and trainable.",
    listed({model: row["parameters"] for model, row in published.TABLE2.items()}),
)
def _same_parameters(evidence):
    same_as = [
        total == published.TABLE2[model]["parameters"]
        and trainable == published.TABLE2[model]["trainable"]
        for (model, total), trainable in zip(
            evidence.costs("parameters").items(),
            evidence.costs("trainable_parameters").values(),
            strict=True,
        )
    ]
    return Outcome(f"{sum(same_as)} of {len(same_as)} equal", [whether(all(same_as))], "A count.")


@claims.add(
    "PSPNet is the smallest, then SegNet, then U-net; both FCN are an order of magnitude larger.",
    listed({model: row["parameters"] for model, row in published.TABLE2.items()}),
)
def _sizes(evidence):
    sizes = evidence.costs("parameters")
    pairs = zip(COMPACT, COMPACT[1:], strict=False)
    steps = [whether(sizes[smaller] < sizes[larger]) for smaller, larger in pairs]
    large = min(sizes[model] for model in FCNS) >= MAGNITUDE * sizes["unet"]
    return Outcome(listed(sizes), [*steps, whether(large)], "A count.")


@claims.add(
    "PSPNet, SegNet and U-net take about the same time for a slice.",
    listed({model: published.TABLE2[model]["milliseconds"] for model in COMPACT}, " ms", 1),
)
def _similar_times(evidence):
    times = evidence.costs("milliseconds_per_slice", COMPACT)
    ratio = max(times.values()) / min(times.values())
    why = f"Slowest to fastest {ratio:.2f}; up to {SIMILAR:g} counts. {ANOTHER_MACHINE}"
    return Outcome(listed(times, " ms", 1), [exact(SIMILAR - ratio)], why)


@claims.add(
    "Both FCN take much longer than the other three.",
    listed({model: row["milliseconds"] for model, row in published.TABLE2.items()}, " ms", 1),
)
def _slow_fcns(evidence):
    times = evidence.costs("milliseconds_per_slice")
    ratio = min(times[model] for model in FCNS) / max(times[model] for model in COMPACT)
    why = f"Faster FCN to slowest other {ratio:.2f}; from {SIMILAR:g} on counts. {ANOTHER_MACHINE}"
    return Outcome(listed(times, " ms", 1), [exact(ratio - SIMILAR)], why)


@claims.add(
    f"U-net's IoU of bone is over {published.UNET_LEAD['fcn8']:.0f} points above FCN8's and over "
    f"{published.UNET_LEAD['segnet']:.0f} above SegNet's.",
    ", ".join(
        f"{BONE_IOU['unet'] - BONE_IOU[model]:.2f} above {NAMES[model]}"
        for model in published.UNET_LEAD
    ),
)
def _unet_lead(evidence):
    groups = evidence.short(("unet", *published.UNET_LEAD))
    leads = {
        model: evidence.lead(groups["unet"], groups[model], "bone") for model in published.UNET_LEAD
    }
    margins = [lead.above(published.UNET_LEAD[model]) for model, lead in leads.items()]
    ours = ", ".join(f"{lead} above {NAMES[model]}" for model, lead in leads.items())
    return Outcome(ours, margins)


@claims.add(
    "FCN8 comes second by mean IoU.",
    listed(MEAN_IOU, " %"),
    section="5.3, 6",
)
def _fcn8_second(evidence):
    groups = evidence.short()
    ours, fcn8 = _scores(evidence, groups), groups.pop("fcn8")
    margins = [evidence.lead(groups.pop("unet"), fcn8)]
    margins += [evidence.lead(fcn8, group) for group in groups.values()]
    return Outcome(listed(ours, " %"), margins)


@claims.add(
    "On single slices U-net's IoU of bone spreads as printed.",
    ", ".join(
        f"{name.replace('_', ' ')} {value} %" for name, value in published.UNET_IMAGES.items()
    ),
)
def _single_slices(evidence):
    values = scoring.bone_iou(evidence.rows(evidence.short(["unet"])["unet"]))
    values = values[values == values]  # NaN: no bone on either side
    if not values.size:
        raise NotTestable("no test slice has bone")
    found = {
        "minimum": values.min(),
        "maximum": values.max(),
        "mean": values.mean(),
        "standard_deviation": values.std(),
    }
    mean = evidence.mean_of_slices(evidence.short(["unet"])["unet"])
    ours = ", ".join(
        f"{name.replace('_', ' ')} {mean if name == 'mean' else f'{value:.2f}'} %"
        for name, value in found.items()
    )
    why = "Decided by the mean; other patients than the paper's."
    return Outcome(ours, [same(mean, published.UNET_IMAGES["mean"])], why)


def _levels(evidence: Evidence) -> dict[str, Estimate]:
    """Return U-net's IoU of bone at each level of the pelvis, from feet to head."""
    levels = evidence.of_each_level(evidence.short(["unet"])["unet"])
    return {level: evidence.score(group, "bone") for level, group in levels.items()}


def _at(levels: dict[str, Estimate], level: str) -> Estimate:
    if level not in levels or len(levels) < 2:
        raise NotTestable(f"no test slice is at the level '{level}', or none at another")
    return levels[level]


APART_LEVELS = "Levels have no slice in common: intervals of differences are the widest possible."


@claims.add(
    "The shaft of the femur is segmented best.",
    f"one slice (Figure 7 a), IoU of bone {published.FIGURE7[0][1]} %",
)
def _shaft_best(evidence):
    levels = _levels(evidence)
    shaft = _at(levels, SHAFT)
    margins = [apart(shaft, value) for level, value in levels.items() if level != SHAFT]
    return Outcome(listed(levels, " %"), margins, APART_LEVELS)


@claims.add(
    "The upper pelvis is segmented worst, being rarer and more complex than the femur.",
    f"one slice (Figures 6 and 7 d), IoU of bone {published.FIGURE7[3][1]} %",
    section="5.3, 6",
)
def _upper_pelvis_worst(evidence):
    levels = _levels(evidence)
    upper = _at(levels, UPPER_PELVIS)
    margins = [apart(value, upper) for level, value in levels.items() if level != UPPER_PELVIS]
    return Outcome(listed(levels, " %"), margins, APART_LEVELS)


def _false_bone(evidence: Evidence) -> dict[str, int]:
    """Return the pixels that U-net wrongly calls bone, by cause."""
    group = evidence.short(["unet"])["unet"]
    table = evidence.false_bone
    table = table[(table["model"] == group.model) & (table["epochs"] == group.epochs)]
    if table.empty:
        raise NotTestable("no pixel of false bone is recorded")
    return {cause: int(pixels) for cause, pixels in table.groupby("cause")["pixels"].sum().items()}


@claims.add("Markers of the treatment are taken for bone.", "one slice (Figure 7 c)")
def _markers(evidence):
    causes = _false_bone(evidence)
    found = {name: causes.get(name, 0) for name in ("metal or marker", "outside the patient")}
    why = (
        "A marker on the skin lies outside the patient, and so do couch and cushions. It "
        "happens or not: no interval."
    )
    return Outcome(listed(found, " pixels"), [exact(sum(found.values()))], why)


@claims.add(
    "Small groups of pixels apart from any bone are taken for bone.", "one slice (Figure 7 d)"
)
def _separate_groups(evidence):
    causes = _false_bone(evidence)
    away = sum(pixels for cause, pixels in causes.items() if cause != "beside bone")
    ours = f"{away:,} of {sum(causes.values()):,} pixels of false bone lie away from any bone"
    return Outcome(ours, [exact(away)], "It happens or not: no interval.")
