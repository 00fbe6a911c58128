"""Masks of every format land where they belong, or are refused in one line."""

import re
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from bonelib import labels, scans
from bonelib.datasets import Case
from bonelib.errors import InputWarning
from bonelib.labels.dicom_masks import fill
from bonelib.segment.dicom_seg import write_dicom_seg
from tests.mask_files import (
    refusal_of,
    told_by,
    voxel_edges,
    write_pictures,
    write_seg,
    write_structure_set,
)

values = SimpleITK.GetArrayFromImage
SPACING_MM = (5.0, 4.0, 4.0)
LEFT, FRONT = "femur left", "pubis"


@pytest.fixture
def parts(trunk_hu):
    """A bone on the patient's left and a smaller one low in front, as (slice, row, column)."""
    left = trunk_hu > 500
    left[0], left[5, 34:] = False, False
    front = np.zeros_like(left)
    front[1:3, 12:16, 33:36] = True
    front[2, 13:15, 34] = False
    return {LEFT: left, FRONT: front}


@pytest.fixture
def image_hu(trunk_hu, parts):
    trunk_hu[parts[FRONT]] = 600
    return trunk_hu


@pytest.fixture
def scan(make_image, image_hu):
    return make_image(image_hu, SPACING_MM)


@pytest.fixture
def masks(make_image, parts):
    """The two bones as binary images on the scan's grid."""
    return {name: make_image(part.astype(np.uint8), SPACING_MM) for name, part in parts.items()}


@pytest.fixture
def ids(masks):
    """One image of both bones, with ids 1 and 2."""
    return masks[LEFT] + 2 * masks[FRONT]


def mask_writer(kind, tmp_path, masks, change=None):
    """Write the masks as one DICOM file."""
    path = tmp_path / f"{kind}.dcm"
    if kind == "SEG":
        return write_seg(path, masks, change=change)
    return write_structure_set(path, edges_of(masks), change=change)


def edges_of(masks):
    return {name: voxel_edges(mask) for name, mask in masks.items()}


def save(image, path):
    SimpleITK.WriteImage(image, str(path), True)
    return path


def write_segmentation(path, masks):
    """Write masks as layers of a 3D Slicer segmentation."""
    image = SimpleITK.Compose(*masks.values())
    for number, name in enumerate(masks):
        for what, text in (("Name", name), ("LabelValue", "1"), ("Layer", str(number))):
            image.SetMetaData(f"Segment{number}_{what}", text)
    return save(image, path)


def as_volume(suffix, order):
    def write(folder, masks, ids, **_):
        return save(SimpleITK.DICOMOrient(ids, order), folder / f"mask{suffix}"), None

    return write


def as_slicer_layers(folder, masks, **_):
    turned = {name: SimpleITK.DICOMOrient(mask, "RAS") for name, mask in masks.items()}
    return write_segmentation(folder / "bones.seg.nrrd", turned), None


def as_slicer_labels(folder, ids, **_):
    for number, name in enumerate((LEFT, FRONT), start=1):
        ids.SetMetaData(f"Segment{number}_Name", name)
        ids.SetMetaData(f"Segment{number}_LabelValue", str(number))
    return save(ids, folder / "bones.seg.nrrd"), None


def as_binaries(folder, masks, **_):
    (folder / "masks").mkdir()
    save(SimpleITK.DICOMOrient(masks[LEFT], "PIR")[:, :-1, :], folder / "masks" / f"{LEFT}.nii.gz")
    fine = SimpleITK.Expand(masks[FRONT], (2, 2, 1), SimpleITK.sitkNearestNeighbor)
    save(fine, folder / "masks" / f"{FRONT}.nrrd")
    return folder / "masks", None


def as_pictures_of_dicom(folder, ids, image_hu, write_series, **_):
    scan_path = write_series(folder / "ct", image_hu, SPACING_MM)  # numbered from the head
    return write_pictures(folder / "png", values(ids)[::-1]), scan_path


def as_pictures_of_volume(folder, ids, scan, **_):
    scan_path = save(SimpleITK.DICOMOrient(scan, "RAS"), folder / "ct.nii.gz")
    return write_pictures(folder / "png", values(SimpleITK.DICOMOrient(ids, "RAS"))), scan_path


def as_structure_set(folder, masks, **_):
    return mask_writer("RTSTRUCT", folder, masks), None


def as_seg(kind, order):
    def write(folder, masks, **_):
        turned = {name: SimpleITK.DICOMOrient(mask, order) for name, mask in masks.items()}
        if kind == "FRACTIONAL":
            turned = {name: 0.6 * SimpleITK.Cast(mask, 8) for name, mask in turned.items()}
        return write_seg(folder / "seg.dcm", turned, kind), None

    return write


FORMATS = {
    ".nii.gz": as_volume(".nii.gz", "LPS"),
    ".nrrd in RAS": as_volume(".nrrd", "RAS"),
    ".mhd in RAS": as_volume(".mhd", "RAS"),
    **{f"SEG {kind}": as_seg(kind, "LPS") for kind in ("BINARY", "FRACTIONAL", "LABELMAP")},
    "SEG sagittal": as_seg("BINARY", "PSR"),
    ".seg.nrrd layers": as_slicer_layers,
    ".seg.nrrd labels": as_slicer_labels,
    "binaries": as_binaries,
    "PNG of DICOM, head first": as_pictures_of_dicom,
    "PNG of a volume in RAS": as_pictures_of_volume,
    "RTSTRUCT": as_structure_set,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_left_and_right_survive_every_format(
    tmp_path, write, scan, image_hu, masks, ids, parts, write_series
):
    path, scan_path = write(
        folder=tmp_path, masks=masks, ids=ids, scan=scan, image_hu=image_hu,
        write_series=write_series,
    )  # fmt: skip
    mask, names = labels.read_mask(path, scan, scan_path=scan_path)
    for number, name in (names or {1: LEFT, 2: FRONT}).items():
        np.testing.assert_array_equal(values(mask) == number, parts[name])


# Which structures are bone


BONES = """
    femur_left Femur_Head_L FemoralHead_R hip_right LtHip Pelvis Sacrum vertebrae_L5 L4 Coccyx
    rib_left_12 Rib7 Bones Pelvic_Bone backbone os_ilium Caput_femoris acetabulum_L
    Hüftkopf_links Beckenknochen Steißbein Oberschenkelknochen tête_fémorale bassin_osseux
    miednica kość_krzyżowa kości głowa_kości_udowej żebra
    Acetabulums Bone_Ilium_L Bone_Pelvic_R Bone_Hyoid Clavicle_L Dens Femur_Neck_R ~Femur_L
    Femurs Femur_L^HD L_Femur_Head Hardpalate Maxilla PubicSymphys_L Rib01_R Skull VB VBs VB_C1
    VB_L VB_L5 VB_S VB_S1 VB_T VB_T04 VBT12 S1_vertebra LWK5 Lendenwirbel Hüftpfanne Beckenring
    ischial_tuberosity hemipelvis_left Femoral_shaft humeral_head pelvic_ring côte_7 ilion os_coxal
    cadera_izquierda hueso_ilíaco cabeza_femoral sacro cóccix esqueleto costilla cráneo
    femore_destro testa_femorale osso_iliaco bacino anca scheletro dijbeen_links heupkop heupbot
    heiligbeen wervels
    bekken schedel czaszka kość_kulszowa kość_guziczna kręg_L5 fêmur_direito bacia
"""
OTHERS = """
    kidney_pelvis renal_pelvis Nierenbecken femoral_artery V._femoralis Vena_femoralis
    hip_muscle gluteus_maximus_left hippocampus bone_marrow Knochenmark BoneMarrow PTV_bone
    CTV_sacrum spinal_cord intervertebral_disc iliac_artery_left ileum bladder Body
    costal_cartilages hip_implant tętnica_udowa mięśnie_miednicy Segment_1 fibrosis pelvic_floor
    A_Femoral_L A_Vertebral_R V_Iliac_L L_Femoral_A LN_L LN_Ax_L1_L LN_Neck_VB_L Femur_Joint_L
    Femur_L_PRV05 zFemur_L z_Bone _Femur_L Bone-PTV GrowthPlate_L Musc_Temporal_L SpinalCord_Lum
    Cartlg_Thyroid CN_V_L PubicSymphys IGTV_Femur BrachialPlex_L Sinus_Frontal
    SacralPlex femoral_triangle Femoral_stem_L acetabular_cup acetabular_labrum hip_replacement
    THA_left_hip hip_flexors hip_effusion trochanteric_bursa L5_Root IVD_L5 disque_L5 Ring_Femur
    Femur_Ring avoid_Sacrum Sacrum_avoid opt_Femur NS_Femur nonbone Bone_Met_L5 Knochenmetastase
    Femurnagel Hüft-TEP Wirbelarterie Beckenlymphknoten nervio_femoral prótesis_de_cadera
    articulación_de_la_cadera médula_ósea vasos_ilíacos linfonodi_iliaci midollo_osseo
    muscolo_iliaco beenmerg heupgewricht bekkenbodem wervelkanaal naczynia_biodrowe
    węzły_chłonne_miednicy rdzeń_kręgowy proteza_biodra guz_kości przerzut_do_kości
"""


@pytest.mark.parametrize(("names", "is_bone"), [(BONES, True), (OTHERS, False)])
def test_names_of_bones_are_told_in_many_languages_and_by_tg_263(names, is_bone):
    wrong = [
        name
        for given in names.split()
        for name in {given, given.replace("_", " ")}
        if labels.looks_like_bone(name) != is_bone and not name.startswith(" ")
    ]
    assert not wrong


@pytest.fixture
def structure_set(tmp_path, masks):
    """An RTSTRUCT of a bone, a vessel at its place and a bone of unknown class."""
    left, front = (voxel_edges(mask) for mask in masks.values())
    contours = {"Femur_L": left, "femoral artery": left, "Bladder": front}
    return write_structure_set(tmp_path / "rs.dcm", contours, numbers=[12, 0, 7])


@pytest.mark.parametrize(
    ("bone_names", "expected"),
    [
        ({"FEMUR*": "femur_left", "b*r": "other"}, {"femur_left": LEFT, "other": FRONT}),
        ({"*fem*": "femur", 7: "ignore"}, {"femur": LEFT, "ignore": FRONT}),
        ({12: "femur", "femur*": "never"}, {"femur": LEFT}),
        ({"femur": "part of a name only", 0: "zero"}, {"zero": LEFT}),
        ({"*f*": "femur", "femoral*": "ignore"}, {"femur": LEFT}),  # bone wins over "ignore"
        (None, {"Femur_L": LEFT}),  # by its looks
    ],
)
def test_names_and_numbers_choose_structures(structure_set, scan, parts, bone_names, expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask, names = labels.read_mask(structure_set, scan, bone_names)
    for name, part in expected.items():
        numbers = [number for number, bone in names.items() if bone == name]
        np.testing.assert_array_equal(np.isin(values(mask), numbers), parts[part])
    assert set(names.values()) == set(expected)
    assert ("1 of 3 structures" in str(caught[0].message)) if bone_names is None else not caught


def test_a_structure_that_is_alone_is_the_bone(tmp_path, scan, masks, parts):
    path = write_structure_set(tmp_path / "rs.dcm", {"ROI": voxel_edges(masks[LEFT])})
    with pytest.warns(InputWarning, match="only structure"):
        mask, _ = labels.read_mask(path, scan)
    np.testing.assert_array_equal(values(mask) > 0, parts[LEFT])
    path = write_structure_set(tmp_path / "rs.dcm", {"PTV Femur": voxel_edges(masks[LEFT])})
    assert "no structure counts as bone" in refusal(path, scan)
    in_muscle = [contour - (80, 0, 0) for contour in voxel_edges(masks[LEFT])]
    with pytest.warns(InputWarning, match="dark in the mask, 40 HU in ROI"):
        labels.read_mask(write_structure_set(tmp_path / "rs.dcm", {"ROI": in_muscle}), scan)


def test_a_segment_is_found_by_its_description_or_its_type(tmp_path, scan, masks, parts):
    segments = dict(zip("ab", masks.values(), strict=True))
    path = write_seg(tmp_path / "a.dcm", segments, descriptions=["Left Femur", "Bladder"])
    mask, names = labels.read_mask(path, scan, {"left fem*": "femur"})
    assert list(names.values()) == ["femur"]
    np.testing.assert_array_equal(values(mask) > 0, parts[LEFT])
    texts = ["not for clinical use", "left femoral artery"]
    path = write_seg(tmp_path / "c.dcm", dict(zip([LEFT, "b"], masks.values(), strict=True)),
                     descriptions=texts)  # fmt: skip
    with pytest.warns(InputWarning, match="1 of 2 structures"):
        assert labels.read_mask(path, scan)[1] == {1: LEFT}  # the first telling name counts
    path = write_seg(tmp_path / "b.dcm", masks, property_type=codes.SCT.Bone)
    assert list(labels.read_mask(path, scan, {"bone": "x"})[1].values()) == ["x", "x"]


# RTSTRUCT


def square(low, high, z_mm):
    return np.array([(low, low, z_mm), (high, low, z_mm), (high, high, z_mm), (low, high, z_mm)])


def grid_of(size=20, slices=4, spacing_mm=(1.0, 1.0, 2.0)):
    image = SimpleITK.Image(size, size, slices, SimpleITK.sitkUInt8)
    image.SetSpacing(spacing_mm)
    return image


KEYHOLE = [(1.5, 1.5), (10.5, 1.5), (10.5, 10.5), (1.5, 10.5), (1.5, 1.5),
           (3.5, 3.5), (3.5, 8.5), (8.5, 8.5), (8.5, 3.5), (3.5, 3.5)]  # fmt: skip


@pytest.mark.parametrize(
    ("contours", "exclusive", "pixels"),
    [
        ([np.insert(np.array(KEYHOLE), 2, 4.0, axis=1)], False, 81 - 25),
        ([square(1.5, 10.5, 4)] * 2, False, 81),  # twice is once
        ([square(1.5, 10.5, 4), square(1.5, 10.5, 4)[::-1], square(3.5, 8.5, 4)], False, 81 - 25),
        ([square(1.5, 10.5, 4), square(3.5, 8.5, 4), square(4.5, 6.5, 4)], False, 81 - 25 + 4),
        ([square(1.5, 10.5, 4), square(8.5, 12.5, 4)], False, 81 + 16 - 4),  # an overlap
        ([square(1.5, 10.5, 4), square(3.5, 12.5, 4), square(5.5, 8.5, 4)], False, 113 - 9),
        ([square(1.5, 6.5, 4), square(8.5, 12.5, 4)], False, 25 + 16),  # two parts
        ([square(1.5, 10.5, 4)] * 2, True, 0),
        ([square(1.5, 10.5, 4), square(8.5, 12.5, 4)], True, 81 + 16 - 8),
        ([square(1.5, 10.5, 4), square(3.5, 8.5, 4)], True, 81 - 25),
    ],
)
def test_contours_of_one_plane_are_combined_as_a_person_would(contours, exclusive, pixels):
    inside = fill("rs.dcm", grid_of(), contours, exclusive)
    assert inside.sum() == inside[2].sum() == pixels


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)), repeated=st.integers(0, 3), start=st.integers(0, 3))
def test_neither_order_nor_repetition_of_contours_matters(order, repeated, start):
    ends = ((1.5, 10.5), (3.5, 8.5), (9.5, 13.5), (5.5, 7.5))
    contours = [square(low, high, 4) for low, high in ends]
    reference = fill("rs.dcm", grid_of(), contours)
    given = [contours[index] for index in order] + [np.roll(contours[repeated], start, axis=0)]
    np.testing.assert_array_equal(fill("rs.dcm", grid_of(), given), reference)


@pytest.mark.parametrize(
    ("heights_mm", "filled", "missing"),
    [
        ([4], [2], 0),  # a plane on a slice
        ([4.9], [2], 0),  # off the slices: the nearest slice takes it
        ([3, 5, 7], [2, 3, 4], 0),  # each between two slices
        ([3, 9], [1, 2, 3, 4, 5, 6], 0),  # drawn on every third slice: those between, too
        ([2, 4, 10, 12], [1, 2, 5, 6], 1),  # two parts, with a gap that stays
        ([1.5, 2.5, 3.5, 4.5], [1, 2], 0),  # finer than the slices
        ([2, 4, 8, 10], [1, 2, 3, 4, 5], 1),  # one missing plane
        ([0, 2, 4, 8, 12], [0, 1, 2, 3, 4, 5, 6, 7], 0),  # farther apart from 4 mm on
    ],
)
def test_planes_off_the_slices(heights_mm, filled, missing):
    contours = [square(1.5, 5.5, z_mm) for z_mm in heights_mm]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside = fill("rs.dcm", grid_of(slices=8, spacing_mm=(1, 1, 2)), contours)
    assert np.flatnonzero(inside.any(axis=(1, 2))).tolist() == filled
    assert len(caught) == missing


@pytest.mark.parametrize("angles", [(20, 0), (15, 10), (90, 0), (70, 30)])
def test_oblique_planes_are_looked_up_in_their_own_frame(angles):
    """Contours of a tilted series; the referee turns each voxel into the series' own frame."""
    random = np.random.default_rng(5)
    pitch, roll = np.radians(angles)
    turn_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    turn_y = [[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]]
    frame = np.array(turn_x) @ np.array(turn_y)  # columns: along rows, along columns, normal
    centre_mm = np.array([15.0, 14.0, 16.0])
    heights_mm = np.arange(-9, 10, 3.0)
    angle = np.sort(random.uniform(0, 2 * np.pi, (len(heights_mm), 12)), axis=1)
    radius = random.uniform(4, 11, angle.shape)
    flat = [np.c_[r * np.cos(a), r * np.sin(a)] for r, a in zip(radius, angle, strict=True)]
    contours = [
        np.c_[points, np.full(len(points), height)] @ frame.T + centre_mm
        for points, height in zip(flat, heights_mm, strict=True)
    ]
    grid = grid_of(30, 17, (1.0, 1.1, 2.0))
    inside = fill("rs.dcm", grid, contours)

    index = np.indices(inside.shape).reshape(3, -1)[::-1].T
    own = (index * grid.GetSpacing() - centre_mm) @ frame
    nearest = np.abs(own[:, [2]] - heights_mm).argmin(axis=1)
    off_mm = np.abs(own[:, 2] - heights_mm[nearest])
    expected = np.zeros(len(own), bool)
    for plane, points in enumerate(flat):
        here = (nearest == plane) & (off_mm < 1.5)
        expected[here] = Polygon(points).contains_points(own[here, :2])
    halfway = np.abs(off_mm - 1.5) < 1e-5
    assert expected.sum() > 500
    assert (inside.ravel() == expected)[~halfway].all()


# PNG


@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16"])
def test_pictures_follow_numbers_and_count_naturally(tmp_path, write_series, make_image, mode):
    """Twelve pages, of which page10 comes after page2."""
    image_hu = np.full((12, 16, 16), -1000, np.int16)
    marks = np.zeros(image_hu.shape, np.uint8)
    for index in range(12):
        marks[index, index, 3:6] = 1
    image_hu[marks > 0] = 900
    scan_path = write_series(tmp_path / "ct", image_hu, SPACING_MM)
    scan = scans.read_scan(scan_path)
    folder = write_pictures(tmp_path / "png", marks[::-1])
    for file in folder.iterdir():
        page = Image.open(file)
        page.load()
        if mode == "P":
            page.putpalette([0, 0, 0, 255, 0, 0])
        elif mode == "1":
            page = page.point(lambda value: 255 * value).convert("1")
        elif mode == "I;16":
            page = Image.fromarray(np.asarray(page).astype(np.uint16) * 300)
        page.save(file)
    mask, names = labels.read_mask(folder, scan, scan_path=scan_path)
    assert names is None
    np.testing.assert_array_equal(values(mask), marks.astype(int) * (300 if mode == "I;16" else 1))
    backwards = write_pictures(tmp_path / "reversed", marks)
    assert "HU in bone on average" in refusal(backwards, scan, scan_path=scan_path)


# Masks of this scan


def referring(space, series):
    """A change of an RTSTRUCT or SEG that makes it refer to a series."""

    def change(dataset):
        scope, study, item = Dataset(), Dataset(), Dataset()
        scope.FrameOfReferenceUID, item.SeriesInstanceUID = space, series
        study.RTReferencedSeriesSequence = [item]
        scope.RTReferencedStudySequence = [study]
        if dataset.Modality == "SEG":
            dataset.FrameOfReferenceUID, dataset.ReferencedSeriesSequence = space, [item]
        else:
            dataset.ReferencedFrameOfReferenceSequence = [scope]

    return change


@pytest.fixture
def scan_folder(tmp_path, write_series, image_hu):
    """The scan as DICOM with UIDs of its own."""

    def identify(file, index):
        file.FrameOfReferenceUID, file.SeriesInstanceUID = "1.2.3", "1.2.4"

    return write_series(tmp_path / "ct", image_hu, SPACING_MM, change=identify)


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_a_dicom_mask_belongs_to_the_scan_or_is_refused(tmp_path, scan_folder, masks, scan, kind):
    own = mask_writer(kind, tmp_path, masks, referring("1.2.3", "1.2.4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels.read_mask(own, scan, scan_path=scan_folder)
    same_space = mask_writer(kind, tmp_path, masks, referring("1.2.3", "1.2.9"))
    with pytest.warns(InputWarning, match="drawn on another series"):
        labels.read_mask(same_space, scan, scan_path=scan_folder)
    for series in ("1.2.4", "1.2.9"):
        other = mask_writer(kind, tmp_path, masks, referring("1.2.8", series))
        assert "another frame of reference" in refusal(other, scan, scan_path=scan_folder)
    for file in scan_folder.iterdir():
        slice_of_another = dcmread(file)
        slice_of_another.PatientID = "1234"
        slice_of_another.save_as(file)
    own = mask_writer(kind, tmp_path, masks, referring("1.2.3", "1.2.4"))
    with pytest.warns(InputWarning, match="names another patient"):
        labels.read_mask(own, scan, scan_path=scan_folder)


def test_structures_of_another_frame_of_reference_are_left_out(
    tmp_path, scan_folder, masks, scan, parts
):
    def change(dataset):
        for roi, space in zip(dataset.StructureSetROISequence, ("1.2.3", "1.2.8"), strict=True):
            roi.ReferencedFrameOfReferenceUID = space

    path = mask_writer("RTSTRUCT", tmp_path, masks, change)
    with pytest.warns(InputWarning, match="structures of another frame of reference, left out: 1"):
        mask, names = labels.read_mask(path, scan, scan_path=scan_folder)
    assert list(names.values()) == [LEFT]
    np.testing.assert_array_equal(values(mask) > 0, parts[LEFT])
    alone = mask_writer("RTSTRUCT", tmp_path, {FRONT: masks[FRONT]}, lambda dataset: setattr(
        dataset.StructureSetROISequence[0], "ReferencedFrameOfReferenceUID", "1.2.8"))  # fmt: skip
    assert "another frame of reference" in refusal(alone, scan, scan_path=scan_folder)


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT", "PNG"])
def test_a_mask_follows_the_repair_of_the_scan(tmp_path, write_series, image_hu, masks, ids, kind):
    """Slice 3 is missing in the scan, and so is its frame or plane in the mask."""
    folder = write_series(tmp_path / "ct", image_hu, SPACING_MM)
    scans.open_scan(folder).frames[3].file.unlink()
    for mask in masks.values():
        mask[:, :, 3] = 0
    if kind == "PNG":
        path = write_pictures(tmp_path / "png", np.delete(values(ids), 3, axis=0)[::-1])
    else:
        path = mask_writer(kind, tmp_path, masks)
    with pytest.warns(InputWarning):
        scan = scans.read_scan(folder)
        found = values(labels.read_mask(path, scan, scan_path=folder)[0])
    np.testing.assert_array_equal(found[3] == 1, found[2] == 1)
    np.testing.assert_array_equal(found[2] == 1, values(masks[LEFT])[2] == 1)


@pytest.mark.parametrize("degrees", [-15, 20])
def test_a_segmentation_in_the_planes_of_a_tilted_series_is_read(
    tmp_path, write_series, image_hu, degrees
):
    tilt = np.radians(degrees)

    def change(file, index):
        file.ImageOrientationPatient = [1, 0, 0, 0, np.cos(tilt).round(9), -np.sin(tilt).round(9)]
        file.StudyInstanceUID, file.FrameOfReferenceUID = "1.2.3", "1.2.5"

    folder = write_series(tmp_path / "ct", image_hu, SPACING_MM, change=change)
    with pytest.warns(InputWarning, match="tilt"):
        stored = scans.open_scan(folder)
    bright = SimpleITK.Cast(stored.image > 500, SimpleITK.sitkUInt8)
    write_dicom_seg(tmp_path / "seg.dcm", stored.frames, bright, {1: "femur_left"})
    mask, names = labels.read_mask(tmp_path / "seg.dcm", stored.image, scan_path=folder)
    assert list(names.values()) == ["femur_left"]
    found, drawn = values(mask) > 0, values(bright) > 0
    assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.95


hardly_any = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def assert_bones(case, bones, tolerance):
    """The bones, given as binary masks by name, keep name, volume and side, left first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        ids, names = case.annotation()
    names = names or dict(enumerate(bones, start=1))
    assert list(names.values()) == list(bones)
    voxel_mm3 = np.prod(ids.GetSpacing())
    for (number, _), drawn in zip(names.items(), bones.values(), strict=True):
        volume_mm3 = (values(ids) == number).sum() * voxel_mm3
        assert volume_mm3 == pytest.approx(values(drawn).sum() * np.prod(SPACING_MM), rel=tolerance)
    left, front = (np.argwhere(values(ids) == number)[:, 2].mean() for number in names)
    assert left > front  # LPS: columns grow to the patient's left


@settings(max_examples=10, **hardly_any)
@given(
    order=st.permutations(range(8)), missing=st.sampled_from([None, 4]), copied=st.booleans(),
    names=st.permutations(["Femur_L", "Kreuzbein"]), degrees=st.sampled_from([0, 12]),
    padded=st.integers(0, 2), kind=st.sampled_from(["RTSTRUCT", "SEG"]),
)  # fmt: skip
def test_volumes_names_and_sides_hold_however_a_scan_is_exported(
    tmp_path_factory, write_series, image_hu, masks, order, missing, copied, names, degrees,
    padded, kind,
):  # fmt: skip
    """Numbers in any order, a slice and its planes missing or given twice, a tilt, padding."""
    folder = tmp_path_factory.mktemp("export")
    tilt = np.radians(degrees)
    more = ((0, padded), (0, 0), (0, 0))

    def change(file, index):
        file.InstanceNumber = order[index] + 1
        file.ImageOrientationPatient = [1, 0, 0, 0, np.cos(tilt).round(9), -np.sin(tilt).round(9)]

    padded_hu = np.pad(image_hu, more, constant_values=-1024)
    write_series(folder / "ct", padded_hu, SPACING_MM, change=change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        whole = scans.open_scan(folder / "ct")
    if copied:
        shutil.copy(whole.frames[2].file, folder / "ct" / "copy")
    stored = {
        name: whole.grid.image(np.pad(values(mask), more))
        for name, mask in zip(names, masks.values(), strict=True)
    }
    if missing is not None:
        whole.frames[missing].file.unlink()
        for mask in stored.values():
            mask[:, :, missing] = 0
    path = folder / "mask.dcm"
    if kind == "SEG" and not degrees:
        write_seg(path, stored)
    else:
        twice = {name: edges * (1 + copied) for name, edges in edges_of(stored).items()}
        write_structure_set(path, twice)
    case = Case("a", "test", folder / "ct", path, None, folder)
    assert_bones(case, dict(zip(names, masks.values(), strict=True)), tolerance=0.12)


@settings(max_examples=10, **hardly_any)
@given(
    orders=st.tuples(*[st.sampled_from(["LPS", "RAS", "PIR", "SLA"])] * 2), finer=st.integers(1, 2),
    cut=st.integers(-3, 0), shift=st.sampled_from([-0.4, 0, 0.4]), archived=st.booleans(),
    suffix=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
)  # fmt: skip
def test_a_mask_on_any_grid_keeps_volumes_and_sides(
    tmp_path_factory, scan, ids, masks, orders, finer, cut, shift, archived, suffix
):
    """Scan and mask in any order of axes, the mask finer, cut or padded, moved within a voxel."""
    folder = tmp_path_factory.mktemp("grids")
    scan_path = save(SimpleITK.DICOMOrient(scan, orders[0]), folder / f"ct{suffix}")
    mask = SimpleITK.Expand(ids, (finer, finer, 1), SimpleITK.sitkNearestNeighbor)
    mask = mask[-cut:, 1:] if cut else SimpleITK.ConstantPad(mask, (3, 0, 2), (0, 4, 1))
    mask.SetOrigin([place + shift * step for place, step in
                    zip(mask.GetOrigin(), mask.GetSpacing(), strict=True)])  # fmt: skip
    path = save(SimpleITK.DICOMOrient(mask, orders[1]), folder / "mask.nrrd")
    if archived:
        with zipfile.ZipFile(folder / "scan.zip", "w") as packed:
            packed.write(scan_path, f"study/{scan_path.name}")
        scan_path = folder / "scan.zip"
    assert_bones(Case("a", "test", scan_path, path, None, folder), masks, tolerance=0.02)


FORMS_OF_NAMES = ("{}", "{}_L", "{} right", "Left {}", "{}_re", "{} (1)", "  {}")


@given(
    text=st.sampled_from([BONES, OTHERS]), data=st.data(), form=st.sampled_from(FORMS_OF_NAMES),
    separator=st.sampled_from("_ -."), case=st.sampled_from([str, str.upper, str.lower, str.title]),
)  # fmt: skip
def test_neither_side_nor_case_nor_separator_makes_or_unmakes_a_bone(
    text, data, form, separator, case
):
    name = data.draw(st.sampled_from(text.split()))
    assume(name.isascii() and name[0].isalpha() and not re.search("[a-z][A-Z]", name))
    written = form.format(case(name).replace("_", separator))
    assert labels.looks_like_bone(written) == (text == BONES)


@pytest.mark.parametrize("names", [("Skeleton", "Femur_L"), ("Femur_L", "Skeleton")])
def test_the_more_specific_bone_wins_in_any_order(tmp_path, scan, masks, parts, names):
    whole = masks[LEFT] | masks[FRONT]
    drawn = {name: masks[LEFT] if name == "Femur_L" else whole for name in names}
    path = write_seg(tmp_path / "seg.dcm", drawn)
    with pytest.warns(InputWarning, match="% of 'Skeleton' lie under more specific bones"):
        mask, found = labels.read_mask(path, scan)
    ids = {name: number for number, name in found.items()}
    inside = values(mask)
    np.testing.assert_array_equal(inside == ids["Femur_L"], parts[LEFT])
    np.testing.assert_array_equal(inside == ids["Skeleton"], parts[FRONT])


def test_a_smooth_mask_is_cut_at_half(tmp_path, make_image):
    scan = make_image(
        np.full((4, 40, 40), 500, np.int16) - 1500 * (np.arange(4) == 0)[:, None, None]
    )
    rows, columns = np.mgrid[:40, :40]
    distance = np.hypot(rows - 20, columns - 17)
    soft = np.clip(255 / (1 + np.exp(distance - 10)), 0, 255)
    path = save(make_image(np.stack([soft] * 4).astype(np.uint8)), tmp_path / "mask.nrrd")
    with pytest.warns(InputWarning, match="smooth, from 0 to 254; above half counts as bone"):
        mask, names = labels.read_mask(path, scan)
    assert names is None
    np.testing.assert_array_equal(values(mask)[0] > 0, distance < 10)


# DICOM SEG


def test_segmentation_of_another_grid_and_order_of_frames(tmp_path, scan, masks, parts):
    fine = {
        name: SimpleITK.Expand(mask, (2, 2, 1), SimpleITK.sitkNearestNeighbor)
        for name, mask in masks.items()
    }

    def shuffle(dataset):
        order = np.random.default_rng(0).permutation(dataset.NumberOfFrames)
        frames = [dataset.PerFrameFunctionalGroupsSequence[index] for index in order]
        pixels = dataset.pixel_array[order]
        dataset.PerFrameFunctionalGroupsSequence = frames
        dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()

    path = write_seg(tmp_path / "seg.dcm", fine, change=shuffle)
    mask, names = labels.read_mask(path, scan)
    found = values(mask)
    for number, name in names.items():
        np.testing.assert_array_equal(found == number, parts[name])


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
def test_fractions_up_to_a_half_are_out(tmp_path, scan, masks, parts, kind):
    shares = SimpleITK.Cast(masks[LEFT], SimpleITK.sitkFloat32) * 0.51
    shares += SimpleITK.Cast(masks[FRONT], SimpleITK.sitkFloat32) * 0.5
    path = write_seg(
        tmp_path / "seg.dcm", {"femur": shares}, "FRACTIONAL", fractional_type=kind,
        max_fractional_value=200,
    )  # fmt: skip
    np.testing.assert_array_equal(values(labels.read_mask(path, scan)[0]) > 0, parts[LEFT])


def test_a_segmentation_of_every_second_slice_covers_those_between(
    tmp_path, scan_folder, make_image, parts
):
    left = make_image(parts[LEFT][::2].astype(np.uint8), (10.0, 4.0, 4.0))
    left[:, :, 0] = 1 * left[:, :, 1]
    path = write_seg(tmp_path / "seg.dcm", {LEFT: left}, change=referring("1.2.3", "1.2.4"))
    mask, _ = labels.read_mask(path, scans.read_scan(scan_folder), scan_path=scan_folder)
    assert (values(mask) > 0).any(axis=(1, 2))[:5].all()


def test_segmentation_without_uids_and_with_odd_frames(tmp_path, make_image):
    """Frames of 5 x 7 pixels, of one bit each, do not end at whole bytes."""
    part = np.random.default_rng(2).integers(0, 2, (4, 5, 7)).astype(np.uint8)
    mask = make_image(part, SPACING_MM)

    def forget(dataset):
        del dataset.FrameOfReferenceUID, dataset.SeriesInstanceUID
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.pop("DerivationImageSequence", None)

    path = write_seg(tmp_path / "seg.dcm", {"femur": mask}, change=forget)
    np.testing.assert_array_equal(values(labels.read_mask(path, mask)[0]), part)


def test_a_segment_that_is_not_described_is_told(tmp_path, scan, masks):
    path = write_seg(
        tmp_path / "seg.dcm", masks, change=lambda dataset: dataset.SegmentSequence.pop()
    )
    mask, texts = told_by(labels.read_mask, path, scan)
    assert "segments that are drawn and not described, left out: 1" in texts
    assert len(mask[1] or [1]) == len(masks) - 1


def test_one_plane_without_a_thickness_is_refused(tmp_path, scan, masks):
    middle = masks[LEFT].GetDepth() // 2
    part = masks[LEFT][:, :, middle : middle + 1]

    def forget(dataset):
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        for name in ("SliceThickness", "SpacingBetweenSlices"):
            measures.pop(name, None)

    path = write_seg(tmp_path / "seg.dcm", {LEFT: part}, change=forget)
    assert "has one plane without a thickness" in refusal(path, scan)


def test_uneven_planes_are_refused(tmp_path, scan, masks):
    def shift(dataset):
        position = dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
        position.ImagePositionPatient[2] += 2

    path = write_seg(tmp_path / "seg.dcm", {LEFT: masks[LEFT]}, change=shift)
    assert "unevenly" in refusal(path, scan)


# What is no mask


def refusal(path, scan, bone_names=None, scan_path=None):
    return refusal_of(path, labels.read_mask, scan, bone_names, scan_path)


def test_files_and_folders_that_are_no_masks(tmp_path, scan, masks, ids, write_series, image_hu):
    assert "no such file" in refusal(tmp_path / "absent.nrrd", scan)
    (tmp_path / "mask.txt").write_text("1 2 3")
    assert "no mask" in refusal(tmp_path / "mask.txt", scan)
    ct = write_series(tmp_path / "ct", image_hu)
    assert "modality CT" in refusal(next(ct.iterdir()), scan)
    assert "no mask" in refusal(ct, scan)
    patterns = {1: "hip", "femur*": "femur"}
    assert "'femur*'" in refusal(save(ids, tmp_path / "ids.nrrd"), scan, patterns)
    folder = tmp_path / "masks"
    folder.mkdir()
    save(ids, folder / "femur.nrrd")
    assert "several ids" in refusal(folder, scan)
    Image.new("L", (8, 8)).save(folder / "page1.png")
    assert "1 volumes and 1 PNG" in refusal(folder, scan)
    two = tmp_path / "two"
    two.mkdir()
    for name in "ab":
        write_seg(two / f"{name}.dcm", masks)
    assert "2 DICOM" in refusal(two, scan)
    (two / "b.dcm").unlink()
    assert labels.read_mask(two, scan)[1] == {1: LEFT, 2: FRONT}


def test_pictures_that_are_no_masks(tmp_path, scan, ids, write_series, image_hu):
    scan_path = save(scan, tmp_path / "ct.nrrd")
    shown = values(ids)
    grey = np.random.default_rng(0).integers(0, 255, shown.shape).astype(np.uint8)
    for name, slices, words in (
        ("few", shown[:5], "5 pictures, the scan 6 slices"),
        ("narrow", shown[:, :, 1:].copy(), "71 x 64 pixels"),
        ("rgb", np.stack([shown] * 3, axis=-1), "in colour"),
        ("ct picture", grey, "shades of grey"),
    ):
        path = write_pictures(tmp_path / name, slices)
        assert words in refusal(path, scan, scan_path=scan_path)
    assert "name the scan" in refusal(tmp_path / "few", scan)
    whole = write_pictures(tmp_path / "whole", shown)
    unnumbered = write_series(
        tmp_path / "ct", image_hu, change=lambda file, _: setattr(file, "InstanceNumber", 1)
    )
    assert "no slice numbers" in refusal(whole, scan, scan_path=unnumbered)
    page = whole / "page3.png"
    page.write_bytes(page.read_bytes()[:-30])
    assert "page3.png" in refusal(whole, scan, scan_path=scan_path)


def damage_contour(*coordinates):
    def change(dataset):
        dataset.ROIContourSequence[0].ContourSequence[2].ContourData = list(coordinates)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage_contour(*["1"] * 10), "10 coordinates"),
        (damage_contour(*["nan"] * 12), "are no points in millimetres"),
        (damage_contour(*["1e30"] * 12), "are no points in millimetres"),
        (damage_contour(0, 0, 0, 0, 0, 40, 0, 40, 40, 0, 40, 0), "parallel planes"),
        (lambda dataset: delattr(dataset, "ROIContourSequence"), "no closed contours"),
        (lambda dataset: delattr(dataset, "StructureSetROISequence"), "damaged"),
        (lambda dataset: setattr(dataset, "StructureSetROISequence", []), "none"),
        (lambda dataset: setattr(dataset, "Modality", "RTDOSE"), "modality RTDOSE"),
        (lambda dataset: setattr(dataset, "Modality", "RT\n Doe^Jane"), "modality unknown"),
    ],
)
def test_damaged_structure_sets_are_refused(tmp_path, scan, masks, change, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = mask_writer("RTSTRUCT", tmp_path, {"femur": masks[LEFT]}, change)
    assert words in refusal(path, scan)


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_a_dicom_mask_cut_anywhere_is_refused(tmp_path, scan, masks, kind):
    def open_ended(dataset):
        if kind == "RTSTRUCT":
            dataset["ROIContourSequence"].is_undefined_length = True

    path = mask_writer(kind, tmp_path, masks, open_ended)
    whole = path.read_bytes()
    for length in np.random.default_rng(1).integers(200, len(whole) - 200, 15):
        path.write_bytes(whole[:length])
        refusal(path, scan)
