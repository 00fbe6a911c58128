"""DICOM as it comes: several series and strays in a folder, every encoding, one file of many."""

import locale
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pydicom
import pytest
import SimpleITK
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

from bonelib.errors import InputError, InputWarning
from bonelib.scans import open_scan, read_scan

values = SimpleITK.GetArrayFromImage


@pytest.fixture
def image_hu():
    return np.random.default_rng(1).integers(-1024, 2000, (5, 40, 36)).astype(np.int16)


def setting(**attributes):
    """A change of every file of a series."""

    def change(file, index):
        for name, value in attributes.items():
            setattr(file, name, value)

    return change


def refusal(path, series=None):
    with pytest.raises(InputError) as caught:
        read_scan(path, series)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def told(path, series=None):
    """Read a scan and return it with the one warning that it gives."""
    with pytest.warns(InputWarning) as caught:
        scan = read_scan(path, series)
    (text,) = {str(warning.message) for warning in caught}
    assert str(path) not in text
    return scan, text


# Several series


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (slice(0, 3), setting(SeriesNumber=1)),  # shorter
        (slice(0, 5), setting(SeriesNumber=9)),  # as good, a higher number
        (slice(0, 5), setting(SeriesNumber=1, ImageType=["DERIVED", "SECONDARY", "MIP"])),
        (slice(0, 5), setting(SeriesNumber=1, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
    ],
)
def test_the_series_that_serves_best_is_chosen(tmp_path, write_series, image_hu, other, change):
    def coronal_positions(file, index):
        change(file, index)
        if file.ImageOrientationPatient[5] == -1:
            file.ImagePositionPatient = [-30, -40 + 5 * index, 100]

    write_series(tmp_path / "a", image_hu, change=setting(SeriesNumber=4))
    write_series(tmp_path / "b", image_hu[other] + 1, change=coronal_positions)
    scan, text = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert text.startswith("series 4 (5 slices, 5.00 mm apart, axial) is read; left out: series ")


def test_thin_slices_go_before_thick_ones_of_one_length(tmp_path, write_series, image_hu):
    write_series(tmp_path / "thick", image_hu[:3], (10, 2, 2), change=setting(SeriesNumber=1))
    write_series(tmp_path / "thin", image_hu, (5, 2, 2), change=setting(SeriesNumber=2))
    scan, _ = told(tmp_path)
    assert scan.GetSpacing()[2] == 5


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


def test_phases_that_share_a_uid_are_parted(tmp_path, write_series, image_hu):
    uid = generate_uid()
    for number, name in enumerate(("early", "late"), 1):
        change = setting(SeriesInstanceUID=uid, SeriesNumber=3, AcquisitionNumber=number)
        write_series(tmp_path / name, image_hu + np.int16(number), change=change)
    scan, text = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu + 1)
    assert "series 3a" in text and "series 3b" in text
    np.testing.assert_array_equal(values(read_scan(tmp_path, "3b")), image_hu + 2)


def test_reformats_that_share_a_uid_are_parted(tmp_path, write_series, image_hu):
    uid = generate_uid()

    def coronal(file, index):
        file.SeriesInstanceUID = uid
        file.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        file.ImagePositionPatient = [-30, -40 + 5 * index, 100]

    write_series(tmp_path / "a", image_hu, change=setting(SeriesInstanceUID=uid))
    write_series(tmp_path / "b", image_hu, change=coronal)
    scan, _ = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu)


def test_strays_are_passed_over(tmp_path, write_series, image_hu):
    write_series(tmp_path, image_hu)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(300))
    for number, modality in enumerate(("SR", "RTSTRUCT", "SEG", "PR", "MR", "OT")):
        change = setting(Modality=modality, SeriesNumber=50 + number)
        write_series(tmp_path / modality, image_hu[:1], change=change)
    write_series(
        tmp_path / "scout", image_hu[:1], change=setting(ImageType=["ORIGINAL", "LOCALIZER"])
    )
    dose_report = setting(ImagePositionPatient=None, ImageOrientationPatient=None)
    write_series(tmp_path / "dose", image_hu[:1], change=dose_report)
    scan, text = told(tmp_path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert text.endswith(
        "left out: 1 CT localizer, 1 CT picture without position, 2 not DICOM, 1 of modality MR, "
        "1 of modality OT, 1 of modality PR, 1 of modality RTSTRUCT, 1 of modality SEG, "
        "1 of modality SR"
    )


def test_without_any_uid_a_series_is_one(tmp_path, write_series, image_hu):
    def strip(file, index):
        file.SeriesInstanceUID = file.StudyInstanceUID = file.SOPInstanceUID = ""
        del file.SeriesDescription, file.InstanceNumber

    folder = write_series(tmp_path, image_hu, change=strip)
    np.testing.assert_array_equal(values(read_scan(folder)), image_hu)


def test_two_patients_in_a_folder_are_refused_without_naming_them(tmp_path, write_series, image_hu):
    for name in ("Alpha^Anna", "Beta^Bert"):
        change = setting(PatientName=name, PatientID=name[:2], SeriesNumber=ord(name[0]))
        write_series(tmp_path / name[:1], image_hu, change=change)
    message = refusal(tmp_path)
    assert "CT slices of 2 patients" in message
    assert "Alpha" not in message and "Beta" not in message
    assert read_scan(tmp_path, str(ord("A"))).GetSize()[2] == 5


def test_a_name_that_is_spelt_in_two_ways_is_one_patient(tmp_path, write_series, image_hu):
    def spell(file, index):
        file.PatientID, file.PatientName = "4711", "Alpha^Anna" if index % 2 else ""

    scan = read_scan(write_series(tmp_path, image_hu, change=spell))
    np.testing.assert_array_equal(values(scan), image_hu)


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


def test_jpeg_lossless_written_by_gdcm(tmp_path, image_hu):
    """Process 14, the most frequent encoding of older archives."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    uid = generate_uid()
    spoken = locale.setlocale(locale.LC_ALL)
    for index, part in enumerate(image_hu):
        image = SimpleITK.GetImageFromArray(part)
        image.SetMetaData("0008|0060", "CT")
        image.SetMetaData("0020|000e", uid)
        image.SetMetaData("0020|0032", f"0\\0\\{5 * index}")
        image.SetMetaData("0020|0037", "1\\0\\0\\0\\1\\0")
        writer.SetFileName(str(tmp_path / f"{index}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, spoken)  # GDCM's writer sets another for the whole process
    syntax = pydicom.dcmread(tmp_path / "0.dcm").file_meta.TransferSyntaxUID
    assert syntax == "1.2.840.10008.1.2.4.70"
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


def test_metal_beyond_3071_hu_is_kept(tmp_path, write_series, image_hu):
    image_hu[2, 5:8, 5:8] = 30_000
    np.testing.assert_array_equal(values(read_scan(write_series(tmp_path, image_hu))), image_hu)


@pytest.mark.parametrize(("padding", "limit"), [(-2000, None), (-2010, -1990)])
def test_padding_becomes_air(tmp_path, write_series, image_hu, padding, limit):
    """As one scanner fills what lies outside of its circle, beside signed pixels."""

    def pad(file, index):
        stored = image_hu[index].astype("<i2")
        stored[:3, :3] = padding
        stored[0, 0] = limit or padding
        file.PixelRepresentation, file.RescaleIntercept = 1, 0
        file.add_new("PixelPaddingValue", "SS", padding)
        if limit:
            file.add_new("PixelPaddingRangeLimit", "SS", limit)
        file.PixelData = stored.tobytes()

    image_hu[:, :3, :3] = -1024
    scan = read_scan(write_series(tmp_path, image_hu, change=pad))
    np.testing.assert_array_equal(values(scan), image_hu)


def test_a_padding_value_that_tissue_has_is_a_mistake(tmp_path, write_series, image_hu):
    image_hu[:, 4:8, 4:8] = 40
    change = setting(PixelPaddingValue=1064)  # 40 HU
    scan = read_scan(write_series(tmp_path, image_hu, change=change))
    np.testing.assert_array_equal(values(scan), image_hu)


# One file of many slices


def write_enhanced(path, image_hu, order, shared_plane=True):
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
    for place in order:
        item = Dataset()
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
@pytest.mark.parametrize("as_folder", [True, False])
def test_enhanced_multi_frame(tmp_path, image_hu, shared_plane, as_folder):
    image_hu = image_hu // 2 * 2
    path = write_enhanced(tmp_path / "enhanced.dcm", image_hu, [3, 1, 4, 0, 2], shared_plane)
    scan = read_scan(tmp_path if as_folder else path)
    np.testing.assert_array_equal(values(scan), image_hu)
    assert scan.GetSpacing() == (2, 2, 5) and scan.GetOrigin() == (-30, -40, 100)
    numbers = [frame.number for frame in open_scan(path).frames]
    assert numbers == [3, 1, 4, 0, 2]  # where each place's frame is in the file


# Disks and archives

FOR_A_DISK = setting(
    PatientID="1", StudyID="1", StudyDate="20210101", StudyTime="120000", SeriesNumber=2
)


def test_a_dicomdir(tmp_path, write_series, image_hu):
    write_series(tmp_path / "one", image_hu, change=FOR_A_DISK)
    disk = FileSet()
    for path in sorted((tmp_path / "one").iterdir()):
        disk.add(pydicom.dcmread(path))
    disk.write(tmp_path / "disk")
    write_series(tmp_path / "disk" / "STRAY", image_hu, change=setting(SeriesNumber=1))
    np.testing.assert_array_equal(values(read_scan(tmp_path / "disk" / "DICOMDIR")), image_hu)
    shutil.rmtree(tmp_path / "disk" / "STRAY")
    scan, text = told(tmp_path / "disk")
    np.testing.assert_array_equal(values(scan), image_hu)
    assert text.endswith("left out: 1 of modality unknown")
    next(path for path in (tmp_path / "disk").rglob("IM*") if path.is_file()).unlink()
    with pytest.warns(InputWarning, match="1 files listed in the DICOMDIR are missing"):
        read_scan(tmp_path / "disk" / "DICOMDIR")


def test_a_dicomdir_that_points_elsewhere_is_refused(tmp_path, write_series, image_hu):
    write_series(tmp_path / "one", image_hu[:2], change=FOR_A_DISK)
    disk = FileSet()
    disk.add(pydicom.dcmread(next((tmp_path / "one").iterdir())))
    disk.write(tmp_path / "disk")
    path = tmp_path / "disk" / "DICOMDIR"
    records = pydicom.dcmread(path)
    records.DirectoryRecordSequence[-1].ReferencedFileID = ["..", "one", "IM003"]
    records.save_as(path)
    assert "points out of its folder" in refusal(path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_of_a_series(tmp_path, write_series, image_hu, kind):
    folder = write_series(tmp_path / "export" / "ct", image_hu)
    archive = tmp_path / f"scan.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in folder.iterdir():
                packed.write(path, f"export/ct/{path.name}")
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as packed:
            packed.add(folder, "export")
    np.testing.assert_array_equal(values(read_scan(archive)), image_hu)
    frames = open_scan(archive).frames
    assert [frame.position_mm[2] for frame in frames] == [100, 105, 110, 115, 120]
    assert all(frame.header.Modality == "CT" for frame in frames)


def test_an_archive_of_a_volume_and_one_of_two(tmp_path, make_image, image_hu):
    SimpleITK.WriteImage(make_image(image_hu), str(tmp_path / "a.nii.gz"))
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as packed:
        packed.write(tmp_path / "a.nii.gz", "deep/a.nii.gz")
    np.testing.assert_array_equal(values(read_scan(tmp_path / "one.zip")), image_hu)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as packed:
        packed.write(tmp_path / "a.nii.gz", "a.nii.gz")
        packed.write(tmp_path / "a.nii.gz", "b.nii.gz")
    assert "holds 2 volumes (a.nii.gz, b.nii.gz)" in refusal(tmp_path / "two.zip")


def test_a_refusal_within_an_archive_names_the_archive(tmp_path, write_series, image_hu):
    folder = write_series(tmp_path / "ct", image_hu, change=setting(Modality="MR"))
    shutil.make_archive(str(tmp_path / "scan"), "zip", folder)
    assert "no CT slices here (5 of modality MR)" in refusal(tmp_path / "scan.zip")


def test_a_folder_without_rights_is_refused(tmp_path, write_series, image_hu, monkeypatch):
    folder = write_series(tmp_path, image_hu)
    import os

    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    assert "cannot be read (Permission denied); check its rights" in refusal(folder)
