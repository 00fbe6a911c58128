"""Results of a run -> report.html, one file that needs no other and reads like a paper.

::

    sentences  results -> what a reader sees in a table or figure
    templates/ a part of the page each, in the page's order
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import trimesh
import yaml
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from bonelib import figures, published, replication, tables
from bonelib.augment import policy
from bonelib.evaluation import statistics
from bonelib.paths import REPOSITORY, ResultFolder
from bonelib.provenance import read_json, replacing
from bonelib.report.sentences import sentences
from bonelib.segment import viewer
from bonelib.settings import Settings, deviations

TEMPLATES = Path(__file__).parent / "templates"
MM_PER_INCH = 25.4
WIDE_COLUMNS = 12  # of a table that is printed across the page

# The page's order: file of the part in templates/, its title.
PARTS = {
    "introduction": "Introduction",
    "methods": "Data and methods",
    "results": "Results",
    "replication": "The paper's claims",
    "supplement": "Supplement",
    "limits": "Limits",
    "colophon": "How to cite, environment, notebooks",
}
PAPERS_TABLES = [f"table{number}" for number in range(1, 5)]
PAPERS_FIGURES = [f"figure{number}" for number in range(1, 8)]


def _picture(path: Path) -> dict:
    """Return a PNG as a data URI with its caption and its width in print."""
    data = base64.b64encode(path.read_bytes()).decode()
    with Image.open(path) as image:
        width_mm = MM_PER_INCH * image.width / image.info["dpi"][0]
    return {
        "uri": f"data:image/png;base64,{data}",
        "caption": figures.read_caption(path),
        "width_mm": round(width_mm, 1),
    }


def _pictures(results: ResultFolder) -> dict[str, dict]:
    """Return every figure that is to be there, then any other; a missing one has no `uri`."""
    names = [name for name in figures.CAPTIONS if name.startswith("figure")]
    others = sorted(path.stem for path in results.figures.glob("*.png") if path.stem not in names)
    paths = {name: results.figures / f"{name}.png" for name in (*names, *others)}
    return {
        name: _picture(path) if path.exists() else {"caption": figures.CAPTIONS[name]}
        for name, path in paths.items()
    }


def _turnable(stl: Path) -> str:
    """Return a frame in which the surface of an STL turns, "" where there is none."""
    if not stl.exists():
        return ""
    return viewer.surface_frame({"bone": trimesh.load_mesh(stl)}, "Bone model", viewer.PAGE_FACES)


def _link(results: ResultFolder, path: Path) -> str:
    return path.relative_to(results.root).as_posix()


def citation() -> dict:
    """Return CITATION.cff: this software, and under `references` the paper."""
    return yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())


def write_report(results: ResultFolder, settings: Settings, models: Sequence[str]) -> Path:
    """Write report.html of a run, in one step, and return its path.

    Reads scores, records, histories, figures, meshes and the manifest of `results`; what is
    not there is shown as not run. `models` are the methods to show, the baseline among them.
    """
    evidence = replication.gather(results, models, settings)
    tested = replication.findings_of(evidence)
    manifest = read_json(results.manifest)
    data_note = manifest.get("data_note", "")
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("page.html.j2").render(
        parts=PARTS,
        verdict=replication.verdict(tested),
        verdicts=replication.VERDICTS,
        tally=replication.tally,
        lists=replication.lists(tested),
        dice=replication.dice_check().to_dict("records"),
        tables=tables.all_tables(results, models, settings, data_note),
        papers=(*PAPERS_TABLES, *PAPERS_FIGURES),
        wide_columns=WIDE_COLUMNS,
        pictures=_pictures(results),
        sentences=sentences(evidence),
        turnable=_turnable(results.meshes / "bone.stl"),
        meshes=[_link(results, path) for path in sorted(results.meshes.glob("**/*.stl"))],
        settings=settings,
        deviations=deviations(settings),
        published=published,
        augmentation=policy,
        statistics=statistics,
        evidence=evidence,
        citation=citation(),
        data_note=data_note,
        manifest=manifest,
        not_run=[
            name for model, name in published.METHOD_NAMES.items() if model not in evidence.records
        ],
    )
    with replacing(results.report) as scratch:
        scratch.write_text(text)
    return results.report
