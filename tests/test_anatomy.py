"""The patients that seeds draw: their variety, and what their slices are made of."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.skeleton import BONE_NAMES, Femur
from bonelib.phantom.tissues import Tissue

PIXELS_MM = np.arange(-300.0, 300.0, 1.5)
NUMBERS = {name: number for number, name in BONE_NAMES.items()}


@cache
def patients() -> list[Patient]:
    return [Patient(seed) for seed in range(60)]


def first(wanted) -> Patient:
    return next(patient for patient in patients() if wanted(patient))


def cut(patient: Patient, *heights_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Tissues and bones, each (slice, row, column), at heights above the hip joints."""
    planes = [cut_slice(patient, PIXELS_MM, PIXELS_MM, z_mm) for z_mm in heights_mm]
    tissues, bones = zip(*planes, strict=True)
    return np.stack(tissues), np.stack(bones)


def centre_x_mm(mask: np.ndarray) -> float:
    return PIXELS_MM[np.nonzero(mask)[-1]].mean()


def test_seeds_draw_women_and_men_thin_and_obese_with_rare_findings():
    assert 15 < sum(patient.male for patient in patients()) < 50
    fat_mm = [patient.fat for patient in patients()]
    assert min(fat_mm) < 12 and max(fat_mm) > 50
    shares = {"arms": 0.2, "replaced_hips": 0.12, "catheter": 0.15, "cushion": 0.33}
    for trait, share in shares.items():
        found = np.mean([bool(getattr(patient, trait)) for patient in patients()])
        assert 0 < found < 2.5 * share, trait
    assert len({patient.ageing for patient in patients()}) == len(patients())


def test_every_tissue_is_somewhere():
    found = set()
    for patient in patients()[:8]:
        found |= set(np.unique(cut(patient, -150, -40, 0, 30, 60, 90)[0]))
    missing = set(Tissue) - found - {Tissue.GOLD_SEED, Tissue.SKIN_MARKER, Tissue.METAL}
    assert not missing
    seeded = first(lambda patient: patient.gold_seeds)
    assert Tissue.GOLD_SEED in cut(seeded, seeded.gold_seeds[0][2])[0]


@pytest.mark.parametrize("wanted", [min, max], ids=["thinnest", "fattest"])
def test_bones_lie_below_the_skin(wanted):
    patient = wanted(patients(), key=lambda patient: patient.fat)
    tissues, bones = cut(patient, -200, -100, -60, -20, 0, 40, 80, 110, 140)
    air = ndimage.binary_dilation(tissues < Tissue.GAS, np.ones((1, 3, 3)))
    assert (bones > 0).any(axis=(1, 2)).all()
    assert not (air & (bones > 0)).any()


def test_arms_lie_beside_the_trunk_each_on_its_side():
    patient = first(lambda patient: patient.arms and patient.fat < 30)
    tissues, bones = cut(patient, 110)
    for name, sign in (("arm_left", 1), ("arm_right", -1)):
        arm = bones == NUMBERS[name]
        assert arm.any() and sign * centre_x_mm(arm) > patient.half_width
    parts, _ = ndimage.label(tissues[0] >= Tissue.GAS)
    trunk = parts[bones[0] == NUMBERS["hip_left"]]
    assert len(set(trunk)) == 1
    assert trunk[0] not in parts[bones[0] == NUMBERS["arm_left"]]
    without = first(lambda patient: not patient.arms)
    assert not np.isin(cut(without, 110)[1], (NUMBERS["arm_left"], NUMBERS["arm_right"])).any()


def test_a_prosthesis_takes_the_heads_place_and_is_not_bone():
    patient = first(lambda patient: len(patient.replaced_hips) == 1)
    for femur in (bone for bone in patient.skeleton if isinstance(bone, Femur)):
        x, y, z = femur.frame.origin
        tissues, bones = cut(patient, z)
        head = np.hypot(PIXELS_MM - x, PIXELS_MM[:, None] - y)[None] < 12
        if femur.number in patient.replaced_hips:
            assert (tissues[head] == Tissue.METAL).all() and not bones[head].any()
        else:
            assert (bones[head] == femur.number).all()


def test_a_joint_keeps_its_bones_apart():
    patient = first(lambda patient: not patient.replaced_hips)
    _, bones = cut(patient, *np.arange(-20.0, 21, 4))
    hips = np.isin(bones, (NUMBERS["hip_left"], NUMBERS["hip_right"]))
    femurs = np.isin(bones, (NUMBERS["femur_left"], NUMBERS["femur_right"]))
    assert hips.any() and femurs.any()
    assert not (ndimage.binary_dilation(hips, np.ones((1, 3, 3))) & femurs).any()
