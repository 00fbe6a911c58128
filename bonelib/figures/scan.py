"""A scan and its label map -> planes with the outlines of the classes, on given axes in mm."""

import numpy as np
import SimpleITK
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bonelib.figures.style import CLASS_COLOURS, WINDOW_HU, canvas
from bonelib.settings import BACKGROUND, BONE, PATIENT

PLANES = ("axial", "coronal", "sagittal")  # by the axis of an array that each one cuts across
SIDES = ("right to left (mm)", "right to left (mm)", "front to back (mm)")
HEIGHTS = ("front to back (mm)", "feet to head (mm)", "feet to head (mm)")
HEIGHT_MM = 65.0  # of the figure in print


def draw_outlines(labels: np.ndarray, panel: Axes, **placed) -> None:
    """Draw the outlines of the patient and of each bone class over an image.

    `placed` are the image's `extent` and `origin`.
    """
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        part = labels != BACKGROUND if label == PATIENT else labels == label
        if part.any() and not part.all():
            panel.contour(part, levels=[0.5], colors=colour, linewidths=0.9, **placed)


def draw_plane(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, axis: int, index: int, panel: Axes
) -> None:
    """Draw slice `index` along array axis `axis` (slice, row, column), upright and in mm."""
    volume, labels = map(SimpleITK.GetArrayViewFromImage, (scan, label_map))
    image, classes = volume.take(index, axis), labels.take(index, axis)
    down_mm, across_mm = np.delete(scan.GetSpacing()[::-1], axis)
    height_mm, width_mm = image.shape[0] * down_mm, image.shape[1] * across_mm
    # The first row is the patient's front in an axial plane and the feet in the others.
    placed = {"extent": (0, width_mm, height_mm, 0), "origin": "upper"}
    if axis > 0:
        placed = {"extent": (0, width_mm, 0, height_mm), "origin": "lower"}
    low, high = WINDOW_HU
    panel.imshow(image, cmap="gray", vmin=low, vmax=high, **placed)
    draw_outlines(classes, panel, **placed)
    panel.set(title=PLANES[axis], xlabel=SIDES[axis], ylabel=HEIGHTS[axis])
    panel.grid(False)


def most_bone(label_map: SimpleITK.Image, axis: int) -> int:
    """Return the index along an array axis with most bone, or the middle where there is none."""
    bone = SimpleITK.GetArrayViewFromImage(label_map) >= BONE
    counts = bone.sum(axis=tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def draw_planes(scan: SimpleITK.Image, label_map: SimpleITK.Image) -> Figure:
    """Draw the axial, coronal and sagittal planes with most bone."""
    figure, axes = canvas(1, 3, HEIGHT_MM)
    for axis, panel in enumerate(axes.flat):
        draw_plane(scan, label_map, axis, most_bone(label_map, axis), panel)
    return figure
