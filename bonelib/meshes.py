"""Label map -> surface in patient coordinates (x, y, z in mm, LPS), STL."""

from pathlib import Path

import numpy as np
import trimesh
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from scipy import ndimage, sparse
from skimage.measure import marching_cubes

from bonelib.provenance import replacing
from bonelib.settings import BONE

GRID_MM = 1.0  # of the surface; a coarser pixel is kept
SMOOTHING_STEPS = 10  # Taubin's: enough to take the grid's steps off, no shrinkage
MARGIN = 2  # pixels of nothing around the bone, so that its surface closes
IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
BONE_COLOUR = "#E3DAC9"
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

    `labels` is a mask, or a label map whose class 2 is bone, of shape (slice, row, column);
    `spacing_mm` has the same order. `origin_mm` (x, y, z) and `direction` (nine values) are
    the scan's own, as SimpleITK gives them. Between slices the outline is interpolated by its
    signed distance (Raya & Udupa 1990), so that thick slices give slopes and not steps.
    Raises ValueError where there is no bone, or only specks.
    """
    bone = labels if labels.dtype == bool else labels == BONE
    if not bone.any():
        raise ValueError("there is no bone in this label map, so it has no surface")
    box = ndimage.find_objects(bone.astype(np.uint8))[0]
    bone = np.pad(bone[box], MARGIN)
    distance, grid_spacing_mm = _distance_grid(bone, spacing_mm, grid_mm)
    if distance.max() <= 0:
        raise ValueError("the bone in this label map is too small to have a surface")
    vertices, faces, _, _ = marching_cubes(distance, level=0, spacing=grid_spacing_mm)
    vertices = vertices + [part.start - MARGIN for part in box] * np.array(spacing_mm)
    points = vertices[:, ::-1] @ np.reshape(direction, (3, 3)).T + origin_mm
    surface = trimesh.Trimesh(points, faces)
    trimesh.smoothing.filter_taubin(
        surface, iterations=SMOOTHING_STEPS, laplacian_operator=_neighbour_average(surface)
    )
    if surface.volume < 0:
        surface.invert()
    return surface


def _distance_grid(bone, spacing_mm, grid_mm):
    """Return the signed distance in mm, inside positive, on a nearly even grid; its spacing.

    It is measured within slices, bounded by two slice distances so that a bone which ends
    does so between the slices, and interpolated linearly to `grid_mm`.
    """
    bound_mm = 2 * max(spacing_mm)
    distance = np.full(bone.shape, -bound_mm, np.float32)
    for index in np.flatnonzero(bone.any(axis=(1, 2))):
        inside = ndimage.distance_transform_edt(bone[index], sampling=spacing_mm[1:])
        outside = ndimage.distance_transform_edt(~bone[index], sampling=spacing_mm[1:])
        distance[index] = np.clip(inside - outside, -bound_mm, bound_mm)
    step_mm = max(grid_mm, min(spacing_mm))
    lengths_mm = (np.array(bone.shape) - 1) * spacing_mm
    shape = np.maximum(np.round(lengths_mm / step_mm).astype(int) + 1, 2)
    fine = ndimage.zoom(distance, shape / np.array(bone.shape), order=1)
    fine[np.abs(fine) < 1e-3] = -1e-3  # a zero on a grid point would give faces without area
    return fine, tuple(lengths_mm / (shape - 1))


def _neighbour_average(surface: trimesh.Trimesh) -> sparse.csr_matrix:
    """Return the matrix that maps vertices to the mean of their neighbours."""
    first, second = surface.edges_unique.T
    ends = np.r_[first, second], np.r_[second, first]
    links = sparse.csr_matrix((np.ones(2 * len(first)), ends), [len(surface.vertices)] * 2)
    return sparse.diags(1 / np.maximum(links.sum(axis=1).A1, 1)) @ links


def write_stl(surface: trimesh.Trimesh, path: Path) -> None:
    """Write a binary STL in mm, in one step."""
    with replacing(path) as scratch:
        surface.export(scratch, file_type="stl")


def coarsen(surface: trimesh.Trimesh, max_faces: int) -> trimesh.Trimesh:
    """Return a surface of about `max_faces` faces at most, to draw: near vertices are merged."""
    if len(surface.faces) <= max_faces:
        return surface
    cell_mm = np.sqrt(2 * surface.area / max_faces)
    cells = np.floor(surface.vertices / cell_mm).astype(int)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    counts = np.bincount(cell)
    points = np.stack([np.bincount(cell, axis) / counts for axis in surface.vertices.T], axis=1)
    faces = cell[surface.faces]
    area = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return trimesh.Trimesh(points, faces[area], process=False)


def draw_surface(
    surface: trimesh.Trimesh, axes: Axes, view: str = "front", max_faces: int = 60_000
) -> None:
    """Draw the lit surface in mm, seen from the `front` or from the left `side`, upright.

    A parallel projection: far faces first, those turned away left out.
    """
    across, towards, label = VIEWS[view]
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
