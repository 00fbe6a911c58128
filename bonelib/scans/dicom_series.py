"""DICOM files -> the CT series among them, and one of these chosen by rule.

Axial series go before reformatted ones, originals before derived ones, then the longest, then
the finest, then the lowest number. Messages tell series apart by number and geometry, never
by descriptions or UIDs.
"""

import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bonelib.errors import InputError, warn
from bonelib.scans.dicom import PARTING_ATTRIBUTES, Frame, read_frames

LENGTH_STEP_MM = 20.0  # series of about one length are ranked by their slice distance
AXIAL_COSINE = 0.7  # between the slices' normal and the body's axis; less is not axial
FEWEST_SLICES = 3  # on average, of volumes that share a series
EVEN_SHARE = 0.8  # of the gaps in a volume of which a few slices are missing
MANY = 400  # files or slices from which on progress is shown
LONGEST_LIST = 1000  # characters of a message about files and series


@dataclass(frozen=True)
class Series:
    """Frames that make up one volume, in the order of their positions."""

    label: str  # SeriesNumber, with a letter where several series share it
    frames: list[Frame]

    @property
    def heights_mm(self) -> np.ndarray:
        """Return the slices' positions along their normal."""
        normal = np.cross(*self.frames[0].orientation)
        return np.array([frame.position_mm for frame in self.frames]) @ normal

    @property
    def distance_mm(self) -> float:
        """Return the median distance of slices at different positions."""
        gaps_mm = np.diff(self.heights_mm)
        return float(np.median(gaps_mm[gaps_mm > 1e-2])) if (gaps_mm > 1e-2).any() else 0.0

    @property
    def _axial(self) -> bool:
        return bool(abs(np.cross(*self.frames[0].orientation)[2]) >= AXIAL_COSINE)

    @property
    def derived(self) -> bool:
        """Tell whether the slices were computed from other images."""
        return "DERIVED" in "".join(self.frames[0].parts)

    def rank(self) -> tuple:
        """Return a key that sorts the best series first."""
        length_mm = round(np.ptp(self.heights_mm) / LENGTH_STEP_MM)
        number = self.label.rjust(12)
        single = len(self.frames) < 2
        return single, not self._axial, self.derived, -length_mm, self.distance_mm, number

    def __str__(self) -> str:
        count = len(self.frames)
        slices = f"{count} slices, {self.distance_mm:.2f} mm apart"
        kind = ("axial" if self._axial else "not axial") + ", derived" * self.derived
        named = slices if count > 1 else f"1 slice, {self.frames[0].name}"
        return f"series {self.label} ({named}, {kind})"


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
    several = sorted(_separate(frames), key=Series.rank)
    if wanted is not None:
        fitting = [item for item in several if wanted in (item.label, item.frames[0].series_uid)]
        if len(fitting) != 1:
            choices = ", ".join(map(str, several))
            raise InputError(f"{source}: has no one series '{wanted}'; choose from {choices}")
        frames = fitting[0].frames
    patients = len({frame.patient for frame in frames} - {""})
    if patients > 1:
        raise InputError(f"{source}: holds CT slices of {patients} patients; part them in folders")
    if wanted is not None:
        return fitting[0]
    first, *others = several
    if others or passed_over:
        left_out = textwrap.shorten(", ".join([*map(str, others), *passed_over]), LONGEST_LIST)
        warn(f"{first} is read; left out: {left_out}")
    return first


def _read_headers(files: Sequence[Path]) -> tuple[list[Frame], list[str]]:
    """Return the CT slices, and descriptions of the other files."""
    frames, others = [], Counter()
    for file in tqdm(files, "reading headers", unit="file", disable=len(files) < MANY, leave=False):
        try:
            found = read_frames(file)
        except InputError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            found = f"damaged ({file.name})"
        if isinstance(found, str):
            others[found] += 1
        else:
            frames += found
    return frames, [f"{count} {kind}" for kind, count in sorted(others.items())]


def _separate(frames: list[Frame]) -> list[Series]:
    """Return all series, each sorted by position and with a label of its own."""
    by_number = defaultdict(list)
    for group in _split(frames, lambda one: (one.series_uid or one.patient, one.series_number)):
        for part in _by_geometry(group):
            by_number[part[0].series_number] += _by_attributes(part)
    series = []
    for number, groups in by_number.items():
        groups.sort(key=_precedence)
        for index, group in enumerate(groups):
            letter = chr(ord("a") + index) if len(groups) > 1 else ""
            order = np.argsort(Series("", group).heights_mm, kind="stable")
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

    def fits(frame: Frame, other: Frame) -> bool:
        return frame.shape == other.shape and all(
            np.allclose(getattr(frame, name), getattr(other, name), atol=1e-3)
            for name in ("spacing_mm", "orientation")
        )

    groups = []
    for frame in frames:
        group = next((group for group in groups if fits(frame, group[0])), None)
        if group is None:
            groups.append(group := [])
        group.append(frame)
    return groups


def _by_attributes(frames: list[Frame]) -> list[list[Frame]]:
    """Separate volumes that an attribute tells apart and that cover the same region."""
    for number in range(len(PARTING_ATTRIBUTES)):
        parts = _split(frames, lambda frame, number=number: frame.parts[number])
        if 1 < len(parts) <= len(frames) / FEWEST_SLICES and _cover_one_region(parts):
            return [volume for part in parts for volume in _by_attributes(part)]
    return [frames]


def _cover_one_region(parts: list[list[Frame]]) -> bool:
    """Tell whether parts share positions, or are each even but lie between each other's slices."""
    heights_mm = [np.unique(Series("", part).heights_mm.round(2)) for part in parts]
    heights_mm.sort(key=lambda values: values[0])
    if len(np.unique(np.concatenate(heights_mm))) < sum(map(len, heights_mm)):
        return True
    apart = all(one[-1] < other[0] for one, other in pairwise(heights_mm))
    return not apart and all(map(_are_even, heights_mm))


def _are_even(heights_mm: np.ndarray) -> bool:
    """Tell whether slices are evenly spaced, a few missing ones aside."""
    gaps_mm = np.diff(heights_mm)
    if len(gaps_mm) < FEWEST_SLICES - 1:
        return False
    return np.isclose(gaps_mm, np.median(gaps_mm), rtol=0.1).mean() >= EVEN_SHARE
