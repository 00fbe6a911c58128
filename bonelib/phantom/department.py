"""The fifteen patients of the default data set: one department, one protocol.

They stand in for the paper's patients, who came from one oncology institute. Each level of
the pelvis has a similar share of training, validation and test; unusual findings (contrast
medium, calcified arteries, markers, a hip prosthesis) are a minority in training and test.
Other seeds draw a wider variety of patients and scanners.
"""

from dataclasses import dataclass, replace

import numpy as np

from bonelib.phantom.patient import BowelLoop, Patient
from bonelib.phantom.rendering import Protocol
from bonelib.phantom.skeleton import FEMURS, Arm
from bonelib.phantom.tissues import Tissue

FLAT_COUCH = 20_000.0  # radius of curvature in mm: the flat top of a radiotherapy couch
DOSES = (0.8, 1.3)  # relative; the tube current adapts to the patient's size
FAT_MM = (26.0, 42.0)  # mean thickness below the skin: the body fits the field of view
FIELD_CENTRE_MM = 8.0  # standard deviation of the field's centre from the patient's
CONTRAST, CALCIFICATION, MARKERS, SEEDS, CATHETER, PROSTHESIS = UNUSUAL = (
    "contrast medium", "calcified arteries", "skin markers", "gold seeds", "catheter",
    "hip prosthesis",
)  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """The planned traits of one patient and scan; the seed draws the rest."""

    male: bool
    scale: float  # of the skeleton
    highest_mm: float  # the last slice above the hip joints, in a skeleton of scale 1
    unusual: tuple[str, ...] = ()  # of UNUSUAL


VISITS = {
    "train01": Visit(True, 1.06, 75, (MARKERS,)),
    "train02": Visit(True, 1.07, 167, (CONTRAST,)),
    "train03": Visit(False, 1.04, 150, (MARKERS,)),
    "train04": Visit(True, 1.08, 135, (SEEDS, MARKERS)),
    "train05": Visit(True, 1.05, -10, (CALCIFICATION,)),
    "train06": Visit(False, 1.03, 167, (CONTRAST,)),
    "train07": Visit(True, 1.07, 100, (PROSTHESIS,)),
    "train08": Visit(True, 1.05, -70),
    "train09": Visit(False, 1.05, 125, (CALCIFICATION, CATHETER)),
    "validation01": Visit(False, 0.93, 130, (MARKERS, CALCIFICATION)),
    "test01": Visit(False, 1.05, 108, (MARKERS,)),
    "test02": Visit(True, 1.08, 160, (CALCIFICATION,)),
    "test03": Visit(True, 1.07, 145, (SEEDS, MARKERS)),
    "test04": Visit(True, 1.07, 150, (CONTRAST, PROSTHESIS)),
    "test05": Visit(True, 1.09, 160, ()),
}


def draw_patient(visit: Visit, seed: int) -> Patient:
    """Draw the patient of a visit."""
    patient = Patient.from_seed(seed, visit.male, visit.scale)
    random = np.random.default_rng([seed, 14])
    has = {name: name in visit.unusual for name in UNUSUAL}
    marked_mm = random.uniform(-20, 60)
    return replace(
        patient,
        fat=float(np.clip(patient.fat, *FAT_MM)),
        skeleton=tuple(bone for bone in patient.skeleton if not isinstance(bone, Arm)),
        replaced_hips=(int(random.choice(FEMURS)),) if has[PROSTHESIS] else (),
        arms=False,
        couch_curve=FLAT_COUCH,
        cushion=0.0,
        bowel=patient.bowel if has[CONTRAST] else tuple(map(_unenhanced, patient.bowel)),
        bladder_contrast=float(random.choice((5.0, 500.0))) if has[CONTRAST] else 500.0,
        catheter=has[CATHETER],
        ureters_enhanced=has[CONTRAST],
        vessels_enhanced=has[CONTRAST],
        calcified=has[CALCIFICATION],
        gold_seeds=tuple(map(tuple, random.normal((0, -8, -22), (9, 8, 9), (3, 3))))
        if has[SEEDS]
        else (),
        skin_markers=tuple((x, marked_mm) for x in (-0.8, 0.0, 0.8)) if has[MARKERS] else (),
    )


def _unenhanced(loop: BowelLoop) -> BowelLoop:
    return replace(loop, content=Tissue.FLUID)


def draw_protocol(seed: int) -> Protocol:
    """Draw the protocol of a visit: only the dose differs."""
    return Protocol(dose=float(np.random.default_rng([seed, 15]).uniform(*DOSES)))


def positions_mm(visit: Visit, patient: Patient, num_slices: int, distance_mm: float) -> np.ndarray:
    """Return the z of each slice, feet to head."""
    highest = visit.highest_mm * np.linalg.norm(patient.pelvis.axes[:, 2])
    return highest - distance_mm * np.arange(num_slices - 1, -1, -1, dtype=np.float64)
