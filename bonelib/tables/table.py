"""A table, and how it is written: CSV, Markdown, LaTeX, HTML."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib.provenance import replacing


@dataclass(frozen=True)
class Table:
    """A table: tidy `frame`, what it shows, and what its reader must know.

    A column `x` may have companions `x_paper` and `x_difference`.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    decimals: int = 2

    def printed(self) -> pd.DataFrame:
        """Return the frame as text, with a header of two levels: quantity and origin."""
        if self.frame.empty:
            return pd.DataFrame([["not run"]], columns=pd.MultiIndex.from_tuples([("Result", "")]))
        cells = {
            _header(name, self.frame.columns): self.frame[name].map(
                lambda value, name=name: _cell(value, name, self.decimals)
            )
            for name in self.frame.columns
        }
        columns = pd.MultiIndex.from_tuples(list(cells))
        return pd.DataFrame(list(cells.values()), index=columns, dtype=object).T

    def _repr_html_(self) -> str:
        printed = self.printed().to_html(index=False, border=0, classes="scores", escape=True)
        notes = "".join(f"<li>{_html(note)}</li>" for note in self.notes)
        return f"<p><b>{_html(self.caption)}</b></p>{printed}<ul>{notes}</ul>"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _header(name: str, columns) -> tuple[str, str]:
    quantity = re.sub("_(paper|difference)$", "", name)
    origin = {"_paper": "paper", "_difference": "diff."}.get(name[len(quantity) :], "ours")
    title = quantity.replace("_", " ")
    title = title[0].upper() + title[1:]
    return (title, origin if f"{quantity}_paper" in columns else "")


def _cell(value, name: str, decimals: int) -> str:
    if pd.isna(value):
        return ""
    sign = "+" if name.endswith("_difference") else ""
    if isinstance(value, (int, np.integer)):
        return f"{value:{sign},}" if value else "0"
    return f"{value:{sign}.{decimals}f}" if isinstance(value, (float, np.floating)) else str(value)


def save(table: Table, name: str, folder: Path) -> None:
    """Write `table` to `folder` as `name`.csv (tidy), .md and .tex (booktabs)."""
    printed = table.printed()
    flat = printed.set_axis([", ".join(filter(None, header)) for header in printed], axis=1)
    notes = "\n".join(f"- {note}" for note in table.notes)
    latex_notes = r"\\ ".join(_latex(note) for note in table.notes)
    tabular = printed.to_latex(index=False, escape=True, multicolumn_format="c")
    texts = {
        "csv": table.frame.to_csv(index=False),
        "md": f"**{table.caption}**\n\n{flat.to_markdown(index=False, disable_numparse=True)}"
        f"\n\n{notes}\n",
        "tex": "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\\footnotesize\n"
        f"\\setlength{{\\tabcolsep}}{{3pt}}\n\\caption{{{_latex(table.caption)}}}\n"
        f"\\label{{tab:{name}}}\n{tabular}\n\n\\raggedright {latex_notes}\n\\end{{table}}\n",
    }
    for suffix, text in texts.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            scratch.write_text(text)


def _latex(text: str) -> str:
    return re.sub(r"([%&#_$])", r"\\\1", text)
