"""What a claim of the paper is, and what becomes of it when it is tested."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bonelib.replication.evidence import NAMES, Evidence, NotTestable
from bonelib.replication.verdicts import FAILS, UNTESTED, Estimate, judge

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
class Outcome:
    """Our numbers in words, and how far each that decides lies on the claimed side."""

    ours: str
    margins: Sequence[Estimate]
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim and its test, which raises NotTestable where something is missing."""

    part: str
    section: str
    text: str
    paper: str
    test: Callable[[Evidence], Outcome]

    def finding(self, evidence: Evidence) -> Finding:
        """Test the claim on a run."""
        try:
            outcome = self.test(evidence)
        except NotTestable as reason:
            return self.untested(str(reason))
        verdict, why = judge(outcome.margins), outcome.why
        if verdict == UNTESTED:
            return self.untested(why or "a number is missing")
        if verdict != FAILS and any(margin.value <= 0 for margin in outcome.margins):
            why = f"{why} {AGAINST}".strip()
        return self._found(outcome.ours, verdict, why)

    def untested(self, why: str) -> Finding:
        """Return the finding that there is nothing to find, and why."""
        return self._found("", UNTESTED, why)

    def _found(self, ours: str, verdict: str, why: str) -> Finding:
        return Finding(self.part, self.section, self.text, self.paper, ours, verdict, why)


@dataclass
class Claims:
    """The claims of one section of the paper, in its order."""

    section: str
    made: list[Claim] = field(default_factory=list)

    def add(self, text: str, paper: str, section: str = "") -> Callable:
        """Make a claim out of the function that tests it."""

        def decorate(test: Callable[[Evidence], Outcome]) -> Callable:
            self.made.append(Claim(self.section, section or self.section, text, paper, test))
            return test

        return decorate


def listed(values: Mapping[str, float | Estimate], unit: str = "", decimals: int = 2) -> str:
    """Return values by the printed names of their methods, the largest first."""
    ordered = sorted(values.items(), key=lambda item: _value(item[1]), reverse=True)
    return ", ".join(
        f"{NAMES.get(name, name)} {_text(value, decimals)}{unit}" for name, value in ordered
    )


def _value(value: float | Estimate) -> float:
    return value.value if isinstance(value, Estimate) else value


def _text(value: float | Estimate, decimals: int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if isinstance(value, Estimate) else f"{value:.{decimals}f}"


def extreme(values: Mapping[str, Estimate], choose: Callable = min) -> tuple[str, Estimate]:
    """Return the lowest of `values`, or the highest by `max`, with its name."""
    name = choose(values, key=lambda key: values[key].value)
    return name, values[name]
