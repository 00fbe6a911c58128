"""Numbers with intervals -> the verdict on a claim; numbers in words."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from bonelib.published import METHOD_NAMES

HOLDS = "holds"
UNCERTAIN = "holds within uncertainty"
FAILS = "does not hold"
UNTESTED = "not testable here"
VERDICTS = (HOLDS, UNCERTAIN, FAILS, UNTESTED)
LAST_DIGIT = 0.01  # of a printed score


class NotTestable(Exception):
    """The run lacks a number that a claim needs; the message names it."""


class Estimate(NamedTuple):
    """A number with its 95 % interval; all three are equal where there is no interval."""

    value: float
    low: float
    high: float

    def __sub__(self, other: "Estimate | float") -> "Estimate":
        """Return the difference, for two estimates with the widest interval that theirs allow."""
        value, low, high = other if isinstance(other, Estimate) else (other,) * 3
        return Estimate(self.value - value, self.low - high, self.high - low)

    def __rsub__(self, other: float) -> "Estimate":
        return exact(other) - self

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def exact(value: float) -> Estimate:
    """Return a number without an interval."""
    return Estimate(value, value, value)


def same(ours: Estimate, paper: float) -> Estimate:
    """Return a margin that says whether our number equals the paper's.

    Both are rounded, so their last digits may differ by one. Other numbers are uncertain
    as long as our interval contains the paper's.
    """
    if abs(ours.value - paper) < 1.5 * LAST_DIGIT:
        return exact(math.inf)
    contains = ours.low <= paper <= ours.high
    return Estimate(math.inf, -math.inf, math.inf) if contains else exact(-math.inf)


def judge(margins: Collection[Estimate]) -> str:
    """Return the verdict from margins: distances of our numbers on the claimed side of a limit.

    A claim holds if all intervals lie above 0, fails if one lies below, and holds within
    uncertainty otherwise. It is not testable without numbers.
    """
    if not margins or any(math.isnan(end) for margin in margins for end in margin):
        return UNTESTED
    if any(margin.high <= 0 for margin in margins):
        return FAILS
    return HOLDS if all(margin.low > 0 for margin in margins) else UNCERTAIN


def name_of(key: str) -> str:
    """Return the printed name of a method; other keys stay as they are."""
    return METHOD_NAMES.get(key, key)


def listed(values: Mapping[str, float | Estimate], unit: str = "", decimals: int = 2) -> str:
    """Return named values in words."""
    form = {int: "{:,}", Estimate: "{}"}
    return ", ".join(
        f"{name_of(key)} {form.get(type(value), f'{{:.{decimals}f}}').format(value)}{unit}"
        for key, value in values.items()
    )


def extreme(values: Mapping[str, float | Estimate], choose: Callable = min) -> tuple:
    """Return the name and value of the lowest of `values`, or of the highest by `max`."""
    name = choose(values, key=values.get)
    return name, values[name]
