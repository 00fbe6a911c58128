"""A mask of all bone -> single bones, each with an id and a name that says where it is."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.segment.bones import separate

SPACING_MM = (3.0, 2.0, 2.0)
PELVIS = ("hip_left", "hip_right", "sacrum", "femur_left", "femur_right")
COUNTED = {"vertebra_L5": "vertebra_1", "vertebra_L4": "vertebra_2"}
RANGE_MM = (-120.0, 160.0)  # from the thighs to L4


def dice(first, second) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def masks_of(mask, spacing_mm=SPACING_MM, body=None) -> dict[str, np.ndarray]:
    """Separate a mask; check what holds for every one."""
    ids, names = separate(mask, spacing_mm, body)
    assert ids.dtype == np.uint8 and ids.shape == mask.shape
    assert ((ids > 0) == mask).all(), "a voxel of bone was lost or made"
    assert set(np.unique(ids)) - {0} == set(names)
    assert len(set(names.values())) == len(names)
    return {name: ids == number for number, name in names.items()}


def fused(mask, spacing_mm, width_mm=2.1) -> np.ndarray:
    """Grow a mask, so that its joints close at least in places."""
    return ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= width_mm


@pytest.fixture(scope="module")
def patient() -> dict[str, np.ndarray]:
    """The bones of one phantom by name, each (slice, row, column)."""
    person = Patient(10)
    columns_mm = (np.arange(190) - 94.5) * SPACING_MM[2]
    rows_mm = (np.arange(130) - 64.5) * SPACING_MM[1] + 28
    heights_mm = np.arange(*RANGE_MM, SPACING_MM[0]) * person.scale
    bones = np.stack([cut_slice(person, columns_mm, rows_mm, z_mm)[1] for z_mm in heights_mm])
    return {
        COUNTED.get(name, name): bones == number
        for number, name in BONE_NAMES.items()
        if (bones == number).any()
    }


@pytest.fixture(scope="module")
def all_bone(patient):
    return np.any(list(patient.values()), axis=0)


@pytest.fixture(scope="module")
def found(all_bone):
    return masks_of(all_bone)


def test_a_phantoms_bones_are_found_and_named(patient, found):
    assert set(found) == {*PELVIS, "vertebra_1", "vertebra_2"}
    for name, mask in found.items():
        assert dice(mask, patient[name]) > (0.85 if name.startswith("vertebra") else 0.97), name


def test_bones_that_grew_together_are_cut_apart(patient, all_bone):
    grown = fused(all_bone, SPACING_MM)
    assert ndimage.label(grown)[1] < ndimage.label(all_bone)[1]
    found = masks_of(grown)
    assert set(found) == {*PELVIS, "vertebra_1", "vertebra_2"}
    for name, mask in found.items():
        least = 0.85 if name.startswith("vertebra") else 0.95
        assert dice(mask & all_bone, patient[name]) > least, name


def test_a_mirrored_patient_has_left_where_right_was(found, all_bone):
    mirrored = masks_of(all_bone[:, :, ::-1])
    swap = {"left": "right", "right": "left"}
    assert set(mirrored) == set(found)
    for name, mask in mirrored.items():
        other = "_".join(swap.get(word, word) for word in name.split("_"))
        assert dice(mask[:, :, ::-1], found[other]) > 0.97, name


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (np.s_[45:], {*PELVIS, "vertebra_1", "vertebra_2"}),  # from the hip joints up
        (np.s_[:42], set(PELVIS) - {"sacrum"}),  # up to the hip joints
        (np.s_[:, :, 95:], {"hip_left", "femur_left", "sacrum", "vertebra_1", "vertebra_2"}),
        (np.s_[:12], {"femur_left", "femur_right"}),  # two thighs
        (np.s_[:12, :, 95:], {"femur"}),  # one: its shaft has no side
    ],
)
def test_a_field_that_cuts_the_patient(patient, all_bone, part, names):
    found = masks_of(all_bone[part])
    assert set(found) == names
    for name in names & set(PELVIS):
        assert dice(found[name], patient[name][part]) > 0.93, name


# A scan is what was scanned: padding shows nothing


@pytest.fixture(scope="module")
def trunk(all_bone):
    """A box around the bone, up to the iliac crests and no farther, and the bone in it."""
    bone = all_bone[:62]
    body = np.zeros(bone.shape, bool)
    _, rows, columns = (slice(max(at.min() - 8, 0), at.max() + 9) for at in np.nonzero(all_bone))
    body[:, rows, columns] = True
    return bone, body


@pytest.fixture(scope="module")
def unpadded(trunk):
    bone, body = trunk
    return masks_of(bone, body=body)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(pads=st.tuples(*[st.tuples(st.integers(0, 40), st.integers(0, 40))] * 3))
@example(pads=((0, 12), (0, 0), (0, 0)))
def test_padding_changes_no_bone(trunk, unpadded, pads):
    found = masks_of(*(np.pad(trunk[0], pads), SPACING_MM, np.pad(trunk[1], pads)))
    assert set(found) == set(unpadded)
    for name, mask in unpadded.items():
        assert dice(found[name], np.pad(mask, pads)) > 0.98, name


def tilted(trunk, slope):
    """Where a straightened scan was scanned: between slanted planes, in slices half empty."""
    slices, rows, _ = np.ogrid[tuple(map(slice, trunk[0].shape))]
    plane = slices - slope * (rows - 60)
    return (plane >= 4) & (plane <= 56)


@pytest.mark.parametrize("slope", [-0.3, 0.3])
def test_empty_corners_of_a_tilted_scan_change_no_name(trunk, patient, slope):
    scanned = tilted(trunk, slope)
    bone, body = (np.pad(part & scanned, ((20, 20), (0, 0), (0, 0))) for part in trunk)
    found = masks_of(bone, body=body)
    for name in ("hip_left", "hip_right", "femur_left", "femur_right", "sacrum"):
        truth = np.pad(patient[name][:62] & scanned, ((20, 20), (0, 0), (0, 0)))
        assert dice(found[name], truth) > 0.95, name


@pytest.mark.parametrize("slope", [-0.15, 0.15])
def test_a_tilted_scan_cut_to_its_full_slices_keeps_its_names(trunk, patient, slope):
    full = tilted(trunk, slope).all(axis=(1, 2))  # 10 cm
    found = masks_of(trunk[0][full], body=trunk[1][full])
    assert set(found) == {"hip_left", "hip_right", "femur_left", "femur_right", "sacrum"}
    for name, mask in found.items():
        assert dice(mask, patient[name][:62][full]) > 0.98, name


@pytest.mark.parametrize("slope", [-0.3, 0.3])
def test_a_slab_as_thin_as_shows_a_pelvis_names_no_bone_wrongly(trunk, patient, slope):
    full = tilted(trunk, slope).all(axis=(1, 2))  # 4 cm: the fit finds a pelvis, or just not
    for name, mask in masks_of(trunk[0][full], body=trunk[1][full]).items():
        assert name.startswith("bone_") or dice(mask, patient[name][:62][full]) > 0.98, name


def rods(*rods, shape=(60, 60, 140)) -> np.ndarray:
    """Upright cylinders, each by first and last slice, row, column and radius in voxels."""
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    return np.any(
        [
            (z >= first) & (z <= last) & ((y - row) ** 2 + (x - column) ** 2 <= radius**2)
            for first, last, row, column, radius in rods
        ],
        axis=0,
    )


# Three bodies with a bridge of bone behind the discs; two rods beside them, the left one larger.
SPINE = (*((low, low + 13, 30, 70, 10) for low in (3, 21, 39)), (3, 52, 44, 70, 4))
ARMS = (5, 50, 30, 15, 3), (2, 58, 30, 125, 4)


def test_a_spine_is_counted_from_the_lowest_where_no_sacrum_is():
    mask = rods(*SPINE, *ARMS)
    found = masks_of(mask, (2.0, 2.0, 2.0))
    bodies = [f"vertebra_from_lowest_{number}" for number in (1, 2, 3)]
    assert set(found) == {*bodies, "bone_left_1", "bone_right_1"}
    for name, body in zip(bodies, SPINE, strict=False):
        assert (rods(body) & ~found[name]).sum() < 0.02 * rods(body).sum()
    assert (found["bone_right_1"] == rods(ARMS[0])).all()
    assert (found["bone_left_1"] == rods(ARMS[1])).all()


def test_the_patients_middle_tells_a_spine_beside_ribs_of_one_side():
    mask = rods(*SPINE, (2, 58, 30, 190, 4), shape=(60, 60, 200))
    assert "bone_right_1" in set(masks_of(mask, (2.0, 2.0, 2.0)))
    body = mask.copy()
    body[:, :, :141] = True
    bodies = {f"vertebra_from_lowest_{number}" for number in (1, 2, 3)}
    assert set(masks_of(mask, (2.0, 2.0, 2.0), body)) == {*bodies, "bone_left_1"}


def test_others_are_numbered_by_size_and_take_the_nearest_specks():
    mask = rods(*ARMS, (30, 58, 30, 105, 3))
    mask[55, 30, 22] = mask[20, 30, 114] = True
    found = masks_of(mask, (2.0, 2.0, 2.0))
    assert set(found) == {"bone_left_1", "bone_left_2", "bone_right_1"}
    assert found["bone_left_1"][2, 30, 125] and found["bone_left_2"][40, 30, 105]
    assert found["bone_right_1"][55, 30, 22] and found["bone_left_1"][20, 30, 114]


def test_thick_slices_give_the_same_bones(patient, all_bone):
    found = masks_of(all_bone[::3], (3 * SPACING_MM[0], *SPACING_MM[1:]))
    for name in PELVIS:
        assert dice(found[name], patient[name][::3]) > 0.95, name


def test_nothing_has_no_bones_and_a_single_voxel_is_one():
    mask = np.zeros((9, 9, 9), bool)
    assert masks_of(mask) == {}
    mask[4, 4, 7] = True
    assert len(masks_of(mask, (0.1, 0.1, 0.1))) == 1


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 16)] * 3),
    blur=st.floats(0, 4),
    share=st.floats(0.01, 1),
    spacing_mm=st.tuples(*[st.floats(0.4, 5)] * 3),
)
def test_every_voxel_of_any_mask_has_an_id(seed, shape, blur, share, spacing_mm):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), blur)
    mask = noise >= np.quantile(noise, 1 - share)
    masks_of(mask, spacing_mm)


@pytest.mark.parametrize("subject", ["004", "005"])
def test_bones_that_were_drawn_on_real_scans(shared_data, subject):
    path = shared_data / "pelvis_label_maps" / f"Pelvic-Ref-{subject}" / "label.mhd"
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")[::2, ::2]
    drawn = SimpleITK.GetArrayFromImage(image)
    drawn[drawn > 4] = 0  # muscles
    found = masks_of(drawn > 0, image.GetSpacing()[::-1])
    middle = np.nonzero(drawn == 3)[2].mean()
    left = np.arange(drawn.shape[2]) > middle
    for number, kind in ((1, "hip"), (2, "femur")):
        for side, half in (("left", left), ("right", ~left)):
            assert dice(found[f"{kind}_{side}"], (drawn == number) & half) > 0.93, (kind, side)
    assert dice(found["sacrum"], drawn == 3) > 0.9
    spine = np.any([mask for name, mask in found.items() if "vertebra" in name], axis=0)
    assert dice(spine, drawn == 4) > 0.93
