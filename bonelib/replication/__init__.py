"""Scores -> which of the paper's claims hold here: a verdict on the reproduction.

::

    verdicts     a number with its interval -> holds, within uncertainty, does not hold
    evidence     results on disk -> scores, leads, curves, costs, as claims ask for them
    measures     evidence -> our numbers in words and the margins that decide
    claims       a row a claim: text, the paper's numbers, networks, measure -> finding
    consistency  the paper's numbers against each other
"""

from collections.abc import Sequence

from bonelib.paths import ResultFolder
from bonelib.replication.claims import CLAIMS, COUNTS, OWN, Finding
from bonelib.replication.consistency import dice_check
from bonelib.replication.evidence import Evidence, gather
from bonelib.replication.verdicts import FAILS, HOLDS, UNCERTAIN, UNTESTED, VERDICTS
from bonelib.settings import Settings

FINDINGS = "Findings"

__all__ = [
    "CLAIMS",
    "COUNTS",
    "FAILS",
    "FINDINGS",
    "HOLDS",
    "OWN",
    "UNCERTAIN",
    "UNTESTED",
    "VERDICTS",
    "Evidence",
    "Finding",
    "dice_check",
    "findings",
    "findings_of",
    "gather",
    "lists",
    "tally",
    "verdict",
]


def findings(results: ResultFolder, methods: Sequence[str], settings: Settings) -> list[Finding]:
    """Test the paper's claims on the results of `methods`, in the order of its sections.

    A claim is not tested where one of its networks was not run, trained less than the paper's
    or finds no bone, nor where the classes are not the paper's. `verdicts.judge` defines the
    other verdicts.
    """
    return findings_of(gather(results, methods, settings))


def findings_of(evidence: Evidence) -> list[Finding]:
    """Test the paper's claims on the evidence of a run."""
    if not evidence.settings.has_papers_classes:
        why = f"class scheme {evidence.settings.class_scheme}, not the paper's classes"
        return [claim.found(UNTESTED, why) for claim in CLAIMS]
    return [claim.finding(evidence) for claim in CLAIMS]


def lists(tested: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return the findings on the paper's networks, its counts and times, and this project's own."""
    found = {FINDINGS: [], COUNTS: [], OWN: []}
    for item in tested:
        found.get(item.part, found[FINDINGS]).append(item)
    return found


def tally(tested: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings have each verdict."""
    return {name: sum(item.verdict == name for item in tested) for name in VERDICTS}


def verdict(tested: Sequence[Finding]) -> str:
    """Return the outcome for the paper's findings, and for its counts and times, in words."""
    found = lists(tested)
    return (
        f"{_outcome('findings of the paper', found[FINDINGS])} "
        f"{_outcome('counts and times, compared apart', found[COUNTS])}"
    )


def _outcome(noun: str, tested: Sequence[Finding]) -> str:
    number = tally(tested)
    decided = len(tested) - number.pop(UNTESTED)
    parts = [f"{name.capitalize()}: {count}." for name, count in number.items() if count]
    return " ".join([f"Of {len(tested)} {noun}, {decided} could be tested here.", *parts])
