import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from bonelib.bone_names import kind_of
from bonelib.labels import body_mask, bone_of, label_map, on_grid, unlabelled_bone
from bonelib.scans import read_scan, read_volume
from bonelib.settings import BONE, IGNORE, PATIENT, get_settings

values = SimpleITK.GetArrayFromImage


def disk(size, row, column, radius):
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def two_thighs(distance_mm, spacing_mm):
    """Six slices: the thighs apart, then touching in front and behind, then the trunk."""
    size = round(400 / spacing_mm)

    def circle(x_mm, y_mm, radius_mm):
        return disk(size, y_mm / spacing_mm, x_mm / spacing_mm, radius_mm / spacing_mm)

    apart = circle(130, 200, 60) | circle(270, 200, 60)
    crotch = circle(200, 200, 130) & ~circle(200, 200, 25)
    trunk = circle(200, 200, 130)
    image_hu = np.full((6, size, size), -1000, np.int16)
    for index, shape in enumerate([apart, apart, crotch, crotch, trunk, trunk]):
        image_hu[index][shape] = 30
    scan = SimpleITK.GetImageFromArray(image_hu)
    scan.SetSpacing((spacing_mm, spacing_mm, distance_mm))
    return scan, image_hu > 0


def agreement(mask, reference):
    return 2 * (mask & reference).sum() / (mask.sum() + reference.sum())


def test_trunk_without_couch_and_with_gas(make_image, trunk_hu):
    body = body_mask(make_image(trunk_hu, (5, 4, 4)))
    expected = np.zeros(trunk_hu.shape, bool)
    expected[:, 10:45, 10:62] = True
    np.testing.assert_array_equal(values(body), expected)
    assert body.GetPixelID() == SimpleITK.sitkUInt8
    assert body.GetSpacing() == (4, 4, 5)


@pytest.mark.parametrize(("distance_mm", "spacing_mm"), [(2, 1), (25, 3.9), (10, 2)])
def test_legs_are_kept_and_the_gap_between_them_is_not(distance_mm, spacing_mm):
    scan, reference = two_thighs(distance_mm, spacing_mm)
    body = values(body_mask(scan)).astype(bool)
    middle = reference.shape[1] // 2
    assert not body[:4, middle, middle].any()
    assert body[4:, middle, middle].all()
    assert agreement(body, reference) > 0.99


def test_couch_shell_that_the_back_touches_goes(make_image):
    image_hu = np.full((3, 200, 300), -1000, np.int16)
    image_hu[:, 40:140, 60:240] = 30
    image_hu[:, 140:143, 10:290] = 200  # shell, foam, shell
    image_hu[:, 143:170, 10:290] = -900
    image_hu[:, 170:173, 10:290] = 200
    body = values(body_mask(make_image(image_hu, (10, 1, 1))))
    assert not body[:, 150:].any()
    assert not body[:, :, :50].any() and not body[:, :, 250:].any()
    assert body[:, 40:140, 60:240].mean() > 0.99


def test_arms_count_and_rails_do_not(make_image):
    image_hu = np.full((3, 200, 300), -1000, np.int16)
    image_hu[:, 40:140, 80:220] = 30
    image_hu[:, 80:120, 20:60] = 30  # an arm
    image_hu[:, 150:165, 100:115] = 500  # a rail of 15 mm
    body = values(body_mask(make_image(image_hu, (10, 1, 1))))
    assert body[:, 85:115, 25:55].all()
    assert not body[:, 145:].any()


@pytest.mark.parametrize(("below", "above"), [(0, 5), (3, 0), (2, 2)])
def test_slices_and_rows_of_padding_change_no_outline(make_image, below, above):
    """Gas beside a slice that was not scanned is no gap between limbs, in any slice."""
    noise_hu = np.random.default_rng(0).integers(-15, 15, (5, 120, 120)).astype(np.int16)
    image_hu = noise_hu - 1000
    image_hu[:, 20:100, 20:100] += 1030
    image_hu[:, 40:60, 40:80] -= 1020
    reference = values(body_mask(make_image(image_hu, (5, 1, 1))))
    padded_hu = np.pad(image_hu, ((below, above), (0, 0), (0, 0)), constant_values=-1024)
    padded_hu[below + 4, :70] = -1024  # as a corner that a tilted gantry leaves
    found = values(body_mask(make_image(padded_hu, (5, 1, 1))))[below : below + 5]
    np.testing.assert_array_equal(found[:4], reference[:4])
    np.testing.assert_array_equal(found[4, 70:], reference[4, 70:])


def test_label_map_by_hand(make_image, trunk_hu):
    scan = make_image(trunk_hu, (5, 4, 4))
    mask = np.zeros(trunk_hu.shape, np.uint8)
    mask[:, 30:38, 45:55] = 7
    mask[0, 0, 0] = 7  # outside the body, and bone all the same
    labels = label_map(scan, make_image(mask, (5, 4, 4)))
    expected = values(body_mask(scan)) * PATIENT
    expected[mask > 0] = BONE
    np.testing.assert_array_equal(values(labels), expected)
    assert labels.GetPixelID() == SimpleITK.sitkUInt8
    assert labels.GetOrigin() == scan.GetOrigin()


def test_bone_names_select_and_ignore(make_image):
    mask = make_image(np.array([[[0, 1, 2, 117, 255]]], np.uint8))
    assert values(bone_of(mask)).tolist() == [[[0, 1, 1, 1, 1]]]
    assert values(bone_of(mask, {2: "hip", 25: "sacrum"})).tolist() == [[[0, 0, 1, 0, 0]]]
    known = bone_of(mask, {1: "hip", 255: "ignore"})
    assert values(known).tolist() == [[[0, 1, 0, 0, IGNORE]]]


NAMES = {
    "femur": "femur_left LeftFemur femoral_head_R Femur_Neck_L",
    "hip bone": "hip_right left_hip Hip_bone ilium PubicSymphys_R Bone_Ilium_L",
    "sacrum": "sacrum vertebrae_S1 Kość_krzyżowa VB_S VB_S2",
    "vertebra": "vertebra_L5 vertebrae_T12 lumbar_vertebrae Wirbelkörper L4 VB_L VB_T01 VBs",
    None: "arm_left rib_left_7 coccyx pelvis spine bone ignore кость Bone_Pelvic_L",
}


@pytest.mark.parametrize("expected", NAMES)
def test_a_bone_s_name_tells_its_kind(expected):
    assert {name: kind_of(name) for name in NAMES[expected].split()} == dict.fromkeys(
        NAMES[expected].split(), expected
    )


def test_a_femur_left_out_is_unknown_to_its_marrow(make_image):
    image_hu = np.full((4, 150, 200), -1000, np.int16)
    image_hu[:, 10:140, 10:190] = 40
    rows, columns = np.mgrid[:150, :200]
    femur = np.hypot(rows - 70, columns - 150) <= 20
    marrow = np.hypot(rows - 70, columns - 150) <= 16
    sacrum = np.hypot(rows - 90, columns - 70) <= 22
    image_hu[:, femur] = 900
    image_hu[:, marrow] = -20
    image_hu[:, 69:73, 166:171] = 40  # a vessel's canal, or a shell too thin to see
    image_hu[:, 50:60, 130:170][:, (femur & ~marrow)[50:60, 130:170]] = 150  # a blurred shell
    image_hu[:, 100:110, 30:40] = 150  # a vessel with contrast
    image_hu[:, sacrum] = 400
    image_hu[:, 30:34, 30:34] = 500  # a calcification of 16 mm²
    scan = make_image(image_hu, (5, 1, 1))
    drawn = np.zeros(image_hu.shape, np.uint8)
    drawn[:, sacrum] = 1
    found = values(unlabelled_bone(scan, make_image(drawn, (5, 1, 1)), body_mask(scan)))
    assert found[:, femur].all() and not found[:, sacrum].any()
    far = ndimage.binary_dilation(femur, iterations=4)
    inner = np.zeros(femur.shape, bool)
    inner[11:139, 11:189] = True
    assert not found[:, inner & ~far].any()


BONE_IDS = {number: str(number) for number in (*range(25, 51), *range(69, 79), *range(91, 117))}


def test_real_bones_are_bright_and_the_couch_is_gone(shared_data):
    folder = shared_data / "abdomen_dicom"
    scan = read_scan(folder / "ct")
    labels = values(label_map(scan, read_volume(folder / "labels.nii.gz"), BONE_IDS))
    image_hu = values(scan)
    assert image_hu[labels == BONE].mean() > 150
    assert (labels[:, 430:] == PATIENT).sum() == 0  # the couch begins below row 430
    assert (labels[:, 300:350, 450:490] == PATIENT).mean() > 0.5  # the left arm
    assert (labels[:, 305:311, 195:205] > 0).all()  # liver
    body = labels > 0
    assert body[0, 180:220, 250:290].all()  # gas in the stomach
    assert 0.2 < body.mean() < 0.4


def test_real_body_is_the_same_however_the_patient_lies(shared_data, quarter_turns=1):
    """Prone and on either side: the couch is in front or beside, and goes all the same."""
    scan = read_scan(shared_data / "abdomen_dicom" / "ct")[:, :, 4:6]
    upright = values(body_mask(scan))
    turned = SimpleITK.GetImageFromArray(np.rot90(values(scan), quarter_turns, (1, 2)).copy())
    turned.SetSpacing(scan.GetSpacing())
    found = np.rot90(values(body_mask(turned)), -quarter_turns, (1, 2))
    assert agreement(found.astype(bool), upright.astype(bool)) > 0.998


@pytest.mark.parametrize("seed", [1, 4])
def test_body_of_a_phantom_of_any_build(seed):
    from bonelib.phantom.series import make_series

    series = make_series(seed, 4, get_settings("smoke"))
    assert agreement(values(body_mask(series.scan)) > 0, np.asarray(series.body) > 0) > 0.985


def test_real_vertebrae_that_nobody_drew_are_found(shared_data):
    folder = shared_data / "abdomen_nifti"
    scan = read_scan(folder / "ct.nii.gz")
    ids = values(on_grid(read_volume(folder / "labels.nii.gz"), scan))
    vertebrae = np.isin(ids, range(27, 44))
    bone = SimpleITK.GetImageFromArray((np.isin(ids, list(BONE_IDS)) & ~vertebrae).astype(np.uint8))
    bone.CopyInformation(scan)
    body = body_mask(scan)
    found = values(unlabelled_bone(scan, bone, body)) > 0
    assert found[vertebrae].mean() > 0.95
    assert (found & ~vertebrae).sum() < 0.07 * (values(body) > 0).sum()  # vessels with contrast
