"""Scan, label map and surface -> one picture that shows whether a segmentation is right."""

import numpy as np
import SimpleITK
import trimesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bonelib.figures import CLASS_COLOURS
from bonelib.segment.surfaces import VIEWS, draw_surface
from bonelib.settings import BONE, CLASS_NAMES, PATIENT

WINDOW_HU = (-450, 1050)  # bone
MONTAGE = (2, 5)  # rows and columns of axial slices
LOWER = 4  # two planes and two views of the surface
WIDTH_INCHES = 15.0
TITLE_INCHES = 0.4  # of a row of panels
AXIS_INCHES = 0.8  # below the lower row
MOST_UPRIGHT = 1.15  # height of a panel to its width; what is longer gets narrower
MARGIN = 8  # pixels around the patient


def draw_overview(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, surface: trimesh.Trimesh | None
) -> Figure:
    """Draw axial slices, a coronal and a sagittal plane with contours, and the surface, in mm.

    `label_map` lies on the scan's grid; `surface` is all bone in mm of the patient, or None.
    The slices are evenly spaced from head to feet; the planes are those with most bone.
    """
    volume, labels = map(SimpleITK.GetArrayViewFromImage, (scan, label_map))
    box = _box_of_patient(labels)
    volume, labels = volume[box], labels[box]
    height_mm, down_mm, across_mm = volume.shape * np.array(scan.GetSpacing()[::-1])
    shapes = [height_mm / across_mm, height_mm / down_mm]
    if surface is not None:
        x_mm, y_mm, z_mm = surface.extents
        shapes += [z_mm / x_mm, z_mm / y_mm]
    heights = (
        TITLE_INCHES + MONTAGE[0] * (TITLE_INCHES + _inches(down_mm / across_mm, MONTAGE[1])),
        TITLE_INCHES + _inches(max(shapes), LOWER) + AXIS_INCHES,
    )
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    panels = upper.subplots(*MONTAGE).ravel()
    last = len(volume) - 1
    chosen = np.linspace(last, 0, len(panels) + 2)[1:-1].round().astype(int)
    for panel, index in zip(panels, chosen, strict=True):
        _draw_plane(panel, scan, volume, labels, 0, index)
        panel.set_title(f"slice {index} of 0 to {last}")
        panel.set_axis_off()
    handles = [
        Line2D([], [], color=CLASS_COLOURS[label], label=CLASS_NAMES[label])
        for label in (PATIENT, BONE)
    ]
    upper.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    panels = lower.subplots(1, len(shapes))
    bone = labels == BONE
    for panel, axis, name in zip(panels, (1, 2), ("coronal", "sagittal"), strict=False):
        counts = bone.sum(axis=tuple({0, 1, 2} - {axis}))
        _draw_plane(panel, scan, volume, labels, axis, int(counts.argmax()))
        panel.set_title(f"{name}, where most bone is")
        panel.set_xlabel("right to left (mm)" if axis == 1 else "front to back (mm)")
        panel.set_ylabel("feet to head (mm)")
    if surface is not None:
        for panel, view in zip(panels[2:], VIEWS, strict=True):
            draw_surface(surface, panel, view)
    return figure


def _inches(shape: float, count: int) -> float:
    """Return the height of one of `count` panels beside each other; `shape`: height to width."""
    return WIDTH_INCHES / count * min(shape, MOST_UPRIGHT)


def _box_of_patient(labels: np.ndarray) -> tuple[slice, slice, slice]:
    """Return all slices, and of rows and columns those with the patient and a margin."""
    ends = []
    for axis in (1, 2):
        at = np.flatnonzero((labels > 0).any(axis=(0, 3 - axis)))
        first, last = (at[0], at[-1]) if len(at) else (0, labels.shape[axis])
        ends.append(slice(max(0, first - MARGIN), last + MARGIN))
    return slice(None), *ends


def _draw_plane(
    panel: Axes, scan: SimpleITK.Image, volume: np.ndarray, labels: np.ndarray, axis: int, at: int
) -> None:
    """Draw one plane of a volume (slice, row, column) at index `at` of `axis`, with contours."""
    spacing_mm = scan.GetSpacing()[::-1]
    down_mm, across_mm = (spacing_mm[other] for other in range(3) if other != axis)
    image, classes = volume.take(at, axis), labels.take(at, axis)
    rows, columns = image.shape
    extent_mm = (0, columns * across_mm, 0, rows * down_mm)
    if axis == 0:  # rows go down, from front to back
        extent_mm = (*extent_mm[:2], extent_mm[3], 0)
    place = {"extent": extent_mm, "origin": "upper" if axis == 0 else "lower"}
    low, high = WINDOW_HU
    panel.imshow(image, cmap="gray", vmin=low, vmax=high, aspect="equal", **place)
    for label in (PATIENT, BONE):
        part = classes >= label
        if part.any() and not part.all():
            panel.contour(part, levels=[0.5], colors=CLASS_COLOURS[label], linewidths=0.8, **place)
    panel.grid(False)
