"""Slices and scans -> pictures in mm: which slices are shown, by rule, and how they are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import SimpleITK
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bonelib import slices
from bonelib.augment import augment_slice
from bonelib.evaluation import scoring
from bonelib.figures.style import (
    CLASS_COLOURS,
    IGNORE_COLOUR,
    MIDDLE,
    PAGE_MM,
    WINDOW_HU,
    canvas,
    label_edges,
)
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BACKGROUND, BASELINE, BONE, CLASS_NAMES, IGNORE, PATIENT

MARGIN_MM = 15.0  # around the patients, in the patient's mm
# In print: labels of the y axis and of the x axis; ticks of a panel; a line of its title; a
# line of the legend; a row of the gallery.
SIDE_MM, BELOW_MM, GAP_MM, LINE_MM, LEGEND_LINE_MM, GALLERY_MM = 12.0, 13.0, 4.0, 3.4, 5.0, 40.0
LEGEND_COLUMNS = 4
DRAWS = 12  # augmented samples from which Figure 2 takes the first that move the patient,
MOVED = 0.05  # that is, change the class of at least this share of the pixels

PLANES = ("axial", "coronal", "sagittal")  # by the axis of an array that each one cuts across
SIDES = ("right to left (mm)", "right to left (mm)", "front to back (mm)")
HEIGHTS = ("front to back (mm)", "feet to head (mm)", "feet to head (mm)")
PLANES_MM = 65.0  # height of the figure in print


@dataclass(frozen=True)
class Example:
    """A slice to draw: grey `image`, `labels` on its grid, (row, column) `spacing_mm`."""

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float]
    series: str = ""
    slice: int = 0
    predictions: dict[str, np.ndarray] = field(default_factory=dict)  # label maps by method


def read_example(
    folder: SliceFolder, row, results: ResultFolder | None = None, methods: Sequence[str] = ()
) -> Example:
    """Read the slice that a table's `row` names by series and slice.

    Of `methods` the predictions that exist in `results` are read, too.
    """
    table = pd.read_csv(folder.table, dtype={"series": str}, index_col=["series", "slice"])
    spacing_mm = tuple(map(float, table.loc[(row.series, row.slice), "spacing"].split()))
    (image,), (labels,) = slices.load(folder.root, pd.DataFrame([row])[["series", "slice"]])
    paths = {name: results.prediction(name, row.series, row.slice) for name in methods}
    found = {name: np.asarray(Image.open(path)) for name, path in paths.items() if path.exists()}
    return Example(image, labels, spacing_mm[-2:], row.series, int(row.slice), found)


def choose_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Choose Figure 1's four slices from slices.csv, from head to feet, of one training series.

    Two show hip bone and sacrum, one hip bone and femur, one the femur alone. Where no series
    names its bones, the slices are evenly spaced over those with bone.
    """
    training = table[(table["split"] == "train") & (table["bone_pixels"] > 0)]
    for _, rows in training.sort_values("slice").groupby("series"):
        hip, sacrum, femur = (
            rows["structures"].astype(str).str.contains(name) for name in ("hip", "sacrum", "femur")
        )
        upper, joint, shaft = rows[hip & sacrum], rows[hip & femur & ~sacrum], rows[femur & ~hip]
        if len(upper) and len(joint) and len(shaft):
            places = ((upper, 0.75), (upper, 0.35), (joint, 0.35), (shaft, 0.5))
            return pd.concat([part.iloc[[round(at * (len(part) - 1))]] for part, at in places])
    rows = training[training["series"] == training["series"].min()].sort_values("slice")
    return rows.iloc[np.linspace(len(rows) - 1, 0, 4).round().astype(int)]


def choose_compared(scores: pd.DataFrame) -> pd.Series:
    """Choose Figure 6's slice: mean bone IoU of the networks nearest its lower quartile."""
    rows = _slices_with_bone(scores[scores["model"] != BASELINE])
    average = rows.groupby(["series", "slice"], as_index=False)["bone_iou"].mean()
    order = (average["bone_iou"] - average["bone_iou"].quantile(0.25)).abs()
    return average.loc[order.idxmin()]


def choose_quartiles(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """Choose Figure 7's slices: maximum, upper and lower quartile, minimum of bone IoU."""
    rows = _slices_with_bone(scores[scores["model"] == model])
    rows = rows.sort_values("bone_iou", ascending=False)
    return rows.iloc[np.linspace(0, len(rows) - 1, 5).round().astype(int)[[0, 1, 3, 4]]]


def choose_model(available: Sequence[str]) -> str:
    """Return U-net, which the paper shows, or the first available network."""
    return "unet" if "unet" in available else next(iter(available))


def _slices_with_bone(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each model's rows after its longest training, of slices whose reference has bone."""
    rows = pd.concat([scoring.select(scores, model) for model in scores["model"].unique()])
    rows = rows.assign(bone_iou=scoring.bone_iou(rows))
    return rows[scoring.counts(rows)[:, BONE:].sum(axis=(1, 2)) > 0]


def augmented_examples(original: Example, seed: int, count: int = 3) -> list[Example]:
    """Return `count` augmented samples of a slice, those that move the patient first."""
    drawn = [augment_slice(original.image, original.labels, (seed, draw)) for draw in range(DRAWS)]
    drawn.sort(key=lambda pair: (pair[1] != original.labels).mean() < MOVED)  # keeps their order
    # The mean of the channels, since some operations act on one of them.
    means = [(image.mean(axis=2), labels) for image, labels in drawn[:count]]
    return [replace(original, image=image, labels=labels) for image, labels in means]


def draw_slice(example: Example, panel: Axes, title: str = "") -> None:
    """Draw the grey slice in mm, with its background class in white."""
    grey = np.where(example.labels == BACKGROUND, 255, example.image).astype(np.uint8)
    _draw_picture(example, np.repeat(grey[..., None], 3, axis=2), panel, title)


def draw_labels(example: Example, labels: np.ndarray, panel: Axes, title: str = "") -> None:
    """Draw a label map of an example's grid in mm: classes in colour, background white."""
    picture = np.ones((*labels.shape, 3))
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        picture[labels == label] = to_rgb(colour)
    picture[labels == IGNORE] = to_rgb(IGNORE_COLOUR)
    _draw_picture(example, picture, panel, title)


def _draw_picture(example: Example, picture: np.ndarray, panel: Axes, title: str) -> None:
    height_mm, width_mm = np.multiply(example.labels.shape, example.spacing_mm)
    panel.imshow(picture, extent=(0, width_mm, height_mm, 0), interpolation="nearest")
    panel.set_title(title)
    panel.grid(False)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4))


def draw_gallery(pictures: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: int = 6) -> Figure:
    """Draw named (image, label map) pairs as small pictures with the classes' outlines."""
    rows = -(-len(pictures) // columns)
    figure, axes = canvas(rows, columns, rows * GALLERY_MM)
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
    """Return a page-wide figure of `count` panels for pictures, with titles of `lines`.

    All panels show the same window, which contains every example's patient.
    """
    patients = [np.argwhere(one.labels != BACKGROUND) * one.spacing_mm for one in examples]
    top, left = np.concatenate(patients).min(axis=0) - MARGIN_MM
    bottom, right = np.concatenate(patients).max(axis=0) + MARGIN_MM
    rows = -(-count // columns)
    picture_mm = ((PAGE_MM - SIDE_MM) / columns - GAP_MM) * (bottom - top) / (right - left)
    row_mm = picture_mm + lines * LINE_MM + GAP_MM
    figure, axes = canvas(
        rows, columns, rows * row_mm + BELOW_MM + legend_lines * LEGEND_LINE_MM,
        subplot_kw={"xlim": (left, right), "ylim": (bottom, top)},
    )  # fmt: skip
    label_edges(axes, count)
    figure.supxlabel("patient's right to left (mm)")
    figure.supylabel("front to back (mm)")
    return figure, axes


def class_legend(figure: Figure, examples: Sequence[Example], title: str = "") -> None:
    """Name the colours of the classes, and of ignored pixels if there are any, above all panels."""
    handles = [
        Patch(color=colour, label=name)
        for name, colour in zip(CLASS_NAMES, CLASS_COLOURS, strict=False)
    ]
    handles[BACKGROUND] = Patch(facecolor="white", edgecolor=MIDDLE, label=CLASS_NAMES[BACKGROUND])
    if any((example.labels == IGNORE).any() for example in examples):
        handles.append(Patch(color=IGNORE_COLOUR, label="not scored"))
    figure.legend(handles=handles, loc="outside upper center", ncols=LEGEND_COLUMNS, title=title)


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
    figure, axes = canvas(1, 3, PLANES_MM)
    for axis, panel in enumerate(axes.flat):
        draw_plane(scan, label_map, axis, most_bone(label_map, axis), panel)
    return figure
