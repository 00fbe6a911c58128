"""Scores -> the paper's tables and a supplement.

::

    table       a frame with its caption and notes -> CSV, Markdown, LaTeX, HTML
    rows        scores beside the paper's, and what their reader must know
    paper       Tables 1 to 4
    supplement  what the paper leaves out
"""

from bonelib.tables.paper import table1, table2, table3, table4
from bonelib.tables.rows import scheme_note
from bonelib.tables.supplement import native_table, per_image_table
from bonelib.tables.table import Table, save

__all__ = [
    "Table",
    "native_table",
    "per_image_table",
    "save",
    "scheme_note",
    "table1",
    "table2",
    "table3",
    "table4",
]
