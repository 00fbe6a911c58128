"""A data set full of what identifies a patient, and a check that none of it gets out."""

import io
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK

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
DATES = ("1961-11-03", "2019-08-17", "17.08.2019", "03.11.1961")
FILES = ("mustermann_erika", "rt_erika", "seg_erika")  # parts of names of files
SECOND = {"PatientName": "Zweite^Zora", "PatientID": "PID-0815-Y"}  # another patient


def identify(file, index=0):
    """Write the secrets into a DICOM file."""
    for name, value in SECRETS.items():
        setattr(file, name, value)
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.77777.9.{index}"


def write_second_patient(folder):
    """Write a series of another patient."""

    def change(file, index):
        identify(file, index)
        file.PatientName, file.PatientID = SECOND.values()

    series_writer(folder, trunk(), change=change)


def write_hospital(root: Path) -> Path:
    """Write three series: DICOM with an RTSTRUCT, DICOM with a SEG, and a NIfTI.

    Repairs and choices make notes: a second series, and a slice that is missing.
    """

    def identify_another_series(file, index):
        identify(file, index)
        file.SeriesNumber = 9

    image_hu = trunk()
    mask = SimpleITK.GetImageFromArray((image_hu > 500).astype(np.uint8))
    mask.SetSpacing((4.0, 4.0, 5.0))
    mask.SetOrigin((-30.0, -40.0, 100.0))
    for series_id in ("a", "b"):
        folder = series_writer(root / series_id / "ct", image_hu, (5, 4, 4), change=identify)
        for path in list(folder.iterdir()):
            path.rename(path.with_name(f"{FILES[0]}_{path.name}.dcm"))
    more = root / "a" / "ct" / "more"
    series_writer(more, image_hu[:2], (5, 4, 4), change=identify_another_series)
    next(path for path in sorted((root / "b" / "ct").iterdir())
         if pydicom.dcmread(path).ImagePositionPatient[2] == 110).unlink()  # fmt: skip
    contours = {"Femur_L": voxel_edges(mask)}
    write_structure_set(root / "a" / f"{FILES[1]}.dcm", contours, change=identify)
    write_seg(root / "b" / f"{FILES[2]}.dcm", {"Femur_L": mask}, change=identify)
    (root / "c").mkdir()
    scan = SimpleITK.GetImageFromArray(image_hu)
    scan.CopyInformation(mask)
    scan.SetMetaData("descrip", SECRETS["PatientName"])
    scan.SetMetaData("aux_file", SECRETS["PatientID"])
    SimpleITK.WriteImage(scan, str(root / "c" / "ct.nii.gz"))
    SimpleITK.WriteImage(mask, str(root / "c" / "mask.nii.gz"))
    (root / "split.csv").write_text("series,split\na,train\nb,validation\nc,test\n")
    return root


def contents(path: Path):
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


def assert_silent(printed: str, folder: Path, but=(), more=()) -> None:
    """Assert that neither what was printed nor a file's name or content tells a secret.

    `but` are secrets that may be told, `more` further ones in small letters.
    """
    values = {*SECRETS.values(), *SECOND.values()} - {*but}
    parts = [part for value in values for part in re.split(r"[\^ ]", value)]
    words = [word.lower() for word in (*parts, *DATES, *FILES) if len(word) > 4] + [*more]
    encoded = [word.encode(name) for word in words for name in ("utf-8", "utf-16-le")]
    secret = re.compile(b"|".join(map(re.escape, encoded)))
    texts = [("what is printed", printed.encode())]
    for path in folder.rglob("*"):
        texts.append(("a file's name", str(path.relative_to(folder)).encode()))
        if path.is_file():
            texts += [(path, content) for content in contents(path)]
    for where, text in texts:
        assert not (found := secret.search(text.lower())), f"{found} in {where}"
