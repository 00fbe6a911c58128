"""Files -> the frames of one CT series: grouped, and one of them chosen by rule.

Where a folder holds several series, axial ones go before reformatted ones, originals before
derived ones, then the longest, then the finest, then the lowest number. Warnings tell what
was chosen; numbers and geometry tell series apart in them, never descriptions or UIDs.
"""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from tqdm import tqdm

from bonelib.errors import InputError, InputWarning
from bonelib.scans.frames import Frame, frames_of

LENGTH_STEP_MM = 20.0  # series of about one length are told apart by their slice distance
AXIAL_COSINE = 0.7  # of the slices' normal with the body's axis; less is sagittal or coronal
MANY = 400  # files or slices, from which on progress is shown
FEWEST_SLICES = 3  # of one shape and direction within a series, to be a series of their own


@dataclass(frozen=True)
class Series:
    """Frames that make up one volume, in the order of their positions."""

    label: str  # SeriesNumber, with a letter where several share it
    frames: list[Frame]

    @property
    def normal(self) -> np.ndarray:
        """Return the unit vector along which the slices are stacked."""
        normal = np.cross(*self.frames[0].orientation)
        return normal / max(np.linalg.norm(normal), 1e-9)

    @property
    def heights_mm(self) -> np.ndarray:
        """Return the slices' positions along the normal."""
        return np.array([frame.position_mm for frame in self.frames]) @ self.normal

    @property
    def distance_mm(self) -> float:
        """Return the median distance of slices that do not share a position."""
        gaps_mm = np.diff(self.heights_mm)
        return float(np.median(gaps_mm[gaps_mm > 1e-2])) if (gaps_mm > 1e-2).any() else 0.0

    def rank(self) -> tuple:
        """Return what sorts series by how well they serve, best first."""
        length_mm = round(np.ptp(self.heights_mm) / LENGTH_STEP_MM)
        original = self.frames[0].original
        return (len(self.frames) < 2, not self.axial, not original, -length_mm, self.distance_mm,
                self.label.rjust(12))  # fmt: skip

    @property
    def axial(self) -> bool:
        """Tell whether the slices lie across the body's axis."""
        return bool(abs(self.normal[2]) >= AXIAL_COSINE)

    def __str__(self) -> str:
        count = len(self.frames)
        words = ["axial" if self.axial else "not axial"]
        words += [] if self.frames[0].original else ["derived"]
        slices = "1 slice" if count == 1 else f"{count} slices, {self.distance_mm:.2f} mm apart"
        return f"series {self.label} ({slices}, {', '.join(words)})"


def files_below(directory: Path) -> list[Path]:
    """Return the files in a folder and in those below it, sorted, without hidden ones.

    Raises InputError for a folder that may not be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: the folder cannot be read ({error.strerror}); check its rights"
        ) from error

    files = []
    for folder, folders, names in os.walk(directory, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def files_of_directory_record(file: Path) -> list[Path]:
    """Return the files that a DICOMDIR lists and that are there.

    Raises InputError for a damaged one and for one that points out of its own folder.
    """
    try:
        records = pydicom.dcmread(file).DirectoryRecordSequence
        listed = [record.get("ReferencedFileID") for record in records]
    except Exception as error:  # pydicom's are of many types
        raise InputError(
            f"{file}: the DICOMDIR is damaged; give the folder of the DICOM files"
        ) from error
    parts = [[str(part) for part in np.atleast_1d(entry)] for entry in listed if entry]
    if any(
        part in ("", ".", "..") or "/" in part or "\\" in part for path in parts for part in path
    ):
        raise InputError(f"{file}: points out of its folder; give the folder of the DICOM files")
    known = {str(path.relative_to(file.parent)).lower(): path for path in files_below(file.parent)}
    found = [known.get(str(Path(*path)).lower()) for path in parts]
    missing = found.count(None)
    if missing:
        text = f"files that the DICOMDIR lists and that are not there: {missing}"
        warnings.warn(text, InputWarning, stacklevel=2)
    return [path for path in found if path]


def choose(source: Path, files: Sequence[Path], wanted: str | None = None) -> Series:
    """Return the series named `wanted`, by number or UID, or else the one that serves best.

    `source` is what messages name. Raises InputError where there is no such series, and
    where the files are of several patients.
    """
    skipped, frames = Counter(), []
    for file in tqdm(files, "reading headers", unit="file", disable=len(files) < MANY, leave=False):
        found = frames_of(file)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            frames += found
    passed_over = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
    if not frames:
        found = passed_over or "no files"
        raise InputError(f"{source}: no CT slices here ({found}); give a folder of a CT series")
    several = sorted(_labelled(frames), key=Series.rank)
    if wanted is not None:
        return _named(source, several, wanted)
    patients = {frame.patient for frame in frames} - {""}
    if len(patients) > 1:
        raise InputError(
            f"{source}: holds CT slices of {len(patients)} patients; give each a folder of its own"
        )
    first, *others = several
    if others or passed_over:
        left = ", ".join([*map(str, others), *filter(None, [passed_over])])
        warnings.warn(f"{first} is read; left out: {left}", InputWarning, stacklevel=2)
    return first


def _named(source: Path, several: list[Series], wanted: str) -> Series:
    fitting = [
        series for series in several if wanted in (series.label, series.frames[0].series_uid)
    ]
    if len(fitting) != 1:
        raise InputError(
            f"{source}: has no one series '{wanted}'; choose from {', '.join(map(str, several))}"
        )
    return fitting[0]


def _labelled(frames: list[Frame]) -> list[Series]:
    """Return all series, each sorted by position and with a label of its own."""
    groups = _split([frames], lambda frame: (frame.patient, frame.series_uid, frame.series_number))
    groups = [part for group in groups for part in _by_geometry(group)]
    groups = [part for group in groups for part in _by_phase(group)]
    numbers = Counter(group[0].series_number for group in groups)
    used, several = Counter(), []
    for group in sorted(groups, key=lambda group: (group[0].series_uid, group[0].phase)):
        number = group[0].series_number
        letter = chr(ord("a") + used[number]) if numbers[number] > 1 else ""
        used[number] += 1
        series = Series((number or "?") + letter, group)
        order = np.argsort(series.heights_mm, kind="stable")
        several.append(Series(series.label, [group[index] for index in order]))
    return several


def _split(groups: list[list[Frame]], key: Callable[[Frame], object]) -> list[list[Frame]]:
    parts = defaultdict(list)
    for position, group in enumerate(groups):
        for frame in group:
            parts[position, key(frame)].append(frame)
    return list(parts.values())


def _by_geometry(group: list[Frame]) -> list[list[Frame]]:
    """Part slices of several shapes and directions; a few odd ones stay, to be refused."""

    def geometry(frame: Frame) -> tuple:
        numbers = [*frame.spacing_mm.round(2), *frame.orientation.ravel().round(1) + 0.0]
        return frame.shape, *numbers

    parts = _split([group], geometry)
    return parts if min(map(len, parts)) >= FEWEST_SLICES else [group]


def _by_phase(group: list[Frame]) -> list[list[Frame]]:
    """Part acquisitions that lie over one another, if anything but the pixels parts them."""
    if not _overlaps(group):
        return [group]
    for number in range(len(group[0].phase)):
        parts = _split([group], lambda frame, number=number: frame.phase[number])
        if len(parts) > 1 and not any(map(_overlaps, parts)):
            return parts
    return [group]


def _overlaps(group: list[Frame]) -> bool:
    places = {tuple(frame.position_mm.round(2)) for frame in group}
    return len(places) < len(group)
