"""DICOM SEG -> ids on the segmentation's own grid.

Read with pydicom: highdicom, which the tests write with, refuses a file without the UID of
its frame of reference, and anonymised files have lost theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import SimpleITK
from pydicom.dataset import Dataset

from bonelib.errors import InputError
from bonelib.labels.dicom import read_dataset, refusing_damage
from bonelib.labels.grids import merge
from bonelib.labels.structures import Structure, choose

SAME_PLANE_MM = 0.01  # frames closer than this show one plane
UNEVEN = 0.1  # share of the distance of planes by which a plane may lie off its place
ASKEW_MM = 0.5  # by which frames may be shifted against each other in their plane
FULL_VALUE = 255  # of a fractional segmentation that does not state it


@dataclass(frozen=True)
class _Place:
    """Where a frame lies."""

    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    spacing_mm: np.ndarray  # between rows, between columns
    distance_mm: float  # stated between planes, or 0
    thickness_mm: float  # stated of a plane, or 0


def read_segmentation(
    path: Path, bone_names: dict[int | str, str] | None
) -> tuple[SimpleITK.Image, dict[int, str]]:
    """Read the segments of a DICOM SEG that count: binary, fractional or a label map.

    More than half of the full value of a fractional one is in. `bone_names` as for
    `bonelib.labels.read_mask`. Raises InputError for a damaged file and uneven planes.
    """
    dataset = read_dataset(path)
    with refusing_damage(path):
        structures = _structures(dataset)
    chosen = choose(path, structures, bone_names)
    with refusing_damage(path):
        grid, planes = _grid(path, dataset, _places(dataset))
        draw = _drawing(dataset, planes, grid.GetSize()[::-1])
        return merge(chosen, draw, grid)


def _structures(dataset: Dataset) -> list[Structure]:
    """Return the segments, which a description or a coded type may name better than the label."""
    structures = []
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number == 0:
            continue  # the background of a label map
        types = segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
        said = (
            segment.get("SegmentLabel"),
            segment.get("SegmentDescription"),
            types[0].get("CodeMeaning"),
        )
        names = tuple(str(name) for name in said if name) or (f"number {number}",)
        structures.append(Structure(names, number, number))
    return structures


def _places(dataset: Dataset) -> list[_Place]:
    """Return the place of each frame, stated for itself or for all frames together."""
    places = []
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        orientation = _group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
        position_mm = _group(dataset, frame, "PlanePositionSequence").ImagePositionPatient
        measures = _group(dataset, frame, "PixelMeasuresSequence")
        places.append(
            _Place(
                np.array(orientation, float).reshape(2, 3),
                np.array(position_mm, float).reshape(3),
                np.array(measures.PixelSpacing, float).reshape(2),
                float(measures.get("SpacingBetweenSlices") or 0),
                float(measures.get("SliceThickness") or 0),
            )
        )
    return places


def _group(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset:
    if keyword in frame:
        return frame[keyword][0]
    return dataset.SharedFunctionalGroupsSequence[0][keyword][0]


def _grid(
    path: Path, dataset: Dataset, places: Sequence[_Place]
) -> tuple[SimpleITK.Image, np.ndarray]:
    """Return an empty image of all planes from the lowest to the highest, and each frame's."""
    first = places[0]
    row, column = first.orientation
    normal = np.cross(row, column)
    heights_mm = np.array([place.position_mm @ normal for place in places])
    in_plane_mm = [
        place.position_mm - height * normal
        for place, height in zip(places, heights_mm, strict=True)
    ]
    square = np.allclose(first.orientation @ first.orientation.T, np.eye(2), atol=1e-3)
    same = (
        np.allclose([place.orientation for place in places], first.orientation, atol=1e-3)
        and np.allclose([place.spacing_mm for place in places], first.spacing_mm, atol=1e-3)
        and np.ptp(in_plane_mm, axis=0).max() <= ASKEW_MM
    )
    if not (square and (first.spacing_mm > 0).all()):
        raise InputError(
            f"{path}: its orientation or pixel spacing is impossible; the file is damaged, export "
            "it again"
        )
    if not same:
        raise InputError(
            f"{path}: its frames are turned, shifted or scaled against each other; export the "
            "segmentation as a volume"
        )
    planes, distance_mm = _evenly(path, heights_mm, first)
    shape = (int(planes.max()) + 1, int(dataset.Rows), int(dataset.Columns))
    if max(shape[0], len(places)) * shape[1] * shape[2] > psutil.virtual_memory().available:
        raise InputError(
            f"{path}: {' x '.join(map(str, shape))} voxels are more than the memory holds; export "
            "the segmentation cropped"
        )
    grid = SimpleITK.Image(shape[::-1], SimpleITK.sitkUInt8)
    grid.SetSpacing((*first.spacing_mm[::-1].tolist(), distance_mm))
    grid.SetOrigin(places[int(np.argmin(heights_mm))].position_mm.tolist())
    grid.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    return grid, planes


def _evenly(path: Path, heights_mm: np.ndarray, first: _Place) -> tuple[np.ndarray, float]:
    """Return the index of the plane of each height, and the distance of planes in mm.

    Planes without anything in them may be left out of a file: gaps are whole multiples.
    """
    order = np.argsort(heights_mm)
    gaps_mm = np.diff(heights_mm[order])
    gaps_mm[gaps_mm <= SAME_PLANE_MM] = 0
    if not gaps_mm.any():
        return np.zeros(len(order), int), first.distance_mm or first.thickness_mm or 1.0
    for unit_mm in (first.distance_mm, gaps_mm[gaps_mm > 0].min()):
        steps = np.rint(gaps_mm / unit_mm) if unit_mm > 0 else np.zeros(len(gaps_mm))
        distance_mm = gaps_mm.sum() / max(steps.sum(), 1)
        off_mm = np.abs(gaps_mm - steps * distance_mm)
        if (steps[gaps_mm > 0] > 0).all() and off_mm.max() <= UNEVEN * distance_mm:
            planes = np.zeros(len(order), int)
            planes[order[1:]] = np.cumsum(steps)
            return planes, float(distance_mm)
    raise InputError(
        f"{path}: its planes lie unevenly, {gaps_mm[gaps_mm > 0].min():.2f} to "
        f"{gaps_mm.max():.2f} mm apart; export the segmentation as a volume"
    )


def _drawing(
    dataset: Dataset, planes: np.ndarray, shape: tuple[int, int, int]
) -> Callable[[int], np.ndarray]:
    """Return a function from a segment's number to its voxels, true or false, of `shape`."""
    kind = dataset.SegmentationType
    full = int(dataset.get("MaximumFractionalValue") or FULL_VALUE) if kind == "FRACTIONAL" else 1
    # All frames at once: pydicom cuts single ones of 1 bit wrongly where they share a byte.
    pixels = dataset.pixel_array.reshape(len(planes), *shape[1:])
    if kind == "LABELMAP":
        numbers = np.zeros(shape, pixels.dtype)
        numbers[planes] = pixels
        return lambda number: numbers == number
    shown = np.array(
        [
            int(_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            for frame in dataset.PerFrameFunctionalGroupsSequence
        ]
    )

    def draw(number: int) -> np.ndarray:
        drawn = np.zeros(shape, bool)
        for frame in np.flatnonzero(shown == number):
            drawn[planes[frame]] |= pixels[frame] > full / 2
        return drawn

    return draw
