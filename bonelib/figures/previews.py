"""Pictures for notebooks that are not figures of the paper."""

import numpy as np
import pandas as pd
import SimpleITK
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bonelib import figures
from bonelib.augment import policy
from bonelib.figures import CLASS_COLOURS, Example
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BACKGROUND, PATIENT

WINDOW_HU = (-450, 1050)  # bone


def scan_planes(scan: SimpleITK.Image, label_map: SimpleITK.Image) -> Figure:
    """Draw the middle axial, coronal and sagittal planes of a scan with its outlines, in mm."""
    volume, labels = map(SimpleITK.GetArrayViewFromImage, (scan, label_map))
    column_mm, row_mm, slice_mm = scan.GetSpacing()
    middle = [length // 2 for length in volume.shape]
    planes = (
        ("axial", np.index_exp[middle[0]], row_mm, column_mm, "upper"),
        ("coronal", np.index_exp[:, middle[1]], slice_mm, column_mm, "lower"),
        ("sagittal", np.index_exp[:, :, middle[2]], slice_mm, row_mm, "lower"),
    )
    figure, axes = figures.canvas(1, 3, 3.6, 3.4)
    for panel, (name, index, down_mm, across_mm, origin) in zip(axes.flat, planes, strict=True):
        image, classes = volume[index], labels[index]
        extent_mm = (0, image.shape[1] * across_mm, 0, image.shape[0] * down_mm)
        if origin == "upper":
            extent_mm = (*extent_mm[:2], extent_mm[3], 0)
        panel.imshow(
            image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent_mm,
            origin=origin, aspect="equal",
        )  # fmt: skip
        _draw_outlines(classes, panel, extent=extent_mm, origin=origin)
        panel.set_title(name)
        panel.set_xlabel("mm")
        panel.grid(False)
    axes[0, 0].set_ylabel("mm")
    return figure


def _draw_outlines(labels: np.ndarray, panel: Axes, **placed) -> None:
    """Draw the outlines of the body and of each class of bone in their colours."""
    parts = [labels == label for label in range(len(CLASS_COLOURS))]
    parts[PATIENT] = labels != BACKGROUND
    for part, colour in list(zip(parts, CLASS_COLOURS, strict=True))[PATIENT:]:
        if part.any() and not part.all():
            panel.contour(part, levels=[0.5], colors=colour, linewidths=0.9, **placed)


def _outlined(panel: Axes, image: np.ndarray, labels: np.ndarray, title: str) -> None:
    panel.imshow(image)
    _draw_outlines(labels, panel)
    panel.set_title(title)
    panel.axis("off")


def _gallery(pictures: list[tuple[str, np.ndarray, np.ndarray]], columns: int) -> Figure:
    figure, axes = figures.canvas(-(-len(pictures) // columns), columns, 2.2, 2.4)
    for panel in axes.flat[len(pictures) :]:
        panel.remove()
    for panel, (title, image, labels) in zip(axes.flat, pictures, strict=False):
        _outlined(panel, image, labels, title)
    return figure


def operations(example: Example, seed: int, columns: int = 5) -> Figure:
    """Draw one slice after each operation of the policy by itself, outlines on top."""
    return _gallery(
        [
            (
                name.replace("_", " "),
                *policy.apply_operation(operation.augmenter, example.image, example.labels, seed),
            )
            for name, operation in policy.operations(len(example.image)).items()
        ],
        columns,
    )


def policy_draws(example: Example, seed: int, count: int, columns: int = 6) -> Figure:
    """Draw `count` samples of one slice as a training sees them."""
    return _gallery(
        [
            (
                f"draw {number}",
                *policy.augment_slice(example.image, example.labels, [seed, number]),
            )
            for number in range(1, count + 1)
        ],
        columns,
    )


def extremes(
    slices: SliceFolder, results: ResultFolder, scores: pd.DataFrame, model: str
) -> Figure:
    """Draw reference (above) and prediction (below) of test slices from best to worst."""
    chosen = figures.choose_quartiles(scores, model)
    figure, axes = figures.canvas(2, len(chosen), 2.0, 2.2)
    for column, row in zip(axes.T, chosen.itertuples(), strict=True):
        example = figures.read_example(slices, row)
        predicted = figures.read_predictions(results, [model], row)[model]
        figures.draw_labels(example, example.labels, column[0], f"{row.series}, {row.slice}")
        figures.draw_labels(example, predicted, column[1], f"bone IoU {row.bone_iou:.1f} %")
    return figure
