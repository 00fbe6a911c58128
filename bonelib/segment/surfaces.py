"""Probabilities or label map -> surface in patient coordinates (x, y, z in mm, LPS), STL."""

from pathlib import Path
from typing import TYPE_CHECKING

import fast_simplification
import manifold3d
import numpy as np
import trimesh
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from scipy import ndimage, sparse
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from bonelib.figures.style import BONE_COLOUR
from bonelib.provenance import replacing
from bonelib.settings import BONE

if TYPE_CHECKING:  # a report draws surfaces and need not wait for Keras
    from bonelib.segment.probabilities import Probabilities

GRID_MM = 1.0  # of the surface; a coarser pixel is kept
SMOOTHING_STEPS = 10  # Taubin's: enough to take the grid's steps off, no shrinkage
APART_MM = 1e-3  # more than an STL rounds off, less than any scan shows
NEAR_TRIANGLES = 12  # whose middles are nearest: the nearest of even triangles is among them
MARGIN = 2  # pixels of nothing around the bone, so that its surface closes
IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
STL_HEADER = b"bonelib bone surface. SPACE=LPS; mm"

# The coordinate drawn across, the direction towards the viewer (x, y, z), the axis label.
VIEWS = {
    "front": (0, (0, -1, 0), "right to left (mm)"),
    "side": (1, (1, 0, 0), "front to back (mm)"),
}


def bone_surface(
    labels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY,
    grid_mm: float = GRID_MM,
) -> trimesh.Trimesh:
    """Return the closed surface of the bone, normals outward, in mm of the patient.

    `labels` is a mask, or a label map whose classes from 2 on are bone, of shape (slice, row,
    column); `spacing_mm` has the same order. `origin_mm` (x, y, z) and `direction` (nine
    values) are the scan's own, as SimpleITK gives them. Between slices the outline is
    interpolated by its signed distance (Raya & Udupa 1990), so that thick slices give slopes
    and not steps. Raises ValueError where there is no bone, or only specks.
    """
    bone = labels if labels.dtype == bool else labels >= BONE
    if not bone.any():
        raise ValueError("there is no bone in this label map, so it has no surface")
    box = ndimage.find_objects(bone.astype(np.uint8))[0]
    margin = np.where(bone[box], np.float32(1), np.float32(-1))
    return _surface(margin, _first(box), spacing_mm, origin_mm, direction, grid_mm)


def probability_surface(
    probabilities: "Probabilities", part: np.ndarray | None = None, grid_mm: float = GRID_MM
) -> trimesh.Trimesh:
    """Return the closed surface on which bone is as probable as what else is likeliest.

    It runs between the voxels, where the probabilities say. `part`, a mask of their shape
    (slice, row, column), keeps one of the bones. Raises ValueError as `bone_surface` does.
    """
    values = probabilities.values
    bone = probabilities.label_map() == BONE
    chosen = bone if part is None else bone & part
    if not chosen.any():
        raise ValueError("there is no bone in this scan, so it has no surface")
    box = ndimage.find_objects(chosen.astype(np.uint8))[0]
    box = tuple(slice(max(at.start - 1, 0), at.stop + 1) for at in box)
    margin = np.stack(
        [one[..., BONE].astype(np.float32) - one[..., :BONE].max(axis=-1) for one in values[box]]
    )
    if part is not None:
        others = bone[box] & ~part[box]
        margin[others] = -np.abs(margin[others])
    return _surface(
        margin, _first(box), probabilities.spacing_mm, probabilities.origin_mm,
        probabilities.direction, grid_mm,
    )  # fmt: skip


def _first(box: tuple[slice, ...]) -> np.ndarray:
    return np.array([part.start for part in box])


def _surface(margin, first, spacing_mm, origin_mm, direction, grid_mm) -> trimesh.Trimesh:
    """Return the smooth surface where `margin`, positive in bone, is zero.

    `margin` (slice, row, column) is a part of the scan that begins at voxel `first`.
    """
    margin = np.pad(margin, MARGIN, constant_values=-1)
    distance, grid_spacing_mm = _distance_grid(margin, spacing_mm, grid_mm)
    if distance.max() <= 0:
        raise ValueError("the bone is too small to have a surface")
    vertices, faces, _, _ = marching_cubes(distance, level=0, spacing=grid_spacing_mm)
    vertices = vertices + (first - MARGIN) * np.array(spacing_mm)
    points = vertices[:, ::-1] @ np.reshape(direction, (3, 3)).T + origin_mm
    surface = trimesh.Trimesh(points, faces)
    trimesh.smoothing.filter_taubin(
        surface, iterations=SMOOTHING_STEPS, laplacian_operator=_neighbour_average(surface)
    )
    if surface.volume < 0:
        surface.invert()
    return surface


def _distance_grid(margin, spacing_mm, grid_mm):
    """Return the signed distance in mm, inside positive, on a nearly even grid; its spacing.

    It is measured within slices, bounded by two slice distances so that a bone which ends
    does so between the slices, and interpolated linearly to `grid_mm`.
    """
    bound_mm = 2 * max(spacing_mm)
    distance = np.full(margin.shape, -bound_mm, np.float32)
    for index in np.flatnonzero((margin > 0).any(axis=(1, 2))):
        distance[index] = _distance_in_slice(margin[index], spacing_mm[1:])
    np.clip(distance, -bound_mm, bound_mm, out=distance)
    step_mm = max(grid_mm, min(spacing_mm))
    lengths_mm = (np.array(margin.shape) - 1) * spacing_mm
    shape = np.maximum(np.round(lengths_mm / step_mm).astype(int) + 1, 2)
    fine = ndimage.zoom(distance, shape / np.array(margin.shape), order=1)
    fine[np.abs(fine) < 1e-3] = -1e-3  # a zero on a grid point would give faces without area
    return fine, tuple(lengths_mm / (shape - 1))


def _distance_in_slice(margin: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the signed distance in mm to the line in a slice where `margin` is zero.

    Beside the line it follows from where `margin`, taken as linear, crosses zero on the way to
    each neighbour, as fast marching begins (Sethian 1999); elsewhere from the nearest such pixel.
    """
    inside = margin > 0
    inverse_squares = np.zeros(margin.shape)
    for axis, step_mm in enumerate(spacing_mm):
        here, there = (np.moveaxis(margin, axis, 0)[part] for part in np.s_[:-1, 1:])
        crossed = (here > 0) != (there > 0)
        share = np.divide(here, here - there, out=np.zeros_like(here), where=crossed)
        nearest = np.full(np.moveaxis(margin, axis, 0).shape, np.inf)
        np.minimum(nearest[:-1], np.where(crossed, share, np.inf), out=nearest[:-1])
        np.minimum(nearest[1:], np.where(crossed, 1 - share, np.inf), out=nearest[1:])
        nearest_mm = np.maximum(np.moveaxis(nearest, 0, axis) * step_mm, 1e-6)
        inverse_squares += 1 / nearest_mm**2
    beside = inverse_squares > 0
    distance = np.zeros(margin.shape)
    distance[beside] = 1 / np.sqrt(inverse_squares[beside])
    away, (rows, columns) = ndimage.distance_transform_edt(
        ~beside, sampling=spacing_mm, return_indices=True
    )
    distance = away + distance[rows, columns]
    return np.where(inside, distance, -distance)


def _neighbour_average(surface: trimesh.Trimesh) -> sparse.csr_matrix:
    """Return the matrix that maps vertices to the mean of their neighbours."""
    first, second = surface.edges_unique.T
    ends = np.r_[first, second], np.r_[second, first]
    links = sparse.csr_matrix((np.ones(2 * len(first)), ends), [len(surface.vertices)] * 2)
    return sparse.diags(1 / np.maximum(links.sum(axis=1).A1, 1)) @ links


def write_stl(surface: trimesh.Trimesh, path: Path) -> None:
    """Write a binary STL in mm and LPS, in one step; its header says so as 3D Slicer's does."""
    with replacing(path) as scratch:
        scratch.write_bytes(STL_HEADER.ljust(80) + surface.export(file_type="stl")[80:])


def coarsen(surface: trimesh.Trimesh, max_faces: int) -> trimesh.Trimesh:
    """Return a closed surface of `max_faces` triangles at most, by the least quadric error.

    Source: Garland & Heckbert 1997, as fast_simplification has it. Where it lets two sheets
    touch along an edge, they are parted by a thousandth of a millimetre.
    """
    if len(surface.faces) <= max_faces:
        return surface
    points, faces = fast_simplification.simplify(
        surface.vertices, surface.faces, target_count=max_faces
    )
    solid = manifold3d.Manifold(manifold3d.Mesh64(points, faces.astype(np.uint64))).to_mesh64()
    coarse = trimesh.Trimesh(solid.vert_properties[:, :3], solid.tri_verts, process=False)
    _, place, counts = np.unique(
        coarse.vertices.round(4), axis=0, return_inverse=True, return_counts=True
    )
    inward = np.where(counts[place] > 1, -APART_MM, 0)[:, None] * coarse.vertex_normals
    return trimesh.Trimesh(coarse.vertices + inward, coarse.faces, process=False)


def distances(
    surface: trimesh.Trimesh, reference: trimesh.Trimesh, points: int = 20_000
) -> np.ndarray:
    """Return how far from `reference`, in mm, points spread evenly over `surface` lie.

    Measured to the nearest of the triangles around, see `NEAR_TRIANGLES`.
    """
    places = surface.sample(points, seed=0)
    _, near = cKDTree(reference.triangles_center).query(places, NEAR_TRIANGLES)
    triangles = reference.triangles[near].reshape(-1, 3, 3)
    repeated = np.repeat(places, NEAR_TRIANGLES, axis=0)
    nearest = trimesh.triangles.closest_point(triangles, repeated)
    return np.linalg.norm(nearest - repeated, axis=1).reshape(near.shape).min(axis=1)


def read_surface(path: Path) -> trimesh.Trimesh:
    """Return the surface of an STL file; an empty one where no bone was found to write."""
    return trimesh.load(path) if path.exists() else trimesh.Trimesh()


def draw_surface(
    surface: trimesh.Trimesh, axes: Axes, view: str = "front", max_faces: int = 60_000
) -> None:
    """Draw the lit surface in mm, seen from the `front` or from the left `side`, upright.

    A parallel projection: far faces first, those turned away left out.
    """
    across, towards, label = VIEWS[view]
    if surface.is_empty:
        axes.set_title("no bone found")
        return
    coarse = coarsen(surface, max_faces)
    facing = coarse.face_normals @ towards
    seen = np.flatnonzero(facing > 0)
    seen = seen[np.argsort((coarse.triangles_center @ towards)[seen])]
    light = np.array(towards) + 0.35 * np.array([1, 0, 1])  # over the viewer's shoulder
    brightness = np.clip(coarse.face_normals[seen] @ (light / np.linalg.norm(light)), 0, 1)
    rgb = (0.25 + 0.75 * brightness[:, None]) * to_rgb(BONE_COLOUR)
    corners = coarse.triangles[seen][:, :, [across, 2]]
    # Edges in the colour of their face close the hairlines between the faces.
    axes.add_collection(
        PolyCollection(corners, facecolors=rgb, edgecolors=rgb, linewidths=0.3, rasterized=True)
    )
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_xlabel(label)
    axes.set_ylabel("feet to head (mm)")
    axes.set_title(f"from the {'front' if view == 'front' else 'left'}")
