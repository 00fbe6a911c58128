"""Prepared slices -> which of them are shown, by rule, and how they are drawn, in mm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bonelib.augment.policy import augment_slice
from bonelib.evaluation import scoring
from bonelib.figures.scan import draw_outlines
from bonelib.figures.style import (
    CLASS_COLOURS,
    IGNORE_COLOUR,
    MIDDLE,
    PAGE_MM,
    canvas,
    printed,
)
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BACKGROUND, BASELINE, BONE, IGNORE, PATIENT

MARGIN_MM = 15.0  # around the patients, in the patient's mm
# In print: labels of the y axis and of the x axis; ticks of a panel; a line of its title; a
# line of the legend.
SIDE_MM, BELOW_MM, GAP_MM, LINE_MM, LEGEND_LINE_MM = 12.0, 13.0, 4.0, 3.4, 5.0
LEGEND_ENTRY_INCHES = 1.1  # width
DRAWS = 12  # augmented samples from which Figure 2 takes the first that move the patient,
MOVED = 0.05  # that is, change the class of at least this share of the pixels


@dataclass(frozen=True)
class Example:
    """A slice to draw: grey `image`, `labels` on its grid, (row, column) `spacing_mm`."""

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float]
    series: str = ""
    slice: int = 0


def read_example(slices: SliceFolder, row) -> Example:
    """Read the slice that a table's `row` names by series and slice."""
    table = pd.read_csv(slices.table, dtype={"series": str})
    here = (table["series"] == str(row.series)) & (table["slice"] == row.slice)
    if not here.any():
        raise ValueError(f"{slices.table}: no slice {row.slice} of series {row.series}")
    spacing_mm = tuple(float(value) for value in str(table[here].iloc[0]["spacing"]).split())
    image = np.asarray(Image.open(slices.image(row.series, row.slice)).convert("L"))
    labels = np.asarray(Image.open(slices.labels(row.series, row.slice)))
    return Example(image, labels, spacing_mm[-2:], str(row.series), int(row.slice))


def read_predictions(results: ResultFolder, models: Sequence[str], row) -> dict[str, np.ndarray]:
    """Read the predicted label maps of a slice, of those `models` that have one."""
    paths = {model: results.prediction(model, row.series, row.slice) for model in models}
    return {model: np.asarray(Image.open(path)) for model, path in paths.items() if path.exists()}


def choose_series(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test series with the most slices, from feet to head."""
    test = table[table["split"] == "test"]
    if test.empty:
        raise ValueError("slices.csv has no test series, so there is no prediction to draw")
    return test[test["series"] == test["series"].value_counts().idxmax()].sort_values("slice")


def choose_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Choose Figure 1's four slices from slices.csv, from head to feet, of one training series.

    Two show hip bone and sacrum, one hip bone and femur, one the femur alone. Where no series
    names its bones, the slices are evenly spaced over those with bone.
    """
    training = table[table["split"] == "train"] if "split" in table else table
    training = training if len(training) else table
    by_series = [rows.sort_values("slice") for _, rows in training.groupby("series")]
    for rows in by_series:
        if (chosen := _anatomical_levels(rows)) is not None:
            return chosen
    rows = by_series[0]
    with_bone = rows[rows["bone_pixels"] > 0] if "bone_pixels" in rows else rows
    rows = with_bone if len(with_bone) else rows
    return rows.iloc[np.linspace(len(rows) - 1, 0, 4).round().astype(int)]


def _anatomical_levels(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Choose the four levels of one series, whose rows go from feet to head."""
    if "structures" not in rows:
        return None
    structures = rows["structures"].astype("string").fillna("")
    hip, sacrum, femur = (structures.str.contains(name) for name in ("hip", "sacrum", "femur"))
    upper, joint, shaft = rows[hip & sacrum], rows[hip & femur & ~sacrum], rows[femur & ~hip]
    if upper.empty or joint.empty or shaft.empty:
        return None
    places = ((upper, 0.75), (upper, 0.35), (joint, 0.35), (shaft, 0.5))
    return pd.concat([part.iloc[[round(place * (len(part) - 1))]] for part, place in places])


def choose_compared(scores: pd.DataFrame) -> pd.Series:
    """Choose Figure 6's slice: mean bone IoU of the networks nearest its lower quartile."""
    rows = _slices_with_bone(scores[scores["model"] != BASELINE])
    average = rows.groupby(["series", "slice"])["bone_iou"].mean().reset_index()
    if average.empty:
        raise ValueError("no network has scores on a slice that shows bone")
    order = (average["bone_iou"] - average["bone_iou"].quantile(0.25)).abs()
    return average.loc[order.idxmin()]


def choose_quartiles(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """Choose Figure 7's slices: maximum, upper and lower quartile, minimum of bone IoU."""
    rows = _slices_with_bone(scores[scores["model"] == model])
    rows = rows.sort_values("bone_iou", ascending=False)
    if rows.empty:
        raise ValueError(f"{model} has no scores on a slice that shows bone")
    return rows.iloc[np.linspace(0, len(rows) - 1, 5).round().astype(int)[[0, 1, 3, 4]]]


def choose_model(available: Sequence[str]) -> str:
    """Return U-net, which the paper shows, or the first available network."""
    return "unet" if "unet" in available else next(iter(available))


def _slices_with_bone(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each model's rows after its longest training, of slices whose reference has bone."""
    parts = [scoring.select(scores, model) for model in scores["model"].unique()]
    rows = pd.concat(parts) if parts else scores
    rows = rows.assign(bone_iou=scoring.bone_iou(rows))
    return rows[scoring.counts(rows)[:, BONE:].sum(axis=(1, 2)) > 0]


def augmented_examples(original: Example, seed: int, count: int = 3) -> list[Example]:
    """Return `count` augmented samples of a slice, those that move the patient first."""
    drawn = [augment_slice(original.image, original.labels, (seed, draw)) for draw in range(DRAWS)]
    drawn.sort(key=lambda pair: (pair[1] != original.labels).mean() < MOVED)  # keeps their order
    # The mean of the channels, since some operations act on one of them.
    return [replace(original, image=image.mean(axis=2), labels=labels)
            for image, labels in drawn[:count]]  # fmt: skip


def draw_slice(example: Example, panel: Axes, title: str = "") -> None:
    """Draw the grey slice in mm, with its background class in white."""
    grey = np.where(example.labels == BACKGROUND, 255, example.image).astype(np.uint8)
    _draw_picture(example, np.repeat(grey[..., None], 3, axis=2), title, panel)


def draw_labels(example: Example, labels: np.ndarray, panel: Axes, title: str = "") -> None:
    """Draw a label map of an example's grid in mm: classes in colour, background white."""
    picture = np.ones((*labels.shape, 3))
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        picture[labels == label] = to_rgb(colour)
    picture[labels == IGNORE] = to_rgb(IGNORE_COLOUR)
    _draw_picture(example, picture, title, panel)


def _draw_picture(example: Example, picture: np.ndarray, title: str, panel: Axes) -> None:
    height_mm, width_mm = np.multiply(example.labels.shape, example.spacing_mm)
    panel.imshow(picture, extent=(0, width_mm, height_mm, 0), interpolation="nearest")
    panel.set_title(title)
    panel.grid(False)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4))


def draw_gallery(pictures: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: int = 6) -> Figure:
    """Draw named (image, label map) pairs as small pictures with the classes' outlines."""
    figure, axes = canvas(-(-len(pictures) // columns), columns, 2.2, 2.4)
    for panel in axes.flat:
        panel.axis("off")
    for (title, (image, labels)), panel in zip(pictures.items(), axes.flat, strict=False):
        panel.imshow(image)
        draw_outlines(labels, panel)
        panel.set_title(title)
    return figure


def picture_canvas(
    examples: Sequence[Example], columns: int, count: int, lines: int = 1, legend_lines: int = 0
):
    """Return a page-wide figure for `count` pictures of examples, with titles of `lines`."""
    top, left, bottom, right = _window_mm(examples)
    rows = -(-count // columns)
    picture_mm = ((PAGE_MM - SIDE_MM) / columns - GAP_MM) * (bottom - top) / (right - left)
    row_mm = picture_mm + lines * LINE_MM + GAP_MM
    return printed(rows, columns, rows * row_mm + BELOW_MM + legend_lines * LEGEND_LINE_MM)


def finish_pictures(axes: np.ndarray, examples: Sequence[Example], used: int) -> None:
    """Show the same window in the first `used` panels, remove the others, label the axes."""
    top, left, bottom, right = _window_mm(examples)
    columns = axes.shape[1]
    for index, panel in enumerate(axes.flat):
        if index >= used:
            panel.remove()
            continue
        panel.set(xlim=(left, right), ylim=(bottom, top))
        panel.tick_params(labelbottom=index + columns >= used, labelleft=index % columns == 0)
    figure = axes.flat[0].figure
    figure.supxlabel("patient's right to left (mm)")
    figure.supylabel("front to back (mm)")


def _window_mm(examples: Sequence[Example]) -> tuple[float, float, float, float]:
    """Return top, left, bottom and right of a window around every patient, with a margin."""
    lowest, highest = [], []
    for example in examples:
        places = np.argwhere(example.labels != BACKGROUND)
        if not len(places):
            places = np.array([(0, 0), example.labels.shape])
        lowest.append(places.min(axis=0) * example.spacing_mm)
        highest.append(places.max(axis=0) * example.spacing_mm)
    return *(np.min(lowest, axis=0) - MARGIN_MM), *(np.max(highest, axis=0) + MARGIN_MM)


def class_legend(
    figure: Figure, class_names: Sequence[str], examples: Sequence[Example], title: str = ""
) -> None:
    """Name the colours of the classes, and of ignored pixels if there are any, above all panels."""
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
