"""Headings and lines of cells -> Markdown, LaTeX, HTML."""

import html
import re
import textwrap
from collections.abc import Iterator, Sequence

from bonelib.tables.cells import Cell, Line

MOST_COLUMNS = 11  # of LaTeX, small print among them
WIDE = 8  # columns of LaTeX, from which on its print is smaller
MOST_LINES = 42  # of LaTeX, which a page holds with caption and notes

NEW_LINE = r"\\"
HEADING_WIDTH = 7  # characters, after which a heading of LaTeX goes on in a new line
WORDS_WIDTH = 24  # the same of other cells with words

# Colour says only what an arrow says, too; both are dark enough for print.
STYLE = """<style>
table.scores { border-collapse: collapse; }
p.caption, table.scores tr.block { break-after: avoid; }
table.scores td, table.scores th { vertical-align: baseline; white-space: nowrap; }
table.scores td { text-align: right; border: 0; padding: .1rem .3rem; }
table.scores thead th { text-align: center; white-space: normal; }
table.scores td.word, table.scores td.aside, table.scores tr.block th { text-align: left; }
table.scores td.aside { font-size: .8em; padding-left: 0; color: #555; }
table.scores tr.ours td { border-top: 1px solid #ddd; }
table.scores tr.paper td { color: #555; }
table.scores tr.paper td.beyond { color: #0b4f8a; font-weight: 600; }
</style>"""

LATEX = {
    "--": "-{}-", "`": "", "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", **{sign: f"\\{sign}" for sign in "%&#_$"},
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


def latex(
    titles: Sequence[str],
    lines: Sequence[Line],
    words: Sequence[bool],
    name: str,
    caption: str,
    notes: Sequence[str],
) -> str:
    """Return a table of booktabs that fits the text of the article class, 345 points.

    A long one is a longtable, which goes on on the next page; where there are many columns,
    small print stands below its value instead of behind it.
    """
    spans = _spans(titles, lines)
    is_stacked = sum(spans) > MOST_COLUMNS
    is_wide = is_stacked or len(titles) > WIDE
    is_long = len(lines) * (1 + is_stacked) > MOST_LINES
    if is_stacked:
        spans = [1] * len(titles)
    columns = "".join(
        "l" if word else r"r@{\kern2pt}l" if span > 1 else "r"
        for word, span in zip(words, spans, strict=True)
    )
    title = rf"\caption{{{latex_text(re.sub('^Table [0-9]+[.] ', '', caption))}}}"
    title += rf"\label{{tab:{name}}}"
    columns = f"{{@{{}}{columns}@{{}}}}"
    head = r"\toprule" + "\n" + " & ".join(map(_latex_heading, titles, spans, words)) + NEW_LINE
    body = [*_latex_body(lines, spans, words), r"\bottomrule"]
    if is_long:
        start, end = ["{"], [r"\end{longtable}", *_latex_notes(notes), "}"]
        table = [r"\begin{longtable}" + columns, title + NEW_LINE, head, r"\endhead", *body]
    else:
        start, end = [r"\begin{table}\centering"], [*_latex_notes(notes), r"\end{table}"]
        table = [title, r"\begin{tabular}" + columns, head, *body, r"\end{tabular}"]
    packages = "booktabs,longtable" if is_long else "booktabs"
    size, small = (r"\scriptsize", 5) if is_wide else (r"\footnotesize", 6)
    style = [
        rf"{size}\setlength{{\tabcolsep}}{{1.4pt}}\setlength{{\belowcaptionskip}}{{4pt}}",
        rf"\def\aside#1{{{{\fontsize{{{small}}}{{{small + 1}}}\selectfont #1}}}}",
    ]
    return "\n".join([rf"% needs \usepackage{{{packages}}}", *start, *style, *table, *end, ""])


def _latex_body(
    lines: Sequence[Line], spans: Sequence[int], words: Sequence[bool]
) -> Iterator[str]:
    if lines[0].kind != "block":
        yield r"\midrule"
    for line in lines:
        if line.kind == "block":
            heading = rf"\emph{{{latex_text(line.cells[0].text)}}}"
            yield rf"\midrule\multicolumn{{{sum(spans)}}}{{l}}{{{heading}}}{NEW_LINE}*"
        else:
            indent = r"\quad " if line.kind == "paper" else ""
            yield indent + " & ".join(map(_latex_cell, line.cells, spans, words)) + NEW_LINE


def _latex_notes(notes: Sequence[str]) -> tuple[str, str]:
    text = (NEW_LINE + "\n").join(map(latex_text, notes))
    return "", rf"\medskip\scriptsize\raggedright {text}" + "\n"


def _latex_heading(title: str, span: int, is_word: bool) -> str:
    parts = [
        latex_text(part) for part in textwrap.wrap(title, HEADING_WIDTH, break_long_words=False)
    ]
    text = _stack(parts, "l" if is_word else "r" if span == 1 else "c", "b")
    return rf"\multicolumn{{2}}{{c}}{{{text}}}" if span > 1 else text


def _latex_cell(cell: Cell, span: int, is_word: bool) -> str:
    text, aside = cell.text, cell.aside
    if is_word and " (" in text:  # a name and what is said of it
        text, aside = text.split(" (", 1)
        aside = "(" + aside
    parts = textwrap.wrap(text, WORDS_WIDTH) if is_word else [text]
    parts = [latex_text(part) for part in parts]
    if cell.is_best:
        parts = [rf"\textbf{{{part}}}" for part in parts]
    asides = [rf"\aside{{{latex_text(aside)}}}"] if aside else []
    side = "l" if is_word else "r"
    if span > 1:
        return f"{_stack(parts, side, 't')} & {''.join(asides)}"
    return _stack([*parts, *asides], side, "t")


def _stack(parts: Sequence[str], side: str, place: str) -> str:
    """Return parts below each other, so that the first ("t") or last ("b") is in the line."""
    if len(parts) < 2:
        return "".join(parts)
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{NEW_LINE.join(parts)}\end{{tabular}}"


def _spans(titles: Sequence[str], lines: Sequence[Line]) -> list[int]:
    """Return 2 for the columns that have anything in small print, 1 for the others."""
    rows = [line.cells for line in lines if line.kind != "block"]
    return [1 + any(row[index].aside for row in rows) for index in range(len(titles))]


def latex_text(text: str) -> str:
    """Return plain text with what LaTeX reads as its own written out."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)
