"""The default data set: a seed -> CT series of made-up patients, as DICOM with bone labels.

::

    tissues     the tissues and their HU
    shapes      signed distances of ellipsoids, rods and their blends
    skeleton    the bones, each a signed distance in its own frame
    patient     a seed -> build, bones, organs and findings
    department  the patients and the protocol of the default data set
    anatomy     a patient -> the tissues and bones of any axial slice
    projection  an image -> the beam hardening and noise that its X-rays add
    rendering   tissues -> HU with texture, blur and X-ray artefacts
    series      a patient -> a series in memory and on disk
"""

from functools import partial
from pathlib import Path

from bonelib.phantom.department import VISITS
from bonelib.phantom.rendering import Protocol
from bonelib.phantom.series import PhantomSeries, make_series, make_visit, write_dataset
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.phantom.tissues import Tissue
from bonelib.provenance import code_hash, text_hash
from bonelib.settings import PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, Settings

__all__ = [
    "BONE_NAMES",
    "VISITS",
    "PhantomSeries",
    "Protocol",
    "Tissue",
    "count_slices",
    "generate",
    "make_series",
    "make_visit",
    "series_seed",
    "write_dataset",
]

MINIMUM_SLICES = 4


def series_seed(series_id: str, settings: Settings) -> int:
    """Return the seed of the patient of one series."""
    return int(text_hash(settings.seed, series_id), 16)


def count_slices(paper_slices: int, settings: Settings) -> int:
    """Return the number of slices that cover the length of `paper_slices` of the paper's."""
    length_mm = paper_slices * PAPER_SLICE_DISTANCE_MM
    return max(MINIMUM_SLICES, round(length_mm / settings.phantom_slice_distance_mm))


def generate(directory: Path, settings: Settings, workers: int = 1) -> None:
    """Write all of the paper's series to `directory`, as `write_dataset` does."""
    code = code_hash("bonelib.phantom.series", "bonelib.phantom.skeleton")
    records = [
        {
            "series": series_id,
            "split": split,
            "seed": series_seed(series_id, settings),
            "num_slices": count_slices(paper_slices, settings),
            "matrix": settings.phantom_matrix,
            "slice_distance_mm": settings.phantom_slice_distance_mm,
            "code": code,
        }
        for series_id, split, paper_slices in PAPER_SERIES
    ]
    write_dataset(directory, records, partial(_make, settings=settings), BONE_NAMES, workers)


def _make(record: dict, settings: Settings) -> PhantomSeries:
    visit = VISITS[record["series"]]
    return make_visit(visit, record["seed"], record["num_slices"], settings)
