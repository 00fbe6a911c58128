"""DICOM SEG -> ids on its own grid; DICOM RTSTRUCT -> ids on the scan's grid."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from skimage.draw import polygon2mask

from bonelib.errors import InputError, refusing_damage, warn
from bonelib.labels.grids import check_overlap, merge
from bonelib.labels.structures import Structure, choose
from bonelib.scans import Grid
from bonelib.scans.dicom import DAMAGED

REQUIRED_UIDS = (
    "FrameOfReferenceUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
)  # fmt: skip
UNEVEN = 0.1  # share of the planes' distance by which a plane may lie off its place
CLOSED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FARTHEST_MM = 1e5  # from the scanner's centre; farther points come from a damaged file
SAME_PLANE_MM = 0.1  # contours closer than this, as decimals are rounded, share a plane
FLAT_MM = 0.5  # that points may lie off the plane of their contour
ROUNDING_MM = 1e-6  # decides for a voxel halfway between two planes

Drawn = tuple[SimpleITK.Image, dict[int, str]]


def read_segmentation(path: Path, bone_names: dict[int | str, str] | None) -> Drawn:
    """Read the segments of a DICOM SEG that count: binary, fractional or a label map.

    A voxel of a fractional one counts above half of the full value. `bone_names` as for
    `bonelib.labels.read_mask`. Raises InputError for a damaged file and uneven planes.
    """
    import highdicom

    with refusing_damage(path, DAMAGED):
        dataset = pydicom.dcmread(path, force=True)
        for name in REQUIRED_UIDS:  # anonymised files have lost them; highdicom wants them
            if not dataset.get(name):
                setattr(dataset, name, generate_uid())
        structures = _segments(dataset)
    chosen = choose(path, structures, bone_names)
    with refusing_damage(path, DAMAGED):
        segmentation = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
        place = segmentation.get_volume_geometry(rtol=UNEVEN, allow_missing_positions=True)
        if place is None:
            raise InputError(
                f"{path}: its planes lie unevenly, or are turned or shifted against each other; "
                "export the segmentation as a volume"
            )

        def draw(number: int) -> np.ndarray:
            return (
                segmentation.get_volume(segment_numbers=[number], rtol=UNEVEN).array[..., 0] > 0.5
            )

        direction = place.direction[:, ::-1].ravel().tolist()
        grid = Grid(place.spatial_shape[::-1], place.spacing[::-1], place.position, direction)
        return merge(chosen, draw, grid.empty())


def read_structure_set(
    path: Path, scan: SimpleITK.Image, bone_names: dict[int | str, str] | None
) -> Drawn:
    """Read the structures of an RTSTRUCT that count as ids on the scan's grid.

    `bone_names` as for `bonelib.labels.read_mask`. Raises InputError for a damaged file, for
    contours that are not in parallel planes, and for contours that all lie off the scan.
    """
    skipped = Counter()
    with refusing_damage(path, DAMAGED):
        structures = _rois(pydicom.dcmread(path, force=True))
    chosen = choose(path, structures, bone_names)
    with refusing_damage(path, DAMAGED):
        drawn = [(bone, _closed_mm(path, contours, skipped)) for bone, contours in chosen]
    for what, count in skipped.items():
        warn(f"{count} {what} were passed over")
    contours_mm = [contour for _, contours in drawn for contour in contours]
    if contours_mm:
        points_mm = np.concatenate(contours_mm)
        half_mm = max(scan.GetSpacing()) / 2  # contours are flat, but stand for slices
        check_overlap(path, scan, points_mm.min(axis=0) - half_mm, points_mm.max(axis=0) + half_mm)
    return merge(drawn, lambda contours: fill(path, contours, scan), scan)


def fill(path: Path, contours_mm: Sequence[np.ndarray], grid: SimpleITK.Image) -> np.ndarray:
    """Return true where a voxel's centre is inside, (slice, row, column).

    Contours are points (n, 3) in x, y, z. Those of one plane combine by even-odd, so inner
    ones are holes. A voxel takes the nearest plane within half the distance of planes or of
    slices, whichever is larger, and is looked up along the planes' normal, so planes may be
    oblique to the grid. Raises InputError, naming `path`, where planes are not parallel.
    """
    inside = np.zeros(grid.GetSize()[::-1], bool)
    if not contours_mm:
        return inside
    direction = np.reshape(grid.GetDirection(), (3, 3))
    to_mm = direction * grid.GetSpacing()
    from_mm = np.linalg.inv(to_mm)
    contours_mm = [contour - grid.GetOrigin() for contour in contours_mm]
    normal = _common_normal(path, contours_mm)
    along = int(np.argmax(np.abs(normal @ direction)))
    normal = normal * np.sign(normal @ direction[:, along])
    rise_mm = normal @ to_mm  # in height along the normal, for a voxel along x, y, z
    step = from_mm @ normal  # voxels along x, y, z, for a millimetre along the normal

    slices = np.moveaxis(inside, 2 - along, 0)
    across = [axis for axis in (2, 1, 0) if axis != along]  # of rows and of columns
    rows, columns = np.ogrid[: slices.shape[1], : slices.shape[2]]
    in_plane_mm = rows * rise_mm[across[0]] + columns * rise_mm[across[1]]
    slices_mm = np.arange(len(slices)) * rise_mm[along]
    for plane, low_mm, high_mm in _planes(contours_mm, normal, grid.GetSpacing()[along]):
        points = [contour @ from_mm.T for contour in plane]
        reached = (slices_mm + in_plane_mm.max() >= low_mm) & (
            slices_mm + in_plane_mm.min() < high_mm
        )
        for index in np.flatnonzero(reached):
            moved = [item + (index - item[:, [along]]) * step / step[along] for item in points]
            filled = np.logical_xor.reduce(
                [polygon2mask(slices.shape[1:], item[:, across]) for item in moved]
            )
            here_mm = slices_mm[index] + in_plane_mm
            slices[index] |= filled & (here_mm >= low_mm) & (here_mm < high_mm)
    return inside


def _segments(dataset: Dataset) -> list[Structure]:
    """Return the segments, each with its label, description and coded type as names."""
    structures = []
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number == 0:
            continue  # the background of a label map
        types = segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
        label, description = segment.get("SegmentLabel"), segment.get("SegmentDescription")
        names = [str(name) for name in (label, description, types[0].get("CodeMeaning")) if name]
        structures.append(Structure(tuple(names) or (f"number {number}",), number, number))
    return structures


def _rois(dataset: Dataset) -> list[Structure]:
    """Return the structures with their contours as they are; converting them takes long."""
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


def _closed_mm(path: Path, contours: Sequence[Dataset], skipped: Counter) -> list[np.ndarray]:
    """Return the points (n, 3) of each closed contour, and count what encloses nothing."""
    closed = [item for item in contours if item.ContourGeometricType in CLOSED_TYPES]
    points_mm = [_points_mm(path, item) for item in closed]
    kept = [points for points in points_mm if len(points) >= 3]
    for what, count in (
        ("contours of fewer than three points", len(closed) - len(kept)),
        ("points and lines, which enclose nothing,", len(contours) - len(closed)),
        ("structures without a closed contour", not kept),
    ):
        if count:
            skipped[what] += count
    return kept


def _points_mm(path: Path, contour: Dataset) -> np.ndarray:
    values = np.array(contour.get("ContourData") or (), float).ravel()
    stated = contour.get("NumberOfContourPoints")
    if len(values) % 3 or (stated is not None and 3 * int(stated) != len(values)):
        raise InputError(
            f"{path}: a contour has {len(values)} coordinates, not three for each of its points; "
            "the file is damaged, export it again"
        )
    if not (np.abs(values) < FARTHEST_MM).all():  # false for NaN as well
        raise InputError(
            f"{path}: a contour has coordinates that are no places in millimetres; the file is "
            "damaged, export it again"
        )
    return values.reshape(-1, 3)


def _common_normal(path: Path, contours_mm: Sequence[np.ndarray]) -> np.ndarray:
    """Return the unit vector along which the points of each contour vary least."""
    centred = np.concatenate([contour - contour.mean(axis=0) for contour in contours_mm])
    normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    if np.abs(centred @ normal).max() > FLAT_MM:
        raise InputError(
            f"{path}: the contours of a structure do not lie in parallel planes; export the "
            "structure as a volume, or draw it in one direction"
        )
    return normal


def _planes(
    contours_mm: Sequence[np.ndarray], normal: np.ndarray, slice_mm: float
) -> Iterator[tuple[list[np.ndarray], float, float]]:
    """Yield the contours of each plane, and from which to which height it is the nearest."""
    heights_mm = np.array([(contour @ normal).mean() for contour in contours_mm])
    order = np.argsort(heights_mm)
    groups = np.split(order, np.flatnonzero(np.diff(heights_mm[order]) > SAME_PLANE_MM) + 1)
    means_mm = np.array([heights_mm[group].mean() for group in groups])
    distances_mm = np.diff(means_mm)
    reach_mm = max(np.median(distances_mm) if len(distances_mm) else 0, slice_mm) / 2
    middles_mm = means_mm[:-1] + distances_mm / 2
    lows_mm = np.maximum(means_mm - reach_mm, [-np.inf, *middles_mm]) - ROUNDING_MM
    highs_mm = np.minimum(means_mm + reach_mm, [*middles_mm, np.inf]) - ROUNDING_MM
    for group, low_mm, high_mm in zip(groups, lows_mm, highs_mm, strict=True):
        yield [contours_mm[index] for index in group], low_mm, high_mm
