"""DICOM SEG -> ids in the planes of its scan or on its own grid; RTSTRUCT -> on the scan's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.uid import UncompressedTransferSyntaxes
from skimage.draw import polygon

from bonelib.errors import InputError, refusing_damage, warn
from bonelib.labels.structures import BoneNames, Mask, Structure, draw_bones
from bonelib.scans import Grid, Layout
from bonelib.scans.dicom import DAMAGED, attributes_of_frames

REFERRING_SEQUENCES = (
    "ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "StructureSetROISequence",
)  # fmt: skip
UNEVEN = 0.1  # share of the planes' distance by which a plane may lie off its place
CLOSED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FARTHEST_MM = 1e5  # from the scanner's centre; farther points come from a damaged file
SAME_PLANE_MM = 0.1  # contours closer than this, as decimals are rounded, share a plane
SAME_OUTLINE = 0.98  # share of its pixels that a smaller outline has to have, to be the same
CONTAINED = 0.99  # share of an outline's pixels inside another, to be a hole or an island there
LONGEST_GAP = 2.1  # planes' distances that are bridged: one plane may be missing
FLAT_MM = 0.5  # that points may lie off the plane of their contour
OTHER_SPACE = "has another frame of reference than the scan; give the scan that it was drawn on"
NOTED_OUTSIDE = 0.01  # share of a structure's points
ROUNDING_MM = 1e-6  # decides for a voxel halfway between two planes


def read_segmentation(path: Path, bone_names: BoneNames, layout: Layout | None) -> Mask:
    """Read the segments of a DICOM SEG that count: binary, fractional above half, or a label map.

    Frames in the planes of the scan, whose `layout` may be given, are read in these; others
    must be evenly spaced. `bone_names` as for `bonelib.labels.read_mask`.
    """
    with refusing_damage(path, DAMAGED):
        dataset = pydicom.dcmread(path, force=True)
        _check_reference(path, dataset, layout)
        frames = attributes_of_frames(dataset)
        layout, places = _places(path, frames, layout)
        is_label_map = dataset.SegmentationType == "LABELMAP"
        numbers = [0 if is_label_map else frame.ReferencedSegmentNumber for frame in frames]
        half = 0.5 * dataset.get("MaximumFractionalValue", 1)
        # pydicom reads single frames of one bit a pixel only where they end at whole bytes.
        whole_bytes = dataset.BitsAllocated > 1 or dataset.Rows * dataset.Columns % 8 == 0
        syntax = dataset.file_meta.TransferSyntaxUID
        segments = _segments(dataset)
        if unknown := {*numbers} - {0, *(segment.number for segment in segments)}:
            warn(f"segments that are drawn and not described, left out: {len(unknown)}")
    advice = DAMAGED
    if syntax not in UncompressedTransferSyntaxes:
        advice = f"its compression ({syntax.name}) is not supported; export it uncompressed"

    def draw(number: int) -> np.ndarray:
        drawn = np.zeros((len(layout.places), dataset.Rows, dataset.Columns), bool)
        held = [index for index, other in enumerate(numbers) if other in (0, number)]
        with refusing_damage(path, advice):
            parts = iter_pixels(dataset, indices=held) if whole_bytes else dataset.pixel_array[held]
            for index, part in zip(held, parts, strict=True):
                drawn[places[index]] |= part == number if is_label_map else part > half
        return layout.spread(drawn)

    return draw_bones(path, segments, bone_names, draw, layout.grid)


def read_structure_set(
    path: Path, scan: SimpleITK.Image, bone_names: BoneNames, layout: Layout | None
) -> Mask:
    """Read the structures of an RTSTRUCT that count as ids on the scan's grid.

    `bone_names` as for `bonelib.labels.read_mask`. Raises InputError for contours that are not
    in parallel planes, or that all lie off the scan.
    """
    with refusing_damage(path, DAMAGED):
        dataset = pydicom.dcmread(path, force=True)
        _check_reference(path, dataset, layout)
        structures = _rois(path, dataset, layout)

    def draw(contours: Sequence[Dataset]) -> np.ndarray:
        with refusing_damage(path, DAMAGED):
            return fill(path, scan, *_closed(path, contours))

    mask, names = draw_bones(path, structures, bone_names, draw, Grid.of(scan))
    if not SimpleITK.GetArrayViewFromImage(mask).any():
        raise InputError(
            f"{path}: has no closed contours of bone in the scan; export the structures again"
        )
    return mask, names


def fill(
    path: Path, scan: SimpleITK.Image, contours_mm: list[np.ndarray], exclusive: bool = False
) -> np.ndarray:
    """Return true where a voxel's centre is inside contours (n, 3), (slice, row, column).

    With `exclusive`, as the standard's XOR, where an odd number of contours overlap.
    A voxel takes the nearest plane of contours and is looked up along the planes' normal, so
    planes may be oblique to the grid and at any distance. Warns of missing planes. Raises
    InputError, naming `path`, where planes are not parallel.
    """
    inside = np.zeros(scan.GetSize()[::-1], bool)
    if not contours_mm:
        return inside
    direction = np.reshape(scan.GetDirection(), (3, 3))
    to_mm = direction * scan.GetSpacing()
    from_mm = np.linalg.inv(to_mm)
    contours_mm = [contour - scan.GetOrigin() for contour in contours_mm]
    index = np.concatenate(contours_mm) @ from_mm.T
    outside = 1 - ((index > -1) & (index < scan.GetSize())).all(axis=1).mean()
    if outside > NOTED_OUTSIDE:
        warn(f"{100 * outside:.0f} % of a structure's contours lie outside of the scan")
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
    for plane, low_mm, high_mm in _planes(contours_mm, normal, scan.GetSpacing()[along]):
        points = [contour @ from_mm.T for contour in plane]
        reached = (slices_mm + in_plane_mm.max() >= low_mm) & (
            slices_mm + in_plane_mm.min() < high_mm
        )
        for index in np.flatnonzero(reached):
            moved = [item + (index - item[:, [along]]) * step / step[along] for item in points]
            filled = _filled([item[:, across] for item in moved], exclusive, slices.shape[1:])
            here_mm = slices_mm[index] + in_plane_mm
            slices[index] |= filled & (here_mm >= low_mm) & (here_mm < high_mm)
    return inside


def _check_reference(path: Path, dataset: Dataset, layout: Layout | None) -> None:
    """Raise InputError for a mask of another frame of reference; warn of other differences."""
    if layout is None or not layout.frames:
        return
    spaces, series = [dataset.get("FrameOfReferenceUID")], []
    found = {"FrameOfReferenceUID": spaces, "SeriesInstanceUID": series}
    for sequence in REFERRING_SEQUENCES:
        for item in dataset.get(sequence) or []:
            for element in item.iterall():
                found.get(element.keyword.removeprefix("Referenced"), []).append(element.value)
    own = layout.frames[0]
    space = own.header.get("FrameOfReferenceUID")
    if space and any(spaces) and space not in spaces:
        raise InputError(f"{path}: {OTHER_SPACE}")
    if len({str(item.get("PatientID") or "") for item in (own.header, dataset)} - {""}) > 1:
        warn("the mask names another patient than the scan; is it of this scan?")
    if own.series_uid and any(series) and own.series_uid not in series:
        warn("the mask was drawn on another series than the scan's; is it in the same place?")


def _places(path: Path, frames: list[Dataset], layout: Layout | None) -> tuple[Layout, np.ndarray]:
    """Return the scan's layout, or that of the frames, and the slice of each frame in it."""
    from highdicom.spatial import get_volume_positions

    planes = np.array(
        [[f.Rows, f.Columns, *f.PixelSpacing, *f.ImageOrientationPatient] for f in frames], float
    )
    positions_mm = np.array([frame.ImagePositionPatient for frame in frames], float)
    if layout and layout.frames:
        own = layout.frames[0].geometry
        slices_mm = np.array([frame.position_mm for frame in layout.frames])
        off_mm = np.linalg.norm(positions_mm[:, None] - slices_mm, axis=2)
        is_near = off_mm.min(axis=1).max() <= UNEVEN * layout.grid.spacing_mm[2]
        places = off_mm.argmin(axis=1)
        steps = np.diff(np.unique(places))
        is_coarser = len(steps) > 1 and np.median(steps) == steps.min() > 1
        if is_near and not is_coarser and np.allclose(planes, own, rtol=0, atol=1e-3):
            return layout, places
    rows, columns, rows_mm, columns_mm, *cosines = planes[0].tolist()
    step_mm, _ = get_volume_positions(
        positions_mm, cosines, rtol=UNEVEN, allow_missing_positions=True,
        allow_duplicate_positions=True,
    )  # fmt: skip
    if step_mm is None or np.ptp(planes, axis=0).max() > 1e-3:
        raise InputError(
            f"{path}: its planes lie unevenly, or are turned or shifted against each other, and "
            "are not those of the scan; export the segmentation as a volume"
        )
    row, column = np.reshape(cosines, (2, 3))
    axes = np.column_stack([row, column, np.cross(row, column)])
    heights_mm = positions_mm @ axes[:, 2]
    if np.ptp(heights_mm) == 0:
        thickness_mm = frames[0].get("SpacingBetweenSlices") or frames[0].get("SliceThickness")
        step_mm = float(thickness_mm or (layout.grid.spacing_mm[2] if layout else 0))
        if step_mm <= 0:
            raise InputError(f"{path}: has one plane without a thickness; export it as a volume")
    places = np.rint((heights_mm - heights_mm.min()) / step_mm).astype(int)
    grid = Grid(
        (int(columns), int(rows), int(places.max()) + 1),
        (columns_mm, rows_mm, step_mm),
        tuple(positions_mm[heights_mm.argmin()].tolist()),
        tuple(axes.ravel().tolist()),
    )
    return Layout(grid, [], np.arange(grid.size[2])), places


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


def _rois(path: Path, dataset: Dataset, layout: Layout | None) -> list[Structure]:
    """Return the scan's structures with their contours as they are; converting them takes long."""
    has_space = layout is not None and layout.frames
    space = layout.frames[0].header.get("FrameOfReferenceUID") if has_space else None
    contours = {}
    for item in dataset.get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        contours.setdefault(number, []).extend(item.get("ContourSequence") or ())
    structures, others = [], 0
    for roi in dataset.StructureSetROISequence:
        number, own_space = int(roi.ROINumber), roi.get("ReferencedFrameOfReferenceUID")
        if space and own_space and own_space != space:
            others += 1
            continue
        name = str(roi.get("ROIName") or f"number {number}")
        structures.append(Structure((name,), contours.get(number, ()), number))
    if others and not structures:
        raise InputError(f"{path}: {OTHER_SPACE}")
    if others:
        warn(f"structures of another frame of reference, left out: {others}")
    return structures


def _closed(path: Path, contours: Sequence[Dataset]) -> tuple[list[np.ndarray], bool]:
    """Return the closed contours of a structure, and whether they are exclusive; warn of others."""
    closed = [item for item in contours if item.ContourGeometricType in CLOSED_TYPES]
    kept = [points for item in closed if len(points := _points_mm(path, item)) >= 3]
    if len(kept) < len(contours) or not kept:
        warn(f"a structure has {len(kept)} closed contours of {len(contours)}")
    return kept, any(item.ContourGeometricType == CLOSED_TYPES[1] for item in closed)


def _points_mm(path: Path, contour: Dataset) -> np.ndarray:
    values = np.array(contour.get("ContourData") or (), float).ravel()
    count = 3 * int(contour.get("NumberOfContourPoints") or len(values) // 3)
    if len(values) != count or not (np.abs(values) < FARTHEST_MM).all():  # or NaN
        raise InputError(
            f"{path}: a contour's {len(values)} coordinates are no points in millimetres; the file "
            "is damaged, export it again"
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
) -> list[tuple[list[np.ndarray], float, float]]:
    """Return the contours of each plane with its lower and upper end; warn of missing planes.

    A plane reaches halfway to its neighbours where these are no farther than one missing
    plane: planes may change their distance, and a structure may consist of parts.
    """
    heights_mm = np.array([(contour @ normal).mean() for contour in contours_mm])
    order = np.argsort(heights_mm)
    groups = np.split(order, np.flatnonzero(np.diff(heights_mm[order]) > SAME_PLANE_MM) + 1)
    means_mm = np.array([heights_mm[group].mean() for group in groups])
    gaps_mm = np.diff(means_mm)
    beside_mm = np.maximum(np.r_[0, gaps_mm[:-1]], np.r_[gaps_mm[1:], 0])  # the larger neighbour
    beside_mm = np.maximum(beside_mm if len(gaps_mm) > 1 else gaps_mm, slice_mm)
    bridged = gaps_mm <= LONGEST_GAP * beside_mm
    missing = bridged & (gaps_mm > (LONGEST_GAP - 0.5) * beside_mm)
    if missing.any():
        warn(f"missing planes of contours, filled from the nearest ones: {missing.sum()}")
    if not bridged.all():
        warn(f"planes of a structure up to {gaps_mm.max():.1f} mm apart are read as separate parts")
    reach_mm = np.where(bridged, gaps_mm, np.inf)
    below_mm, above_mm = np.r_[np.inf, reach_mm], np.r_[reach_mm, np.inf]
    ends_mm = np.minimum(below_mm, above_mm)  # where a part ends, as far as on its other side
    ends_mm = np.minimum.reduce([ends_mm, np.r_[np.inf, ends_mm[:-1]], np.r_[ends_mm[1:], np.inf]])
    ends_mm = np.where(np.isinf(ends_mm), slice_mm, np.maximum(ends_mm, slice_mm))
    lows_mm = means_mm - np.where(np.isinf(below_mm), ends_mm, below_mm) / 2 + ROUNDING_MM
    highs_mm = means_mm + np.where(np.isinf(above_mm), ends_mm, above_mm) / 2 + ROUNDING_MM
    return [
        ([contours_mm[index] for index in group], low_mm, high_mm)
        for group, low_mm, high_mm in zip(groups, lows_mm, highs_mm, strict=True)
    ]


def _filled(contours: list[np.ndarray], exclusive: bool, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels inside the contours, points (row, column), of one plane.

    A contour inside another is a hole, one inside the hole an island; other overlaps are
    joined, and a contour that is given twice counts once.
    """
    inside = np.zeros(shape, bool)
    pixels = [np.ravel_multi_index(polygon(*item.T, shape), shape) for item in contours]
    kept = []  # pixels, and in how many outlines within each other they lie
    for own in sorted(filter(len, pixels), key=len, reverse=True):
        if exclusive:
            inside.flat[own] ^= True
            continue
        around = [item for item in kept if np.isin(own, item[0]).mean() >= CONTAINED]
        if all(len(own) < SAME_OUTLINE * len(other) for other, _ in around):
            depth = 1 + max((depth for _, depth in around), default=-1)
            inside.flat[own] = depth % 2 == 0
            kept.append((own, depth))
    return inside
