"""Ids on any grid + the DICOM series that they belong to -> DICOM SEG, which viewers lay over it.

The segmentation refers to the very slices of the series: each has a frame in its own plane, so
that it fits a tilted gantry, oblique slices and uneven distances as well.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from bonelib.errors import InputError, refusing_damage
from bonelib.provenance import replacing
from bonelib.scans import Frame, StoredScan

ALL_BONE = "bone"

# By a word of the name: category and type in SNOMED CT, as the keywords of pydicom's
# dictionary, and a colour. It has no code for the whole hip bone; the region's is the nearest.
STRUCTURES = {
    "body": ("AnatomicalStructure", "EntireBody", "#B17A65"),
    ALL_BONE: ("Tissue", "BoneTissue", "#E3DAC9"),
    "femur": ("AnatomicalStructure", "Femur", "#56B4E9"),
    "hip": ("AnatomicalStructure", "Hip", "#E69F00"),
    "sacrum": ("AnatomicalStructure", "Sacrum", "#009E73"),
    "vertebra": ("AnatomicalStructure", "Vertebra", "#CC79A7"),
}
SIDES = {"left": "Left", "right": "Right"}

# What a reference needs; without these, nobody can tell which slices are meant.
REFERENCE = (
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID",
    "SOPInstanceUID",
)  # fmt: skip
SHARED_REFERENCE = REFERENCE[:3]  # the same in all slices of a series
COMPRESSION = (
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
IDENTITY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientAge", "PatientSize", "PatientWeight", "StudyDate", "StudyTime", "StudyID",
    "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip  # the standard wants these, filled or not
SERIES_NUMBER = 300  # beyond a scanner's own


def write_dicom_seg(
    path: Path,
    scan: StoredScan,
    mask: SimpleITK.Image,
    names: dict[int, str],
    keep_identity: bool = False,
) -> None:
    """Write structures as binary segments of a DICOM SEG that refers to the scan's slices.

    `mask` has ids, on any grid in the patient's space; `names` says what they are, such as
    femur_left, hip_right, sacrum, vertebra_1, body, or bone for all of it; another name is that
    of one bone. Ids without a name or without a voxel are left out.

    The file says nothing about the patient, the study or the hospital but their UIDs, which the
    reference needs; `keep_identity` takes the patient's and the study's data over. The same
    slices and structures give the same UIDs.

    Raises InputError for a scan that is not DICOM or has no valid UIDs to refer to, and where
    nothing is to write.
    """
    frames = scan.frames
    if not frames:
        raise InputError(f"{scan.path}: is not DICOM; give the scan as a DICOM series")
    headers = {frame.file: frame.header for frame in frames}
    with refusing_damage(scan.path, "the DICOM headers are damaged; export the series again"):
        for header in headers.values():
            header.decode()
    _check(scan.path, list(headers.values()))
    present = _present(scan.path, mask, names)
    pixels = _on_planes(mask, list(present), frames)
    dataset = _segmentation(frames, headers, pixels, list(present.values()), keep_identity)
    _refer(dataset, frames, headers)
    _identify(dataset, headers[frames[0].file], keep_identity)
    with replacing(path) as scratch:
        dataset.save_as(scratch, enforce_file_format=True)


def _check(source: Path, headers: Sequence[Dataset]) -> None:
    """Raise InputError where the slices cannot be referred to."""
    use = "no DICOM SEG can refer to it, use the volume of labels instead"
    for name in REFERENCE:
        values = [str(header.get(name) or "") for header in headers]
        if not all(UID(value, pydicom.config.IGNORE).is_valid for value in values):
            raise InputError(f"{source}: has slices without a valid {name}; {use}")
        if name in SHARED_REFERENCE and len(set(values)) > 1:
            raise InputError(f"{source}: its slices differ in {name}; {use}")
    if len({header.SOPInstanceUID for header in headers}) < len(headers):
        raise InputError(f"{source}: has slices that share one SOPInstanceUID; {use}")


def _present(source: Path, mask: SimpleITK.Image, names: dict[int, str]) -> dict[int, str]:
    """Return the names of the ids that have voxels, by id."""
    ids = SimpleITK.GetArrayViewFromImage(mask)
    present = {number: names[number] for number in sorted(names) if (ids == number).any()}
    if not present:
        raise InputError(
            f"{source}: none of {', '.join(names.values())} was found in it, so there is no "
            "segment to write; look at the scan's contrast and region"
        )
    return present


def _on_planes(mask: SimpleITK.Image, ids: list[int], frames: list[Frame]) -> np.ndarray:
    """Return the number of the segment, from 1, at each pixel of each frame."""
    highest = max(*ids, int(SimpleITK.GetArrayViewFromImage(mask).max()))
    segment_of = np.zeros(highest + 1, np.uint8 if len(ids) < 256 else np.uint16)
    segment_of[ids] = np.arange(1, len(ids) + 1)
    pixels = np.empty((len(frames), *frames[0].shape), segment_of.dtype)
    for frame, plane in zip(frames, pixels, strict=True):
        row, column = frame.orientation / np.linalg.norm(frame.orientation, axis=1, keepdims=True)
        shown = SimpleITK.Resample(
            mask,
            (*frame.shape[::-1], 1),
            SimpleITK.Transform(),
            SimpleITK.sitkNearestNeighbor,
            frame.position_mm.tolist(),
            (*frame.spacing_mm[::-1].tolist(), 1.0),
            np.stack([row, column, np.cross(row, column)], axis=1).ravel().tolist(),
        )
        plane[:] = segment_of[SimpleITK.GetArrayViewFromImage(shown)[0]]
    return pixels


def _segmentation(
    frames: list[Frame],
    headers: dict[Path, Dataset],
    pixels: np.ndarray,
    names: list[str],
    keep_identity: bool,
) -> Dataset:
    """Return the segmentation, for which each frame stands as a nameless slice of its own."""
    import highdicom

    seen = [[str(header.SOPInstanceUID) for header in headers.values()], names, keep_identity]
    entropy = [repr(seen), hashlib.sha256(pixels).hexdigest()]
    heights_mm = [frame.position_mm @ np.cross(*frame.orientation) for frame in frames]
    thickness_mm = float(np.median(np.abs(np.diff(heights_mm))))
    slices = [
        _slice(frame, index, headers[frame.file], frames[0], thickness_mm)
        for index, frame in enumerate(frames)
    ]
    segments = [_segment(number, name) for number, name in enumerate(names, start=1)]
    dataset = highdicom.seg.Segmentation(
        slices, pixels, highdicom.seg.SegmentationTypeValues.BINARY, segments,
        generate_uid(entropy_srcs=["series", *entropy]), SERIES_NUMBER,
        generate_uid(entropy_srcs=["instance", *entropy]), 1,
        "bonelib", "bonelib", metadata.version("bonelib"), "none",
        content_label="SEGMENTATION", content_description="Segmentation by bonelib",
        series_description="Segmentation by bonelib", specific_character_set="ISO_IR 192",
    )  # fmt: skip
    organisation = generate_uid(entropy_srcs=["dimensions", *entropy])
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    for name in COMPRESSION:
        if name in headers[frames[0].file]:
            dataset[name] = headers[frames[0].file][name]
    return dataset


def _slice(frame: Frame, index: int, header: Dataset, first: Frame, thickness_mm: float) -> Dataset:
    """Return a CT slice without a patient at the place of a frame, by a name for the time being.

    highdicom takes one file of many frames, or many of one; it is open to all of them this way.
    """
    image = Dataset()
    for name in SHARED_REFERENCE:
        setattr(image, name, header[name].value)
    for name in EMPTY:
        setattr(image, name, None)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, _stand_in(index)
    image.Modality = "CT"
    image.Rows, image.Columns = frame.shape
    image.PixelSpacing = _decimal(first.spacing_mm)
    image.SliceThickness = _decimal([thickness_mm])[0]
    image.ImageOrientationPatient = _decimal(first.orientation.ravel())
    image.ImagePositionPatient = _decimal(frame.position_mm)
    return image


def _stand_in(index: int) -> str:
    return f"2.25.{index + 1}"


def _decimal(values: Sequence[float]) -> list[DSfloat]:
    """Return numbers as DICOM writes them, of at most 16 characters."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _segment(number: int, name: str) -> Dataset:
    """Return what a segment is: name, codes, colour, and that a program drew it."""
    import highdicom
    from pydicom.sr.codedict import codes

    words = re.split("[_ ]", name)
    structure = next((word for word in words if word in STRUCTURES), ALL_BONE)
    category, kind, colour = STRUCTURES[structure]
    if structure == ALL_BONE and name != ALL_BONE:
        category, kind = "AnatomicalStructure", "Bone"  # one that is not known better
    program = highdicom.AlgorithmIdentificationSequence(
        "bonelib", codes.CID7162.ArtificialIntelligence, metadata.version("bonelib")
    )
    segment = highdicom.seg.SegmentDescription(
        number,
        name,
        getattr(codes.SCT, category),
        getattr(codes.SCT, kind),
        highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        program,
        display_color=highdicom.color.CIELabColor.from_string(colour),
    )
    sides = [
        highdicom.sr.CodedConcept.from_code(getattr(codes.SCT, SIDES[word]))
        for word in words
        if word in SIDES
    ]
    if sides:
        segment.SegmentedPropertyTypeCodeSequence[
            0
        ].SegmentedPropertyTypeModifierCodeSequence = sides
    return segment


def _refer(dataset: Dataset, frames: list[Frame], headers: dict[Path, Dataset]) -> None:
    """Put the slices' own files in the place of those that stood in for them."""
    files = [_reference(header) for header in headers.values()]
    dataset.SourceImageSequence = files
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = files
    frame_of = {_stand_in(index): frame for index, frame in enumerate(frames)}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        frame = frame_of.get(source.ReferencedSOPInstanceUID)
        if frame is None:
            continue  # put right already: the segments of one slice share the item
        header = headers[frame.file]
        source.update(_reference(header))
        if int(header.get("NumberOfFrames") or 1) > 1:
            source.ReferencedFrameNumber = frame.index + 1


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


def _identify(dataset: Dataset, header: Dataset, keep_identity: bool) -> None:
    """Say whose the segmentation is, or that it is not said."""
    if keep_identity:
        for name in IDENTITY:
            if name in header:
                dataset[name] = header[name]
        return
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "only UIDs are taken over from the source"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
