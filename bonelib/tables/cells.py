"""A frame -> headings and lines of cells, as every format prints them.

A column `x` may have companions: `x_low` and `x_high`, the ends of its interval, stand
behind it in small print; `x_paper` and `x_difference` make a line of their own below.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

COMPANION = re.compile("_(low|high|paper|difference)$")

TITLES = {
    "name": "Method",
    "assd_mm": "ASSD, mm",
    "hd95_mm": "HD95, mm",
    "nsd_1mm": "NSD 1 mm, %",
    "nsd_2mm": "NSD 2 mm, %",
    "won": "Series won",
    "p_holm": "p (Holm)",
    "ml": "False bone, ml",
    "ece": "All classes",
    **{f"training_{number}": f"No. {number}" for number in (1, 2, 3)},
    "milliseconds": "ms a slice",
}

ABOVE, BELOW = "↑", "↓"  # ours lies so far from the paper's that the interval leaves it out


@dataclass(frozen=True)
class Cell:
    """One value as text, what stands behind it in small print, and why it stands out."""

    text: str = ""
    aside: str = ""
    is_best: bool = False
    is_beyond: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table: `kind` is "block" (a heading of those below), "ours" or "paper"."""

    kind: str
    cells: tuple[Cell, ...]


def quantities(frame: pd.DataFrame, blocks: str = "") -> list[str]:
    """Return the columns that are no companion of another, without that of the blocks."""
    return [
        name
        for name in frame.columns
        if name != blocks and COMPANION.sub("", name) not in set(frame.columns) - {name}
    ]


def title(name: str) -> str:
    """Return the heading of a column."""
    words = name.replace("_", " ")
    return TITLES.get(name, words[:1].upper() + words[1:])


def lines(
    frame: pd.DataFrame,
    decimals: int,
    blocks: str = "",
    best: Mapping[str, Callable] | None = None,
    formats: Mapping[str, Callable] | None = None,
) -> Iterator[Line]:
    """Yield the lines of a frame, block by block of the column `blocks`.

    `best` says for a column which of a block's values is best, min or max; where several
    are printed alike, none is. `formats` turns values of a column into text.
    """
    names = quantities(frame, blocks)
    best, formats = best or {}, formats or {}
    groups = frame.groupby(blocks, sort=False) if blocks else [("", frame)]
    for heading, group in groups:
        if blocks:
            yield Line("block", (Cell(str(heading)),))
        text = {
            name: [formats.get(name, _number(decimals))(value) for value in group[name]]
            for name in names
        }
        bold = {name: _best(group[name], text[name], choose) for name, choose in best.items()}
        for index, row in enumerate(group.to_dict("records")):
            yield Line(
                "ours",
                tuple(
                    Cell(text[name][index], _interval(row, name, decimals), bold.get(name) == index)
                    for name in names
                ),
            )
            if not all(pd.isna(row.get(f"{name}_paper")) for name in names):
                rest = (_paper(row, name, decimals) for name in names[1:])
                yield Line("paper", (Cell("paper"), *rest))


def _best(values: pd.Series, text: list[str], choose: Callable) -> int | None:
    """Return where the best value is, None where it is printed twice or stands alone."""
    known = [index for index, value in enumerate(values) if not pd.isna(value)]
    if len(known) < 2:
        return None
    best = choose(known, key=lambda index: values.iloc[index])
    return best if text.count(text[best]) == 1 else None


def _number(decimals: int, sign: str = "") -> Callable:
    """Return what writes a value: whole numbers whole, others with `decimals`."""

    def write(value) -> str:
        if pd.isna(value):
            return ""
        if isinstance(value, (int, np.integer)):
            text = f"{value:{sign},}" if value else "0"
        elif isinstance(value, (float, np.floating)):
            text = f"{value:{sign}.{decimals}f}"
        else:
            return str(value)
        return text.replace("-", "−")

    return write


def _interval(row: dict, name: str, decimals: int) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if pd.isna(low) or pd.isna(high):
        return ""
    write = _number(decimals)
    between = " to " if low < 0 else "–"
    return f"{write(low)}{between}{write(high)}"


def _paper(row: dict, name: str, decimals: int) -> Cell:
    """Return the paper's value with our difference, marked where the interval leaves it out."""
    paper, difference = row.get(f"{name}_paper"), row.get(f"{name}_difference")
    if pd.isna(paper):
        return Cell()
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    mark = ABOVE if paper < low else BELOW if paper > high else ""
    aside = "" if pd.isna(difference) else f"({_number(decimals, '+')(difference)}{mark})"
    return Cell(_number(decimals)(paper), aside, is_beyond=bool(mark))
