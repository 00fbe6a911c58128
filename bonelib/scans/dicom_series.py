"""DICOM files -> the CT series among them, and one of these chosen by rule.

Axial series go before reformatted ones, originals before derived ones, then the longest, then
the finest, then the lowest number. Messages tell series apart by number and geometry, never
by descriptions or UIDs.
"""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.fileset import FileSet
from tqdm import tqdm

from bonelib.errors import InputError, warn
from bonelib.scans.dicom import Frame, read_frames

LENGTH_STEP_MM = 20.0  # series of about one length are ranked by their slice distance
AXIAL_COSINE = 0.7  # between the slices' normal and the body's axis; less is not axial
FEWEST_SLICES = 3  # of one shape and direction, to be a series of their own
MANY = 400  # files or slices from which on progress is shown


@dataclass(frozen=True)
class Series:
    """Frames that make up one volume, in the order of their positions."""

    label: str  # SeriesNumber, with a letter where several series share it
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
        """Return the median distance of slices at different positions."""
        gaps_mm = np.diff(self.heights_mm)
        return float(np.median(gaps_mm[gaps_mm > 1e-2])) if (gaps_mm > 1e-2).any() else 0.0

    @property
    def axial(self) -> bool:
        """Tell whether the slices lie across the body's axis."""
        return bool(abs(self.normal[2]) >= AXIAL_COSINE)

    def rank(self) -> tuple:
        """Return a key that sorts the best series first."""
        length_mm = round(np.ptp(self.heights_mm) / LENGTH_STEP_MM)
        derived = not self.frames[0].original
        few = len(self.frames) < 2
        return few, not self.axial, derived, -length_mm, self.distance_mm, self.label.rjust(12)

    def __str__(self) -> str:
        count = len(self.frames)
        slices = "1 slice" if count == 1 else f"{count} slices, {self.distance_mm:.2f} mm apart"
        kind = "axial" if self.axial else "not axial"
        derived = "" if self.frames[0].original else ", derived"
        return f"series {self.label} ({slices}, {kind}{derived})"


def files_below(directory: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted, without hidden ones.

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


def files_of_dicomdir(file: Path) -> list[Path]:
    """Return the files that a DICOMDIR lists, or all in its folder where some are missing.

    Discs are often mounted with names in small letters. Raises InputError for a damaged
    DICOMDIR and for one that points out of its folder.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            listed = [Path(instance.path) for instance in FileSet(file)]
    except Exception as error:  # pydicom's are of many types
        raise InputError(
            f"{file}: is damaged or points out of its folder; give the folder of the DICOM files"
        ) from error
    missing = sum("does not exist" in str(warning.message) for warning in caught)
    if missing:
        warn(f"{missing} files listed in the DICOMDIR are missing; its whole folder is read")
        return files_below(file.parent)
    return listed


def choose_series(source: Path, files: Sequence[Path], wanted: str | None = None) -> Series:
    """Return the series with the number or UID `wanted`, or else the one that ranks first.

    `source` is named in messages. Raises InputError where there is no such series, and where
    the files are of several patients.
    """
    skipped, frames = Counter(), []
    for file in tqdm(files, "reading headers", unit="file", disable=len(files) < MANY, leave=False):
        found = read_frames(file)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            frames += found
    passed_over = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
    if not frames:
        found = passed_over or "no files"
        raise InputError(f"{source}: no CT slices here ({found}); give a folder of a CT series")
    several = sorted(_separate(frames), key=Series.rank)
    if wanted is not None:
        fitting = [item for item in several if wanted in (item.label, item.frames[0].series_uid)]
        if len(fitting) != 1:
            choices = ", ".join(map(str, several))
            raise InputError(f"{source}: has no one series '{wanted}'; choose from {choices}")
        return fitting[0]
    patients = {frame.patient for frame in frames} - {""}
    if len(patients) > 1:
        raise InputError(
            f"{source}: holds CT slices of {len(patients)} patients; give each a folder of its own"
        )
    first, *others = several
    if others or passed_over:
        warn(
            f"{first} is read; left out: {', '.join([*map(str, others), passed_over]).strip(', ')}"
        )
    return first


def _separate(frames: list[Frame]) -> list[Series]:
    """Return all series, each sorted by position and with a label of its own."""
    groups = _split(frames, lambda frame: (frame.patient, frame.series_uid, frame.series_number))
    groups = [part for group in groups for part in _by_geometry(group)]
    groups = [part for group in groups for part in _by_phase(group)]
    groups.sort(key=lambda group: (group[0].series_uid, group[0].phase))
    numbers = [group[0].series_number for group in groups]
    several = []
    for index, (number, group) in enumerate(zip(numbers, groups, strict=True)):
        letter = chr(ord("a") + numbers[:index].count(number)) if numbers.count(number) > 1 else ""
        heights_mm = Series("", group).heights_mm
        ordered = [group[place] for place in np.argsort(heights_mm, kind="stable")]
        several.append(Series((number or "?") + letter, ordered))
    return several


def _split(frames: list[Frame], key: Callable[[Frame], object]) -> list[list[Frame]]:
    parts = defaultdict(list)
    for frame in frames:
        parts[key(frame)].append(frame)
    return list(parts.values())


def _by_geometry(group: list[Frame]) -> list[list[Frame]]:
    """Separate slices of several shapes and directions; a few odd ones stay, to be refused."""

    def geometry(frame: Frame) -> tuple:
        numbers = [*frame.spacing_mm.round(2), *frame.orientation.ravel().round(1) + 0.0]
        return frame.shape, *numbers

    parts = _split(group, geometry)
    return parts if min(map(len, parts)) >= FEWEST_SLICES else [group]


def _by_phase(group: list[Frame]) -> list[list[Frame]]:
    """Separate acquisitions at the same positions, if any attribute but the pixels does so."""

    def overlaps(frames: list[Frame]) -> bool:
        return len({tuple(frame.position_mm.round(2)) for frame in frames}) < len(frames)

    if overlaps(group):
        for number in range(len(group[0].phase)):
            parts = _split(group, lambda frame, number=number: frame.phase[number])
            if len(parts) > 1 and not any(map(overlaps, parts)):
                return parts
    return [group]
