"""DICOM as it comes: several series and strays, every encoding, gaps, tilts and poses.

Repairs are held against a field whose HU are linear in space: linear interpolation reproduces
it exactly, so each voxel of a scan can be compared with the field at its own place.
"""

import shutil
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedCTImageStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bonelib.scans import open_scan, read_scan
from tests.mask_files import assert_same, refusal_of, told_by

values = SimpleITK.GetArrayFromImage


@pytest.fixture
def image_hu():
    return np.random.default_rng(1).integers(-1024, 2000, (5, 40, 36)).astype(np.int16)


def setting(number=None, **attributes):
    """A change of one file of a series, or of every one."""

    def change(file, index):
        if number in (None, index):
            for name, value in attributes.items():
                setattr(file, name, value)

    return change


def refusal(path, series=None):
    return refusal_of(path, read_scan, series)


def told(path, series=None):
    return told_by(read_scan, path, series)


# Values and order


def gdcm(folder):
    """Read a series with another library than the one under test."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.DICOMOrient(reader.Execute(), "LPS")


def sagittal(file, index):
    file.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    file.ImagePositionPatient = [10 + 5 * index, 0, 100]


@pytest.mark.parametrize("change", [None, sagittal])
def test_a_series_is_what_gdcm_reads(tmp_path, write_series, image_hu, change):
    folder = write_series(tmp_path / "ct", image_hu, change=change)
    scan = read_scan(folder)
    assert_same(scan, gdcm(folder))
    assert scan.GetPixelID() == SimpleITK.sitkInt16
    if change is None:
        np.testing.assert_array_equal(values(scan), image_hu)
        assert scan.GetSpacing() == (3, 2, 5)


def test_each_slice_has_its_own_rescaling(tmp_path, write_series, image_hu):
    def rescale(file, index):
        file.RescaleSlope, file.RescaleIntercept = 0.5 + index, -1024 - index

    scan = read_scan(write_series(tmp_path, image_hu, change=rescale))
    assert scan.GetPixelID() == SimpleITK.sitkFloat32
    for index, part in enumerate(image_hu):
        stored = part.astype(float) + 1024
        np.testing.assert_allclose(
            values(scan)[index], np.maximum(stored * (0.5 + index) - 1024 - index, -1024)
        )


def test_compressed_series_without_uids(shared_data):
    folder = shared_data / "abdomen_dicom" / "ct"
    scan = read_scan(folder)
    assert scan.GetSize() == (512, 512, 20)
    np.testing.assert_allclose(scan.GetSpacing(), (0.9765625, 0.9765625, 2))
    np.testing.assert_allclose(scan.GetOrigin(), (-249.51171875, -437.51171875, -804.5))
    files = sorted(folder.iterdir())
    for file in files[::6]:
        one = SimpleITK.ReadImage(str(file))
        index = round((one.GetOrigin()[2] + 804.5) / 2)
        np.testing.assert_array_equal(values(scan)[index], values(one)[0])


# Several series


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (slice(0, 3), setting(SeriesNumber=1)),  # shorter
        (slice(0, 5, 2), setting(SeriesNumber=1, SliceThickness=10)),  # thicker
        (slice(0, 5), setting(SeriesNumber=9)),  # as good, a higher number
        (slice(0, 5), setting(SeriesNumber=1, ImageType=["DERIVED", "SECONDARY", "MIP"])),
        (slice(0, 5), setting(SeriesNumber=1, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
    ],
)
def test_the_series_that_serves_best_is_chosen(tmp_path, write_series, image_hu, other, change):
    def place_slices(file, index):
        change(file, index)
        if file.ImageOrientationPatient[5] == -1:
            file.ImagePositionPatient = [-30, -40 + 5 * index, 100]
        elif file.SliceThickness == 10:
            file.ImagePositionPatient[2] = 100 + 10 * index

    write_series(tmp_path / "a", image_hu, change=setting(SeriesNumber=4))
    write_series(tmp_path / "b", image_hu[other] + 1, change=place_slices)
    scan, (text,) = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert text.startswith("series 4 (5 slices, 5.00 mm apart, axial) is read; left out: series ")


def test_a_series_can_be_named(tmp_path, write_series, image_hu):
    write_series(tmp_path / "a", image_hu, change=setting(SeriesNumber=4))
    write_series(tmp_path / "b", image_hu[:3], change=setting(SeriesNumber=7))
    uid = setting(SeriesNumber=7, SeriesInstanceUID="1.2.3.4")
    write_series(tmp_path / "c", image_hu[:2], change=uid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_scan(tmp_path, "4").GetSize()[2] == 5
        assert read_scan(tmp_path, "1.2.3.4").GetSize()[2] == 2
        assert {read_scan(tmp_path, name).GetSize()[2] for name in ("7a", "7b")} == {2, 3}
    assert "has no one series '5'; choose from series 4 (5 slices" in refusal(tmp_path, "5")


@pytest.mark.parametrize("uid", ["1.2.3.4", ""])
@pytest.mark.parametrize("offset_mm", [0, 2.5])
@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("AcquisitionNumber", (1, 2)),
        ("NominalPercentageOfCardiacPhase", (30, 70)),
        ("KVP", (80, 140)),
        ("EchoTime", (1, 2)),
        ("AcquisitionTime", ("120000", "120500")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "SECONDARY", "AXIAL"])),
    ],
)
def test_volumes_of_one_series_are_parted(
    tmp_path, write_series, image_hu, uid, offset_mm, name, attributes
):
    """With a UID of their own or none, at the same places or between each other's slices."""
    for number, value in enumerate(attributes):
        origin = (-30.0, -40.0, 100.0 + number * offset_mm)
        change = setting(SeriesInstanceUID=uid, SeriesNumber=3, **{name: value})
        own_hu = image_hu + np.int16(number)
        write_series(tmp_path / str(number), own_hu, origin=origin, change=change)
    if name == "AcquisitionNumber" and offset_mm:  # one regular stack, acquired in turns
        assert read_scan(tmp_path).GetSpacing()[2] == 2.5
        return
    for number, letter in enumerate("ab"):
        np.testing.assert_array_equal(values(read_scan(tmp_path, f"3{letter}")), image_hu + number)
    scan, (text,) = told(tmp_path)
    assert "series 3a" in text and "series 3b" in text
    np.testing.assert_array_equal(values(scan), image_hu)


@pytest.mark.parametrize("offset_mm", [0, 2.5])
@pytest.mark.parametrize("name", ["AcquisitionTime", "InstanceNumber"])
def test_volumes_are_parted_where_time_or_number_turns_back(
    tmp_path, write_series, image_hu, name, offset_mm
):
    for volume in range(2):

        def change(file, index, volume=volume):
            file.SeriesInstanceUID = ""
            setattr(file, name, str(120000 + 500 * volume + index))

        origin = (-30.0, -40.0, 100.0 + volume * offset_mm)
        own_hu = image_hu + np.int16(volume)
        write_series(tmp_path / str(volume), own_hu, origin=origin, change=change)
    scan, (text,) = told(tmp_path)
    assert "series ?a (5 slices" in text and "series ?b (5 slices" in text
    np.testing.assert_array_equal(values(scan), image_hu)


@pytest.mark.parametrize("distinct", [2, 5])
@pytest.mark.parametrize("uid", ["1.2.3", "", None])
def test_what_changes_from_slice_to_slice_parts_nothing(
    tmp_path, write_series, image_hu, distinct, uid
):
    def change(file, index):
        file.AcquisitionNumber, file.SliceThickness = index % distinct, 5 + 0.01 * (index * index)
        file.SeriesInstanceUID = f"1.2.{index}" if uid is None else uid  # one for each slice
        file.SOPInstanceUID, file.FilterType = "", "AB"[index // 5 % 2]
        file.PatientID = "4711" if index or not uid else ""
        del file.SeriesDescription, file.InstanceNumber

    whole_hu = np.concatenate([image_hu] * 4)
    folder = write_series(tmp_path, whole_hu, change=change)
    np.testing.assert_array_equal(values(read_scan(folder)), whole_hu)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "1 slice, IM017"),
        ({"Rows": 3, "PixelData": b"\x00" * 216}, "1 slice, IM017"),
        ({"PixelSpacing": [4, 4]}, "1 slice, IM017"),
        ({"ImagePositionPatient": [-30, -20, 110]}, "left out: IM017"),
        ({"ImagePositionPatient": [-30, -40, 900]}, "left out: IM017"),
        ({"NumberOfFrames": 2}, "1 damaged (IM017)"),
        ({"Modality": ""}, "1 of modality unknown (IM017)"),
        ({"PixelData": b"\x00" * 2000}, "1 damaged (IM017)"),  # cut short
        ({"PatientID": "4712"}, "1 slice of another patient (IM017)"),
    ],
)
def test_one_odd_file_is_passed_over_and_named(tmp_path, write_series, image_hu, odd, said):
    image_hu = np.stack([image_hu[0] + np.int16(index) for index in range(11)])

    def change(file, index):
        setting(PatientID="4711", RescaleType="Hounsfield")(file, index)
        setting(2, **odd)(file, index)

    scan, texts = told(write_series(tmp_path, image_hu, change=change))
    assert said in texts[0] and texts[1:] == ["missing slices interpolated: 1"]
    np.testing.assert_array_equal(values(scan), image_hu)


@pytest.mark.parametrize(
    "quantity", [{"RescaleType": "Z_EFF"}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CBF"]}]
)
def test_maps_of_other_quantities_are_no_scan(tmp_path, write_series, image_hu, quantity):
    write_series(tmp_path / "a", image_hu, change=setting(SeriesNumber=4))
    write_series(tmp_path / "b", image_hu, change=setting(SeriesNumber=1, **quantity))
    scan, (text,) = told(tmp_path)
    assert text.endswith("left out: 5 CT map of another quantity than HU")
    np.testing.assert_array_equal(values(scan), image_hu)


def test_strays_are_passed_over(tmp_path, write_series, image_hu):
    write_series(tmp_path, image_hu)
    (tmp_path / "notes.txt").write_text("notes")
    for name, stray in (
        ("structures", {"Modality": "RTSTRUCT"}),
        ("scout", {"ImageType": ["ORIGINAL", "LOCALIZER"]}),
        ("dose", {"ImagePositionPatient": None, "ImageOrientationPatient": None}),
    ):
        write_series(tmp_path / name, image_hu[:1], change=setting(**stray))
    scan, (text,) = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert text.endswith(
        "left out: 1 CT localizer, 1 CT picture without position, 1 not DICOM, "
        "1 of modality RTSTRUCT"
    )


# Encodings


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_slices(tmp_path, write_series, image_hu, syntax):
    write_series(tmp_path, image_hu)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(values(read_scan(tmp_path)), image_hu)


def test_files_without_preamble_and_with_implicit_types(tmp_path, write_series, image_hu):
    """As archives of the nineties wrote them."""
    write_series(tmp_path, image_hu)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        path.write_bytes(path.read_bytes()[132:])  # the preamble that pydicom writes
        assert path.read_bytes()[:2] == b"\x08\x00"
    np.testing.assert_array_equal(values(read_scan(tmp_path)), image_hu)


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_signed_and_unsigned_with_overlay_bits_above(
    tmp_path, write_series, image_hu, signed
):
    low, intercept = (-2048, 0) if signed else (0, -1024)
    stored = np.clip(image_hu.astype(int) - intercept, low, low + 4095)
    bits = (stored & 0xFFF) | 0x8000  # an overlay in the highest bit, as old scanners did

    def change(file, index):
        file.BitsStored, file.HighBit, file.PixelRepresentation = 12, 11, int(signed)
        file.RescaleIntercept = intercept
        file.PixelData = bits[index].astype("<u2").tobytes()

    scan = read_scan(write_series(tmp_path, image_hu, change=change))
    np.testing.assert_array_equal(values(scan), stored + intercept)


# One file of many slices


def write_enhanced(path, image_hu, order, shared_plane=True, kernels=1):
    """Write an enhanced CT whose frames are in the order given."""
    file = Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = EnhancedCTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.SeriesInstanceUID, file.SeriesNumber, file.Modality = generate_uid(), 5, "CT"
    file.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    file.NumberOfFrames, file.Rows, file.Columns = len(order), *image_hu.shape[1:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0

    def group(**attributes):
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        return Sequence([item])

    plane = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[2, 2], SliceThickness=5)
    if shared_plane:
        shared.PlaneOrientationSequence = plane
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, stored = [], []
    for number, place in enumerate(order):
        item = Dataset()
        item.CTReconstructionSequence = group(ConvolutionKernel=f"B{number % kernels}")
        item.PlanePositionSequence = group(ImagePositionPatient=[-30, -40, 100 + 5 * place])
        slope = 1 + place % 2  # each frame has its own rescaling
        item.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=-1024)
        if not shared_plane:
            item.PlaneOrientationSequence = plane
        frames.append(item)
        stored.append((image_hu[place].astype(int) + 1024) // slope)
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    file.PixelData = np.array(stored).astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("shared_plane", [True, False])
def test_enhanced_multi_frame(tmp_path, image_hu, shared_plane):
    image_hu = image_hu // 2 * 2
    path = write_enhanced(tmp_path / "enhanced.dcm", image_hu, [3, 1, 4, 0, 2], shared_plane)
    scan = read_scan(tmp_path if shared_plane else path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert scan.GetSpacing() == (2, 2, 5) and scan.GetOrigin() == (-30, -40, 100)
    numbers = [frame.number for frame in open_scan(path).frames]
    assert numbers == [3, 1, 4, 0, 2]  # where each place's frame is in the file


def test_kernels_in_one_enhanced_file_are_parted(tmp_path, image_hu):
    image_hu = image_hu // 2 * 2
    order = [place for place in range(5) for _ in "ab"]
    path = write_enhanced(tmp_path / "enhanced.dcm", image_hu, order, kernels=2)
    scan, (text,) = told(path)
    assert text.startswith(
        "series 5a (5 slices, 5.00 mm apart, axial) is read; left out: series 5b"
    )
    np.testing.assert_array_equal(values(scan), image_hu)
    assert [frame.index for frame in open_scan(path, "5b").frames] == [1, 3, 5, 7, 9]


# Disks, archives and rights


def test_a_dicomdir_stands_for_its_folder(tmp_path, write_series, image_hu):
    change = setting(
        PatientID="1", StudyID="1", StudyDate="20210101", StudyTime="120000", SeriesNumber=2
    )
    write_series(tmp_path / "one", image_hu, change=change)
    disk = FileSet()
    for path in sorted((tmp_path / "one").iterdir()):
        disk.add(pydicom.dcmread(path))
    disk.write(tmp_path / "disk")
    for source in (tmp_path / "disk" / "DICOMDIR", tmp_path / "disk"):
        scan, (text,) = told(source)
        np.testing.assert_array_equal(values(scan), image_hu)
        assert text.endswith("left out: 1 of modality unknown (DICOMDIR)")


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_of_a_series(tmp_path, write_series, image_hu, kind):
    write_series(tmp_path / "export" / "ct", image_hu)
    archive = shutil.make_archive(str(tmp_path / "scan"), kind, tmp_path, "export")
    stored = open_scan(archive)
    np.testing.assert_array_equal(values(stored.image), image_hu)
    assert [frame.position_mm[2] for frame in stored.frames] == [100, 105, 110, 115, 120]
    other = write_series(tmp_path / "mr", image_hu, change=setting(Modality="MR"))
    shutil.make_archive(str(tmp_path / "scan"), "zip", other)
    assert "no CT slices here (5 of modality MR)" in refusal(tmp_path / "scan.zip")


# Repairs

AIR_HU = -1024
SHAPE = (9, 14, 12)


def field_hu(points_mm):
    """HU at points (…, 3) in the patient's x, y, z: different along each axis and direction."""
    return points_mm @ np.array([4.0, -6.0, 5.0]) - 300


def place(scan):
    """The x, y, z in mm of every voxel, of shape (slice, row, column, 3)."""
    columns, rows, count = scan.GetSize()
    indices = np.stack(np.meshgrid(*map(np.arange, (count, rows, columns)), indexing="ij"), -1)
    axes = np.reshape(scan.GetDirection(), (3, 3)) * scan.GetSpacing()
    return indices[..., ::-1] @ axes.T + scan.GetOrigin()


def assert_field(scan, share=1.0):
    """Every voxel holds the field at its place, or is air that was added around.

    Beside added air, a voxel may hold that of its neighbour: interpolation ends there.
    """
    image_hu = values(scan)
    given = image_hu != AIR_HU
    inner = given if given.all() else ndimage.binary_erosion(given, np.ones((3, 3, 3)))
    right = np.abs(image_hu - field_hu(place(scan))) <= 2.0
    assert right[inner].all()
    assert inner.mean() >= share


@pytest.fixture
def write_field(tmp_path, write_series):
    """Write the field as DICOM slices whose geometry is given, and return the folder."""

    def write(positions_mm, row=(1, 0, 0), column=(0, 1, 0), spacing_mm=2.0, name="ct", **more):
        count, rows, columns = len(positions_mm), *SHAPE[1:]
        down, right = np.mgrid[:rows, :columns] * spacing_mm
        in_plane_mm = down[..., None] * np.array(column) + right[..., None] * np.array(row)
        image_hu = [field_hu(np.array(start) + in_plane_mm) for start in positions_mm]

        def change(file, index):
            file.ImagePositionPatient = [f"{value:.6f}" for value in positions_mm[index]]
            file.ImageOrientationPatient = [f"{value:.9f}" for value in (*row, *column)]
            file.InstanceNumber = index + 1
            for key, value in more.items():
                setattr(file, key, value)

        assert count == len(image_hu)
        spacings = (5, spacing_mm, spacing_mm)
        return write_series(tmp_path / name, np.rint(image_hu).astype(int), spacings, change=change)

    return write


def heights(*heights_mm):
    return [(-12.0, -13.0, height) for height in heights_mm]


@pytest.mark.parametrize(
    ("heights_mm", "count", "said"),
    [
        ((0, 5, 10, 20, 25, 30), 7, "missing slices interpolated: 1"),
        ((0, 2.5, 5, 7.5, 10, 12.5, 15, 20), 9, "missing slices interpolated: 1"),
        ((0, 5, 11, 15, 20, 26, 30), 7, "slice distances from 4.00 to 6.00 mm are resampled to 5"),
        ((0, 2, 4, 6, 11, 16, 21), 12, "slice distances from 2.00 to 5.00 mm are resampled to 1.9"),
        ((0, 7, 14, 21, 23, 25, 27), 15, "slice distances from 2.00 to 7.00 mm are resampled to 1"),
        ((0, 5, 5, 10, 15, 15, 20), 5, "duplicate slices dropped: 2"),
        ((0, 5, 10, 25, 30, 35), None, "2 slices are missing: 15.00 mm between "),
        ((0, 5, 10, 20, 25, 30, 40, 45, 50), None, "2 slices are missing, one at a time"),
    ],
)
def test_slices_that_are_uneven_or_missing_or_given_twice(write_field, heights_mm, count, said):
    folder = write_field(heights(*heights_mm))
    if count is None:
        assert said in refusal(folder)
        return
    scan, (text,) = told(folder)
    assert text.startswith(said)
    assert scan.GetSize()[2] == count
    assert_field(scan)


@pytest.mark.parametrize(
    ("positions_mm", "shift_mm"),
    [
        ([(-12.0 + 9 * index, -13.0, 5.0 * index) for index in range(6)], 45),
        ([(-12.0, -13.0 + 4 * (index == 3), 5.0 * index) for index in range(5)], 4),
    ],
)
def test_slices_beside_one_another_are_refused(write_field, positions_mm, shift_mm):
    assert f"shift sideways by up to {shift_mm}.0 mm, not as" in refusal(write_field(positions_mm))


@pytest.mark.parametrize(("degrees", "tag"), [(-25, {}), (8, {"GantryDetectorTilt": 8}), (20, {})])
def test_a_tilted_gantry_is_corrected(write_field, degrees, tag):
    tilt = np.radians(degrees)
    column = (0, np.cos(tilt), -np.sin(tilt))
    folder = write_field(heights(*range(0, 45, 5)), column=column, **tag)
    scan, texts = told(folder)
    assert texts == [f"the gantry's tilt of {abs(degrees):.1f} degrees is corrected"]
    np.testing.assert_allclose(scan.GetDirection(), np.eye(3).ravel(), atol=1e-9)
    np.testing.assert_allclose(scan.GetSpacing(), (2, 2, 5))
    assert_field(scan, share=0.4)


def test_a_straight_reformat_may_carry_the_tilt_of_its_source(write_field):
    """The same slices as a scanner's own are refused: where they lie, nobody could tell."""
    derived = {"GantryDetectorTilt": 18, "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}
    scan, texts = told(write_field(heights(*range(0, 45, 5)), **derived))
    assert not texts
    assert_field(scan)
    folder = write_field(heights(*range(0, 45, 5)), name="own", GantryDetectorTilt=18)
    assert "tilted by 18.0 degrees" in refusal(folder)


def test_rounded_cosines_are_no_tilt(write_field):
    row, column = (0.985, 0.174, 0.0), (-0.174, 0.985, 0.0)
    scan, texts = told(write_field(heights(*range(0, 45, 5)), row, column))
    assert not texts
    direction = np.reshape(scan.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    assert_field(scan)


def test_a_slice_that_lies_about_half_a_pixel_moves_nothing(write_field):
    positions = heights(*range(0, 45, 5))
    positions[0] = (-12.9, -13.0, 0.0)
    scan, texts = told(write_field(positions, name="first"))
    assert scan.GetOrigin() == pytest.approx((-12, -13, 0), abs=1e-6) and not texts
    positions = heights(0.4, *range(5, 45, 5))
    scan, _ = told(write_field(positions, name="lowest"))
    assert scan.GetSpacing()[2] == pytest.approx(5, abs=0.02)


POSES = {
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "feet first, seen from the feet": ((-1, 0, 0), (0, 1, 0)),
    "decubitus": ((0, 1, 0), (-1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}


@pytest.mark.parametrize("pose", POSES)
def test_every_pose_keeps_every_voxel_at_its_place(write_field, pose):
    row, column = np.array(POSES[pose], float)
    normal = -np.cross(row, column)
    scan, texts = told(write_field([normal * 5 * index for index in range(9)], row, column))
    assert not texts
    assert_field(scan)
    assert sorted(scan.GetSize()) == sorted((12, 14, 9))
    np.testing.assert_allclose(scan.GetDirection(), np.eye(3).ravel(), atol=1e-9)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(angles=st.tuples(*[st.integers(-180, 180)] * 3), distance_mm=st.sampled_from([1.5, 3, 5]))
def test_every_oblique_series_keeps_every_voxel_at_its_place(write_field, angles, distance_mm):
    row, column, normal = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    name = f"{angles}{distance_mm}"
    scan, texts = told(
        write_field([normal * distance_mm * i for i in range(9)], row, column, name=name)
    )
    turned = Rotation.from_matrix(np.reshape(scan.GetDirection(), (3, 3))).magnitude()
    assert turned < 0.5  # about 15 degrees round each axis stay
    assert not texts or (turned < 1e-6 and "are resampled to axial ones" in texts[0])
    assert_field(scan, share=0.05)
