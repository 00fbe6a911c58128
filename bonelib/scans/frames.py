"""A DICOM file -> its CT slices: geometry and rescaling of each, pixels in HU on demand."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bonelib.errors import InputError

LOWEST_HU = -1024  # 12 bits begin here; what lies below is padding, not matter
HIGHEST_HU = 32767  # metal on an extended scale reaches 30,000
MAX_MATRIX = 8192  # pixels a side; no scanner's is larger, a damaged header's may be
TISSUE_HU = (-500.0, 3071.0)  # a padding value within is a mistake: tissue has it, too

_TAGS = (
    "Modality", "ImageType", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns",
    "PatientID", "PatientName", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber",
    "InstanceNumber", "ConvolutionKernel", "GantryDetectorTilt", "PixelRepresentation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One CT slice: what tells its series, its place and its grey values."""

    file: Path
    index: int  # among the frames of its file
    number: int | None  # InstanceNumber, or the frame's index in a file of many
    patient: str  # id, or else name; never printed
    series_uid: str  # never printed
    series_number: str
    phase: tuple  # what parts acquisitions that share a series
    original: bool
    shape: tuple[int, int]  # rows, columns
    spacing_mm: np.ndarray  # between rows, between columns
    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    tilt_degrees: float  # of the gantry, as the scanner says
    slope: float
    intercept: float
    padding: tuple[float, float] | None  # stored values from and to that are no measurement

    @property
    def whole_numbers(self) -> bool:
        """Tell whether every HU is an integer."""
        return self.slope.is_integer() and self.intercept.is_integer()


def is_dicom(file: Path) -> bool:
    """Tell DICOM by its preamble or, in old exports without one, by its first group.

    Raises InputError for a file that may not be read.
    """
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its rights") from error
    return start[128:] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00")


def modality(file: Path) -> str:
    """Return the modality of a DICOM file, "" where it names none or is damaged."""
    try:
        return _modality(_header(file, ["Modality"]))
    except Exception:  # pydicom's are of many types; whoever reads the file says what is wrong
        return ""


def frames_of(file: Path) -> list[Frame] | str:
    """Return the CT slices of a file, or in words what else it is.

    Raises InputError for a damaged header.
    """
    if not is_dicom(file):
        return "not DICOM"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom converts late, and would print the value
            header = _header(file, list(_TAGS))
            return _kind(header) or _frames(file, header)
    except Exception as error:  # pydicom's are of many types
        raise InputError(f"{file}: the DICOM header is damaged; export the series again") from error


def pixels_hu(frames: list[Frame]) -> list[np.ndarray]:
    """Return slices of one file in HU, each of shape (row, column), int16 or else float32."""
    file = frames[0].file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = _told_encoding(pydicom.dcmread(file, force=True))
            stored = dataset.pixel_array.reshape(-1, *frames[0].shape)
            return [_to_hu(stored[frame.index], frame) for frame in frames]
    except MemoryError:
        raise
    except Exception as error:  # each of the decoders has its own
        raise InputError(
            f"{file}: the pixels cannot be decoded; export the series again, uncompressed"
        ) from error


def _told_encoding(dataset: Dataset) -> Dataset:
    """Say how a file is encoded that has no meta header: as what pydicom found it to be."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little_endian = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _header(file: Path, tags: list[str]) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break the standard but mean no harm
        return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)


def _modality(header: Dataset) -> str:
    """Return the modality, and never what a damaged length makes of it, such as a name."""
    modality = str(header.get("Modality") or "")
    return modality if re.fullmatch("[A-Z0-9]{2,8}", modality) else ""


def _kind(header: Dataset) -> str:
    """Say what a file is that holds no CT slices, else nothing."""
    if _modality(header) != "CT":
        return f"of modality {_modality(header) or 'unknown'}"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "CT localizer"
    placed = "PerFrameFunctionalGroupsSequence" in header or all(
        header.get(tag)
        for tag in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    )
    if header.get("SamplesPerPixel", 1) != 1 or not placed:
        return "CT picture without position"
    return ""


def _frames(file: Path, header: Dataset) -> list[Frame]:
    shared, each = _functional_groups(header)
    if not each and int(header.get("NumberOfFrames") or 1) > 1:
        raise ValueError("many frames with one position")
    if max(header.Rows, header.Columns) > MAX_MATRIX or min(header.Rows, header.Columns) < 1:
        raise ValueError("a matrix that no scanner has")
    return [
        _frame(file, header, index, [header, *shared, *groups])
        for index, groups in enumerate(each or [[]])
    ]


def _functional_groups(header: Dataset) -> tuple[list[Dataset], list[list[Dataset]]]:
    """Return the groups that all frames of an enhanced CT share, and those of each frame."""

    def items(groups: Dataset) -> list[Dataset]:
        return [element.value[0] for element in groups if element.VR == "SQ" and element.value]

    shared = header.get("SharedFunctionalGroupsSequence") or []
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    return [item for groups in shared for item in items(groups)], [items(groups) for groups in each]


def _frame(file: Path, header: Dataset, index: int, groups: list[Dataset]) -> Frame:
    """Read a frame; in `groups`, the last that has an attribute is the one that counts."""

    def get(name: str, default=None):
        values = [group.get(name) for group in groups]
        return next((value for value in reversed(values) if value not in (None, "")), default)

    many = len(groups) > 1
    frame = Frame(
        file=file,
        index=index,
        number=index if many else _integer(header.get("InstanceNumber")),
        patient=str(header.get("PatientID") or header.get("PatientName") or ""),
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        series_number=str(_integer(header.get("SeriesNumber")) or ""),
        phase=(
            str(get("AcquisitionNumber", "")),
            str(get("TemporalPositionIndex", "")),
            str(get("StackID", "")),
            str(get("ConvolutionKernel", "")),
            str(get("FrameType", None) or header.get("ImageType")),
        ),
        original="DERIVED" not in (get("FrameType", None) or header.get("ImageType") or ()),
        shape=(int(header.Rows), int(header.Columns)),
        spacing_mm=np.array(get("PixelSpacing"), float).reshape(2),
        orientation=np.array(get("ImageOrientationPatient"), float).reshape(2, 3),
        position_mm=np.array(get("ImagePositionPatient"), float).reshape(3),
        tilt_degrees=float(get("GantryDetectorTilt", 0)),
        slope=float(get("RescaleSlope", 1)),
        intercept=float(get("RescaleIntercept", 0)),
        padding=_padding(header),
    )
    numbers = [frame.spacing_mm, frame.orientation.ravel(), frame.position_mm]
    numbers = np.concatenate([*numbers, [frame.slope, frame.intercept, frame.tilt_degrees]])
    if not np.isfinite(numbers).all() or frame.slope == 0:
        raise ValueError("numbers that are none")
    return frame


def _integer(value) -> int | None:
    return None if value in (None, "") else int(value)


def _padding(header: Dataset) -> tuple[float, float] | None:
    first = header.get("PixelPaddingValue")
    if first is None:
        return None
    last = header.get("PixelPaddingRangeLimit", first)
    signed = header.get("PixelRepresentation") == 1
    ends = [int(end) - 2**16 if signed and int(end) >= 2**15 else int(end) for end in (first, last)]
    return min(ends), max(ends)


def _to_hu(stored: np.ndarray, frame: Frame) -> np.ndarray:
    image_hu = stored.astype(np.float64) * frame.slope + frame.intercept
    if frame.padding:
        ends_hu = [end * frame.slope + frame.intercept for end in frame.padding]
        if max(ends_hu) <= TISSUE_HU[0] or min(ends_hu) >= TISSUE_HU[1]:
            image_hu[(stored >= frame.padding[0]) & (stored <= frame.padding[1])] = LOWEST_HU
    return clip_hu(image_hu, frame.whole_numbers)


def clip_hu(image_hu: np.ndarray, whole_numbers: bool) -> np.ndarray:
    """Bring HU to what matter has; int16 where they are whole numbers, else float32."""
    return np.clip(image_hu, LOWEST_HU, HIGHEST_HU).astype(
        np.int16 if whole_numbers else np.float32
    )
