"""Results of a run -> report.html: one self-contained page that reads like a paper.

::

    evidence    results on disk -> numbers with intervals -> holds, uncertain, does not hold
    claims      the paper's claims and the test of each kind -> findings
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
from bonelib.figures.style import MM_PER_INCH
from bonelib.paths import REPOSITORY, ResultFolder, SegmentationFolder
from bonelib.provenance import read_json, replacing
from bonelib.report import claims, evidence
from bonelib.report.claims import findings, verdict
from bonelib.report.evidence import Evidence, gather
from bonelib.settings import BASELINE, CLASS_NAMES, Settings, deviations

__all__ = ["Evidence", "findings", "gather", "sentences", "verdict", "write_report"]

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(claims.TEMPLATES),
    autoescape=True, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def sentences(found: Evidence) -> dict[str, str]:
    """Return a sentence for each table and figure that has the numbers it needs, by name."""
    template = ENVIRONMENT.get_template("sentences.html.j2")
    names = vars(evidence) | {"evidence": found, "max": max}
    module = template.make_module(names | {"published": published, "scores": found.scores_of})
    made = {}
    for name in sorted(name for name in vars(module) if not name.startswith("_")):
        with suppress(evidence.NotTestable):
            made[name] = Markup(" ".join(getattr(module, name)().split()))
    return {name: text for name, text in made.items() if text}


def _pictures(results: ResultFolder) -> dict[str, dict]:
    """Return each figure's caption and, if it was drawn, its data URI and width in print."""
    pictures = {}
    for name, caption in figures.CAPTIONS.items():
        path = results.figures / f"{name}.png"
        picture = {"caption": caption}
        if path.exists():
            with Image.open(path) as image:
                picture["width_mm"] = round(MM_PER_INCH * image.width / image.info["dpi"][0], 1)
            content = base64.b64encode(path.read_bytes()).decode()
            picture["uri"] = f"data:image/png;base64,{content}"
        pictures[name] = picture
    return pictures


def write_report(results: ResultFolder, settings: Settings, models: Sequence[str]) -> Path:
    """Write report.html of a run in one step and return its path.

    Reads the scores, records, histories, figures, meshes and manifest in `results`; missing
    parts are shown as not run. `models` are the methods to show, including the baseline.
    """
    found = gather(results, models, settings)
    manifest = read_json(results.manifest)
    data_note = manifest.get("data_note", "")
    surface_page = SegmentationFolder(results.meshes).viewer
    meshes = sorted(results.meshes.glob("**/*.stl"))
    text = ENVIRONMENT.get_template("page.html.j2").render(
        tested=findings(found),
        claims=claims,
        tables=tables.all_tables(results, models, settings, data_note),
        pictures=_pictures(results),
        sentences=sentences(found),
        surface=surface_page.read_text() if surface_page.exists() else "",
        meshes=[path.relative_to(results.root).as_posix() for path in meshes],
        settings=settings,
        class_names=CLASS_NAMES,
        deviations=deviations(settings),
        published=published,
        augmentation=policy,
        statistics=statistics,
        evidence=found,
        compared=evidence.FIVE | evidence.THREE | {BASELINE: evidence.Group(BASELINE)},
        citation=yaml.safe_load((REPOSITORY / "CITATION.cff").read_text()),
        data_note=data_note,
        manifest=manifest,
    )
    with replacing(results.report) as scratch:
        scratch.write_text(text)
    return results.report
