"""Scan, label map and surface -> preview.png, which shows whether a segmentation is right."""

import numpy as np
import SimpleITK
import trimesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bonelib.figures.scan import draw_plane, most_bone
from bonelib.figures.style import CLASS_COLOURS
from bonelib.segment.surfaces import VIEWS, draw_surface
from bonelib.settings import BACKGROUND, BONE, CLASS_NAMES, PATIENT

MONTAGE = (2, 5)  # rows and columns of axial slices
PANELS = 4  # below: two planes and two views of the surface
WIDTH_INCHES = 15.0
TITLE_INCHES = 0.4  # of a row of panels
AXIS_INCHES = 0.8  # below the last row
MAX_HEIGHT = 1.15  # of a panel, to its width; a longer scan is drawn narrower
MARGIN = 8  # pixels around the patient


def draw_overview(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, surface: trimesh.Trimesh | None
) -> Figure:
    """Draw axial slices, a coronal and a sagittal plane with outlines, and the surface, in mm.

    `label_map` lies on the scan's grid; `surface` is all bone in patient coordinates, or None.
    The slices are evenly spaced from head to feet.
    """
    box = _patient_box(label_map)
    scan, label_map = scan[box], label_map[box]
    width_mm, depth_mm, height_mm = np.multiply(scan.GetSize(), scan.GetSpacing())
    shapes = [height_mm / width_mm, height_mm / depth_mm]
    if surface is not None:
        shapes += list(surface.extents[2] / surface.extents[:2])
    rows, columns = MONTAGE
    heights = (
        TITLE_INCHES + rows * (TITLE_INCHES + _panel_inches(depth_mm / width_mm, columns)),
        TITLE_INCHES + _panel_inches(max(shapes), PANELS) + AXIS_INCHES,
    )
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    last = scan.GetSize()[2] - 1
    chosen = np.linspace(last, 0, rows * columns + 2)[1:-1].round().astype(int)
    for panel, index in zip(upper.subplots(rows, columns).flat, chosen, strict=True):
        draw_plane(scan, label_map, 0, int(index), panel)
        panel.set_title(f"slice {index} of 0 to {last}")
        panel.set_axis_off()
    handles = [
        Line2D([], [], color=CLASS_COLOURS[label], label=CLASS_NAMES[label])
        for label in (PATIENT, BONE)
    ]
    upper.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    panels = lower.subplots(1, len(shapes))
    for axis in (1, 2):
        draw_plane(scan, label_map, axis, most_bone(label_map, axis), panels[axis - 1])
    if surface is not None:
        for panel, view in zip(panels[2:], VIEWS, strict=True):
            draw_surface(surface, panel, view)
    return figure


def _panel_inches(shape: float, count: int) -> float:
    """Return the height of `count` panels side by side; `shape` is height to width."""
    return WIDTH_INCHES / count * min(shape, MAX_HEIGHT)


def _patient_box(label_map: SimpleITK.Image) -> tuple[slice, slice]:
    """Return the columns and rows with the patient and a margin; all, where there is none."""
    inside = SimpleITK.GetArrayViewFromImage(label_map) != BACKGROUND
    ends = []
    for axis in (2, 1):  # SimpleITK's own order is column, row, slice
        at = np.flatnonzero(inside.any(axis=(0, 3 - axis)))
        first, last = (at[0], at[-1] + 1) if len(at) else (0, inside.shape[axis])
        ends.append(slice(int(max(0, first - MARGIN)), int(min(last + MARGIN, inside.shape[axis]))))
    return tuple(ends)
