"""Levels, causes of false bone, surfaces and reliability, by hand and by scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.calibration import calibration_curve

from bonelib.evaluation import error_analysis
from bonelib.evaluation.error_analysis import BESIDE, CONTRAST, METAL, OUTSIDE, SOFT, levels_of
from bonelib.settings import BACKGROUND, BONE, IGNORE, PATIENT

SPACING_MM = (10.0, 2.0, 2.0)
MUSCLE, BRIGHT, SATURATED = 80, 150, 255
BRIGHT_LEVEL = 115


def patient(count=1):
    """Return grey levels and labels of a patient with one bone; air ends at row and column 4."""
    reference = np.full((count, 60, 60), PATIENT, np.uint8)
    reference[:, :4] = reference[:, :, :4] = BACKGROUND
    reference[:, 40:50, 40:50] = BONE
    images = np.full_like(reference, MUSCLE)
    images[reference == BACKGROUND] = 0
    images[reference == BONE] = 200
    return images, reference


def causes(images, reference, spacing_mm=SPACING_MM):
    return error_analysis.causes(images, reference, spacing_mm, BRIGHT_LEVEL)


def test_place_decides_first():
    images, reference = patient()
    found = causes(images, reference)[0]
    assert found[2, 30] == OUTSIDE  # in the air
    assert found[5, 30] == OUTSIDE and found[6, 30] == SOFT  # 4 and 6 mm from it
    assert found[45, 38] == BESIDE and found[45, 37] == SOFT  # 4 and 6 mm from bone
    assert found[50, 50] == BESIDE and found[51, 50] == SOFT  # across its corner: 2.8 and 4.5 mm
    assert set(np.unique(found)) == {OUTSIDE, BESIDE, SOFT}


def test_grey_level_decides_far_from_bone_and_skin():
    images, reference = patient()
    images[0, 20:23, 20:23] = BRIGHT
    images[0, 20:23, 50:53], images[0, 21, 51] = BRIGHT, SATURATED
    found = causes(images, reference)[0]
    assert (found[20:23, 20:23] == CONTRAST).all() and (found[20:23, 50:53] == METAL).all()
    assert found[20, 24] == CONTRAST and found[20, 25] == SOFT  # its blurred edge: 4 mm
    images[0, 20:23, 20:23] = BRIGHT_LEVEL - 1
    assert (causes(images, reference)[0][20:23, 20:23] == SOFT).all()
    reference[0, 21, 21] = IGNORE  # counts as bone
    assert causes(images, reference)[0, 21, 23] == BESIDE


def test_bright_edges_of_bone_are_beside_it_but_a_prosthesis_in_it_is_metal():
    images, reference = patient()
    images[0, 39, 40:50], images[0, 45, 39] = BRIGHT, SATURATED
    found = causes(images, reference)[0]
    assert (found[39, 40:50] == BESIDE).all() and found[45, 39] == BESIDE
    images[0, 30:40, 42:48] = SATURATED
    assert (causes(images, reference)[0][30:40, 42:48] == METAL).all()


@pytest.mark.parametrize(("distance_mm", "cause"), [(3.0, BESIDE), (5.0, SOFT)])
def test_the_margin_of_bone_crosses_slices(distance_mm, cause):
    images, reference = patient(3)
    reference[1, 20, 20], images[1, 20, 20] = BONE, 200
    found = causes(images, reference, (distance_mm, 2.0, 2.0))
    assert found[0, 20, 20] == found[2, 20, 20] == cause
    assert found[0, 20, 22] == SOFT  # 5 mm and more


@pytest.mark.parametrize(
    ("is_there", "is_found", "state"),
    [(True, True, "found"), (True, False, "missed"), (False, True, "invented"),
     (False, False, "absent")],
)  # fmt: skip
def test_bone_is_found_missed_invented_or_absent(is_there, is_found, state):
    pair = np.full((2, 3, 8, 8), PATIENT, np.uint8)
    pair[0, 1, 1, :3], pair[1, 1, 1, :3] = PATIENT + is_there, PATIENT + is_found
    pair[0, 1, 6, 6], pair[1, 1, 6, 6] = IGNORE, BONE  # belongs to no structure
    surfaces = error_analysis.measure_surfaces(*pair, SPACING_MM).set_index("structure")
    assert surfaces["state"].to_dict() == {"patient": "found", "bone": state}
    worst = np.linalg.norm(np.multiply((3, 8, 8), SPACING_MM))
    expected = {"found": 0, "absent": np.nan}.get(state, worst)
    assert surfaces["hd95_mm"].tolist() == pytest.approx([0, expected], nan_ok=True)


PROBABILITIES = arrays(np.uint8, (2, 9, 8, 3), elements=st.integers(0, 255))
LABELS = arrays(np.uint8, (2, 9, 8), elements=st.sampled_from([0, 1, 2, IGNORE]))


@settings(max_examples=40, deadline=None)
@given(PROBABILITIES, LABELS)
def test_reliability_is_scikit_learns_calibration_curve(probabilities, reference):
    counts = error_analysis.reliability(probabilities, reference)
    seen = reference != IGNORE
    assert (counts[..., 0].sum(axis=1) == seen.sum()).all()
    for label in range(3):
        if not seen.any():
            continue
        pixels, levels, positive = counts[label][counts[label][:, 0] > 0].T
        often, mean = calibration_curve(
            reference[seen] == label,
            probabilities[seen][:, label] / 255,
            n_bins=error_analysis.BINS,
        )
        np.testing.assert_allclose(positive / pixels, often)
        np.testing.assert_allclose(levels / 255 / pixels, mean)


def slices_of(*rows):
    """Return the table of slices of (series, names), 10 mm apart from feet to head."""
    frame = pd.DataFrame(rows, columns=["series", "structures"])
    return frame.assign(position_mm=10.0 * np.arange(len(frame)) - 500)


@pytest.mark.parametrize(
    ("structures", "level"),
    [
        ("femur_left femur_right arm_left", "femur shaft"),
        ("hip_left hip_right sacrum femur_left", "femur and hip bone"),
        ("hip_left hip_right sacrum", "hip bone and sacrum"),
        ("hip_left vertebra_L5", "hip bone and vertebra"),
        ("L4", "vertebra"),
    ],
)
def test_the_bones_of_a_slice_determine_its_level(structures, level):
    assert levels_of(slices_of(("a", structures))).tolist() == [level]


def test_a_slice_without_bone_has_its_neighbours_level():
    rows = slices_of(("a", ""), ("a", "femur"), ("a", "arm_left"), ("a", "hip_left femur_left"))
    found = levels_of(rows.iloc[[3, 1, 0, 2]])
    assert found.loc[[0, 1, 2, 3]].tolist() == ["femur shaft"] * 3 + ["femur and hip bone"]


def test_a_series_without_named_bones_is_divided_by_height():
    found = levels_of(slices_of(*[("a", "bone")] * 9, ("b", ""), ("c", "L5")))
    assert found[:9].tolist() == np.repeat(error_analysis.THIRDS, 3).tolist()
    assert found[9] in error_analysis.THIRDS and found[10] == "vertebra"
