"""A patient -> a CT series in memory, and on disk as a hospital would export it.

The default data set is a plan of visits to one department, in `visits.yaml`.

::

    a seed -> patient, scanner, field of view
    each slice -> cuts through its thickness, a fraction of a pixel apart
               -> mean HU; the majority label of each voxel
    a series -> DICOM and a label map
    many     -> a `folder` data set, each series written once
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import SimpleITK as sitk
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, generate_uid
from tqdm import tqdm

from bonelib import devices
from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient, draw_seeds, markers_at
from bonelib.phantom.rendering import Protocol, Scanner
from bonelib.phantom.skeleton import BONE_NAMES, FEMURS, Arm
from bonelib.phantom.tissues import Tissue
from bonelib.provenance import code_hash, read_json, replacing, text_hash, write_json
from bonelib.scans import Grid
from bonelib.settings import PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, Settings

FIELD_OF_VIEW_MM = 500.0  # a common large reconstruction field
FIELD_CENTRE_MM = 4.0  # standard deviation of the field's centre from the patient's
NARROW_FIELDS = 1 / 6  # share of series whose field cuts the body
NARROW_FIELD_MM = (380.0, 450.0)
FINEST_MATRIX = 384  # minimum matrix in which tissues are drawn, for partial volume
# Positions of the cuts in a voxel: x and y in pixels of the tissues, z in slice thicknesses.
CUTS = np.array([(-1, 1, -1), (0, -1, 0), (1, 0, 1)]) / 3
RECORD_NAME = "phantom.json"
_HEADER = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())  # of DICOM files

VISITS = yaml.safe_load(Path(__file__).with_name("visits.yaml").read_text())
MINIMUM_SLICES = 4
FLAT_COUCH = 20_000.0  # radius of curvature in mm: the flat top of a radiotherapy couch
DOSES = (0.8, 1.3)  # relative; the tube current adapts to the patient's size
FAT_MM = (26.0, 42.0)  # mean thickness below the skin: the body fits the field of view
VISIT_CENTRE_MM = 8.0  # as FIELD_CENTRE_MM, of the default data set


@dataclass(frozen=True)
class PhantomSeries:
    """One series in memory, on one grid, slices from feet to head."""

    scan: sitk.Image  # HU, int16
    tissues: np.ndarray  # (slice, row, column) uint8, of `Tissue`
    bones: sitk.Image  # uint8, of `BONE_NAMES`
    protocol: Protocol = Protocol()

    @property
    def body(self) -> np.ndarray:
        """Return the mask of the body with bone and gas inside it: (slice, row, column)."""
        return self.tissues >= Tissue.GAS


def make_series(
    seed: int, num_slices: int, settings: Settings, protocol: Protocol | None = None
) -> PhantomSeries:
    """Return a series of a random patient, of any build and with any findings.

    The protocol is drawn as well, unless it is given.
    """
    patient, scanner = Patient(seed), Scanner.from_seed(seed, protocol)
    positions_mm = patient.positions_mm(num_slices, settings.phantom_slice_distance_mm)
    return scan_patient(patient, scanner, positions_mm, settings, FIELD_CENTRE_MM, NARROW_FIELDS)


def scan_patient(
    patient: Patient,
    scanner: Scanner,
    positions_mm: np.ndarray,
    settings: Settings,
    field_centre_mm: float,
    narrow_fields: float = 0.0,
) -> PhantomSeries:
    """Return the series of a patient with slices at the heights `positions_mm`.

    `field_centre_mm` is the standard deviation of the field's centre from the patient's,
    `narrow_fields` the share of series whose field cuts the body.
    """
    random = np.random.default_rng([scanner.seed, 4])
    centre = random.normal((0, 28), field_centre_mm)
    table_mm = np.round(random.uniform(-900, -300), 1)  # z of the table's origin
    narrow = random.random() < narrow_fields
    field_mm = np.round(random.uniform(*NARROW_FIELD_MM)) if narrow else FIELD_OF_VIEW_MM
    matrix = settings.phantom_matrix
    oversampling = -(-FINEST_MATRIX // matrix)
    spacing_mm = field_mm / matrix
    pixel_mm = spacing_mm / oversampling
    pixels = (np.arange(matrix * oversampling) + 0.5) * pixel_mm
    x_mm, y_mm = (pixels - field_mm / 2 + middle for middle in centre)
    steps_mm = CUTS * (pixel_mm, pixel_mm, scanner.protocol.slice_thickness_mm)

    def cut_voxels(z_mm: float) -> tuple[np.ndarray, np.ndarray]:
        cuts = [cut_slice(patient, x_mm + dx, y_mm + dy, z_mm + dz) for dx, dy, dz in steps_mm]
        return tuple(map(np.stack, zip(*cuts, strict=True)))

    slices = ((z_mm, *cut_voxels(z_mm)) for z_mm in positions_mm)
    image, tissues, bones = scan_slices(slices, scanner, oversampling, spacing_mm)
    origin_mm = *[(spacing_mm - field_mm) / 2] * 2, float(table_mm)
    voxel_mm = spacing_mm, spacing_mm, settings.phantom_slice_distance_mm
    grid = Grid(image.shape[::-1], voxel_mm, origin_mm, np.eye(3).ravel().tolist())
    return PhantomSeries(grid.image(image), tissues, grid.image(bones), scanner.protocol)


def scan_slices(
    slices: Iterable[tuple], scanner: Scanner, oversampling: int, spacing_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return HU, tissues and bones, each (slice, row, column), with pixels of `spacing_mm`.

    `slices` yields z in mm, tissues and bones, both (cut, row, column) in finer pixels,
    `oversampling` along each side of a pixel of the result.
    """
    planes = [
        (
            scanner.render(tissues, oversampling, spacing_mm, z_mm, index),
            _majority(tissues, oversampling),
            _majority(bones, oversampling),
        )
        for index, (z_mm, tissues, bones) in enumerate(slices)
    ]
    return tuple(np.stack(part) for part in zip(*planes, strict=True))


def _majority(cuts: np.ndarray, oversampling: int) -> np.ndarray:
    """Return the median label of each block of pixels in all cuts.

    Bone has the highest numbers, so a block is bone if at least half of it is.
    """
    rows, columns = (size // oversampling for size in cuts.shape[1:])
    blocks = cuts.reshape(-1, rows, oversampling, columns, oversampling)
    blocks = blocks.transpose(1, 3, 0, 2, 4).reshape(rows, columns, -1)
    return np.sort(blocks, axis=2)[:, :, blocks.shape[2] // 2]


def write_dicom(
    scan: sitk.Image, folder: Path, series_id: str, seed: int, protocol: Protocol
) -> None:
    """Write `scan` to `folder`, one CT file per slice; the same input gives the same bytes."""

    def uid(*parts) -> str:
        return generate_uid(entropy_srcs=[str(part) for part in (seed, series_id, *parts)])

    folder.mkdir(parents=True)
    column_mm, row_mm, distance_mm = scan.GetSpacing()
    axes = np.reshape(scan.GetDirection(), (3, 3))
    header = _HEADER | {
        "SOPClassUID": CTImageStorage,
        "PatientName": f"Phantom^{series_id}",
        "PatientID": f"phantom-{series_id}",
        "SliceThickness": protocol.slice_thickness_mm,
        "SpacingBetweenSlices": distance_mm,
        "KVP": protocol.kv,
        "ConvolutionKernel": protocol.kernel.upper(),
        "ReconstructionDiameter": round(column_mm * scan.GetWidth(), 6),
        "StudyInstanceUID": uid("study"),
        "SeriesInstanceUID": uid("series"),
        "FrameOfReferenceUID": uid("frame"),
        "ImageOrientationPatient": axes[:, :2].T.round(9).ravel().tolist(),
        "PixelSpacing": [row_mm, column_mm],
    }
    for index, slice_hu in enumerate(sitk.GetArrayViewFromImage(scan)):
        position_mm = np.round(scan.TransformIndexToPhysicalPoint((0, 0, index)), 6).tolist()
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        dataset.SOPInstanceUID = uid("slice", index)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = position_mm
        dataset.SliceLocation = position_mm[2]
        stored = (slice_hu.astype(np.int32) - _HEADER["RescaleIntercept"]).astype(np.uint16)
        dataset.set_pixel_data(stored, "MONOCHROME2", 16, generate_instance_uid=False)
        dataset.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def write_dataset(
    directory: Path,
    records: list[dict],
    make: Callable[[dict], PhantomSeries],
    bone_names: dict[int, str],
    workers: int = 1,
) -> None:
    """Write the series that `make` returns for each record as a `folder` data set.

    A record holds series, split, seed and everything else that the series depends on. Writes
    `<series>/ct/*.dcm`, `<series>/labels.nii.gz` (ids of `bone_names`), `split.csv` and
    `bone_names.csv`.
    """
    write_folders(directory, records, partial(_write_series, make=make), workers)
    splits = [(record["series"], record["split"]) for record in records]
    _write_table(directory / "split.csv", splits, ("series", "split"))
    _write_table(directory / "bone_names.csv", bone_names.items(), ("id", "name"))


def _write_table(path: Path, rows: Iterable[tuple], columns: tuple[str, ...]) -> None:
    with replacing(path) as scratch:
        pandas.DataFrame(rows, columns=columns).to_csv(scratch, index=False)


def write_folders(
    directory: Path, records: list[dict], write: Callable[[Path, dict], None], workers: int = 1
) -> None:
    """Call `write(folder, record)` for each record whose folder is missing or outdated.

    A folder is up to date if it was written with the same record; one whose writing was
    interrupted is written again. `workers` processes run at a time, the longest series first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    waiting = []
    for record in sorted(records, key=lambda record: -record.get("num_slices", 0)):
        record = record | {"fingerprint": text_hash(record)}
        written = read_json(directory / record["series"] / RECORD_NAME)
        if written.get("fingerprint") != record["fingerprint"]:
            waiting.append(record)
    job = partial(_write_folder, directory=directory, write=write)
    done = devices.in_order(job, waiting, workers if min(workers, len(waiting)) > 1 else 0)
    list(tqdm(done, "rendering", len(waiting), unit="series", disable=not waiting))


def _write_folder(record: dict, directory: Path, write: Callable[[Path, dict], None]) -> None:
    """Write one folder under a scratch name, its record last, and then rename it."""
    scratch, final = directory / f".{record['series']}.part", directory / record["series"]
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    write(scratch, record)
    write_json(scratch / RECORD_NAME, record)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(scratch, final)


def _write_series(folder: Path, record: dict, make: Callable[[dict], PhantomSeries]) -> None:
    series = make(record)
    write_dicom(series.scan, folder / "ct", record["series"], record["seed"], series.protocol)
    sitk.WriteImage(series.bones, folder / "labels.nii.gz", useCompression=True)


# The default data set


def series_seed(series_id: str, settings: Settings) -> int:
    """Return the seed of the patient of one series."""
    return int(text_hash(settings.seed, series_id), 16)


def generate(directory: Path, settings: Settings, workers: int = 1) -> None:
    """Write all of the paper's series to `directory`, as `write_dataset` does.

    They are as long as the paper's, whatever the distance of their slices.
    """
    code = code_hash(__name__)
    records = []
    for series_id, split, paper_slices in PAPER_SERIES:
        num_slices = round(
            paper_slices * PAPER_SLICE_DISTANCE_MM / settings.phantom_slice_distance_mm
        )
        records.append(
            {
                "series": series_id,
                "split": split,
                "seed": series_seed(series_id, settings),
                "num_slices": max(MINIMUM_SLICES, num_slices),
                "matrix": settings.phantom_matrix,
                "slice_distance_mm": settings.phantom_slice_distance_mm,
                "code": code,
            }
        )
    make = partial(_make_recorded, settings=settings)
    write_dataset(directory, records, make, BONE_NAMES, workers)


def _make_recorded(record: dict, settings: Settings) -> PhantomSeries:
    return make_visit(record["series"], record["num_slices"], settings)


def make_visit(series_id: str, num_slices: int, settings: Settings) -> PhantomSeries:
    """Return one series of the default data set."""
    patient, scanner, positions_mm = draw_visit(series_id, num_slices, settings)
    return scan_patient(patient, scanner, positions_mm, settings, VISIT_CENTRE_MM)


def draw_visit(
    series_id: str, num_slices: int, settings: Settings
) -> tuple[Patient, Scanner, np.ndarray]:
    """Draw the patient and the scanner of a visit; return also the z of each slice in mm."""
    visit, seed = VISITS[series_id], series_seed(series_id, settings)
    patient = _with_findings(Patient(seed, visit["male"], visit["scale"]), visit, seed)
    protocol = Protocol(dose=float(np.random.default_rng([seed, 15]).uniform(*DOSES)))
    highest_mm = visit["highest_mm"] * np.linalg.norm(patient.pelvis.axes[:, 2])
    distances_mm = settings.phantom_slice_distance_mm * np.arange(num_slices - 1, -1, -1.0)
    return patient, Scanner.from_seed(seed, protocol), highest_mm - distances_mm


def _with_findings(patient: Patient, visit: dict, seed: int) -> Patient:
    random = np.random.default_rng([seed, 14])
    marked_mm = random.uniform(-20, 60)
    unusual = visit["unusual"]
    enhanced = "contrast medium" in unusual
    unenhanced_bowel = tuple(replace(loop, content=Tissue.FLUID) for loop in patient.bowel)
    return patient.replace(
        fat=float(np.clip(patient.fat, *FAT_MM)),
        skeleton=tuple(bone for bone in patient.skeleton if not isinstance(bone, Arm)),
        replaced_hips=(int(random.choice(FEMURS)),) if "hip prosthesis" in unusual else (),
        arms=False,
        couch_curve=FLAT_COUCH,
        cushion=0.0,
        bowel=patient.bowel if enhanced else unenhanced_bowel,
        bladder_contrast=float(random.choice((5.0, 500.0))) if enhanced else 500.0,
        catheter="catheter" in unusual,
        ureters_enhanced=enhanced,
        vessels_enhanced=enhanced,
        calcified="calcified arteries" in unusual,
        gold_seeds=draw_seeds(random) if "gold seeds" in unusual else (),
        skin_markers=markers_at(marked_mm) if "skin markers" in unusual else (),
    )
