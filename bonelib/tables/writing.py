"""Headings and lines of cells -> Markdown, LaTeX, HTML."""

import html
import re
import textwrap
from collections.abc import Sequence

from bonelib.tables.cells import Cell, Line

NEW_LINE = r"\\"
HEADING_WIDTH = 14  # characters, after which a heading of LaTeX goes on in a new line

# Colour says only what an arrow says, too; both are dark enough for print.
STYLE = """<style>
table.scores td, table.scores th { vertical-align: top; white-space: nowrap; }
table.scores td { text-align: right; border: 0; padding: .1rem .3rem; }
table.scores thead th { text-align: center; white-space: normal; }
table.scores td.word, table.scores td.aside, table.scores tr.block th { text-align: left; }
table.scores td.aside { font-size: .8em; padding-left: 0; color: #555; }
table.scores tr.ours td { border-top: 1px solid #ddd; }
table.scores tr.paper td { color: #555; }
table.scores tr.paper td.beyond { color: #0b4f8a; font-weight: 600; }
</style>"""

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "−": "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "±": r"$\pm$", "<": r"\textless{}",
    ">": r"\textgreater{}", **{sign: f"\\{sign}" for sign in "%&#_$"},
}  # fmt: skip


def markdown(titles: Sequence[str], lines: Sequence[Line], words: Sequence[bool]) -> str:
    """Return a Markdown table; the `words` among the columns stand left, numbers right."""
    rows = [titles, [":--" if word else "--:" for word in words]]
    for line in lines:
        empty = [""] * (len(titles) - len(line.cells))
        rows.append([*(_markdown_cell(cell, line) for cell in line.cells), *empty])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_cell(cell: Cell, line: Line) -> str:
    text = cell.text.replace("|", "\\|")
    marks = "**" if cell.is_best else "*" if line.kind == "block" else ""
    aside = f" [{cell.aside}]" if line.kind == "ours" and cell.aside else f" {cell.aside}"
    return f"{marks}{text}{marks}{aside}".strip()


def html_table(titles: Sequence[str], lines: Sequence[Line], words: Sequence[bool]) -> str:
    """Return an HTML table with its style."""
    spans = _spans(titles, lines)
    head = "".join(
        f"<th{' colspan=2' if span > 1 else ''}>{html.escape(title)}</th>"
        for title, span in zip(titles, spans, strict=True)
    )
    body = []
    for line in lines:
        if line.kind == "block":
            heading = html.escape(line.cells[0].text)
            cells = f'<th colspan="{sum(spans)}">{heading}</th>'
        else:
            cells = "".join(map(_html_cell, line.cells, spans, words))
        body.append(f'<tr class="{line.kind}">{cells}</tr>')
    rows = "\n".join(body)
    head = f"<thead><tr>{head}</tr></thead>"
    return f'{STYLE}<table class="scores">{head}\n<tbody>{rows}</tbody></table>'


def _html_cell(cell: Cell, span: int, is_word: bool) -> str:
    text = html.escape(cell.text)
    shown = f"<b>{text}</b>" if cell.is_best else text
    value = f"<td{' class=word' if is_word else ''}>{shown}</td>"
    if span == 1:
        return value
    beyond = " beyond" if cell.is_beyond else ""
    return f'{value}<td class="aside{beyond}">{html.escape(cell.aside)}</td>'


def latex(titles: Sequence[str], lines: Sequence[Line], words: Sequence[bool]) -> str:
    r"""Return a tabular of booktabs; `\aside` sets the small print and is to be defined."""
    spans = _spans(titles, lines)
    columns = "".join(
        "l" if word else r"r@{\,}l" if span > 1 else "r"
        for word, span in zip(words, spans, strict=True)
    )
    head = " & ".join(map(_latex_heading, titles, spans, words))
    body = []
    for line in lines:
        if line.kind == "block":
            heading = latex_text(line.cells[0].text)
            body += [r"\midrule", rf"\multicolumn{{{sum(spans)}}}{{l}}{{\emph{{{heading}}}}}\\"]
        else:
            body.append(" & ".join(map(_latex_cell, line.cells, spans, words)) + NEW_LINE)
    if body[0] != r"\midrule":
        body.insert(0, r"\midrule")
    parts = [rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", head + NEW_LINE, *body]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"])


def _latex_heading(title: str, span: int, is_word: bool) -> str:
    parts = [latex_text(part) for part in textwrap.wrap(title, HEADING_WIDTH)]
    side = "l" if is_word else "r" if span == 1 else "c"
    text = NEW_LINE.join(parts)
    text = rf"\shortstack[{side}]{{{text}}}" if len(parts) > 1 else text
    return rf"\multicolumn{{2}}{{c}}{{{text}}}" if span > 1 else text


def _latex_cell(cell: Cell, span: int, is_word: bool) -> str:
    text = latex_text(cell.text)
    if is_word and " (" in text:  # a name and what is said of it, below each other
        text = text.replace(" (", NEW_LINE + "(")
        text = rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{text}\end{{tabular}}"
    shown = rf"\textbf{{{text}}}" if cell.is_best else text
    aside = rf"\aside{{{latex_text(cell.aside)}}}" if cell.aside else ""
    return f"{shown} & {aside}" if span > 1 else shown


def _spans(titles: Sequence[str], lines: Sequence[Line]) -> list[int]:
    """Return 2 for the columns that have anything in small print, 1 for the others."""
    rows = [line.cells for line in lines if line.kind != "block"]
    return [1 + any(row[index].aside for row in rows) for index in range(len(titles))]


def latex_text(text: str) -> str:
    """Return plain text with what LaTeX reads as its own written out."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)
