"""Scores -> the paper's tables and those of the supplement.

::

    paper_tables       Tables 1 to 4, and the rows and notes that all tables of scores share
    supplement_tables  native grid, single images, comparisons, surfaces, errors, ablations
    render             a table -> CSV, Markdown, LaTeX, HTML
"""

from collections.abc import Sequence
from dataclasses import replace

from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.settings import Settings
from bonelib.tables import supplement_tables
from bonelib.tables.paper_tables import scheme_note, table1, table2, table3, table4
from bonelib.tables.render import Table, save
from bonelib.tables.supplement_tables import ablation_table

__all__ = [
    "Table", "ablation_table", "all_tables", "save", "scheme_note", "table1", "table2", "table3",
    "table4",
]  # fmt: skip


def all_tables(
    results: ResultFolder, methods: Sequence[str], settings: Settings, data_note: str = ""
) -> dict[str, Table]:
    """Return every table of `methods` by its file name; missing results are shown as not run.

    `data_note`, from `bonelib.datasets.note`, becomes the last note of each table.
    """
    scores = scoring.read_scores(results, methods)
    records = scoring.read_records(results, methods)
    best = scoring.best_model(scores, settings, scoring.read_histories(results, methods))
    slices = scoring.read_slices(results)
    surfaces = scoring.read_surfaces(results, methods)
    reliability = scoring.read_reliability(results, methods)
    false_bone = scoring.read_false_bone(results, methods)
    more = supplement_tables
    tables = {
        "table1": table1(scores, settings),
        "table2": table2(records, settings),
        "table3": table3(scores, records, settings),
        "table4": table4(scores, records, settings, best),
        "per_image": more.per_image_table(scores, settings, records),
        "native": more.native_table(scores, settings, records),
        "comparisons": more.comparison_table(scores, records),
        "surfaces": more.surface_table(surfaces, records),
        "surfaces_series": more.surface_series_table(surfaces, best),
        "levels": more.level_table(scores, slices, records),
        "calibration": more.calibration_table(reliability, settings, records),
        "false_bone": more.false_bone_table(false_bone, scores, slices, records),
        "ablations": ablation_table(results, settings),
    }
    notes = [note for note in (scheme_note(settings), data_note) if note]
    return {name: replace(table, notes=(*table.notes, *notes)) for name, table in tables.items()}
