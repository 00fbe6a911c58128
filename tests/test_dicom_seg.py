"""DICOM SEG: every pixel in its place, for every kind of series, and no patient's name."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import generate_uid

from bonelib import labels, scans
from bonelib.segment import dicom_seg
from bonelib.settings import RESEARCH_ONLY

from .hospital import SECRETS, assert_silent, identify
from .test_dicom import write_enhanced

NAMES = {2: "bone", 5: "femur_left", 7: "hip_right"}
SHAPE = (6, 24, 20)
SPACING_MM = (5.0, 2.0, 3.0)
ORIGIN_MM = (-30.0, -40.0, 100.0)

values = SimpleITK.GetArrayFromImage


def write(path, source, bones, names=NAMES, series=None):
    dicom_seg.write_dicom_seg(path, scans.open_scan(source, series).frames, bones, names)


def placed(file, index=0):
    """Give a slice what a reference needs."""
    file.FrameOfReferenceUID = "1.2.840.99.1"


@pytest.fixture
def write_ct(tmp_path, write_series):
    """Write a series with a frame of reference; `change` as for `write_series`."""

    def write_one(name="ct", shape=SHAPE, change=None):
        def both(file, index):
            placed(file)
            if change:
                change(file, index)

        return write_series(tmp_path / name, np.full(shape, -1000), SPACING_MM, change=both)

    return write_one


def ids_on(size, spacing_mm, origin_mm, seed=0):
    """Ids at random, 3 and 8 among them without a name, on a grid of x, y, z."""
    array = (
        np.random.default_rng(seed).choice([0, 0, 1, 2, 3, 5, 7, 8], size[::-1]).astype(np.uint8)
    )
    mask = SimpleITK.GetImageFromArray(array)
    mask.SetSpacing(spacing_mm)
    mask.SetOrigin(origin_mm)
    return mask


def scan_ids():
    """Ids on the grid of what `write_ct` writes."""
    return ids_on(SHAPE[::-1], SPACING_MM[::-1], ORIGIN_MM)


def patient_ids():
    """Ids on a grid that has nothing to do with the scan's, around its place."""
    return ids_on((40, 44, 30), (2.3, 1.9, 2.1), (-41.13, -52.17, 87.71))


def nearest(mask, points_mm):
    """The ids at points (…, 3), without ITK: the voxel whose middle is nearest, 0 outside."""
    index = np.rint((points_mm - mask.GetOrigin()) / mask.GetSpacing()).astype(int)
    inside = ((index >= 0) & (index < mask.GetSize())).all(-1)
    x, y, z = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
    return np.where(inside, values(mask)[z, y, x], 0)


def pixels_mm(position, orientation, spacing_mm, shape):
    """The place of every pixel of a picture, of shape (row, column, 3)."""
    row, column = np.reshape(np.array(orientation, float), (2, 3))
    down, right = np.mgrid[: shape[0], : shape[1]]
    steps = down[..., None] * column * float(spacing_mm[0])
    return np.array(position, float) + steps + right[..., None] * row * float(spacing_mm[1])


def source_pictures(folder):
    """The place of every pixel of each slice in a folder, by SOP instance and frame."""
    pictures = {}
    for file in map(pydicom.dcmread, scans.source_files(folder)):
        shape, uid = (file.Rows, file.Columns), file.SOPInstanceUID
        if "PerFrameFunctionalGroupsSequence" not in file:
            place = (file.ImagePositionPatient, file.ImageOrientationPatient, file.PixelSpacing)
            pictures[uid, None] = pixels_mm(*place, shape)
            continue
        shared = file.SharedFunctionalGroupsSequence[0]
        for number, frame in enumerate(file.PerFrameFunctionalGroupsSequence, start=1):
            plane = frame if "PlaneOrientationSequence" in frame else shared
            pictures[uid, number] = pixels_mm(
                frame.PlanePositionSequence[0].ImagePositionPatient,
                plane.PlaneOrientationSequence[0].ImageOrientationPatient,
                shared.PixelMeasuresSequence[0].PixelSpacing,
                shape,
            )
    return pictures


def drawn(path):
    """The pixels of a SEG by label, SOP instance and frame of the source, and their places."""
    seg = pydicom.dcmread(path)
    labels_by_number = {item.SegmentNumber: item.SegmentLabel for item in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    pictures = {}
    for frame, pixels in zip(
        seg.PerFrameFunctionalGroupsSequence,
        seg.pixel_array.reshape(-1, seg.Rows, seg.Columns),
        strict=True,
    ):
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        chosen = frame if "SegmentIdentificationSequence" in frame else shared
        number = chosen.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        key = source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")
        places_mm = pixels_mm(
            frame.PlanePositionSequence[0].ImagePositionPatient,
            shared.PlaneOrientationSequence[0].ImageOrientationPatient,
            shared.PixelMeasuresSequence[0].PixelSpacing,
            pixels.shape,
        )
        pictures[labels_by_number[number], *key] = pixels, places_mm
    return pictures


def assert_drawn(path, folder, mask, names=NAMES):
    """Every slice shows exactly the ids at its pixels' places; empty ones are left out."""
    found = drawn(path)
    for source, places_mm in source_pictures(folder).items():
        ids = nearest(mask, places_mm)
        for number, name in names.items():
            if not (ids == number).any():
                assert (name, *source) not in found
                continue
            pixels, drawn_mm = found.pop((name, *source))
            np.testing.assert_array_equal(pixels, ids == number)
            np.testing.assert_allclose(drawn_mm, places_mm, atol=1e-6)
    assert not found


# Every pixel at its place


@pytest.mark.parametrize("ids", [scan_ids, patient_ids])
def test_each_slice_shows_the_ids_at_its_place(tmp_path, write_ct, ids):
    folder, path = write_ct(), tmp_path / "out" / "seg.dcm"
    write(path, folder, ids())
    assert_drawn(path, folder, ids())
    assert [file.name for file in path.parent.iterdir()] == ["seg.dcm"]


def test_the_own_reader_reads_it_back(tmp_path, write_ct):
    folder = write_ct()
    scan = scans.read_scan(folder)
    write(tmp_path / "seg.dcm", folder, scan_ids())
    mask, names = labels.read_mask(tmp_path / "seg.dcm", scan)
    assert sorted(names.values()) == ["bone", "femur_left", "hip_right"]
    ids = values(labels.on_grid(mask, scan))
    for number, name in NAMES.items():
        if name in names.values():
            (segment,) = (key for key, value in names.items() if value == name)
            np.testing.assert_array_equal(ids == segment, values(scan_ids()) == number)


TILT = np.radians(12)


@pytest.mark.parametrize(
    ("orientation", "step_mm"),
    [
        ((1, 0, 0, 0, np.cos(TILT), -np.sin(TILT)), (0, 0, 5)),  # a gantry's tilt
        ((np.cos(TILT), np.sin(TILT), 0, -np.sin(TILT), np.cos(TILT), 0), (0, 0, 5)),
        ((-1, 0, 0, 0, -1, 0), (0, 0, 5)),  # upside down
        ((1, 0, 0, 0, 1, 0), (0, 0, -5)),  # head first in the files
        ((0, 1, 0, 0, 0, -1), (5, 0, 0)),  # sagittal
        ((0.8, 0, 0.6, 0, 1, 0), (-3, 0, 4)),  # oblique
    ],
)
def test_slices_of_any_direction(tmp_path, write_ct, orientation, step_mm):
    def turn(file, index):
        position = np.array((-20.0, -30.0, 110.0)) + index * np.array(step_mm)
        file.ImagePositionPatient = [f"{value:.6f}" for value in position]
        file.ImageOrientationPatient = [f"{value:.9f}" for value in orientation]

    folder = write_ct(change=turn)
    write(tmp_path / "seg.dcm", folder, patient_ids())
    assert_drawn(tmp_path / "seg.dcm", folder, patient_ids())


def test_a_missing_slice_and_an_uneven_one_and_one_given_twice(tmp_path, write_ct):
    folder = write_ct(shape=(9, *SHAPE[1:]))
    files = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    files[4].unlink()
    twice = pydicom.dcmread(files[2])
    twice.SOPInstanceUID = twice.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    twice.save_as(folder / "twice")
    write(tmp_path / "seg.dcm", folder, patient_ids())
    used = {uid for _, uid, _ in drawn(tmp_path / "seg.dcm")}
    assert len(used) == 8
    for file in list(folder.iterdir()):
        if pydicom.dcmread(file).SOPInstanceUID not in used:
            file.unlink()
    assert_drawn(tmp_path / "seg.dcm", folder, patient_ids())


# Files of many frames


@pytest.fixture
def write_frames(tmp_path):
    """Write an enhanced CT with what a reference needs; `change(file)` may alter it."""

    def write_one(name, order, change=None, **more):
        (tmp_path / "enhanced").mkdir(exist_ok=True)
        path = tmp_path / "enhanced" / name
        write_enhanced(path, np.full((12, 24, 20), -1000, np.int16), order, **more)
        file = pydicom.dcmread(path)
        placed(file)
        file.StudyInstanceUID, file.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        if change:
            change(file)
        file.save_as(path)
        return path

    return write_one


@pytest.mark.parametrize("shared_plane", [True, False])
def test_frames_of_one_file_in_any_order(tmp_path, write_frames, shared_plane):
    source = write_frames("a.dcm", [3, 1, 4, 0, 2], shared_plane=shared_plane)
    write(tmp_path / "seg.dcm", source, patient_ids())
    assert_drawn(tmp_path / "seg.dcm", source, patient_ids())


def test_frames_of_another_phase_in_the_same_file_are_not_referred_to(tmp_path, write_frames):
    def part(file):
        for index, frame in enumerate(file.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence = [pydicom.Dataset()]
            frame.FrameContentSequence[0].TemporalPositionIndex = 1 + index % 2

    source = write_frames("a.dcm", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], part)
    write(tmp_path / "seg.dcm", source, patient_ids(), series="5b")
    assert {frame for _, _, frame in drawn(tmp_path / "seg.dcm")} == {2, 4, 6, 8, 10}
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(seg.SourceImageSequence) == 1
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == (
        pydicom.dcmread(source).SOPInstanceUID
    )


# What it says


def test_segments_are_coded(tmp_path, write_ct):
    """Codes as SNOMED CT has them, by hand."""
    names = {1: "bone", 2: "bone_left_1", 3: "lowest_vertebra", 5: "femur_left", 7: "rib_right_3"}
    names |= {8: "hip_right", 9: "sacrum"}  # 9 has no voxel, so it is no segment
    write(tmp_path / "seg.dcm", write_ct(), scan_ids(), names)
    told = {}
    for segment in highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        sides = kind.get("SegmentedPropertyTypeModifierCodeSequence") or []
        told[segment.SegmentLabel] = kind.CodeValue, [side.CodeValue for side in sides]
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == "bonelib"
        assert len(segment.RecommendedDisplayCIELabValue) == 3
    assert told == {
        "bone": ("3138006", []),
        "bone_left_1": ("272673000", ["7771000"]),
        "lowest_vertebra": ("51282000", []),
        "femur_left": ("71341001", ["7771000"]),
        "rib_right_3": ("272673000", ["24028007"]),
        "hip_right": ("29836001", ["24028007"]),
    }


# Whose it is


def with_private_data(file, index):
    identify(file, index)
    file.private_block(0x0009, "BONELIB TEST", create=True).add_new(1, "LO", "Mustermann privat")
    file.PatientAge, file.OtherPatientIDs = "058Y", "Waldesruh-4711"


UIDS = {value for name, value in SECRETS.items() if name.endswith("UID")}


def test_nobody_is_named_in_it(tmp_path, write_ct):
    folder = write_ct(change=with_private_data)
    path = tmp_path / "made" / "seg.dcm"
    path.parent.mkdir()
    write(path, folder, scan_ids())
    assert_silent("", path.parent, but=UIDS, more=["waldesruh-4711", "058y", "privat"])
    seg = pydicom.dcmread(path)
    assert seg.PatientIdentityRemoved == "YES" and seg.DeidentificationMethod
    assert RESEARCH_ONLY in seg.ContentDescription and RESEARCH_ONLY in seg.SeriesDescription
    assert seg.StudyInstanceUID == SECRETS["StudyInstanceUID"]
    assert seg.FrameOfReferenceUID == SECRETS["FrameOfReferenceUID"]
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == SECRETS["SeriesInstanceUID"]


# What is refused


def refusal(path, source, bones=None):
    with pytest.raises(ValueError) as caught:
        write(path, source, scan_ids() if bones is None else bones)
    assert "\n" not in str(caught.value) and not path.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FrameOfReferenceUID", None, "the same valid FrameOfReferenceUID"),
        ("SeriesInstanceUID", "1.2.three", "the same valid SeriesInstanceUID"),
        ("FrameOfReferenceUID", "1.2.{}", "the same valid FrameOfReferenceUID"),
        ("SOPInstanceUID", "", "a different valid SOPInstanceUID"),
        ("SOPInstanceUID", "1.2.77", "a different valid SOPInstanceUID"),
    ],
)
def test_slices_that_cannot_be_referred_to_by_their_uids(tmp_path, write_ct, name, value, told):
    def spoil(file, index):
        if value is None:
            delattr(file, name)
        else:
            uid = value.format(index + 1)
            file[name] = pydicom.DataElement(name, "UI", uid, validation_mode=0)

    refused = refusal(tmp_path / "seg.dcm", write_ct(change=spoil))
    assert refused == f"not every slice has {told}"


def test_several_multi_frame_files_are_refused(tmp_path, write_frames):
    write_frames("a.dcm", [3, 1, 4, 0, 2])
    folder = write_frames("b.dcm", [6, 5, 7, 8]).parent
    assert "several multi-frame files" in refusal(tmp_path / "seg.dcm", folder)


def test_without_a_bone_nothing_is_written(tmp_path, write_ct):
    assert refusal(tmp_path / "seg.dcm", write_ct(), scan_ids() * 0) == "no slice shows a bone"


# A scanner's own files


def test_a_real_series(shared_data, tmp_path):
    """Its UIDs are empty, as it was published: refused; filled in, all labels come back."""
    source = shared_data / "abdomen_dicom"
    mask = SimpleITK.ReadImage(str(source / "labels.nii.gz"))
    bones = {number: f"vertebra_{number}" for number in range(25, 51)}
    bones |= {number: f"bone_{number}" for number in (69, 70, *range(92, 116))}
    assert "valid S" in refusal(tmp_path / "seg.dcm", source / "ct", mask)
    folder = tmp_path / "ct"
    folder.mkdir()
    for index, path in enumerate(sorted((source / "ct").iterdir())):
        file = pydicom.dcmread(path)
        file.SOPClassUID, file.SeriesInstanceUID = pydicom.uid.CTImageStorage, "1.2.77"
        file.SOPInstanceUID = f"1.2.77.{index + 1}"
        file.StudyInstanceUID, file.FrameOfReferenceUID = "1.2.78", "1.2.79"
        file.save_as(folder / path.name)
    write(tmp_path / "seg.dcm", folder, mask, bones)
    scan = scans.read_scan(folder)
    read, names = labels.read_mask(tmp_path / "seg.dcm", scan)
    ids, wanted = values(labels.on_grid(read, scan)), values(labels.on_grid(mask, scan))
    assert len(names) >= 10
    for number, name in names.items():
        (label,) = (key for key, value in bones.items() if value == name)
        np.testing.assert_array_equal(ids == number, wanted == label)
