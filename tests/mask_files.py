"""Writers of masks in the formats that hospitals and data sets use; checks of what is read."""

import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from bonelib.errors import InputError, InputWarning

CATEGORY = codes.SCT.AnatomicalStructure


def refusal_of(path: Path, read, *arguments) -> str:
    """Return the refusal of `read(path, …)`, one line that names the path or a file within."""
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        warnings.simplefilter("ignore")
        read(path, *arguments)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert "Doe" not in message and "4711" not in message
    return message


def told_by(read, *arguments) -> tuple:
    """Return what `read` returns, and the texts of its warnings, which name no file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = read(*arguments)
    assert all(issubclass(warning.category, InputWarning) for warning in caught)
    texts = [str(warning.message) for warning in caught]
    assert not any(str(arguments[0]) in text for text in texts)
    return result, texts


def assert_same(image: SimpleITK.Image, reference: SimpleITK.Image) -> None:
    """Assert that two images have the same values at the same places."""
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayViewFromImage, (image, reference)))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, name)(), getattr(reference, name)(), atol=1e-6)


def write_structure_set(
    path: Path,
    contours_by_name: dict[str, list[np.ndarray]],
    kind: str = "CLOSED_PLANAR",
    numbers: list[int] | None = None,
    decimals: int = 4,
    change=None,
) -> Path:
    """Write contours, points (n, 3) in mm, as an RTSTRUCT; ROI numbers count from 1.

    `change(dataset)` may alter the file before it is written.
    """
    dataset = _file("RTSTRUCT", RTStructureSetStorage)
    numbers = numbers or list(range(1, len(contours_by_name) + 1))
    dataset.StructureSetLabel = "bones"
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    for number, (name, contours) in zip(numbers, contours_by_name.items(), strict=True):
        roi = pydicom.Dataset()
        roi.ROINumber, roi.ROIName = number, name
        dataset.StructureSetROISequence.append(roi)
        drawn = pydicom.Dataset()
        drawn.ReferencedROINumber = number
        if contours:
            drawn.ContourSequence = [_contour(points, kind, decimals) for points in contours]
        dataset.ROIContourSequence.append(drawn)
    if change:
        change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path: Path,
    masks_by_name: dict[str, SimpleITK.Image],
    kind: str = "BINARY",
    descriptions: list[str] | None = None,
    property_type: Code = codes.SCT.Organ,
    change=None,
    **options,
) -> Path:
    """Write binary masks of one grid, or shares from 0 to 1, as the segments of a DICOM SEG.

    Segment numbers count from 1, empty frames are left out, `options` go to highdicom.
    """
    grid, *_ = masks_by_name.values()
    arrays = [SimpleITK.GetArrayFromImage(mask) for mask in masks_by_name.values()]
    pixels = np.stack(arrays, axis=-1)
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, len(arrays) + 1)).max(axis=-1).astype(np.uint8)
    segments = [
        highdicom.seg.SegmentDescription(
            number, name, CATEGORY, property_type, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(masks_by_name, start=1)
    ]
    for segment, text in zip(segments, descriptions or [None] * len(segments), strict=True):
        if text:
            segment.SegmentDescription = text
    x_mm, y_mm, z_mm = grid.GetSpacing()
    direction = np.reshape(grid.GetDirection(), (3, 3))
    positions = [
        highdicom.PlanePositionSequence(
            highdicom.CoordinateSystemNames.PATIENT,
            grid.TransformIndexToPhysicalPoint((0, 0, index)),
        )
        for index in range(grid.GetDepth())
    ]
    dataset = highdicom.seg.Segmentation(
        [_source_image(grid)], pixels, kind, segments, generate_uid(), 2, generate_uid(), 1,
        "bonelib", "tests", "1", "1",
        pixel_measures=highdicom.PixelMeasuresSequence((y_mm, x_mm), z_mm, z_mm),
        plane_orientation=highdicom.PlaneOrientationSequence(
            highdicom.CoordinateSystemNames.PATIENT, direction[:, :2].T.ravel().tolist()
        ),
        plane_positions=positions,
        **options,
    )  # fmt: skip
    del dataset.ReferencedSeriesSequence  # the series that highdicom was given is made up
    if change:
        change(dataset)
    dataset.save_as(path)
    return path


def write_pictures(folder: Path, slices: np.ndarray, names: list[str] | None = None) -> Path:
    """Write slices (slice, row, column) of 8 or 16 bits as PNG, page1, page2 … if not named."""
    folder.mkdir(parents=True)
    names = names or [f"page{number}" for number in range(1, len(slices) + 1)]
    for name, pixels in zip(names, slices, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def voxel_edges(mask: SimpleITK.Image) -> list[np.ndarray]:
    """Return contours in mm along the edges of a binary mask's voxels, one for each run.

    A run of voxels in a row is a rectangle of its own; rectangles touch and do not overlap.
    """
    contours = []
    for index, part in enumerate(SimpleITK.GetArrayFromImage(mask)):
        for row, line in enumerate(part > 0):
            edges = np.flatnonzero(np.diff(line.astype(int), prepend=0, append=0)) - 0.5
            for left, right in edges.reshape(-1, 2).tolist():
                corners = [(left, row - 0.5), (right, row - 0.5), (right, row + 0.5),
                           (left, row + 0.5)]  # fmt: skip
                points = [
                    mask.TransformContinuousIndexToPhysicalPoint((x, y, index)) for x, y in corners
                ]
                contours.append(np.array(points))
    return contours


def _contour(points: np.ndarray, kind: str, decimals: int) -> pydicom.Dataset:
    contour = pydicom.Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.{decimals}f}" for value in np.ravel(points)]
    return contour


def _file(modality: str, sop_class: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Modality = modality
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    dataset.PatientBirthDate = "19500101"
    return dataset


def _source_image(grid: SimpleITK.Image) -> pydicom.Dataset:
    """Return the header of a CT slice, which highdicom takes the patient's data from."""
    image = _file("CT", CTImageStorage)
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.FrameOfReferenceUID = generate_uid()
    image.PatientSex = image.AccessionNumber = image.StudyID = ""
    image.StudyDate = image.StudyTime = ""
    image.InstanceNumber = 1
    image.Columns, image.Rows = grid.GetSize()[:2]
    image.SamplesPerPixel = 1
    image.PixelSpacing = list(grid.GetSpacing()[1::-1])
    image.SliceThickness = grid.GetSpacing()[2]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = list(grid.GetOrigin())
    return image
