"""The default data set: a plan of visits to one department -> the paper's series."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from bonelib.phantom.patient import Patient, draw_seeds, markers_at
from bonelib.phantom.rendering import Protocol, Scanner
from bonelib.phantom.series import PhantomSeries, scan_patient, write_dataset
from bonelib.phantom.skeleton import BONE_NAMES, FEMURS, Arm
from bonelib.phantom.tissues import Tissue
from bonelib.provenance import code_hash, text_hash
from bonelib.settings import PAPER_SERIES, PAPER_SLICE_DISTANCE_MM, Settings

VISITS = yaml.safe_load(Path(__file__).with_name("visits.yaml").read_text())
MINIMUM_SLICES = 4
FLAT_COUCH = 20_000.0  # radius of curvature in mm: the flat top of a radiotherapy couch
DOSES = (0.8, 1.3)  # relative; the tube current adapts to the patient's size
FAT_MM = (26.0, 42.0)  # mean thickness below the skin: the body fits the field of view
FIELD_CENTRE_MM = 8.0  # standard deviation of the field's centre from the patient's


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
    return scan_patient(patient, scanner, positions_mm, settings, FIELD_CENTRE_MM)


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
