"""Closed planar contours in space -> the voxels of a grid whose centres they enclose."""

from collections.abc import Sequence

import numpy as np
import SimpleITK

SAME_PLANE_MM = 0.1  # contours closer than this, as decimals are rounded, are of one plane
FLAT_MM = 0.5  # that points may lie off the plane of their contour

_ROUNDING_MM = 1e-6  # so that a voxel halfway between two planes is not left to chance


class MixedPlanesError(ValueError):
    """The contours of one structure do not lie in parallel planes."""


def fill(contours: Sequence[np.ndarray], grid: SimpleITK.Image) -> np.ndarray:
    """Return true where a voxel's centre is inside, of (slice, row, column).

    `contours` are points (n, 3) in mm, x, y, z. Those of one plane combine by even-odd, so
    that inner ones are holes. A voxel takes the nearest plane within half the distance of
    planes or of slices, whichever is larger, and is looked up along the planes' normal, so
    that planes may be oblique to the grid. Raises MixedPlanesError.
    """
    direction = np.reshape(grid.GetDirection(), (3, 3))
    to_mm = direction * grid.GetSpacing()
    from_mm, origin_mm = np.linalg.inv(to_mm), np.array(grid.GetOrigin())
    normal = _common_normal(contours)
    along = int(np.argmax(np.abs(normal @ direction)))
    normal = normal * np.sign(normal @ direction[:, along])
    heights_mm, planes = _planes([contour - origin_mm for contour in contours], normal)
    slabs_mm = _slabs(heights_mm, grid.GetSpacing()[along])

    rise_mm = normal @ to_mm  # of the height along the normal, a voxel along x, y, z
    step = from_mm @ normal  # in voxels along x, y, z, a millimetre along the normal
    inside = np.zeros(grid.GetSize()[::-1], bool)
    slices = np.moveaxis(inside, 2 - along, 0)
    rows_axis, columns_axis = (axis for axis in (2, 1, 0) if axis != along)
    for height_mm, low_mm, high_mm, plane in zip(heights_mm, *slabs_mm, planes, strict=True):
        points = [contour @ from_mm.T for contour in plane]
        places = np.concatenate(points)[:, along]
        first = np.floor(places.min() + (low_mm - height_mm) * step[along])
        last = np.ceil(places.max() + (high_mm - height_mm) * step[along])
        for index in range(max(int(first), 0), min(int(last) + 1, len(slices))):
            moved = [item + (index - item[:, [along]]) * step / step[along] for item in points]
            window, filled = even_odd(
                [item[:, [rows_axis, columns_axis]] for item in moved], slices.shape[1:]
            )
            rows, columns = np.ogrid[window]
            here_mm = (
                index * rise_mm[along] + rows * rise_mm[rows_axis] + columns * rise_mm[columns_axis]
            )
            slices[index][window] |= filled & (here_mm >= low_mm) & (here_mm < high_mm)
    return inside


def even_odd(
    polygons: Sequence[np.ndarray], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a window of a slice, and true in it where an odd number of polygons is round.

    Polygons are (n, 2) of row and column, whole numbers being the centres of pixels. A
    centre on an edge belongs to the pixels below and to the right, so that neighbours that
    share the edge neither both have it nor both miss it.
    """
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    top, left = np.clip(np.ceil(start.min(axis=0)), 0, shape).astype(int)
    bottom, right = np.clip(np.ceil(start.max(axis=0)), 0, shape).astype(int)
    rows = np.ceil(np.sort(np.stack([start[:, 0], end[:, 0]]), axis=0))
    first, last = np.clip(rows, top, bottom).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (row_before, before), (row_after, after) = start[edge].T, end[edge].T
    crossing = before + (row - row_before) * (after - before) / (row_after - row_before)
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    crossings = np.zeros((bottom - top, right - left + 1), int)
    np.add.at(crossings, (row - top, column - left), 1)
    inside = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return (slice(top, bottom), slice(left, right)), inside


def _common_normal(contours: Sequence[np.ndarray]) -> np.ndarray:
    """Return the direction in which the points of each contour vary least, a unit vector."""
    scatter = np.zeros((3, 3))
    for contour in contours:
        centred = contour - contour.mean(axis=0)
        scatter += centred.T @ centred
    return np.linalg.eigh(scatter)[1][:, 0]


def _planes(
    contours: Sequence[np.ndarray], normal: np.ndarray
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Return the heights of the planes along `normal`, rising, in mm, and their contours."""
    if max(np.ptp(contour @ normal) for contour in contours) > FLAT_MM:
        raise MixedPlanesError
    heights_mm = np.array([(contour @ normal).mean() for contour in contours])
    order = np.argsort(heights_mm)
    gaps = np.flatnonzero(np.diff(heights_mm[order]) > SAME_PLANE_MM) + 1
    groups = np.split(order, gaps)
    means_mm = np.array([heights_mm[group].mean() for group in groups])
    return means_mm, [[contours[index] for index in group] for group in groups]


def _slabs(heights_mm: np.ndarray, slice_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return from which height to which, in mm, each plane is the nearest one within reach."""
    distances_mm = np.diff(heights_mm)
    reach_mm = max(np.median(distances_mm) if len(distances_mm) else 0, slice_mm) / 2
    middles_mm = heights_mm[:-1] + distances_mm / 2
    lows_mm = np.maximum(heights_mm - reach_mm, np.concatenate([[-np.inf], middles_mm]))
    highs_mm = np.minimum(heights_mm + reach_mm, np.concatenate([middles_mm, [np.inf]]))
    return lows_mm - _ROUNDING_MM, highs_mm - _ROUNDING_MM
