"""Scores -> which of the paper's claims hold here: a verdict on the reproduction.

::

    verdicts     a number with its interval -> holds, within uncertainty, does not hold
    evidence     results on disk -> scores, leads, curves, costs, as claims ask for them
    claims       a claim and its test -> finding
    curves       section 5.2
    networks     section 5.3
    backbones    section 5.4
    conclusions  abstract and section 6
    consistency  the paper's numbers against each other
"""

from collections.abc import Sequence

from bonelib.paths import ResultFolder
from bonelib.replication import backbones, conclusions, curves, networks
from bonelib.replication.claims import Claim, Finding
from bonelib.replication.consistency import dice_check
from bonelib.replication.evidence import Evidence, gather
from bonelib.replication.verdicts import FAILS, HOLDS, UNCERTAIN, UNTESTED, VERDICTS
from bonelib.settings import Settings

__all__ = [
    "CLAIMS",
    "FAILS",
    "HOLDS",
    "UNCERTAIN",
    "UNTESTED",
    "VERDICTS",
    "Evidence",
    "Finding",
    "dice_check",
    "findings",
    "findings_of",
    "gather",
    "of_the_paper",
    "tally",
    "verdict",
]

CLAIMS: tuple[Claim, ...] = (
    *curves.claims.made,
    *networks.claims.made,
    *backbones.claims.made,
    *conclusions.claims.made,
    *conclusions.own.made,
)


def findings(results: ResultFolder, methods: Sequence[str], settings: Settings) -> list[Finding]:
    """Test the paper's claims on the results of `methods`, in the order of its sections.

    A claim whose methods were not all run is not tested, nor is any where the classes are
    not the paper's. `verdicts.judge` says what a verdict means.
    """
    return findings_of(gather(results, methods, settings))


def findings_of(evidence: Evidence) -> list[Finding]:
    """Test the paper's claims on what a run left behind."""
    if not evidence.settings.has_papers_classes:
        why = f"class scheme {evidence.settings.class_scheme}, not the paper's classes"
        return [claim.untested(why) for claim in CLAIMS]
    return [claim.finding(evidence) for claim in CLAIMS]


def of_the_paper(tested: Sequence[Finding]) -> list[Finding]:
    """Return the findings on what the paper claims, without this project's own."""
    return [item for item in tested if item.part != conclusions.OWN]


def tally(tested: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings have each verdict."""
    return {name: sum(item.verdict == name for item in tested) for name in VERDICTS}


def verdict(tested: Sequence[Finding]) -> str:
    """Return the outcome for the paper's claims in one sentence."""
    tested = of_the_paper(tested)
    number = tally(tested)
    decided = len(tested) - number[UNTESTED]
    return (
        f"Of {len(tested)} claims of the paper, {decided} could be tested here. "
        f"Holds: {number[HOLDS]}. Holds within uncertainty: {number[UNCERTAIN]}. "
        f"Does not hold: {number[FAILS]}."
    )
