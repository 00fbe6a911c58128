"""Fixtures that several modules' tests share."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# They take minutes and start first: a worker that began with one of them last would end alone.
LONGEST = (
    "test_cluster", "test_run_all", "test_backends", "test_browser", "test_headless",
    "test_commands", "test_training", "test_segment", "test_bones", "test_dicom_seg",
    "test_pretraining", "test_figures", "test_models",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the longest modules first, the others as they come."""
    rank = {f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real scans, which lies beside the repository where it is lent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real scans is absent")
    return SHARED_DATA


def image_of(array, spacing_mm=(5.0, 2.0, 2.0), origin=(-30.0, -40.0, 100.0)):
    """Turn an array (slice, row, column) and a spacing in mm in that order into an image."""
    image = SimpleITK.GetImageFromArray(np.asarray(array))
    image.SetSpacing(tuple(map(float, reversed(spacing_mm))))
    image.SetOrigin(origin)
    return image


@pytest.fixture
def make_image():
    """`image_of`, which makes an image."""
    return image_of


def series_writer(
    folder,
    image_hu,
    spacing_mm=(5.0, 2.0, 3.0),
    origin=(-30.0, -40.0, 100.0),
    change=None,
    description="pelvis",
):
    """Write values in HU (slice, row, column), feet first, as an uncompressed DICOM series.

    `change(dataset, slice index)` may alter a file before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series_uid = generate_uid()
    for index, part in enumerate(image_hu):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = pydicom.Dataset()
        file.file_meta = meta
        file.SOPClassUID = CTImageStorage
        file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID = series_uid
        file.StudyInstanceUID = "1.2.3"
        file.SeriesDescription = description
        file.Modality = "CT"
        file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.InstanceNumber = len(image_hu) - index
        file.Rows, file.Columns = part.shape
        file.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        file.SliceThickness = spacing_mm[0]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [*origin[:2], origin[2] + index * spacing_mm[0]]
        file.SamplesPerPixel = 1
        file.PhotometricInterpretation = "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit = 15
        file.PixelRepresentation = 0
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelData = (np.asarray(part) + 1024).astype("<u2").tobytes()
        if change:
            change(file, index)
        # Names say nothing about the order.
        file.save_as(folder / f"IM{(index * 7 + 3) % 101:03d}", enforce_file_format=True)
    return folder


@pytest.fixture
def write_series():
    """`series_writer`, which writes a DICOM series."""
    return series_writer


def trunk():
    """A trunk with gas inside, a bone on the patient's left and a couch below, in HU.

    Six slices of 64 x 72 pixels, meant for 5 x 4 x 4 mm.
    """
    image_hu = np.full((6, 64, 72), -1000, np.int16)
    image_hu[:, 10:45, 10:62] = 40
    image_hu[:, 20:26, 20:30] = -950
    image_hu[:, 30:38, 45:55] = 700
    image_hu[:, 54:56, 5:67] = 100
    return image_hu


@pytest.fixture
def trunk_hu():
    """`trunk`, in HU."""
    return trunk()


def write_trunks(root, series=("a", "b", "c")):
    """Write a `folder` data set of the trunk, with one series in each split; return its folder."""
    lines = ["series,split"]
    for number, (series_id, split) in enumerate(
        zip(series, ("train", "validation", "test"), strict=True)
    ):
        folder = root / series_id
        folder.mkdir(parents=True)
        image_hu = trunk() + np.int16(number)
        mask = (image_hu > 500).astype(np.uint8) * 3
        for name, array in (("ct", image_hu), ("mask", mask)):
            SimpleITK.WriteImage(image_of(array, (5, 4, 4)), str(folder / f"{name}.nii.gz"))
        lines.append(f"{series_id},{split}")
    (root / "split.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def small_scans(tmp_path_factory):
    """A data set of three small series."""
    return write_trunks(tmp_path_factory.mktemp("scans"))


@pytest.fixture
def write_dataset(tmp_path):
    """Write a data set of three small series into a folder of a name; return the folder."""
    return lambda name="scans", series=("a", "b", "c"): write_trunks(tmp_path / name, series)
