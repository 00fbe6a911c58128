"""Scan, label map and surfaces -> preview.png, which shows whether a segmentation is right."""

from collections.abc import Mapping

import numpy as np
import SimpleITK
import trimesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bonelib.figures.pictures import draw_plane, most_bone
from bonelib.figures.style import CLASS_COLOURS
from bonelib.segment.surfaces import VIEWS, draw_surfaces
from bonelib.settings import BONE, CLASS_NAMES, PATIENT, RESEARCH_ONLY

MONTAGE = (2, 5)  # rows and columns of axial slices
SIZE_INCHES, HEIGHT_RATIOS = (15.0, 10.5), (5, 5.5)  # axial slices above, planes and views below


def draw_preview(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, surfaces: Mapping[str, trimesh.Trimesh]
) -> Figure:
    """Draw axial slices, a coronal and a sagittal plane with outlines, and surfaces, in mm.

    `label_map` lies on the scan's grid; `surfaces` are in patient coordinates.
    The slices are evenly spaced from head to feet.
    """
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(label_map > 0)
    if shape.GetNumberOfLabels():  # without the air around the patient
        x, y, _, columns, rows, _ = shape.GetBoundingBox(1)
        box = slice(x, x + columns), slice(y, y + rows)
        scan, label_map = scan[box], label_map[box]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    figure.suptitle(RESEARCH_ONLY)
    upper, lower = figure.subfigures(2, 1, height_ratios=HEIGHT_RATIOS)
    last = scan.GetSize()[2] - 1
    chosen = np.linspace(last, 0, np.prod(MONTAGE) + 2)[1:-1].round().astype(int)
    for panel, index in zip(upper.subplots(*MONTAGE).flat, chosen, strict=True):
        draw_plane(scan, label_map, 0, int(index), panel)
        panel.set_title(f"slice {index} of 0 to {last}")
        panel.set_axis_off()
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
