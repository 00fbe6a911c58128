"""A seed -> a series on disk, DICOM and labels: the data set that needs no download.

::

    shapes      signed distances of ellipsoids, rods and their blends
    skeleton    the bones, each a signed distance in its own frame
    anatomy     a seed -> a patient -> the tissues and bones of any axial slice
    rendering   tissues -> HU with texture, blur and noise
    series      a patient, scanned: in memory, and as DICOM
"""

import csv
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import SimpleITK as sitk
from tqdm import tqdm

from bonelib.phantom.anatomy import Tissue
from bonelib.phantom.series import PhantomSeries, make_series, write_dicom
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.provenance import code_hash, read_json, replacing, text_hash, write_json
from bonelib.settings import PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, Settings

__all__ = [
    "BONE_NAMES",
    "PhantomSeries",
    "Tissue",
    "count_slices",
    "generate",
    "make_series",
    "series_seed",
]

LEAST_SLICES = 4
RECORD_NAME = "phantom.json"


def series_seed(series_id: str, settings: Settings) -> int:
    """Return the seed of the patient of one series."""
    return int(text_hash(settings.seed, series_id), 16)


def count_slices(paper_slices: int, settings: Settings) -> int:
    """Return how many slices cover what `paper_slices` of the paper's did."""
    length_mm = paper_slices * PAPER_SLICE_DISTANCE_MM
    return max(LEAST_SLICES, round(length_mm / settings.phantom_slice_distance_mm))


def generate(directory: Path, settings: Settings, workers: int = 1) -> None:
    """Write all of the paper's series to `directory`, `workers` at a time.

    A series that this code already wrote with these settings stays as it is. Leaves, for
    each, `<series_id>/ct/*.dcm` and `<series_id>/labels.nii.gz` (ids of `BONE_NAMES`), and
    beside them `split.csv` (series, split) and `bone_names.csv` (id, name).
    """
    directory.mkdir(parents=True, exist_ok=True)
    code = code_hash("bonelib.phantom")
    waiting = []
    for series_id, split, paper_slices in sorted(PAPER_SERIES, key=lambda row: -row[2]):
        num_slices = count_slices(paper_slices, settings)
        record = {
            "series": series_id,
            "split": split,
            "seed": series_seed(series_id, settings),
            "num_slices": num_slices,
            "matrix": settings.phantom_matrix,
            "slice_distance_mm": settings.phantom_slice_distance_mm,
            "code": code,
        }
        record["fingerprint"] = text_hash(record)
        written = read_json(directory / series_id / RECORD_NAME)
        if written.get("fingerprint") != record["fingerprint"]:
            waiting.append((directory, record, settings))
    with tqdm(
        desc="phantom", unit="slice", total=sum(job[1]["num_slices"] for job in waiting)
    ) as bar:
        for num_slices in _run(waiting, workers):
            bar.update(num_slices)
    rows = [("series", "split"), *(row[:2] for row in PAPER_SERIES)]
    _write_csv(directory / "split.csv", rows)
    _write_csv(directory / "bone_names.csv", [("id", "name"), *BONE_NAMES.items()])


def _run(jobs: list[tuple], workers: int) -> Iterator[int]:
    if workers == 1 or len(jobs) < 2:
        yield from (_write_series(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        for future in as_completed([pool.submit(_write_series, *job) for job in jobs]):
            yield future.result()


def _write_series(directory: Path, record: dict, settings: Settings) -> int:
    """Write one series, its record last, in a scratch folder that then takes its place."""
    series_id, seed = record["series"], record["seed"]
    scratch, final = directory / f".{series_id}.part", directory / series_id
    shutil.rmtree(scratch, ignore_errors=True)
    series = make_series(seed, record["num_slices"], settings)
    write_dicom(series.scan, scratch / "ct", series_id, seed)
    sitk.WriteImage(series.bones, scratch / "labels.nii.gz", useCompression=True)
    write_json(scratch / RECORD_NAME, record)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(scratch, final)
    return record["num_slices"]


def _write_csv(path: Path, rows: list[tuple]) -> None:
    with replacing(path) as scratch, scratch.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
