"""Bone as voxels -> a closed surface in patient coordinates (x, y, z in mm, LPS).

Surfaces are written as STL and drawn in preview.png.
"""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import SimpleITK
import trimesh
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from bonelib.figures.pictures import draw_plane, most_bone
from bonelib.figures.style import CLASS_COLOURS, surface_colours
from bonelib.provenance import replacing
from bonelib.settings import BONE, CLASS_NAMES, PATIENT, RESEARCH_ONLY

GRID_MM = 1.0  # voxel size for marching cubes; larger pixels are not refined
SMOOTHING_STEPS = 10  # of Taubin's filter: removes the voxel grid's steps without shrinking
MARGIN = 2  # empty voxels around the bone, so that its surface closes
NEAREST_TRIANGLES = 12  # candidates, by their centres, for the triangle nearest to a point
STL_HEADER = b"bonelib bone surface. SPACE=LPS; mm"  # 3D Slicer reads SPACE=LPS
# The coordinate drawn across, the direction towards the viewer (x, y, z), the axis label.
VIEWS = {
    "front": (0, (0, -1, 0), "right to left (mm)"),
    "left": (1, (1, 0, 0), "front to back (mm)"),
}
LIGHT = (0.35, 0, 0.35)  # direction of the lamp, added to the direction towards the viewer
DRAWN_TRIANGLES = 30_000
MONTAGE = (2, 5)  # rows and columns of axial slices
SIZE_INCHES, HEIGHT_RATIOS = (15.0, 10.5), (5, 5.5)  # axial slices above, planes and views below


def bone_surface(bone: SimpleITK.Image, part: np.ndarray | None = None) -> trimesh.Trimesh:
    """Return the closed surface of bone, normals outward, in mm in patient coordinates.

    `bone` is a mask of 0 and 1, or the margin of `probabilities.predict_bone`, whose surface
    is where it is zero, between the voxels. `part`, a mask (slice, row, column), selects one
    bone. Raises ValueError if there is no bone or only specks.

    Between slices the outline is interpolated by its signed distance (Raya & Udupa 1990), so
    that thick slices give slopes instead of steps.
    """
    values = SimpleITK.GetArrayViewFromImage(bone)
    if values.dtype.kind in "iu":
        values = np.where(values > 0, np.float32(1), np.float32(-1))
    chosen = values > 0 if part is None else (values > 0) & part
    if not chosen.any():
        raise ValueError("there is no bone, so there is no surface")
    (box,) = ndimage.find_objects(chosen.astype(np.uint8))
    box = tuple(slice(max(at.start - 1, 0), at.stop + 1) for at in box)
    margin = np.where(chosen[box], values[box], -np.abs(values[box]))
    margin = np.pad(margin, MARGIN, constant_values=-1)
    distance, grid_spacing_mm = _distance_grid(margin, bone.GetSpacing()[::-1])
    if distance.max() <= 0:
        raise ValueError("the bone is too small to have a surface")
    vertices, faces, _, _ = marching_cubes(distance, level=0, spacing=grid_spacing_mm)
    first = np.array([at.start for at in box]) - MARGIN
    points_mm = (vertices + first * bone.GetSpacing()[::-1])[:, ::-1]
    axes = np.reshape(bone.GetDirection(), (3, 3))
    surface = trimesh.Trimesh(points_mm @ axes.T + bone.GetOrigin(), faces)
    trimesh.smoothing.filter_taubin(surface, iterations=SMOOTHING_STEPS)
    if surface.volume < 0:
        surface.invert()
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)  # without its cache


def _distance_grid(margin, spacing_mm) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the signed distance in mm, positive inside, on a nearly isotropic grid; its spacing.

    The distance is measured within slices, limited to two slice spacings so that a bone ends
    between slices, and interpolated linearly between them.
    """
    limit_mm = 2 * max(spacing_mm)
    distance = np.full(margin.shape, -limit_mm, np.float32)
    for index in np.flatnonzero((margin > 0).any(axis=(1, 2))):
        distance[index] = _distance_in_slice(margin[index], spacing_mm[1:])
    np.clip(distance, -limit_mm, limit_mm, out=distance)
    step_mm = max(GRID_MM, min(spacing_mm))
    lengths_mm = (np.array(margin.shape) - 1) * spacing_mm
    shape = np.maximum(np.round(lengths_mm / step_mm).astype(int) + 1, 2)
    fine = ndimage.zoom(distance, shape / np.array(margin.shape), order=1)
    fine[np.abs(fine) < 1e-3] = -1e-3  # a zero on a grid point would give faces without area
    return fine, tuple(lengths_mm / (shape - 1))


def _distance_in_slice(margin: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the signed distance in mm to the line in a slice where `margin` is zero.

    Next to the line it is computed from the zero crossings towards the neighbouring pixels,
    with `margin` taken as linear, as fast marching is initialised (Sethian 1999); elsewhere
    it is the distance to the nearest of those pixels plus that pixel's own.
    """
    inside = margin > 0
    inverse_squares = np.zeros(margin.shape)
    for axis, step_mm in enumerate(spacing_mm):
        nearest = np.full(margin.shape, np.inf)
        for shift in (1, -1):  # around the edge, which is empty
            there = np.roll(margin, shift, axis)
            crossed = inside != (there > 0)
            share = margin[crossed] / (margin[crossed] - there[crossed])
            nearest[crossed] = np.minimum(nearest[crossed], share)
        inverse_squares += np.maximum(nearest * step_mm, 1e-6) ** -2
    beside = inverse_squares > 0
    own = np.where(beside, inverse_squares, 1) ** -0.5
    away, (rows, columns) = ndimage.distance_transform_edt(
        ~beside, sampling=spacing_mm, return_indices=True
    )
    return np.where(inside, 1, -1) * (away + own[rows, columns])


def write_stl(surface: trimesh.Trimesh, path: Path) -> None:
    """Write a binary STL in mm and LPS; its header states both."""
    with replacing(path) as scratch:
        scratch.write_bytes(STL_HEADER.ljust(80) + surface.export(file_type="stl")[80:])


def read_stl(path: Path) -> trimesh.Trimesh:
    """Read an STL file; a missing one, where no bone was found, gives an empty surface."""
    return trimesh.load_mesh(path) if path.exists() else trimesh.Trimesh()


def coarsen(surface: trimesh.Trimesh, max_faces: int) -> trimesh.Trimesh:
    """Return the surface reduced to about `max_faces` triangles, for display."""
    if len(surface.faces) <= max_faces:
        return surface
    return surface.simplify_quadric_decimation(face_count=max_faces)


def distances(
    surface: trimesh.Trimesh, reference: trimesh.Trimesh, count: int = 20_000
) -> np.ndarray:
    """Return the distances in mm to `reference` from points spread evenly over `surface`."""
    points = surface.sample(count, seed=0)
    _, near = KDTree(reference.triangles_center).query(points, NEAREST_TRIANGLES)
    triangles = reference.triangles[near].reshape(-1, 3, 3)
    repeated = np.repeat(points, NEAREST_TRIANGLES, axis=0)
    closest = trimesh.triangles.closest_point(triangles, repeated)
    return np.linalg.norm(closest - repeated, axis=1).reshape(near.shape).min(axis=1)


def compare(surface: trimesh.Trimesh, reference: trimesh.Trimesh) -> dict[str, float]:
    """Return mean and median distance in mm between two surfaces, both ways; NaN if one is empty.

    The mean includes what was missed or invented; the median describes how well the rest lies.
    """
    both = np.array([np.nan])
    if not (surface.is_empty or reference.is_empty):
        both = np.r_[distances(surface, reference), distances(reference, surface)]
    return {"mean mm": both.mean(), "median mm": np.median(both)}


def draw_surfaces(surfaces: Mapping[str, trimesh.Trimesh], axes: Axes, view: str = "front") -> None:
    """Draw shaded surfaces in mm, seen from the front or from the patient's left side.

    The projection is parallel; triangles are painted from far to near, without those that
    face away.
    """
    across, towards, label = VIEWS[view]
    total = sum(len(surface.faces) for surface in surfaces.values())
    if not total:
        axes.set_title("no bone found")
        return
    parts = [
        coarsen(surface, DRAWN_TRIANGLES * len(surface.faces) // total)
        for surface in surfaces.values()
    ]
    colours = np.array([to_rgb(colour) for colour in surface_colours(len(parts))])
    colours = np.repeat(colours, [len(part.faces) for part in parts], axis=0)
    coarse = trimesh.util.concatenate(parts)
    order = np.argsort(coarse.triangles_center @ towards)
    seen = order[coarse.face_normals[order] @ towards > 0]
    light = np.add(towards, LIGHT) / np.linalg.norm(np.add(towards, LIGHT))
    brightness = np.clip(coarse.face_normals[seen] @ light, 0, 1)
    rgb = (0.25 + 0.75 * brightness[:, None]) * colours[seen]
    corners = coarse.triangles[seen][:, :, [across, 2]]
    # Edges in the colour of their face close the hairlines between the faces.
    axes.add_collection(
        PolyCollection(corners, facecolors=rgb, edgecolors=rgb, linewidths=0.3, rasterized=True)
    )
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set(title=f"from the {view}", xlabel=label, ylabel="feet to head (mm)")


def patient_box(label_map: SimpleITK.Image) -> tuple[slice, slice]:
    """Return the columns and rows without the air around the patient."""
    patient = SimpleITK.GetArrayViewFromImage(label_map).any(axis=0)
    found = ndimage.find_objects(patient.astype(np.uint8))
    return found[0][::-1] if found else (slice(None), slice(None))


def draw_preview(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, surfaces: Mapping[str, trimesh.Trimesh]
) -> Figure:
    """Draw axial slices, a coronal and a sagittal plane with outlines, and surfaces, in mm.

    `label_map` lies on the scan's grid; `surfaces` are in patient coordinates.
    The slices are evenly spaced from head to feet.
    """
    box = patient_box(label_map)
    scan, label_map = scan[box], label_map[box]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    figure.suptitle(RESEARCH_ONLY)
    upper, lower = figure.subfigures(2, 1, height_ratios=HEIGHT_RATIOS)
    last = scan.GetSize()[2] - 1
    chosen = np.linspace(last, 0, np.prod(MONTAGE) + 2)[1:-1].round().astype(int)
    for panel, index in zip_longest(upper.subplots(*MONTAGE).flat, dict.fromkeys(chosen.tolist())):
        panel.set_axis_off()
        if index is not None:
            draw_plane(scan, label_map, 0, index, panel)
            panel.set_title(f"slice {index} of 0 to {last}")
    handles = [
        Line2D([], [], color=CLASS_COLOURS[label], label=CLASS_NAMES[label])
        for label in (PATIENT, BONE)
    ]
    upper.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    panels = lower.subplots(1, 4 if surfaces else 2)
    for axis in (1, 2):
        draw_plane(scan, label_map, axis, most_bone(label_map, axis), panels[axis - 1])
    for panel, view in zip(panels[2:], VIEWS, strict=False):
        draw_surfaces(surfaces, panel, view)
    return figure
