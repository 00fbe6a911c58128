"""DICOM RTSTRUCT and the scan that it was drawn on -> ids on the scan's grid."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from pydicom.dataset import Dataset

from bonelib.errors import InputError, InputWarning
from bonelib.labels.contours import MixedPlanesError, fill
from bonelib.labels.dicom import read_dataset, refusing_damage
from bonelib.labels.grids import check_overlap, merge
from bonelib.labels.structures import Choice, Structure, choose

CLOSED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FARTHEST_MM = 1e5  # from the scanner's centre; beyond, numbers are damaged


@dataclass(frozen=True)
class _Drawing:
    """The contours of one structure, in mm, and what else was there."""

    contours: tuple[np.ndarray, ...]
    num_short: int  # contours of fewer than three points
    num_open: int  # points and lines, which enclose nothing


def read_structure_set(
    path: Path, scan: SimpleITK.Image, bone_names: dict[int | str, str] | None
) -> tuple[SimpleITK.Image, dict[int, str]]:
    """Read the structures of an RTSTRUCT that count as ids on the scan's grid.

    `bone_names` as for `bonelib.labels.read_mask`. Raises InputError for a damaged file, for
    contours that are not in parallel planes and for such that lie all off the scan.
    """
    dataset = read_dataset(path)
    with refusing_damage(path):
        structures = _structures(dataset)
    chosen = choose(path, structures, bone_names)
    with refusing_damage(path):
        drawn = [Choice(choice.bone, _drawing(path, choice.source)) for choice in chosen]
    drawings = [choice.source for choice in drawn]
    _warn_of_gaps(drawings)
    points_mm = [contour for drawing in drawings for contour in drawing.contours]
    if points_mm:
        _check_overlap(path, np.concatenate(points_mm), scan)

    def draw(drawing: _Drawing) -> np.ndarray:
        if not drawing.contours:
            return np.zeros(scan.GetSize()[::-1], bool)
        try:
            return fill(drawing.contours, scan)
        except MixedPlanesError as error:
            raise InputError(
                f"{path}: the contours of a structure do not lie in parallel planes; export the "
                "structure as a volume, or draw it in one direction"
            ) from error

    return merge(drawn, draw, scan)


def _structures(dataset: Dataset) -> list[Structure]:
    """Return the structures with their contours as they are, which takes long to convert."""
    contours = {}
    for item in dataset.ROIContourSequence:
        number = int(item.ReferencedROINumber)
        contours.setdefault(number, []).extend(item.get("ContourSequence") or ())
    structures = []
    for roi in dataset.StructureSetROISequence:
        number = int(roi.ROINumber)
        name = str(roi.get("ROIName") or f"number {number}")
        structures.append(Structure((name,), contours.get(number, ()), number))
    return structures


def _drawing(path: Path, contours: Sequence[Dataset]) -> _Drawing:
    closed = [item for item in contours if item.ContourGeometricType in CLOSED_TYPES]
    points_mm = [_points_mm(path, item) for item in closed]
    kept = tuple(points for points in points_mm if len(points) >= 3)
    return _Drawing(kept, len(closed) - len(kept), len(contours) - len(closed))


def _points_mm(path: Path, contour: Dataset) -> np.ndarray:
    """Return the points (n, 3) of a contour in mm."""
    values = np.array(contour.get("ContourData") or (), float).ravel()
    stated = contour.get("NumberOfContourPoints")
    if len(values) % 3 or (stated is not None and 3 * int(stated) != len(values)):
        raise InputError(
            f"{path}: a contour has {len(values)} coordinates, which is not three for each of its "
            "points; the file is damaged, export it again"
        )
    if not (np.abs(values) < FARTHEST_MM).all():  # false for NaN as well
        raise InputError(
            f"{path}: a contour has coordinates that are no places in millimetres; the file is "
            "damaged, export it again"
        )
    return values.reshape(-1, 3)


def _check_overlap(path: Path, points_mm: np.ndarray, scan: SimpleITK.Image) -> None:
    half_mm = max(scan.GetSpacing()) / 2  # contours are flat: they stand for slices
    try:
        check_overlap(scan, points_mm.min(axis=0) - half_mm, points_mm.max(axis=0) + half_mm)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _warn_of_gaps(drawings: Sequence[_Drawing]) -> None:
    """Say what of the structures encloses nothing."""
    for count, what in (
        (sum(drawing.num_short for drawing in drawings), "contours of fewer than three points"),
        (sum(drawing.num_open for drawing in drawings), "points and lines, which enclose nothing,"),
        (sum(not drawing.contours for drawing in drawings), "structures without a closed contour"),
    ):
        if count:
            warnings.warn(f"{count} {what} were passed over", InputWarning, stacklevel=2)
