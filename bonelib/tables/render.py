"""A table and its files: CSV (tidy), Markdown, LaTeX, HTML.

A column `x` of a table's frame may have companions: `x_low` and `x_high`, the ends of its
interval, are printed behind the value in small print; `x_paper` and `x_difference` are printed
in a second row.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pandas.api.types import is_integer, is_number, is_numeric_dtype
from pandas.io.formats.style import Styler

from bonelib import published
from bonelib.evaluation import statistics
from bonelib.provenance import replacing, text_hash

Records = dict[str, dict]  # of the evaluations, by model

# Columns of whole numbers, some of which may be missing.
WHOLE = {"epochs", "epoch", "images", "parameters", "trainable"}

COMPANION = re.compile("_(low|high|paper|difference)$")

TEXTS = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text(encoding="utf-8"))
STYLE = Path(__file__).with_name("tables.css").read_text()

ABOVE, BELOW = "↑", "↓"  # ours is above or below the paper's value, which the interval excludes

LATEX = r"""%% needs \usepackage{adjustbox,booktabs}
\begin{table}
\caption{%s}
\label{tab:%s}
\begin{adjustbox}{max totalsize={\textwidth}{0.7\textheight}, center}
%s\end{adjustbox}
\par\medskip\scriptsize\raggedright
%s
\end{table}
"""
ESCAPED = {
    "--": "-{}-", "`": "", "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", **{sign: f"\\{sign}" for sign in "%&#_$"},
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A printed value and the small print behind it; `row` is "ours" or "paper"."""

    text: str = ""
    small: str = ""
    row: str = "ours"
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A tidy frame, its caption and notes, and how it is printed.

    `blocks` is a column whose equal values are grouped; `best` maps columns to min or max, and
    the best value of a column and block is bold; `formats` maps columns to functions that
    return text; `unprinted` columns appear in the CSV only.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    decimals: int = 2
    blocks: str = ""
    best: Mapping[str, Callable] = field(default_factory=dict)
    formats: Mapping[str, Callable] = field(default_factory=dict)
    unprinted: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Return the printed columns, without companions; that of the blocks comes first."""
        known = set(self.frame.columns)
        names = [
            name
            for name in self.frame.columns
            if name not in self.unprinted and COMPANION.sub("", name) not in known - {name}
        ]
        return sorted(names, key=lambda name: name != self.blocks)

    def cells(self) -> pd.DataFrame:
        """Return the cells under their headings: a row of ours, then one of the paper's."""
        if self.frame.empty:
            return pd.DataFrame({"Result": [Cell("not run")]})
        names = self.columns
        label = names[1] if self.blocks else names[0]
        rows = []
        for _, block in self.frame.groupby(self.blocks or (lambda _: 0), sort=False):
            best = {name: self._best(block[name], choose) for name, choose in self.best.items()}
            for index, row in enumerate(block.to_dict("records")):
                ours = {name: self._ours(row, name, best.get(name) == index) for name in names}
                if self.blocks and index:
                    ours[self.blocks] = Cell()
                rows.append(ours)
                if not all(pd.isna(row.get(f"{name}_paper")) for name in names):
                    papers = {name: self._papers(row, name) for name in names}
                    rows.append(papers | {label: Cell("paper", row="paper")})
        return pd.DataFrame(rows, columns=names).rename(columns=_title)

    def alignment(self) -> list[str]:
        """Return "right" for columns of numbers, "left" for words."""
        if self.frame.empty:
            return ["left"]
        return ["right" if is_numeric_dtype(self.frame[name]) else "left" for name in self.columns]

    def _best(self, values: pd.Series, choose: Callable) -> int | None:
        """Return the position of the best value; None if it is alone or printed twice."""
        known = values.reset_index(drop=True).dropna()
        best = choose(known, default=np.nan)
        is_printed = known.map(self._number) == self._number(best)
        return known.index[known == best][0] if is_printed.sum() == 1 < len(known) else None

    def _ours(self, row: dict, name: str, is_best: bool) -> Cell:
        low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
        if low == high == row[name] == 0:
            return Cell(f"no {name} found")
        between = " to " if low < 0 else "–"
        interval = "" if pd.isna(low) else f"{self._number(low)}{between}{self._number(high)}"
        return Cell(self.formats.get(name, self._number)(row[name]), interval, is_best=is_best)

    def _papers(self, row: dict, name: str) -> Cell:
        """Return the paper's value and the difference, marked where our interval excludes it."""
        paper, difference = row.get(f"{name}_paper"), row.get(f"{name}_difference")
        low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
        mark = "" if pd.isna(paper) else ABOVE if paper < low else BELOW if paper > high else ""
        small = "" if pd.isna(difference) else f"({self._number(difference, '+')}{mark})"
        return Cell(self._number(paper), small, row="paper")

    def _number(self, value, sign: str = "") -> str:
        """Return a whole number with separators, another with the table's decimals, or words."""
        if pd.isna(value) or not is_number(value):
            return "" if pd.isna(value) else value
        digits = "," if is_integer(value) else f".{self.decimals}f"
        return f"{value:{sign}{digits}}".replace("-", "−")

    def _repr_html_(self) -> str:
        cells = self.cells().rename(columns=html.escape)
        classes = cells.map(lambda cell: cell.row)
        texts = {}
        for (title, column), side in zip(cells.items(), self.alignment(), strict=True):
            classes[title] += f" {side}"
            has_small = any(cell.small for cell in column)
            texts[title] = [_html_cell(cell, has_small) for cell in column]
        caption, *notes = (html.escape(text, quote=False) for text in (self.caption, *self.notes))
        styler = Styler(pd.DataFrame(texts), cell_ids=False).hide(axis="index")
        table = (
            styler.set_td_classes(classes)
            .set_caption(caption)
            .to_html(table_uuid=text_hash(self.caption), table_attributes='class="scores"')
        )
        table = table.replace("<th ", '<th scope="col" ')
        for index, side in enumerate(self.alignment()):
            table = table.replace(f' col{index}"', f' col{index} {side}"')
        listed = "".join(f"<li>{note}</li>" for note in notes)
        return f"<style>\n{STYLE}</style>{table}<ul>{listed}</ul>"

    def markdown(self) -> str:
        """Return the caption, a Markdown table and the notes."""
        cells = self.cells().map(_markdown_cell)
        table = cells.to_markdown(index=False, colalign=self.alignment(), disable_numparse=True)
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"**{self.caption}**\n\n{table}\n\n{notes}\n"

    def latex(self, name: str) -> str:
        """Return a LaTeX table of booktabs, scaled down to fit the page."""
        cells = self.cells().map(_latex_cell).rename(columns=latex_text)
        tabular = cells.style.hide(axis="index").to_latex(
            hrules=True, column_format="".join(side[0] for side in self.alignment())
        )
        caption = re.sub("^Table [0-9]+[.] ", "", self.caption)
        notes = "\n\n".join(map(latex_text, self.notes))
        return LATEX % (latex_text(caption), name, tabular, notes)


def made(
    name: str, rows: list[dict], notes: Iterable[str] = (), words: Mapping | None = None, **options
) -> Table:
    """Return a table of rows with its text in captions.yaml, or one that says it was not run.

    `words` fill in the text, `notes` stand before its own, `options` are those of `Table`.
    """
    frame, words = pd.DataFrame(rows), words or {}
    whole = [column for column in frame.columns if column.split("_")[0] in WHOLE]
    text = TEXTS[name]
    own = [note.format(**words) for note in text.get("notes", [])]
    return Table(
        frame.astype(dict.fromkeys(whole, "Int64")),
        text["caption"].format(**words),
        (text.get("not_run", "Not run."),) if frame.empty else (*notes, *own),
        **options,
    )


def shared(name: str, **words) -> str:
    """Return a note that several tables share."""
    return TEXTS["shared"][name].format(**words)


def score_notes(parts: Iterable[pd.DataFrame]) -> list[str]:
    """Return the notes on sample size, pooling, intervals and marks of score rows."""
    sizes = dict.fromkeys((len(part), part["series"].nunique()) for part in parts)
    pooling = [shared("pooling", slices=slices, series=series) for slices, series in sizes]
    series = min((series for _, series in sizes), default=0)
    return [*pooling, interval_note(series), shared("marks"), shared("best")]


def interval_note(series: int) -> str:
    """Return the note on how the intervals are made and what they leave out."""
    confidence, resamples = 100 * statistics.CONFIDENCE, statistics.RESAMPLES
    return shared("intervals", confidence=confidence, resamples=resamples, series=series)


def notes_on(not_run: Iterable[str] = (), records: Records | None = None) -> list[str]:
    """Return the notes on models that were not run and on encoders that were not pretrained."""
    random = [
        model for model, one in (records or {}).items() if one.get("encoder_weights") == "random"
    ]
    return [
        shared(note, names=", ".join(published.METHOD_NAMES[model] for model in models))
        for note, models in {"not_run": not_run, "random_encoders": random}.items()
        if models
    ]


def save(table: Table, name: str, folder: Path) -> None:
    """Write `table` to `folder` as `name`.csv, .md and .tex."""
    frame = pd.DataFrame({"result": ["not run"]}) if table.frame.empty else table.frame
    texts = {"csv": frame.to_csv(index=False), "md": table.markdown(), "tex": table.latex(name)}
    for suffix, text in texts.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            scratch.write_text(text)


def latex_text(text: str) -> str:
    """Return plain text with the special characters of LaTeX escaped."""
    return re.sub("|".join(map(re.escape, ESCAPED)), lambda found: ESCAPED[found[0]], text)


def _title(name: str) -> str:
    """Return the heading of a column."""
    words = name.replace("_", " ")
    return TEXTS["columns"].get(name, words[:1].upper() + words[1:])


def _html_cell(cell: Cell, has_small: bool) -> str:
    """Return a value and its small print, which may be empty to align the values of a column."""
    text = html.escape(cell.text)
    small = f" <small>{html.escape(cell.small)}</small>" if has_small else ""
    return (f"<b>{text}</b>" if cell.is_best else text) + small


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.is_best else cell.text.replace("|", "\\|")
    small = f" [{cell.small}]" if cell.small and cell.row == "ours" else f" {cell.small}"
    return (text + small).strip()


def _latex_cell(cell: Cell) -> str:
    """Return a value, and its small print below it."""
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.is_best else text
    small = rf"\\\scriptsize {latex_text(cell.small)}" if cell.small else ""
    return rf"\shortstack[r]{{{text}{small}}}" if small else text
