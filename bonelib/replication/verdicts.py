"""A number with its interval: in words, and the verdict that it carries."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bonelib import published

NAMES = published.METHOD_NAMES

HOLDS = "holds"
UNCERTAIN = "holds within uncertainty"
FAILS = "does not hold"
UNTESTED = "not testable here"
LAST_DIGIT = 0.01
VERDICTS = (HOLDS, UNCERTAIN, FAILS, UNTESTED)


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval; for a count all three are the same."""

    value: float
    low: float
    high: float

    def above(self, limit: float) -> "Estimate":
        """Return how far it lies above `limit`."""
        return Estimate(self.value - limit, self.low - limit, self.high - limit)

    def below(self, limit: float) -> "Estimate":
        """Return how far it lies below `limit`."""
        return Estimate(limit - self.value, limit - self.high, limit - self.low)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def exact(value: float) -> Estimate:
    """Return a number that no resampling changes."""
    return Estimate(value, value, value)


def whether(condition: bool) -> Estimate:
    """Return a margin on the claimed side if `condition` is met, on the other if not."""
    return exact(1.0 if condition else -1.0)


def apart(upper: Estimate, lower: Estimate) -> Estimate:
    """Return how far `upper` lies above `lower`, two that were not resampled together.

    The interval is the widest that theirs allow.
    """
    return Estimate(upper.value - lower.value, upper.low - lower.high, upper.high - lower.low)


def same(ours: Estimate, paper: float) -> Estimate:
    """Return a margin: claimed side if ours is the paper's number, undecided if it may be.

    Their last digits may differ by one, since both are rounded.
    """
    if abs(ours.value - paper) < 1.5 * LAST_DIGIT:
        return whether(True)
    return Estimate(1.0, -1.0, 1.0) if ours.low <= paper <= ours.high else whether(False)


def judge(margins: Sequence[Estimate]) -> str:
    """Return the verdict on a claim from how far our numbers lie on its side.

    It holds where every interval lies on the claimed side as a whole, and does not where one
    lies on the other side as a whole. Between the two an interval contains both, and the
    claim holds within uncertainty. Without a number there is nothing to judge.
    """
    if not margins or any(math.isnan(end) for margin in margins for end in margin):
        return UNTESTED
    if any(margin.high <= 0 for margin in margins):
        return FAILS
    return HOLDS if all(margin.low > 0 for margin in margins) else UNCERTAIN


def listed(values: Mapping[str, float | Estimate], unit: str = "", decimals: int = 2) -> str:
    """Return values by the printed names of their methods, the largest first."""
    ordered = sorted(values.items(), key=lambda item: _value(item[1]), reverse=True)
    return ", ".join(f"{name_of(key)} {_text(value, decimals)}{unit}" for key, value in ordered)


def name_of(key: str) -> str:
    """Return the printed name of a method, and any other name as it is."""
    return NAMES.get(key, key)


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
