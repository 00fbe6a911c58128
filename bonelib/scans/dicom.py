"""A DICOM file -> its CT slices: headers first, pixels in HU on demand."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bonelib.errors import InputError, refusing_damage

LOWEST_HU = -1024  # air in 12-bit scans; lower values are padding
HIGHEST_HU = 32767  # metal on an extended scale reaches 30,000
TISSUE_HU = (-500.0, 3071.0)  # a padding value in this range is a mistake: tissue has it, too

DAMAGED = "the DICOM file is damaged or incomplete; export it again"


@dataclass(frozen=True)
class Frame:
    """One CT slice: its series, its place and its grey values."""

    file: Path
    header: Dataset  # of the file, without pixels; names the patient, so never printed
    index: int  # among the frames of the file
    number: int | None  # InstanceNumber, or the index in a multi-frame file
    patient: str  # id, or else name; never printed
    series_uid: str
    series_number: str
    phase: tuple[str, ...]  # attributes that separate acquisitions within one series
    original: bool  # False: derived from other images
    shape: tuple[int, int]  # rows, columns
    spacing_mm: np.ndarray  # between rows, between columns
    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    tilt_degrees: float  # of the gantry, as stated
    slope: float
    intercept: float
    padding: tuple[float, float] | None  # range of stored values that mean "not measured"

    @property
    def name(self) -> str:
        """Return how messages call this slice."""
        return f"frame {self.index + 1} of {self.file.name}" if self.index else self.file.name

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
    with refusing_damage(file, "cannot be read; check the disk"), file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00")


def modality(file: Path) -> str:
    """Return the modality of a DICOM file, "" where it is absent or damaged."""
    try:
        with refusing_damage(file, DAMAGED):
            return _modality(_read_header(file, ["Modality"]))
    except InputError:  # whoever reads the file reports the damage
        return ""


def read_frames(file: Path) -> list[Frame] | str:
    """Return the CT slices of a file, or what else it is, in words.

    Raises InputError for a damaged header.
    """
    if not is_dicom(file):
        return "not DICOM"
    with refusing_damage(file, DAMAGED):
        header = _read_header(file)
        return _other_kind(header) or [
            _frame(file, header, index, attributes)
            for index, attributes in enumerate(_attributes_of_frames(header))
        ]


def decode_hu(frames: list[Frame]) -> list[np.ndarray]:
    """Return slices of one file in HU, each (row, column), int16 or else float32.

    Raises InputError for pixels that cannot be decoded.
    """
    file = frames[0].file
    with refusing_damage(file, "the pixels cannot be decoded; export the series uncompressed"):
        dataset = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little_endian = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        stored = dataset.pixel_array.reshape(-1, *frames[0].shape)
        return [_to_hu(stored[frame.index], frame) for frame in frames]


def clip_hu(image_hu: np.ndarray, whole_numbers: bool) -> np.ndarray:
    """Clip to the range of HU; int16 where they are whole numbers, else float32."""
    return np.clip(image_hu, LOWEST_HU, HIGHEST_HU).astype(
        np.int16 if whole_numbers else np.float32
    )


def _read_header(file: Path, tags: list[str] | None = None) -> Dataset:
    return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)


def _modality(header: Dataset) -> str:
    """Return the modality; "" where a damaged length makes it take in other text."""
    text = str(header.get("Modality") or "")
    return text if re.fullmatch("[A-Z0-9]{2,8}", text) else ""


def _other_kind(header: Dataset) -> str:
    """Describe a file without CT slices; "" for one with slices."""
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


def _attributes_of_frames(header: Dataset) -> list[Dataset]:
    """Return the attributes of each frame, those in functional groups beside the file's own."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError("many frames with one position")
        return [header]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    several = []
    for frame in frames:
        attributes = Dataset()
        attributes.update(header)
        for groups in (*shared, frame):
            for element in groups:
                if element.VR == "SQ" and element.value:
                    attributes.update(element.value[0])
        several.append(attributes)
    return several


def _frame(file: Path, header: Dataset, index: int, attributes: Dataset) -> Frame:
    def get(name: str, default=None):
        value = attributes.get(name)
        return default if value in (None, "") else value

    kind = get("FrameType") or get("ImageType") or ()
    separating = ("AcquisitionNumber", "TemporalPositionIndex", "StackID", "ConvolutionKernel")
    frame = Frame(
        file=file,
        header=header,
        index=index,
        number=_integer(get("InstanceNumber")) if attributes is header else index,
        patient=str(header.get("PatientID") or header.get("PatientName") or ""),
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        series_number=str(_integer(header.get("SeriesNumber")) or ""),
        phase=(*(str(get(name, "")) for name in separating), str(kind)),
        original="DERIVED" not in kind,
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
        raise ValueError("numbers that are not finite")
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
