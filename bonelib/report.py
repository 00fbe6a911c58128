"""Tables, figures, verdicts, manifest -> report.html, one file that needs no other."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import trimesh
from jinja2 import Environment, FileSystemLoader

from bonelib import datasets, figures, published, replication, scoring, tables, viewer
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json, replacing
from bonelib.settings import Settings, deviations

TEMPLATE = "report.html.j2"


def _picture(path: Path) -> dict:
    """Return a PNG as a data URI with its caption."""
    data = base64.b64encode(path.read_bytes()).decode()
    return {"uri": f"data:image/png;base64,{data}", "caption": figures.read_caption(path)}


def _pictures(results: ResultFolder) -> list[dict]:
    """Return every figure that is to be there, then any other; a missing one has no `uri`."""
    names = [name for name in figures.CAPTIONS if name.startswith("figure")]
    others = sorted(path.stem for path in results.figures.glob("*.png") if path.stem not in names)
    paths = [results.figures / f"{name}.png" for name in (*names, *others)]
    return [
        _picture(path) if path.exists() else {"caption": figures.CAPTIONS[path.stem]}
        for path in paths
    ]


def all_tables(
    scores,
    records: dict[str, dict],
    settings: Settings,
    histories: dict | None = None,
    data_note: str = "",
) -> dict[str, tables.Table]:
    """Return every table of the report by its file name, with what its reader must know.

    `data_note` is what `bonelib.datasets.note` says of the data set.
    """
    made = {
        "table1": tables.table1(scores, settings),
        "table2": tables.table2(records, settings),
        "table3": tables.table3(scores, records, settings),
        "table4": tables.table4(scores, records, settings, histories),
        "per_image": tables.per_image_table(scores, settings, records),
        "native": tables.native_table(scores, settings, records),
    }
    notes = (data_note,) if data_note else ()
    return {name: replace(table, notes=(*table.notes, *notes)) for name, table in made.items()}


def _turnable(stl: Path) -> str:
    """Return a frame in which the surface of an STL turns, "" where there is none."""
    if not stl.exists():
        return ""
    return viewer.surface_frame({"bone": trimesh.load_mesh(stl)}, "Bone model", viewer.PAGE_FACES)


def _link(results: ResultFolder, path: Path) -> str:
    return path.relative_to(results.root).as_posix()


def write_report(results: ResultFolder, settings: Settings, models: Sequence[str]) -> Path:
    """Write report.html of a run, in one step, and return its path.

    Reads scores, records, histories, figures, meshes and the manifest of `results`; what is
    not there is shown as not run. `models` are the methods to show, the baseline among them.
    """
    inputs = (
        scoring.read_scores(results, models),
        scoring.read_records(results, models),
        settings,
        scoring.read_histories(results, models),
    )
    tested = replication.findings(*inputs)
    manifest = read_json(results.manifest)
    notebooks = {
        task: run | {"link": str(run.get("notebook") or "")}
        for task, run in manifest.get("notebooks", {}).items()
    }
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template(TEMPLATE).render(
        verdict=replication.verdict(tested),
        findings=tested,
        tables=all_tables(*inputs, datasets.note(manifest.get("dataset", ""))),
        pictures=_pictures(results),
        turnable=_turnable(results.meshes / "bone.stl"),
        meshes=[_link(results, path) for path in sorted(results.meshes.glob("**/*.stl"))],
        settings=settings,
        deviations=deviations(settings),
        inconsistencies=published.INCONSISTENCIES,
        manifest=manifest,
        notebooks=notebooks,
        not_run=[name for model, name in published.METHOD_NAMES.items() if model not in inputs[1]],
    )
    with replacing(results.report) as scratch:
        scratch.write_text(text)
    return results.report
