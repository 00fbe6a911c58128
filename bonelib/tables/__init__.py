"""Scores -> the paper's tables and a supplement.

::

    cells        a frame -> headings and lines of cells
    writing      headings and lines -> Markdown, LaTeX, HTML
    table        a frame with its caption and notes -> files
    rows         scores beside the paper's, and what their reader must know
    paper        Tables 1 to 4
    supplement   single slices, the networks' own grids
    comparisons  every pair of methods
    surfaces     distances in mm
    mistakes     levels of the pelvis, probabilities, false bone
    ablations    what the paper leaves open
    complete     all of them
"""

from bonelib.tables.complete import all_tables
from bonelib.tables.paper_tables import table1, table2, table3, table4
from bonelib.tables.rows import scheme_note
from bonelib.tables.supplement_tables import native_table, per_image_table
from bonelib.tables.table import Table, save

__all__ = [
    "Table",
    "all_tables",
    "native_table",
    "per_image_table",
    "save",
    "scheme_note",
    "table1",
    "table2",
    "table3",
    "table4",
]
