"""A table, and how it is written: CSV, Markdown, LaTeX, HTML."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from bonelib.provenance import replacing
from bonelib.tables import cells, writing


@dataclass(frozen=True)
class Table:
    """A table: tidy `frame`, what it shows, and what its reader must know.

    A column `x` may have companions: `x_low` and `x_high`, its interval, `x_paper` and
    `x_difference`. The values of the column `blocks` head blocks of rows. `best` says for
    a column whether min or max is best, which is bold in its block. `formats` has what
    writes a column's values, `unprinted` the columns that only the CSV shows.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    decimals: int = 2
    blocks: str = ""
    best: Mapping[str, Callable] = field(default_factory=dict)
    formats: Mapping[str, Callable] = field(default_factory=dict)
    unprinted: tuple[str, ...] = ()

    def printed(self) -> tuple[list[str], list[cells.Line], list[bool]]:
        """Return the headings, the lines, and which columns hold words, not numbers."""
        if self.frame.empty:
            return ["Result"], [cells.Line("ours", (cells.Cell("not run"),))], [True]
        frame = self.frame.drop(columns=list(self.unprinted))
        names = cells.quantities(frame, self.blocks)
        lines = cells.lines(frame, self.decimals, self.blocks, self.best, self.formats)
        words = [not is_numeric_dtype(frame[name]) for name in names]
        return [cells.title(name) for name in names], list(lines), words

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note, quote=False)}</li>" for note in self.notes)
        caption = html.escape(self.caption, quote=False)
        table = writing.html_table(*self.printed())
        return f'<p class="caption"><b>{caption}</b></p>{table}<ul>{notes}</ul>'


def save(table: Table, name: str, folder: Path) -> None:
    """Write `table` to `folder` as `name`.csv (tidy), .md and .tex (booktabs)."""
    printed = table.printed()
    notes = "\n".join(f"- {note}" for note in table.notes)
    frame = pd.DataFrame({"result": ["not run"]}) if table.frame.empty else table.frame
    texts = {
        "csv": frame.to_csv(index=False),
        "md": f"**{table.caption}**\n\n{writing.markdown(*printed)}\n\n{notes}\n",
        "tex": writing.latex(*printed, name, table.caption, table.notes),
    }
    for suffix, text in texts.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            scratch.write_text(text)
