"""DICOM files -> the CT series among them, and one chosen by rule; pixels in HU on demand.

Axial series go before reformatted ones, originals before derived ones, then the longest, then
the finest, then the lowest number. Messages tell series apart by number and geometry, never
by descriptions or UIDs.
"""

import csv
import os
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress, pairwise
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, UncompressedTransferSyntaxes
from tqdm import tqdm

from bonelib.errors import InputError, refusing_damage, warn

LENGTH_STEP_MM = 20.0  # series of about one length are ranked by their slice distance
AXIAL_COSINE = 0.7  # between the slices' normal and the body's axis; less is not axial
FEWEST_SLICES = 3  # on average, of volumes that share a series
EVEN_SHARE = 0.8  # of the gaps in a volume of which a few slices are missing
MANY = 400  # files or slices from which on progress is shown
LONGEST_LIST = 1000  # characters of a message about files and series

# Attributes that part the volumes of one series, the most telling first.
with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _table:
    PARTING = {row["attribute"]: row["tells"] for row in csv.DictReader(_table)}
UNITS_OF_HU = ("", "HU", "HU_MOD", "HOUNSFIELD", "US")  # of RescaleType; US is unspecified
QUANTITIES = "PERFUSION|CBF|CBV|MTT|TTP|TMAX|PERMEABILITY|IODINE|Z_?EFF|EFFECTIVE_Z|RHO|OVERLAY"
NAMED = ("damaged", "of modality unknown")  # files that messages name
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
    parts: tuple[str, ...]  # the values of `PARTING`
    shape: tuple[int, int]  # rows, columns
    spacing_mm: np.ndarray  # between rows, between columns
    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    tilt_degrees: float  # of the gantry, as stated
    slope: float
    intercept: float

    @property
    def geometry(self) -> np.ndarray:
        """Return size, spacing and orientation as ten numbers."""
        return np.hstack([self.shape, self.spacing_mm, self.orientation.ravel()])

    @property
    def name(self) -> str:
        """Return how messages call this slice."""
        return f"frame {self.index + 1} of {self.file.name}" if self.index else self.file.name


@dataclass(frozen=True)
class Series:
    """Frames that make up one volume, in the order of their positions."""

    label: str  # SeriesNumber, with a letter where several series share it
    frames: list[Frame]

    @property
    def heights_mm(self) -> np.ndarray:
        """Return the slices' positions along their normal."""
        return _heights_mm(self.frames)

    @property
    def distance_mm(self) -> float:
        """Return the median distance of slices at different positions."""
        gaps_mm = np.diff(self.heights_mm)
        return float(np.median(gaps_mm[gaps_mm > 1e-2])) if (gaps_mm > 1e-2).any() else 0.0

    @property
    def is_axial(self) -> bool:
        """Tell whether the slices lie across the body."""
        return bool(abs(np.cross(*self.frames[0].orientation)[2]) >= AXIAL_COSINE)

    @property
    def is_derived(self) -> bool:
        """Tell whether the slices were computed from other images."""
        return "DERIVED" in "".join(self.frames[0].parts)

    def rank(self) -> tuple:
        """Return a key that sorts the best series first."""
        length_mm = round(np.ptp(self.heights_mm) / LENGTH_STEP_MM)
        worst = len(self.frames) < 2, not self.is_axial, self.is_derived
        return *worst, -length_mm, self.distance_mm, self.label.rjust(12)

    def __str__(self) -> str:
        count = len(self.frames)
        slices = f"{count} slices, {self.distance_mm:.2f} mm apart"
        kind = ("axial" if self.is_axial else "not axial") + ", derived" * self.is_derived
        named = slices if count > 1 else f"1 slice, {self.frames[0].name}"
        return f"series {self.label} ({named}, {kind})"


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
    with suppress(InputError), refusing_damage(file, DAMAGED):  # its reader reports the damage
        return _modality(_read_header(file, ["Modality"]))
    return ""


def files_below(directory: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted, without hidden ones.

    Raises InputError for a folder that may not be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: the folder cannot be read; check its rights"
        ) from error

    files = []
    for folder, folders, names in os.walk(directory, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def choose_series(source: Path, files: Sequence[Path], wanted: str | None = None) -> Series:
    """Return the series with the number or UID `wanted`, or else the one that ranks first.

    `source` is named in messages. Raises InputError where there is no such series, and where
    the files are of several patients.
    """
    frames, passed_over = _read_headers(files)
    if not frames:
        held = textwrap.shorten(", ".join(passed_over), LONGEST_LIST) or "no files"
        raise InputError(f"{source}: no CT slices here ({held}); give a folder of a CT series")
    patients = Counter(frame.patient for frame in frames if frame.patient)
    if sum(count > 1 for count in patients.values()) == 1:  # others have a single slice
        odd = [frame for frame in frames if patients.get(frame.patient) == 1]
        passed_over += [f"1 slice of another patient ({frame.name})" for frame in odd]
        frames = [frame for frame in frames if patients.get(frame.patient) != 1]
    several = sorted(_separate(frames), key=Series.rank)
    if wanted is not None:
        fitting = [item for item in several if wanted in (item.label, item.frames[0].series_uid)]
        if len(fitting) != 1:
            choices = ", ".join(map(str, several))
            raise InputError(f"{source}: has no one series '{wanted}'; choose from {choices}")
        several, passed_over = fitting, []
    patients = {frame.patient for item in several for frame in item.frames} - {""}
    if len(patients) > 1:
        raise InputError(
            f"{source}: holds CT slices of {len(patients)} patients; part them in folders"
        )
    first, *others = several
    if others or passed_over:
        left_out = textwrap.shorten(", ".join([*map(str, others), *passed_over]), LONGEST_LIST)
        warn(f"{first} is read; left out: {left_out}")
    return first


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


def _read_header(file: Path, tags: list[str] | None = None) -> Dataset:
    """Read a header without pixels; raise an error where uncompressed pixels are cut short."""
    with file.open("rb") as stream:
        header = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=tags)
        stored = file.stat().st_size - stream.tell()
    syntax = header.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if tags is None and syntax in UncompressedTransferSyntaxes and not syntax.is_deflated:
        values = header.get("Rows", 0) * header.get("Columns", 0) * header.get("SamplesPerPixel", 1)
        bits = values * int(header.get("NumberOfFrames") or 1) * header.get("BitsAllocated", 0)
        if stored < bits // 8:
            raise EOFError
    return header


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
    if unit.upper() not in UNITS_OF_HU or (
        "DERIVED" in kind and re.search(rf"'({QUANTITIES})", kind)
    ):
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
        parts=tuple(str(attributes.get(name) or "") for name in PARTING),
        shape=(int(header.Rows), int(header.Columns)),
        spacing_mm=np.array(attributes.PixelSpacing, float).reshape(2),
        orientation=np.array(attributes.ImageOrientationPatient, float).reshape(2, 3),
        position_mm=np.array(attributes.ImagePositionPatient, float).reshape(3),
        tilt_degrees=float(attributes.get("GantryDetectorTilt") or 0),
        slope=float(attributes.get("RescaleSlope", 1)),
        intercept=float(attributes.get("RescaleIntercept") or 0),
    )
    scalars = frame.slope, frame.intercept, frame.tilt_degrees
    if not np.isfinite([*frame.geometry, *frame.position_mm, *scalars]).all() or frame.slope == 0:
        raise ValueError("numbers that are not finite")
    return frame


def _integer(header: Dataset, name: str) -> int | None:
    return None if header.get(name) in (None, "") else int(header.get(name))


def _read_headers(files: Sequence[Path]) -> tuple[list[Frame], list[str]]:
    """Return the CT slices, and descriptions of the other files."""
    frames, others = [], defaultdict(list)
    for file in tqdm(files, "reading headers", unit="file", disable=len(files) < MANY, leave=False):
        try:
            found, other = _read_frames(file)
        except InputError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            found, other = [], "damaged"
        frames += found
        if not found:
            others[other].append(file.name)
    return frames, [
        f"{len(names)} {kind}" + f" ({', '.join(names)})" * (kind in NAMED)
        for kind, names in sorted(others.items())
    ]


def _read_frames(file: Path) -> tuple[list[Frame], str]:
    """Return the CT slices of a file, or a description of anything else that it holds."""
    if not is_dicom(file):
        return [], "not DICOM"
    with refusing_damage(file, DAMAGED):
        header = _read_header(file)
        several = attributes_of_frames(header) if _modality(header) == "CT" else [header]
        kinds = [_other_kind(attributes) for attributes in several]
        slices = [index for index, kind in enumerate(kinds) if not kind]
        return [_frame(file, header, index, several[index]) for index in slices], kinds[0]


def _separate(frames: list[Frame]) -> list[Series]:
    """Return all series, each sorted by position and with a label of its own."""
    by_number = defaultdict(list)
    groups = _split(frames, lambda one: (one.series_uid or one.patient, one.series_number))
    for group in [frames] if len(groups) == len(frames) else groups:  # each slice with its own UID
        for part in _by_geometry(group):
            by_number[part[0].series_number] += _by_attributes(part)
    series = []
    for number, groups in by_number.items():
        for index, group in enumerate(sorted(groups, key=_precedence)):
            letter = chr(ord("a") + index) if len(groups) > 1 else ""
            order = np.argsort(_heights_mm(group), kind="stable")
            series.append(Series((number or "?") + letter, [group[place] for place in order]))
    return series


def _precedence(group: list[Frame]) -> tuple:
    return group[0].series_uid, [value.rjust(16) for value in group[0].parts]  # 2 before 10


def _split(frames: list[Frame], key: Callable[[Frame], object]) -> list[list[Frame]]:
    parts = defaultdict(list)
    for frame in frames:
        parts[key(frame)].append(frame)
    return list(parts.values())


def _by_geometry(frames: list[Frame]) -> list[list[Frame]]:
    """Separate slices of different size, spacing or direction."""
    groups = []
    for frame in frames:
        alike = (one for one in groups if np.allclose(one[0].geometry, frame.geometry, atol=1e-3))
        group = next(alike, [])
        if not group:
            groups.append(group)
        group.append(frame)
    return groups


def _by_attributes(frames: list[Frame]) -> list[list[Frame]]:
    """Separate volumes that an attribute tells apart and that cover the same region."""
    is_one_stack = _are_even(np.sort(_heights_mm(frames)))
    for number, tells in enumerate(PARTING.values()):
        parts = _split(frames, lambda frame, number=number: frame.parts[number])
        if is_one_stack and tells == "acquisition number":  # of slices, in some scans
            continue
        if _cover_one_region(parts):
            return [volume for part in parts for volume in _by_attributes(part)]
    passes = _passes(frames)
    return passes if _cover_one_region(passes) else [frames]


def _passes(frames: list[Frame]) -> list[list[Frame]]:
    """Separate slices where their order in time, or else by number, turns back in space."""
    timed = [tells == "acquisition time" for tells in PARTING.values()]
    ordered = sorted(frames, key=lambda one: ([*compress(one.parts, timed)], one.number or 0))
    directions = np.sign(np.diff(_heights_mm(ordered)))
    turns = np.flatnonzero(directions == -np.sign(directions.sum())) + 1
    return [part.tolist() for part in np.split(np.array(ordered, object), turns)]


def _cover_one_region(parts: list[list[Frame]]) -> bool:
    """Tell whether parts share positions, or are each even but lie between each other's slices."""
    if not 1 < len(parts) <= sum(map(len, parts)) / FEWEST_SLICES:
        return False
    heights_mm = sorted((np.unique(_heights_mm(part).round(2)) for part in parts), key=min)
    if len(np.unique(np.concatenate(heights_mm))) < sum(map(len, heights_mm)):
        return True
    mixed = any(_alternate(one, other) for one, other in pairwise(heights_mm))
    return mixed and all(map(_are_even, heights_mm))


def _alternate(one_mm: np.ndarray, other_mm: np.ndarray) -> bool:
    """Tell whether the slices of two parts mostly alternate where both have some."""
    places = np.searchsorted(one_mm, other_mm)
    steps = np.diff(places[(places > 0) & (places < len(one_mm))])
    return len(steps) > 0 and bool((steps > 0).mean() >= 0.5)


def _are_even(heights_mm: np.ndarray) -> bool:
    """Tell whether slices are evenly spaced, a few missing ones aside."""
    gaps_mm = np.diff(heights_mm)
    if len(gaps_mm) < FEWEST_SLICES - 1:
        return False
    return np.isclose(gaps_mm, np.median(gaps_mm), rtol=0.1).mean() >= EVEN_SHARE


def _heights_mm(frames: list[Frame]) -> np.ndarray:
    """Return the slices' positions along their normal."""
    normal = np.cross(*frames[0].orientation)
    return np.array([frame.position_mm for frame in frames]) @ normal
