"""The paper's claims, of claims.yaml.j2, tested on a run: which of them hold here."""

import math
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from bonelib import published
from bonelib.report import measures
from bonelib.report.evidence import (
    FAILS,
    HOLDS,
    LONG,
    SHORT,
    UNCERTAIN,
    UNTESTED,
    VERDICTS,
    Evidence,
    Group,
    NotTestable,
    extreme,
    judge,
    listed,
)  # fmt: skip
from bonelib.settings import Settings

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


def findings(evidence: Evidence) -> pd.DataFrame:
    """Test the paper's claims on a run; return one row per claim, in the order of its sections.

    Columns: list (FINDINGS, COUNTS or OWN), part (the heading in claims.yaml.j2), section (where
    the paper makes the claim), claim, paper and ours (numbers in words), verdict, why. A claim is
    not testable where one of its networks was not run, trained less than the paper's or finds
    no bone, nor where the classes are not the paper's. `evidence.judge` defines the other
    verdicts.
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
        vars(published) | vars(measures), settings=evidence.settings, paper_settings=Settings,
        best=best, distances=distances,
    )  # fmt: skip
    return {str(part): rows for part, rows in yaml.safe_load(text).items()}


def tested(evidence: Evidence, row: dict) -> dict[str, str]:
    """Return our number, the verdict and a remark on one claim, a row of `claims`."""
    found = {"ours": "", "verdict": UNTESTED, "why": row.get("why", "")}
    if not evidence.settings.has_papers_classes:
        scheme = evidence.settings.class_scheme
        return found | {"why": f"class scheme {scheme}, not the paper's classes"}
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
        measure = getattr(measures, row["measure"])
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
