"""A seed -> a series on disk, DICOM and labels: the data set that needs no download.

::

    tissues     what a voxel can hold
    shapes      signed distances of ellipsoids, rods and their blends
    skeleton    the bones, each a signed distance in its own frame
    patient     a seed -> build, bones, organs, and what is unusual about them
    department  the patients and the protocol of the default data set
    anatomy     a patient -> the tissues and bones of any axial slice
    projection  an image -> what its X-rays add: beam hardening and noise
    rendering   tissues -> HU with texture, blur and these
    series      a patient, scanned: in memory, and as DICOM
    storage     records -> folders, each written once, several at a time
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from bonelib.phantom.department import VISITS
from bonelib.phantom.rendering import Protocol
from bonelib.phantom.series import PhantomSeries, make_series, make_visit, write_dicom
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.phantom.storage import write_folders
from bonelib.phantom.tissues import Tissue
from bonelib.provenance import code_hash, replacing, text_hash
from bonelib.settings import PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, Settings

__all__ = [
    "BONE_NAMES",
    "PhantomSeries",
    "Protocol",
    "Tissue",
    "count_slices",
    "generate",
    "make_series",
    "make_visit",
    "VISITS",
    "series_seed",
    "write_dataset",
]

LEAST_SLICES = 4


def series_seed(series_id: str, settings: Settings) -> int:
    """Return the seed of the patient of one series."""
    return int(text_hash(settings.seed, series_id), 16)


def count_slices(paper_slices: int, settings: Settings) -> int:
    """Return how many slices cover what `paper_slices` of the paper's did."""
    length_mm = paper_slices * PAPER_SLICE_DISTANCE_MM
    return max(LEAST_SLICES, round(length_mm / settings.phantom_slice_distance_mm))


def generate(directory: Path, settings: Settings, workers: int = 1) -> None:
    """Write all of the paper's series to `directory` as `write_dataset` does."""
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
    make = partial(_make_visit, settings=settings)
    write_dataset(directory, records, make, BONE_NAMES, workers)


def write_dataset(
    directory: Path,
    records: list[dict],
    make: Callable[[dict], PhantomSeries],
    bone_names: dict[int, str],
    workers: int = 1,
) -> None:
    """Write what `make` returns for each record to `directory`, `workers` at a time.

    A record holds series, split, seed and all else that the series depends on; a series
    that was already written with the same record stays as it is. Leaves, for each,
    `<series>/ct/*.dcm` and `<series>/labels.nii.gz` (ids of `bone_names`), and beside them
    `split.csv` (series, split) and `bone_names.csv` (id, name).
    """
    write_folders(directory, records, partial(_write_series, make=make), workers)
    rows = [("series", "split"), *((record["series"], record["split"]) for record in records)]
    _write_csv(directory / "split.csv", rows)
    _write_csv(directory / "bone_names.csv", [("id", "name"), *bone_names.items()])


def _make_visit(record: dict, settings: Settings) -> PhantomSeries:
    visit = VISITS[record["series"]]
    return make_visit(visit, record["seed"], record["num_slices"], settings)


def _write_series(folder: Path, record: dict, make: Callable[[dict], PhantomSeries]) -> None:
    series = make(record)
    write_dicom(series.scan, folder / "ct", record["series"], record["seed"], series.protocol)
    sitk.WriteImage(series.bones, folder / "labels.nii.gz", useCompression=True)


def _write_csv(path: Path, rows: list[tuple]) -> None:
    with replacing(path) as scratch, scratch.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
