"""The paper's claims, of claims.yaml.j2, tested on a run: which of them hold here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
import yaml

from bonelib import published
from bonelib.report import measures
from bonelib.report.evidence import LONG, SHORT, Evidence, Group
from bonelib.report.verdicts import FAILS, UNTESTED, VERDICTS, NotTestable, judge
from bonelib.settings import CLASS_NAMES, Settings

TEMPLATES = Path(__file__).parent / "templates"
CLAIMS = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
).get_template("claims.yaml.j2")
FINDINGS, COUNTS, OWN = "Findings", "Counts and times", "Not in the paper"
AGAINST = "Our number by itself points the other way."

# The horizon and encoder of a network, by the names of claims.yaml.j2.
TRAININGS = {"none": (), "short": (SHORT,), "long": (LONG,), "imagenet": (LONG, "imagenet")}


class Finding(NamedTuple):
    """One claim of the paper, its number and ours, and whether it holds here.

    `part` is the heading under which it is listed, `section` where the paper makes it.
    """

    part: str
    section: str
    claim: str
    paper: str
    ours: str
    verdict: str
    why: str


def findings(evidence: Evidence) -> list[Finding]:
    """Test the paper's claims on a run, in the order of its sections.

    A claim is not testable where one of its networks was not run, trained less than the
    paper's or finds no bone, nor where the classes are not the paper's. `verdicts.judge`
    defines the other verdicts.
    """
    return [finding(evidence, part, row) for part, rows in claims(evidence).items() for row in rows]


def claims(evidence: Evidence) -> dict[str, list[dict]]:
    """Return the rows of claims.yaml.j2 by part, with their numbers filled in."""
    try:
        best, distances = evidence.best.model, evidence.distances(evidence.best)
    except NotTestable:
        best, distances = "", pd.Series()
    text = CLAIMS.render(
        vars(published) | vars(measures),
        column=_column,
        settings=evidence.settings,
        paper_settings=Settings,
        best=best,
        distances=distances,
    )
    return {str(part): rows for part, rows in yaml.safe_load(text).items()}


def _column(table: Mapping[str, dict], name: str, place: int | None = None) -> dict:
    """Return a column of one of the paper's tables; of its scores, the one at `place`."""
    return {key: row[name] if place is None else row[name][place] for key, row in table.items()}


def finding(evidence: Evidence, part: str, row: dict) -> Finding:
    """Test one claim, a row of `claims`."""
    groups = {
        model: Group(model, *TRAININGS[training])
        for training, models in row.get("networks", {}).items()
        for model in models.split()
    }
    found = Finding(
        part, str(row.get("section", part)), row["claim"], row["paper"], "", UNTESTED,
        row.get("why", ""),
    )  # fmt: skip
    if not evidence.settings.has_papers_classes:
        scheme = evidence.settings.class_scheme
        return found._replace(why=f"class scheme {scheme}, not the paper's classes")
    if "measure" not in row:
        return found
    untrained = ""
    try:
        evidence.require(groups)
        untrained = evidence.untrained(groups)
        measure = getattr(measures, row["measure"])
        ours, margins = measure(evidence, groups, **row.get("options", {}))
    except NotTestable as reason:
        return found._replace(why=untrained or str(reason))
    outcome = judge(margins)
    if untrained:
        return found._replace(ours=ours, why=untrained)
    if outcome == UNTESTED:
        return found._replace(why="a number is missing")
    is_against = outcome != FAILS and any(margin.value <= 0 for margin in margins)
    why = f"{found.why} {AGAINST}".strip() if is_against else found.why
    return found._replace(ours=ours, verdict=outcome, why=why)


def lists(tested: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return the findings on the paper's networks, its counts and times, and this project's own."""
    found = {FINDINGS: [], COUNTS: [], OWN: []}
    for item in tested:
        found.get(item.part, found[FINDINGS]).append(item)
    return found


def tally(tested: Sequence[Finding]) -> dict[str, int]:
    """Return the number of findings with each verdict."""
    return {name: sum(item.verdict == name for item in tested) for name in VERDICTS}


def verdict(tested: Sequence[Finding]) -> str:
    """Return the outcome for the paper's findings, and for its counts and times, in words."""
    found, sentences = lists(tested), []
    for noun, part in (
        ("findings of the paper", FINDINGS),
        ("counts and times, compared apart", COUNTS),
    ):
        number = tally(found[part])
        decided = len(found[part]) - number.pop(UNTESTED)
        sentences.append(f"Of {len(found[part])} {noun}, {decided} could be tested here.")
        sentences += [f"{name.capitalize()}: {count}." for name, count in number.items() if count]
    return " ".join(sentences)


def dice_check() -> pd.DataFrame:
    """Compare each printed Dice coefficient with 2 IoU / (1 + IoU), a row a class and network.

    Only counts pooled over all pixels agree: a mean over images would not. `agrees` allows
    for both printed values being rounded.
    """
    rows = [
        (table, published.METHOD_NAMES[model], name, row["iou"][place], row["dice"][place])
        for table, models in ((1, published.TABLE1), (3, published.TABLE3))
        for model, row in models.items()
        for place, name in enumerate(CLASS_NAMES, 1)
    ]
    frame = pd.DataFrame(rows, columns=["table", "name", "class", "iou", "dice"])
    half = measures.HALF_DIGIT
    low, computed, high = (
        200 * iou / (100 + iou) for iou in (frame["iou"] - half, frame["iou"], frame["iou"] + half)
    )
    agrees = frame["dice"].between(low - half, high + half)
    return frame.assign(computed=computed, difference=frame["dice"] - computed, agrees=agrees)
