"""Slices and label maps -> pictures in millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bonelib.augment import augment_slice
from bonelib.figures.style import CLASS_COLOURS, IGNORE_COLOUR, MIDDLE, PAGE_MM, printed
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BACKGROUND, IGNORE, PATIENT

MARGIN_MM = 15.0  # of the patient, around the bodies in a picture
# In print: names of the axes at the side, and below; a picture's own numbers; lines of its
# title and of the legend.
SIDE_MM, BELOW_MM, GAP_MM, LINE_MM, LEGEND_LINE_MM = 12.0, 13.0, 4.0, 3.4, 5.0
DRAWS = 12  # of augmentation, from which Figure 2 takes the first that move the patient,
MOVED = 0.05  # that is, change the class of this share of the pixels
LEGEND_ENTRY_INCHES = 1.1  # across


@dataclass(frozen=True)
class Example:
    """One slice to draw: grey `image`, `labels` of its grid, (row, column) `spacing_mm`."""

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float]
    series: str = ""
    slice: int = 0


def read_example(slices: SliceFolder, row) -> Example:
    """Read the slice of a `row` of slices.csv, or of any table that names series and slice."""
    table = pd.read_csv(slices.table, dtype={"series": str})
    here = (table["series"] == str(row.series)) & (table["slice"] == row.slice)
    if not here.any():
        raise ValueError(f"{slices.table}: no slice {row.slice} of series {row.series}")
    spacing_mm = tuple(float(value) for value in str(table[here].iloc[0]["spacing"]).split())
    image = np.asarray(Image.open(slices.image(row.series, row.slice)).convert("L"))
    labels = np.asarray(Image.open(slices.labels(row.series, row.slice)))
    return Example(image, labels, spacing_mm[-2:], str(row.series), int(row.slice))


def read_predictions(results: ResultFolder, models: Sequence[str], row) -> dict[str, np.ndarray]:
    """Read the label maps that those of `models` which have one predicted for a slice."""
    paths = {model: results.prediction(model, row.series, row.slice) for model in models}
    return {model: np.asarray(Image.open(path)) for model, path in paths.items() if path.exists()}


def augmented_examples(original: Example, seed: int, count: int = 3) -> list[Example]:
    """Return `count` draws of the training's augmentation of one slice.

    Of `DRAWS`, those that move the patient come first. Grey is the mean of the channels.
    """
    drawn = [augment_slice(original.image, original.labels, (seed, draw)) for draw in range(DRAWS)]
    drawn.sort(key=lambda pair: (pair[1] != original.labels).mean() < MOVED)  # keeps their order
    return [
        replace(original, image=image.mean(axis=2), labels=labels)  # some act on single channels
        for image, labels in drawn[:count]
    ]


def _extent_mm(example: Example) -> tuple[float, float, float, float]:
    rows, columns = example.labels.shape
    return 0, columns * example.spacing_mm[1], rows * example.spacing_mm[0], 0


def _picture(example: Example, picture: np.ndarray, title: str, axes: Axes) -> None:
    axes.imshow(picture, extent=_extent_mm(example), interpolation="nearest")
    axes.set_title(title)
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def draw_slice(example: Example, axes: Axes, title: str = "") -> None:
    """Draw the grey slice in millimetres, its background class in white."""
    grey = np.where(example.labels == BACKGROUND, 255, example.image).astype(np.uint8)
    _picture(example, np.repeat(grey[..., None], 3, axis=2), title, axes)


def draw_labels(example: Example, labels: np.ndarray, axes: Axes, title: str = "") -> None:
    """Draw a label map in millimetres: classes in their colours, background white."""
    picture = np.ones((*labels.shape, 3))
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        picture[labels == label] = to_rgb(colour)
    picture[labels == IGNORE] = to_rgb(IGNORE_COLOUR)
    _picture(example, picture, title, axes)


def picture_canvas(
    examples: Sequence[Example], columns: int, count: int, lines: int = 1, legend_lines: int = 0
):
    """Return a figure of a page's width for `count` pictures of examples, titles of `lines`."""
    top, left, bottom, right = window_mm(examples)
    rows = -(-count // columns)
    picture_mm = ((PAGE_MM - SIDE_MM) / columns - GAP_MM) * (bottom - top) / (right - left)
    row_mm = picture_mm + lines * LINE_MM + GAP_MM
    return printed(rows, columns, rows * row_mm + BELOW_MM + legend_lines * LEGEND_LINE_MM)


def window_mm(examples: Sequence[Example]) -> tuple[float, float, float, float]:
    """Return top, left, bottom and right of the part that holds every body and its margin."""
    top, left, bottom, right = np.transpose([_body_mm(example) for example in examples])
    return (
        top.min() - MARGIN_MM, left.min() - MARGIN_MM,
        bottom.max() + MARGIN_MM, right.max() + MARGIN_MM,
    )  # fmt: skip


def finish(axes: np.ndarray, examples: Sequence[Example], used: int) -> None:
    """Show in all panels the same part; name the axes, once."""
    top, left, bottom, right = window_mm(examples)
    columns = axes.shape[1]
    for index, panel in enumerate(axes.flat):
        if index >= used:
            panel.remove()
            continue
        panel.set_xlim(left, right)
        panel.set_ylim(bottom, top)
        panel.tick_params(labelbottom=index + columns >= used, labelleft=index % columns == 0)
    figure = axes.flat[0].figure
    figure.supxlabel("patient's right to left (mm)")
    figure.supylabel("front to back (mm)")


def _body_mm(example: Example) -> tuple[float, float, float, float]:
    """Return top, left, bottom and right of what is not background; of all, if all is."""
    places = np.argwhere(example.labels != BACKGROUND)
    if not len(places):
        places = np.array([(0, 0), example.labels.shape])
    return *(places.min(axis=0) * example.spacing_mm), *(places.max(axis=0) * example.spacing_mm)


def class_legend(
    figure: Figure, class_names: Sequence[str], examples: Sequence[Example], title: str = ""
) -> None:
    """Name the colours above all panels, that of ignored pixels where there are any."""
    handles = [
        Patch(color=colour, label=name)
        for name, colour in zip(class_names, CLASS_COLOURS, strict=False)
    ]
    handles[BACKGROUND] = Patch(facecolor="white", edgecolor=MIDDLE, label=class_names[BACKGROUND])
    if any((example.labels == IGNORE).any() for example in examples):
        handles.append(Patch(color=IGNORE_COLOUR, label="not scored"))
    fits = len(handles) * LEGEND_ENTRY_INCHES <= figure.get_figwidth()
    columns = len(handles) if fits else 3
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=title)
