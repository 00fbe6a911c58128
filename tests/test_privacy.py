"""What identifies a patient in the input is in no output: not in files, not in what is printed."""

import io
import re
import shutil
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK

from bonelib import paths
from bonelib.__main__ import main

from .conftest import series_writer, trunk
from .mask_files import voxel_edges, write_seg, write_structure_set

SECRETS = {
    "PatientName": "Mustermann^Erika", "PatientID": "PID-4711-X", "PatientBirthDate": "19611103",
    "StudyDate": "20190817", "SeriesDate": "20190818", "AcquisitionDate": "20190819",
    "ContentDate": "20190820", "StudyTime": "134527.123", "AccessionNumber": "ACC998877",
    "StudyID": "ST554433", "InstitutionName": "Klinik Waldesruh", "StationName": "SCANNER77",
    "ReferringPhysicianName": "Zuweiser^Zacharias", "OperatorsName": "Opper^Otto",
    "SeriesDescription": "Becken Erika M", "StudyDescription": "Sturz 17.8.",
    "PatientComments": "wohnt im Birkenweg", "DeviceSerialNumber": "SN31415926",
    "FrameOfReferenceUID": "1.2.826.0.1.77777.1", "StudyInstanceUID": "1.2.826.0.1.77777.2",
    "SeriesInstanceUID": "1.2.826.0.1.77777.3", "ProtocolName": "Beckentrauma Prot 9",
}  # fmt: skip
FILE_SECRET = "mustermann_erika"  # part of the names of files below a series' folder
DATES = ("1961-11-03", "2019-08-17", "17.08.2019", "03.11.1961")


def forbidden():
    parts = [part for value in SECRETS.values() for part in re.split(r"[\^ ]", value)]
    return [word.lower() for word in (*parts, *DATES) if len(word) > 4]


def identify(file, index=0):
    for name, value in SECRETS.items():
        setattr(file, name, value)
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.77777.9.{index}"


def identify_another_series(file, index):
    identify(file, index)
    file.SeriesNumber = 9


def rename(folder):
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"{FILE_SECRET}_{path.name}.dcm"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three series, as DICOM with an RTSTRUCT, as DICOM with a SEG, and as a NIfTI, identified."""
    root = tmp_path_factory.mktemp("hospital")
    image_hu = trunk()
    mask = SimpleITK.GetImageFromArray((image_hu > 500).astype(np.uint8))
    mask.SetSpacing((4.0, 4.0, 5.0))
    mask.SetOrigin((-30.0, -40.0, 100.0))
    for series_id in ("a", "b"):
        series_writer(root / series_id / "ct", image_hu, (5, 4, 4), change=identify)
        rename(root / series_id / "ct")
    # Repairs and choices are told in notes: a second series, and a slice that is missing.
    series_writer(
        root / "a" / "ct" / "more", image_hu[:2], (5, 4, 4), change=identify_another_series
    )
    next(path for path in sorted((root / "b" / "ct").iterdir())
         if pydicom.dcmread(path).ImagePositionPatient[2] == 110).unlink()  # fmt: skip
    contours = {"Femur_L": voxel_edges(mask)}
    write_structure_set(root / "a" / "rt_erika.dcm", contours, change=identify)
    write_seg(root / "b" / "seg_erika.dcm", {"Femur_L": mask}, change=identify)
    (root / "c").mkdir()
    scan = SimpleITK.GetImageFromArray(image_hu)
    scan.CopyInformation(mask)
    scan.SetMetaData("descrip", SECRETS["PatientName"])
    scan.SetMetaData("aux_file", SECRETS["PatientID"])
    SimpleITK.WriteImage(scan, str(root / "c" / "ct.nii.gz"))
    SimpleITK.WriteImage(mask, str(root / "c" / "mask.nii.gz"))
    (root / "split.csv").write_text("series,split\na,train\nb,validation\nc,test\n")
    return root


def run(dataset, results):
    command = [
        sys.executable, str(paths.REPOSITORY / "run_all.py"), "--profile", "smoke", "--models",
        "unet", "--set", "epochs=1", "epochs_long=2", "steps_per_epoch=2", "--dataset", "folder",
        "--data", str(dataset), "--results", str(results),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def contents(path):
    """Yield what a file holds, unpacked where it is packed."""
    raw = path.read_bytes()
    yield raw
    if zipfile.is_zipfile(io.BytesIO(raw)):
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                yield name.encode() + packed.read(name)
    if raw.startswith(b"%PDF"):
        for stream in re.findall(rb"stream\r?\n(.*?)endstream", raw, re.DOTALL):
            yield zlib.decompressobj().decompress(stream)


def assert_silent(text, where, words):
    for word in words:
        assert word.encode() not in text.lower(), f"'{word}' in {where}"
        assert word.encode("utf-16-le") not in text.lower(), f"'{word}' in {where}"


def test_no_output_of_a_run_tells_who_the_patient_is(dataset, tmp_path):
    done = run(dataset, tmp_path / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    words = [*forbidden(), FILE_SECRET, "rt_erika", "seg_erika"]
    assert_silent((done.stdout + done.stderr).encode(), "what is printed", words)
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(files) > 60
    for path in files:
        assert_silent(str(path.relative_to(tmp_path)).encode(), "a file's name", words)
        for content in contents(path):
            assert_silent(content, path, words)
    described = next(tmp_path.rglob("dataset.json")).read_text()
    assert "left out: series" in described and "missing slices interpolated: 1" in described


def test_a_refusal_does_not_tell_it_either(dataset, tmp_path):
    """Only the file that is named may carry a name: that is for the user to mend."""
    hospital = tmp_path / "hospital"
    shutil.copytree(dataset, hospital)

    def other_patient(file, index):
        identify(file, index)
        file.PatientName, file.PatientID = "Zweite^Zora", "PID-0815-Y"

    series_writer(hospital / "a" / "ct" / "x", trunk(), change=other_patient)
    done = run(hospital, tmp_path / "results")
    assert done.returncode == 2, done.stdout
    assert "CT slices of 2 patients" in done.stdout
    words = [*forbidden(), "zweite", "zora", "pid-0815-y"]
    assert_silent((done.stdout + done.stderr).encode(), "what is printed", words)
    for path in (tmp_path / "results").rglob("*.*"):
        if path.is_file():
            for content in contents(path):
                assert_silent(content, path, words)


def test_commands_write_and_print_nothing_of_the_header(dataset, tmp_path, capsys):
    """The DICOM SEG, which needs some UIDs, is tested with its module."""
    for scan in ("a/ct", "b/ct", "c/ct.nii.gz"):
        kept = tmp_path / f"{scan[0]}.nrrd"
        assert main(["inspect", str(dataset / scan), "-o", str(kept)]) == 0
    assert main(["segment", str(dataset / "a" / "ct"), "-o", str(tmp_path / "made")]) == 0
    words = [*forbidden(), FILE_SECRET]
    assert_silent("".join(capsys.readouterr()).encode(), "what is printed", words)
    for path in tmp_path.rglob("*.*"):
        for content in contents(path):
            assert_silent(content, path, words)
