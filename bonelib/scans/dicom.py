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

# Attributes that part the volumes of one series, the most telling first: the quantity, the
# reconstruction, the energy, the echo, the phase, the time, and finally the series itself.
PARTING_ATTRIBUTES = (
    "FrameType", "ImageType", "RescaleType", "ConvolutionKernel", "FilterType",
    "ReconstructionAlgorithm", "SliceThickness", "KVP", "MonoenergeticEnergyEquivalent",
    "EchoNumbers", "EchoTime", "ContrastBolusAgent", "StackID", "TemporalPositionIdentifier",
    "TemporalPositionIndex", "TemporalPositionTimeOffset", "NominalPercentageOfCardiacPhase",
    "CardiacCyclePosition", "NominalPercentageOfRespiratoryPhase", "RespiratoryCyclePosition",
    "TriggerTime", "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime",
    "AcquisitionNumber", "FrameAcquisitionNumber", "IrradiationEventUID", "AcquisitionDateTime",
    "AcquisitionDate", "AcquisitionTime", "FrameReferenceDateTime", "SeriesDescription",
    "ProtocolName", "ImageComments", "SeriesDate", "SeriesTime", "StudyInstanceUID",
    "FrameOfReferenceUID",
)  # fmt: skip
UNITS_OF_HU = ("", "HU", "HU_MOD", "US")  # of RescaleType; US is unspecified
QUANTITIES = "PERFUSION|CBF|CBV|MTT|TTP|TMAX|PERMEABILITY|IODINE|Z_?EFF|EFFECTIVE_Z|RHO|OVERLAY"
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
    parts: tuple[str, ...]  # the values of `PARTING_ATTRIBUTES`
    shape: tuple[int, int]  # rows, columns
    spacing_mm: np.ndarray  # between rows, between columns
    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    tilt_degrees: float  # of the gantry, as stated
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        """Return how messages call this slice."""
        return f"frame {self.index + 1} of {self.file.name}" if self.index else self.file.name


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
    """Return the CT slices of a file, or a description of anything else that it holds.

    Raises InputError for a damaged header.
    """
    if not is_dicom(file):
        return "not DICOM"
    with refusing_damage(file, DAMAGED):
        header = _read_header(file)
        several = attributes_of_frames(header) if _modality(header) == "CT" else [header]
        frames = [
            _frame(file, header, index, attributes)
            for index, attributes in enumerate(several)
            if not _other_kind(attributes)
        ]
        return frames or _other_kind(several[0])


def attributes_of_frames(header: Dataset) -> list[Dataset]:
    """Return the attributes of each frame, those in functional groups beside the file's own."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError("many frames with one position")
        return [header]
    several = []
    for frame in frames:
        attributes = Dataset()
        attributes.update(header)
        for groups in (*(header.get("SharedFunctionalGroupsSequence") or []), frame):
            for element in groups:
                if element.VR == "SQ" and element.value:
                    attributes.update(element.value[0])
        several.append(attributes)
    return several


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
        return [
            clip_hu(
                stored[frame.index] * frame.slope + frame.intercept,
                frame.slope.is_integer() and frame.intercept.is_integer(),
            )
            for frame in frames
        ]


def clip_hu(image_hu: np.ndarray, whole_numbers: bool) -> np.ndarray:
    """Clip to the range of HU; int16 where they are whole numbers, else float32."""
    clipped = np.clip(image_hu, LOWEST_HU, HIGHEST_HU)
    return clipped.astype(np.int16 if whole_numbers else np.float32)


def _read_header(file: Path, tags: list[str] | None = None) -> Dataset:
    return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)


def _modality(header: Dataset) -> str:
    """Return the modality; "" where a damaged length makes it take in other text."""
    text = str(header.get("Modality") or "")
    return text if re.fullmatch("[A-Z0-9]{2,8}", text) else ""


def _other_kind(attributes: Dataset) -> str:
    """Describe a file without CT slices; "" for one with slices."""
    if _modality(attributes) != "CT":
        return f"of modality {_modality(attributes) or 'unknown'}"
    kind = str(attributes.get("FrameType") or attributes.get("ImageType") or "")
    if "LOCALIZER" in kind:
        return "CT localizer"
    placing = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    if attributes.get("SamplesPerPixel", 1) != 1 or not all(map(attributes.get, placing)):
        return "CT picture without position"
    unit = str(attributes.get("RescaleType") or "")
    if unit not in UNITS_OF_HU or ("DERIVED" in kind and re.search(rf"'({QUANTITIES})", kind)):
        return "CT map of another quantity than HU"
    return ""


def _frame(file: Path, header: Dataset, index: int, attributes: Dataset) -> Frame:
    frame = Frame(
        file=file,
        header=header,
        index=index,
        number=_integer(header, "InstanceNumber") if attributes is header else index,
        patient=str(header.get("PatientID") or header.get("PatientName") or ""),
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        series_number=str(_integer(header, "SeriesNumber") or ""),
        parts=tuple(str(attributes.get(name) or "") for name in PARTING_ATTRIBUTES),
        shape=(int(header.Rows), int(header.Columns)),
        spacing_mm=np.array(attributes.PixelSpacing, float).reshape(2),
        orientation=np.array(attributes.ImageOrientationPatient, float).reshape(2, 3),
        position_mm=np.array(attributes.ImagePositionPatient, float).reshape(3),
        tilt_degrees=float(attributes.get("GantryDetectorTilt") or 0),
        slope=float(attributes.get("RescaleSlope", 1)),
        intercept=float(attributes.get("RescaleIntercept") or 0),
    )
    numbers = [frame.spacing_mm, frame.orientation.ravel(), frame.position_mm]
    numbers = np.concatenate([*numbers, [frame.slope, frame.intercept, frame.tilt_degrees]])
    if not np.isfinite(numbers).all() or frame.slope == 0:
        raise ValueError("numbers that are not finite")
    return frame


def _integer(header: Dataset, name: str) -> int | None:
    return None if header.get(name) in (None, "") else int(header.get(name))
