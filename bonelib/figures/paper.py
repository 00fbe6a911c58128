"""Figures 1 to 7 of the paper, drawn on axes that are given."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bonelib import metrics
from bonelib.evaluation import scoring
from bonelib.figures.pictures import Example, class_legend, draw_labels, draw_slice
from bonelib.figures.style import CLASS_COLOURS, DARK, MARKS, PAIR_COLOURS
from bonelib.published import METHOD_NAMES
from bonelib.settings import BONE, CLASS_NAMES

MAX_MARKS = 12  # on a curve
LEGEND_COLUMNS = 3


def figure1(examples: Sequence[Example], axes: np.ndarray) -> None:
    """Draw four example slices, lettered a) to d), on as many axes."""
    for letter, example, panel in zip("abcd", examples, axes.flat, strict=True):
        draw_slice(example, panel, f"{letter})  {example.series}, slice {example.slice}")


def figure2(examples: Sequence[Example], axes: np.ndarray) -> None:
    """Draw an original slice, which comes first, and augmented samples of it."""
    for letter, example, panel in zip("abcd", examples, axes.flat, strict=True):
        draw_slice(example, panel, f"{letter})  {'original' if letter == 'a' else 'augmented'}")


def figure3(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the accuracy of training and validation by epoch."""
    columns = {"training": "accuracy", "validation": "val_accuracy"}
    _draw_curves(history, columns, PAIR_COLOURS, axes, model)
    axes.set_ylabel("pixel accuracy (%)")


def figure4(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation IoU of each class by epoch; mark a class without pixels as absent."""
    columns = {
        name.removeprefix("val_iou_") + (" (absent)" if history[name].isna().all() else ""): name
        for name in history.filter(like="val_iou_")
    }
    _draw_curves(history, columns, CLASS_COLOURS, axes, model)
    axes.set_ylabel("validation IoU (%)")


def figure5(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation mean IoU and mean Dice coefficient by epoch."""
    columns = {"mean IoU": "val_mean_iou", "mean Dice": "val_mean_dice"}
    _draw_curves(history, columns, PAIR_COLOURS, axes, model)
    axes.set_ylabel("validation score (%)")


def _draw_curves(history: pd.DataFrame, columns: dict, colours, axes: Axes, model: str) -> None:
    """Draw columns of a history (label to column) in %, marked by shape as well as colour."""
    for (label, column), colour, mark in zip(columns.items(), colours, MARKS, strict=False):
        axes.plot(
            history["epoch"], 100 * history[column], color=colour, marker=mark, label=label,
            markeredgecolor=DARK, markeredgewidth=0.4, markevery=-(-len(history) // MAX_MARKS),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, len(history) + 0.5)
    axes.set_xlabel("epoch")
    # Above the axes, since no corner is free of curves in every run.
    axes.legend(
        title=METHOD_NAMES[model], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=LEGEND_COLUMNS
    )


def image_scores(
    example: Example, labels: np.ndarray, class_names: Sequence[str] = CLASS_NAMES
) -> tuple[float, float]:
    """Return (mean IoU of the classes present, IoU of all bone classes as one) in %."""
    counts = metrics.confusion_matrix(example.labels, labels, len(class_names))
    bone = metrics.iou(metrics.bone_as_one(counts))[BONE]
    return float(100 * np.nanmean(metrics.iou(counts))), float(100 * bone)


def figure6(
    example: Example,
    axes: np.ndarray,
    class_names: Sequence[str] = CLASS_NAMES,
    records: Mapping[str, dict] | None = None,
) -> None:
    """Draw a slice, its reference and every method's segmentation with its bone IoU.

    `records` of the evaluations tell which encoders started from random weights.
    """
    draw_slice(example, axes.flat[0], f"{example.series}, slice {example.slice}")
    draw_labels(example, example.labels, axes.flat[1], "reference")
    for (model, labels), panel in zip(example.predictions.items(), axes.flat[2:], strict=False):
        bone = image_scores(example, labels, class_names)[1]
        name = scoring.method_name(model, records).replace(" (", "\n(")
        draw_labels(example, labels, panel, f"{name}\nbone IoU {bone:.1f} %")
    class_legend(axes.flat[0].figure, class_names, [example])


def figure7(
    examples: Sequence[Example],
    axes: np.ndarray,
    model: str,
    class_names: Sequence[str] = CLASS_NAMES,
) -> None:
    """Draw reference (left) and prediction (right) of each slice, with the slice's scores."""
    for letter, example, (left, right) in zip("abcd", examples, axes.reshape(-1, 2), strict=False):
        labels = example.predictions[model]
        mean, bone = image_scores(example, labels, class_names)
        title = f"{letter})  {example.series}\nslice {example.slice}"
        draw_labels(example, example.labels, left, title)
        draw_labels(example, labels, right, f"mean IoU {mean:.1f} %\nbone IoU {bone:.1f} %")
    title = f"left: reference, right: {METHOD_NAMES[model]}"
    class_legend(axes.flat[0].figure, class_names, examples, title)
