"""Results of a run -> report.html: one self-contained page that reads like a paper.

::

    evidence    results on disk -> scores, curves and costs with their intervals
    verdicts    numbers with intervals -> holds, within uncertainty, does not hold
    measures    the test of each kind of claim
    claims      the paper's claims -> findings
    templates/  the claims, a sentence for each table and figure, and the parts of the page
"""

import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup
from PIL import Image

from bonelib import figures, published, tables
from bonelib.augment import policy
from bonelib.evaluation import statistics
from bonelib.paths import REPOSITORY, ResultFolder, SegmentationFolder
from bonelib.provenance import read_json, replacing
from bonelib.report import claims
from bonelib.report.claims import dice_check, findings, lists, verdict
from bonelib.report.evidence import FIVE, THREE, Evidence, NotTestable, gather
from bonelib.report.verdicts import extreme, listed, name_of
from bonelib.settings import Settings, deviations

__all__ = [
    "PARTS", "Evidence", "dice_check", "findings", "gather", "lists", "sentences", "verdict",
    "write_report",
]  # fmt: skip

MM_PER_INCH = 25.4

# The parts of the page in its order: template and title.
PARTS = {
    "introduction": "Introduction",
    "methods": "Data and methods",
    "results": "Results",
    "replication": "The paper's claims",
    "supplement": "Supplement",
    "limits": "Limits",
    "colophon": "How to cite, environment, notebooks",
}
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(claims.TEMPLATES),
    autoescape=True, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def sentences(evidence: Evidence) -> dict[str, str]:
    """Return a sentence for each table and figure that has the numbers it needs, by name."""
    if not evidence.settings.has_papers_classes:
        return {}
    template = ENVIRONMENT.get_template("sentences.html.j2")
    module = template.make_module({
        "evidence": evidence, "published": published, "scores": evidence.scores_of,
        "FIVE": FIVE, "THREE": THREE, "extreme": extreme, "listed": listed, "name_of": name_of,
        "max": max,
    })  # fmt: skip
    made = {}
    for name in sorted(name for name in vars(module) if not name.startswith("_")):
        with suppress(NotTestable):
            made[name] = Markup(" ".join(getattr(module, name)().split()))
    return {name: text for name, text in made.items() if text}


def _pictures(results: ResultFolder) -> dict[str, dict]:
    """Return every figure, the expected ones first: caption, PNG as data URI, width in print.

    A figure that was not drawn has only a caption.
    """
    pictures = {
        name: {"caption": caption}
        for name, caption in figures.CAPTIONS.items()
        if name.startswith("figure")
    }
    for path in sorted(results.figures.glob("*.png")):
        with Image.open(path) as image:
            width_mm = MM_PER_INCH * image.width / image.info["dpi"][0]
        pictures[path.stem] = {
            "caption": figures.read_caption(path),
            "uri": f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}",
            "width_mm": round(width_mm, 1),
        }
    return pictures


def write_report(results: ResultFolder, settings: Settings, models: Sequence[str]) -> Path:
    """Write report.html of a run in one step and return its path.

    Reads the scores, records, histories, figures, meshes and manifest in `results`; missing
    parts are shown as not run. `models` are the methods to show, including the baseline.
    """
    evidence = gather(results, models, settings)
    manifest = read_json(results.manifest)
    data_note = manifest.get("data_note", "")
    surface_page = SegmentationFolder(results.meshes).viewer
    meshes = sorted(results.meshes.glob("**/*.stl"))
    text = ENVIRONMENT.get_template("page.html.j2").render(
        parts=PARTS,
        claims=claims,
        tested=findings(evidence),
        tables=tables.all_tables(results, models, settings, data_note),
        pictures=_pictures(results),
        sentences=sentences(evidence),
        surface=surface_page.read_text() if surface_page.exists() else "",
        meshes=[path.relative_to(results.root).as_posix() for path in meshes],
        settings=settings,
        deviations=deviations(settings),
        published=published,
        augmentation=policy,
        statistics=statistics,
        evidence=evidence,
        citation=yaml.safe_load((REPOSITORY / "CITATION.cff").read_text()),
        data_note=data_note,
        manifest=manifest,
    )
    with replacing(results.report) as scratch:
        scratch.write_text(text)
    return results.report
