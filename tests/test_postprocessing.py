"""Each step on a small scan whose right answer is known by hand."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from bonelib.segment import postprocess
from bonelib.segment.probabilities import Probabilities

SPACING_MM = (2.0, 1.0, 1.0)


def probabilities_of(labels: np.ndarray, certainty: float = 0.9) -> Probabilities:
    """Return probabilities whose most probable classes are `labels`."""
    values = np.full((*labels.shape, 3), (1 - certainty) / 2, np.float16)
    np.put_along_axis(values, labels[..., None].astype(int), certainty, axis=-1)
    return Probabilities(values, SPACING_MM, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.fixture
def labels():
    """A patient of 50 x 50 x 40 mm, 160 ml with gas inside, with a bone of 9.6 ml."""
    made = np.zeros((20, 60, 60), np.uint8)
    made[:, 5:55, 5:55] = 1
    made[2:12, 10:30, 10:34] = 2
    return made


def scan_of(image_hu: np.ndarray) -> SimpleITK.Image:
    scan = SimpleITK.GetImageFromArray(image_hu.astype(np.int16))
    scan.SetSpacing(SPACING_MM[::-1])
    return scan


def after(step: str, labels: np.ndarray) -> np.ndarray:
    changed = probabilities_of(labels)
    postprocess.apply(changed, scan_of(40 * labels), [step])
    return changed.label_map()


def test_metal_is_patient_wherever_it_lies(labels):
    """There are more slices than are looked at in one part."""
    labels = np.concatenate([labels, labels])
    image_hu = np.where(labels == 2, 1700, 40)
    image_hu[30:35, 15:20, 12:30] = 2500
    changed = probabilities_of(labels)
    postprocess.apply(changed, scan_of(image_hu), ["metal"])
    expected = labels.copy()
    expected[30:35, 15:20, 12:30] = np.minimum(labels[30:35, 15:20, 12:30], 1)
    np.testing.assert_array_equal(changed.label_map(), expected)


def test_islands_below_the_limit_become_patient(labels):
    with_islands = labels.copy()
    with_islands[15:18, 40:50, 40:50] = 2  # 0.6 ml
    with_islands[2:12, 40:52, 36:48] = 2  # 2.88 ml
    expected = with_islands.copy()
    expected[15:18, 40:50, 40:50] = 1
    np.testing.assert_array_equal(after("islands", with_islands), expected)


def test_an_island_leaves_nothing_between_voxels(labels):
    labels[15, 40, 40] = 2
    changed = probabilities_of(labels, 0.4)
    postprocess.apply(changed, scan_of(0 * labels), ["islands"])
    assert changed.values[14:17, 39:42, 39:42, 2].max() == 0
    assert changed.values[5, 15, 15, 2] == pytest.approx(0.4, abs=1e-3)


def test_small_holes_are_filled_and_large_ones_are_anatomy(labels):
    with_holes = labels.copy()
    with_holes[5:7, 15:20, 15:20] = 1  # 0.1 ml less two voxels
    with_holes[5, 15, 15:17] = 2
    with_holes[4:10, 22:28, 20:30] = 1  # 0.72 ml
    with_holes[2:12, 12, 12] = 1  # open at both ends
    expected = with_holes.copy()
    expected[5:7, 15:20, 15:20] = 2
    np.testing.assert_array_equal(after("holes", with_holes), expected)


def test_gas_is_patient_and_what_lies_apart_is_not(labels):
    with_gas = labels.copy()
    with_gas[8, 40:50, 40:50] = 0
    with_gas[:, :3, :20] = 1  # a tube beside the patient, 2.4 ml
    with_gas[3, 1, 5] = 2
    np.testing.assert_array_equal(after("outline", with_gas), labels)


def test_smoothing_averages_across_slices_only():
    """One slice of bone within patient keeps the Gaussian's middle weight."""
    labels = np.ones((9, 8, 8), np.uint8)
    labels[4] = 2
    smooth = probabilities_of(labels, 1.0)
    postprocess.apply(smooth, scan_of(0 * labels), ["smooth"])
    sigma = postprocess.SMOOTHING_MM / SPACING_MM[0]
    steps = np.arange(-4, 5)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights[np.abs(steps) > int(4 * sigma + 0.5)] = 0
    expected = weights / weights.sum()
    np.testing.assert_allclose(smooth.values[:, 3, 3, 2], expected, atol=1e-3)
    np.testing.assert_allclose(smooth.values.sum(axis=-1), 1, atol=2e-3)


def test_steps_run_in_their_order_and_only_those_named(labels):
    told = []
    changed = probabilities_of(labels)
    postprocess.apply(
        changed, scan_of(0 * labels), ("outline", "islands"), lambda *state: told.append(state)
    )
    assert told == [(1, 2), (2, 2)]
    untouched = probabilities_of(labels)
    postprocess.apply(untouched, scan_of(0 * labels), ())
    np.testing.assert_array_equal(untouched.values, probabilities_of(labels).values)
    with pytest.raises(ValueError, match="unknown step 'polish': choose from metal, smooth"):
        postprocess.apply(changed, scan_of(0 * labels), ["polish"])


@given(st.integers(0, 2**32 - 1))
def test_any_label_map_stays_one_and_a_second_pass_changes_nothing(seed):
    """No step raises, and what is clean stays as it is."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, (4, 12, 12), p=random.dirichlet([1, 1, 1])).astype(np.uint8)
    changed = probabilities_of(labels)
    postprocess.apply(changed, scan_of(0 * labels))
    assert np.isfinite(changed.values).all()
    for step in ("islands", "outline"):
        once = after(step, labels)
        np.testing.assert_array_equal(after(step, once), once)
