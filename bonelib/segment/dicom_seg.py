"""Bones of a DICOM series -> a DICOM SEG that refers to its slices.

The segmentation has a frame in the plane of each slice, so viewers can lay it over the series
even if the gantry was tilted or slices are missing. It contains nothing about the patient, the
study or the hospital but the UIDs, without which it could not refer to the series.
"""

import re
import warnings
from importlib import metadata
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from bonelib.provenance import replacing
from bonelib.scans import Frame, Grid
from bonelib.settings import RESEARCH_ONLY

# A word of a bone's name -> its type in SNOMED CT, as pydicom's dictionary spells it, and a
# colour. There is no code for the whole hip bone; that of the region is the closest.
BONE_TYPES = {
    "femur": ("Femur", "#56B4E9"),
    "hip": ("Hip", "#E69F00"),
    "sacrum": ("Sacrum", "#009E73"),
    "vertebra": ("Vertebra", "#CC79A7"),
}
OTHER_BONE, ALL_BONE = ("Bone", "#E3DAC9"), ("BoneTissue", "#E3DAC9")
SIDES = {"left": "Left", "right": "Right"}
SERIES_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID")
# All that is taken over from the headers of the series.
SOURCE_ATTRIBUTES = (
    *SERIES_UIDS, "SOPInstanceUID", "Modality", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
# The standard requires these, even if empty.
EMPTY_ATTRIBUTES = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
DESCRIPTION = f"bonelib: {RESEARCH_ONLY}"  # 64 characters at most
SERIES_NUMBER = 300  # above a scanner's own


def write_dicom_seg(
    path: Path, frames: list[Frame], bones: SimpleITK.Image, names: dict[int, str]
) -> None:
    """Write single bones, or all bone, as binary segments of a DICOM SEG.

    `frames` are the slices of the series as `scans.open_scan` gives them. `bones` holds ids on
    any grid in the patient's space; `names` are those of `segment.bones`, or "bone" for all bone.
    Raises ValueError if nothing can refer to the slices, or if no slice shows a bone.
    """
    headers = list({frame.file: frame.header for frame in frames}.values())
    is_multiframe = "PerFrameFunctionalGroupsSequence" in headers[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote values, which are private
        _check_uids(headers)
        if is_multiframe and len(headers) > 1:
            raise ValueError("the series consists of several multi-frame files")
        planes = np.stack([_on_plane(bones, frame) for frame in frames])
        present = [number for number in names if (planes == number).any()]
        if not present:
            raise ValueError("no slice shows a bone")
        segment_of = np.zeros(256, np.uint8)  # by id
        segment_of[present] = np.arange(1, len(present) + 1)
        heights_mm = [frame.position_mm @ np.cross(*frame.orientation) for frame in frames]
        thickness_mm = float(np.median(np.abs(np.diff(heights_mm))))
        sources = [_without_identity(header, thickness_mm) for header in headers]
        if is_multiframe:
            _add_frames(sources[0], frames, thickness_mm)
        dataset = Segmentation(
            sources, segment_of[planes], "BINARY",
            [_segment(segment_of[number], names[number]) for number in present],
            highdicom.UID(), SERIES_NUMBER, highdicom.UID(), 1,
            "bonelib", "bonelib", metadata.version("bonelib"), "none",
            content_label="SEGMENTATION", content_description=DESCRIPTION,
            series_description=DESCRIPTION, specific_character_set="ISO_IR 192",
        )  # fmt: skip
    if is_multiframe:
        _restore_frame_numbers(dataset, frames)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "only UIDs are taken over from the source"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    with replacing(path) as scratch:
        dataset.save_as(scratch, enforce_file_format=True)


def _check_uids(headers: list[Dataset]) -> None:
    """Raise ValueError unless each file has a UID of its own and all share those of the series."""
    for name in (*SERIES_UIDS, "SOPInstanceUID"):
        uids = {str(header.get(name) or "") for header in headers}
        expected = 1 if name in SERIES_UIDS else len(headers)
        if len(uids) != expected or not all(UID(uid, IGNORE).is_valid for uid in uids):
            shared = "the same" if expected == 1 else "a different"
            raise ValueError(f"not every slice has {shared} valid {name}")


def _without_identity(header: Dataset, thickness_mm: float) -> Dataset:
    """Return the part of a header that the segmentation needs, with an empty patient."""
    source = Dataset()
    for name in SOURCE_ATTRIBUTES:
        if name in header:
            source[name] = header[name]
    for name in EMPTY_ATTRIBUTES:
        setattr(source, name, None)
    source.SliceThickness = DSfloat(thickness_mm, auto_format=True)
    return source


def _add_frames(source: Dataset, frames: list[Frame], thickness_mm: float) -> None:
    """Add the frames of the series alone, since a file may hold several series."""
    shared = Dataset()
    shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(
        frames[0].spacing_mm, thickness_mm
    )
    shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence(
        "PATIENT", frames[0].orientation.ravel()
    )
    groups = [Dataset() for _ in frames]
    for group, frame in zip(groups, frames, strict=True):
        group.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", frame.position_mm)
    source.SharedFunctionalGroupsSequence = [shared]
    source.PerFrameFunctionalGroupsSequence = groups
    source.NumberOfFrames = len(frames)


def _restore_frame_numbers(dataset: Dataset, frames: list[Frame]) -> None:
    """Refer to the frames by their numbers in the file."""
    images = {
        id(image): image  # the segments of one slice share the item
        for group in dataset.PerFrameFunctionalGroupsSequence
        for image in group.DerivationImageSequence[0].SourceImageSequence
    }
    for image in images.values():
        image.ReferencedFrameNumber = frames[image.ReferencedFrameNumber - 1].index + 1


def _on_plane(bones: SimpleITK.Image, frame: Frame) -> np.ndarray:
    """Return the ids at the pixels of a slice, uint8 (row, column)."""
    row, column = frame.orientation / np.linalg.norm(frame.orientation, axis=1, keepdims=True)
    axes = np.stack([row, column, np.cross(row, column)], axis=1).ravel().tolist()
    size, spacing_mm = (*frame.shape[::-1], 1), (*frame.spacing_mm[::-1].tolist(), 1.0)
    plane = Grid(size, spacing_mm, frame.position_mm.tolist(), axes)
    return SimpleITK.GetArrayFromImage(plane.resample(bones, SimpleITK.sitkNearestNeighbor, 0))[0]


def _segment(number: int, name: str) -> SegmentDescription:
    """Return the description of a segment: name, codes, colour, and that it is automatic."""
    words = re.split("[_ ]", name)
    default = ALL_BONE if name == "bone" else OTHER_BONE
    kind, colour = next((BONE_TYPES[word] for word in words if word in BONE_TYPES), default)
    category = codes.SCT.Tissue if name == "bone" else codes.SCT.AnatomicalStructure
    program = highdicom.AlgorithmIdentificationSequence(
        "bonelib", codes.CID7162.ArtificialIntelligence, metadata.version("bonelib")
    )
    segment = SegmentDescription(
        number, name, category, getattr(codes.SCT, kind), "AUTOMATIC", program,
        display_color=highdicom.color.CIELabColor.from_string(colour),
    )  # fmt: skip
    sides = [getattr(codes.SCT, SIDES[word]) for word in words if word in SIDES]
    if sides:
        (type_code,) = segment.SegmentedPropertyTypeCodeSequence
        type_code.SegmentedPropertyTypeModifierCodeSequence = [
            highdicom.sr.CodedConcept.from_code(side) for side in sides
        ]
    return segment
