"""Every table of a run."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.settings import Settings
from bonelib.tables.ablation_tables import ablation_table
from bonelib.tables.comparisons import comparison_table
from bonelib.tables.error_tables import calibration_table, false_bone_table, level_table
from bonelib.tables.paper_tables import table1, table2, table3, table4
from bonelib.tables.supplement_tables import native_table, per_image_table
from bonelib.tables.surfaces import surface_series_table, surface_table
from bonelib.tables.table import Table


def all_tables(
    results: ResultFolder, methods: Sequence[str], settings: Settings, data_note: str = ""
) -> dict[str, Table]:
    """Return every table of `methods` by its file name, with what its reader must know.

    Reads `results` alone; what is not there is shown as not run. `data_note`
    is `bonelib.datasets.note` of the data set; it ends the notes of each table.
    """
    scores = scoring.read_scores(results, methods)
    records = scoring.read_records(results, methods)
    histories = scoring.read_histories(results, methods)
    slices = scoring.read_slices(results)
    surfaces = scoring.read_surfaces(results, methods)
    made = {
        "table1": table1(scores, settings),
        "table2": table2(records, settings),
        "table3": table3(scores, records, settings),
        "table4": table4(scores, records, settings, histories),
        "per_image": per_image_table(scores, settings, records),
        "native": native_table(scores, settings, records),
        "comparisons": comparison_table(scores, settings, records),
        "surfaces": surface_table(surfaces, records),
        "surfaces_series": _best_models_surfaces(surfaces, scores, settings, histories, records),
        "levels": level_table(scores, slices, settings, records),
        "calibration": calibration_table(
            scoring.read_reliability(results, methods), settings, records
        ),
        "false_bone": false_bone_table(
            scoring.read_false_bone(results, methods), scores, slices, records
        ),
        "ablations": ablation_table(results, settings),
    }
    notes = (data_note,) if data_note else ()
    return {name: replace(table, notes=(*table.notes, *notes)) for name, table in made.items()}


def _best_models_surfaces(surfaces: pd.DataFrame, scores, settings, histories, records) -> Table:
    """Return the surface scores of the model that Table 4 shows."""
    try:
        model, _ = scoring.best_model(scores, settings, histories)
    except ValueError:
        model = ""
    return surface_series_table(surfaces, model, scoring.method_name(model, records))
