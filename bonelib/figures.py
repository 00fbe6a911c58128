"""Data -> the paper's figures, drawn on axes that are given.

A class has one colour everywhere (Okabe & Ito's, safe for colour-blind readers); in pictures
the background class is left white, as in the paper's Figure 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bonelib import metrics, scoring
from bonelib.augment import augment_slice
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.provenance import replacing
from bonelib.published import METHOD_NAMES
from bonelib.settings import BACKGROUND, BASELINE, BONE, CLASS_NAMES, IGNORE, PATIENT

# Blue, orange, green: the paper's order. Sky blue, purple, black: where there are more bones.
CLASS_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#000000")
IGNORE_COLOUR = "#BBBBBB"
MOST_LABELS_INSIDE = 3  # of curves; a longer list would lie on them
LEGEND_ENTRY_INCHES = 1.1  # across
PAIR_COLOURS = {"training": "#D55E00", "validation": "#56B4E9"}  # the paper's orange and blue
MEAN_COLOURS = {"mean IoU": "#D55E00", "mean Dice": "#56B4E9"}
DOTS_PER_INCH = 200
MARGIN_MM = 15.0  # around the bodies in a picture
DRAWS = 12  # of augmentation, from which Figure 2 takes the first that move the patient,
MOVED = 0.05  # that is, change the class of this share of the pixels
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # text stays text in the PDF
}

CAPTIONS = {
    "figure1": "Figure 1. Example CT slices of the training series: a), b) sacrum and ilium, "
    "c) ischium and upper extremity of the femur, d) body of the femur.",
    "figure2": "Figure 2. Data augmentation: a) original, b) to d) augmented: the first "
    "draws that move the patient. Pixels of the background class are white.",
    "figure3": "Figure 3. Pixel accuracy on the training and the validation set by epoch.",
    "figure4": "Figure 4. IoU of each class on the validation set by epoch.",
    "figure5": "Figure 5. Mean IoU and mean Dice coefficient on the validation set by epoch.",
    "figure6": "Figure 6. One test slice, segmented by every method: the slice on which the "
    "methods' average bone IoU is nearest its lower quartile.",
    "figure7": "Figure 7. Segmentations from best to worst: the test slices at the maximum, the "
    "upper quartile, the lower quartile and the minimum of bone IoU among those that show bone. "
    "Left: reference, right: prediction.",
    "bone_model": "Bone surface from the label maps of one test series.",
}


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


def choose_series(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test series with the most slices, from feet to head."""
    test = table[table["split"] == "test"]
    if test.empty:
        raise ValueError("slices.csv has no test series, so there is no prediction to draw")
    return test[test["series"] == test["series"].value_counts().idxmax()].sort_values("slice")


def canvas(rows: int, columns: int, width: float = 0.0, height: float = 0.0):
    """Return a figure of rows x columns axes in the one style; sizes are inches a panel."""
    plt.rcParams.update(STYLE)
    size = (columns * (width or 2.4), rows * (height or 2.6))
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(h_pad=0.08)  # inches: titles stay clear of the ticks above
    return figure, axes


def save(figure: Figure, name: str, folder: Path, note: str = "") -> None:
    """Write `figure` as `name`.png and .pdf, with its caption and `note` in the PNG's text."""
    caption = f"{CAPTIONS.get(name, name)} {note}".strip()
    keys = {"png": {"Description": caption}, "pdf": {"Subject": caption, "CreationDate": None}}
    for suffix, metadata in keys.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            figure.savefig(scratch, dpi=DOTS_PER_INCH, metadata=metadata)


def read_caption(path: Path) -> str:
    """Return the caption that `save` left in a PNG."""
    with Image.open(path) as image:
        return image.info.get("Description", path.stem)


def choose_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Choose Figure 1's four slices, from head to feet, out of the rows of slices.csv.

    Two levels show hip and sacrum, one hip and femur, one the femur alone, all of one
    training series. Where no series names such structures, its slices with bone are cut
    into four at even distances. A column `level` holds the letter.
    """
    training = table[table["split"] == "train"] if "split" in table else table
    training = training if len(training) else table
    by_series = [rows.sort_values("slice") for _, rows in training.groupby("series")]
    chosen = next((rows for rows in map(_anatomical, by_series) if rows is not None), None)
    if chosen is None:
        rows = by_series[0]
        with_bone = rows[rows["bone_pixels"] > 0] if "bone_pixels" in rows else rows
        rows = with_bone if len(with_bone) else rows
        chosen = rows.iloc[np.linspace(len(rows) - 1, 0, 4).round().astype(int)]
    return chosen.assign(level=list("abcd"))


def _anatomical(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Pick the four levels of one series, whose slices go from feet to head."""
    if "structures" not in rows:
        return None
    hip, sacrum, femur = (
        rows["structures"].astype("string").fillna("").str.contains(name)
        for name in ("hip", "sacrum", "femur")
    )
    upper, joint, shaft = rows[hip & sacrum], rows[hip & femur & ~sacrum], rows[femur & ~hip]
    if upper.empty or joint.empty or shaft.empty:
        return None
    places = ((upper, 0.75), (upper, 0.35), (joint, 0.35), (shaft, 0.5))
    return pd.concat([part.iloc[[round(place * (len(part) - 1))]] for part, place in places])


def choose_compared(scores: pd.DataFrame) -> pd.Series:
    """Choose Figure 6's slice: average bone IoU of the networks nearest its lower quartile."""
    rows = _longest(scores[scores["model"] != BASELINE])
    rows = rows[_has_bone(rows)]
    average = rows.groupby(["series", "slice"])["bone_iou"].mean().reset_index()
    if average.empty:
        raise ValueError("no network has scores on a slice that shows bone")
    order = (average["bone_iou"] - average["bone_iou"].quantile(0.25)).abs()
    return average.loc[order.idxmin()]


def choose_quartiles(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """Choose Figure 7's slices: maximum, upper and lower quartile, minimum of bone IoU."""
    rows = _longest(scores[scores["model"] == model])
    rows = rows[_has_bone(rows)].sort_values("bone_iou", ascending=False)
    if rows.empty:
        raise ValueError(f"{model} has no scores on a slice that shows bone")
    return rows.iloc[np.linspace(0, len(rows) - 1, 5).round().astype(int)[[0, 1, 3, 4]]]


def choose_model(available: Sequence[str]) -> str:
    """Return U-net, whose curves and slices the paper shows, or the first that there is."""
    return "unet" if "unet" in available else next(iter(available))


def _longest(scores: pd.DataFrame) -> pd.DataFrame:
    """Return every model's rows at its longest horizon, which its predictions are of."""
    parts = [scoring.select(scores, model) for model in scores["model"].unique()]
    rows = pd.concat(parts) if parts else scores
    return rows.assign(bone_iou=scoring.bone_iou(rows))


def _has_bone(rows: pd.DataFrame) -> np.ndarray:
    return scoring.counts(rows)[:, BONE:].sum(axis=(1, 2)) > 0


def _extent_mm(example: Example) -> tuple[float, float, float, float]:
    rows, columns = example.labels.shape
    return 0, columns * example.spacing_mm[1], rows * example.spacing_mm[0], 0


def _picture(example: Example, picture: np.ndarray, title: str, axes: Axes) -> None:
    axes.imshow(picture, extent=_extent_mm(example), interpolation="nearest")
    axes.set_title(title)
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7)


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


def _finish(axes: np.ndarray, examples: Sequence[Example], used: int) -> None:
    """Show in all panels the same part, which holds every body; name the axes, once."""
    top, left, bottom, right = np.transpose([_body_mm(example) for example in examples])
    columns = axes.shape[1]
    for index, panel in enumerate(axes.flat):
        if index >= used:
            panel.remove()
            continue
        panel.set_xlim(left.min() - MARGIN_MM, right.max() + MARGIN_MM)
        panel.set_ylim(bottom.max() + MARGIN_MM, top.min() - MARGIN_MM)
        panel.tick_params(labelbottom=index + columns >= used, labelleft=index % columns == 0)
    figure = axes.flat[0].figure
    figure.supxlabel("patient's right to left (mm)", fontsize=8)
    figure.supylabel("front to back (mm)", fontsize=8)


def _body_mm(example: Example) -> tuple[float, float, float, float]:
    """Return top, left, bottom and right of what is not background; of all, if all is."""
    places = np.argwhere(example.labels != BACKGROUND)
    if not len(places):
        places = np.array([(0, 0), example.labels.shape])
    return *(places.min(axis=0) * example.spacing_mm), *(places.max(axis=0) * example.spacing_mm)


def _class_legend(
    figure: Figure, class_names: Sequence[str], examples: Sequence[Example], title: str = ""
) -> None:
    """Name the colours above all panels, that of ignored pixels where there are any."""
    handles = [
        Patch(color=colour, label=name)
        for name, colour in zip(class_names, CLASS_COLOURS, strict=False)
    ]
    handles[BACKGROUND] = Patch(
        facecolor="white", edgecolor="#888888", label=class_names[BACKGROUND]
    )
    if any((example.labels == IGNORE).any() for example in examples):
        handles.append(Patch(color=IGNORE_COLOUR, label="not scored"))
    fits = len(handles) * LEGEND_ENTRY_INCHES <= figure.get_figwidth()
    columns = len(handles) if fits else 3
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=title)


def figure1(examples: Sequence[Example], axes: np.ndarray) -> None:
    """Draw four example slices, lettered a) to d), on as many axes."""
    for letter, example, panel in zip("abcd", examples, axes.flat, strict=False):
        draw_slice(example, panel, f"{letter})  {example.series}, slice {example.slice}")
    _finish(axes, examples, len(examples))


def figure2(examples: Sequence[Example], axes: np.ndarray) -> None:
    """Draw an original slice, which comes first, and augmented ones."""
    for letter, example, panel in zip("abcdefgh", examples, axes.flat, strict=False):
        draw_slice(example, panel, f"{letter})  {'original' if letter == 'a' else 'augmented'}")
    _finish(axes, examples, len(examples))


def _curves(history: pd.DataFrame, columns: dict, colours, axes: Axes, model: str) -> None:
    """Draw columns of a history (label to column) in %, marked by shape as well as colour."""
    for (label, column), colour, marker in zip(columns.items(), colours, "os^Dv*", strict=False):
        axes.plot(history["epoch"], 100 * history[column], color=colour, marker=marker, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, len(history) + 0.5)
    axes.set_xlabel("epoch")
    axes.set_title(METHOD_NAMES.get(model, model))
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(**beside if len(columns) > MOST_LABELS_INSIDE else {"loc": "best"})


def figure3(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the accuracy of training and validation by epoch."""
    columns = {"training": "accuracy", "validation": "val_accuracy"}
    _curves(history, columns, PAIR_COLOURS.values(), axes, model)
    axes.set_ylabel("pixel accuracy (%)")


def figure4(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation IoU of each class by epoch; one that no slice has is marked absent."""
    columns = {
        name.removeprefix("val_iou_") + (" (absent)" if history[name].isna().all() else ""): name
        for name in history.filter(like="val_iou_")
    }
    _curves(history, columns, CLASS_COLOURS, axes, model)
    axes.set_ylabel("validation IoU (%)")


def figure5(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation mean IoU and mean Dice coefficient by epoch."""
    columns = {"mean IoU": "val_mean_iou", "mean Dice": "val_mean_dice"}
    _curves(history, columns, MEAN_COLOURS.values(), axes, model)
    axes.set_ylabel("validation score (%)")


def image_scores(
    example: Example, labels: np.ndarray, class_names: Sequence[str] = CLASS_NAMES
) -> tuple[float, float]:
    """Return (mean IoU, bone IoU) of one prediction in %.

    The mean is of the classes present; bone is all classes of bone as one.
    """
    counts = metrics.confusion_matrix(example.labels, labels, len(class_names))
    bone = metrics.iou(metrics.bone_as_one(counts))[BONE]
    return float(100 * np.nanmean(metrics.iou(counts))), float(100 * bone)


def figure6(
    example: Example,
    predictions: dict[str, np.ndarray],
    axes: np.ndarray,
    class_names: Sequence[str] = CLASS_NAMES,
) -> None:
    """Draw the slice, its reference and every method's segmentation with its bone IoU."""
    draw_slice(example, axes.flat[0], f"{example.series}, slice {example.slice}")
    draw_labels(example, example.labels, axes.flat[1], "reference")
    for (model, labels), panel in zip(predictions.items(), axes.flat[2:], strict=False):
        bone = image_scores(example, labels, class_names)[1]
        name = METHOD_NAMES.get(model, model)
        draw_labels(example, labels, panel, f"{name}\nbone IoU {bone:.1f} %")
    _finish(axes, [example], 2 + len(predictions))
    _class_legend(axes.flat[0].figure, class_names, [example])


def figure7(
    examples: Sequence[Example],
    predictions: Sequence[np.ndarray],
    axes: np.ndarray,
    model: str,
    class_names: Sequence[str] = CLASS_NAMES,
) -> None:
    """Draw reference (left) and prediction (right), a row a slice, with the slice's scores."""
    for example, labels, (left, right), letter in zip(
        examples, predictions, axes, "abcdefgh", strict=False
    ):
        mean, bone = image_scores(example, labels, class_names)
        draw_labels(
            example, example.labels, left, f"{letter})  {example.series}, slice {example.slice}"
        )
        draw_labels(example, labels, right, f"mean IoU {mean:.1f} %, bone IoU {bone:.1f} %")
    _finish(axes, examples, 2 * len(examples))
    title = f"left: reference, right: {METHOD_NAMES.get(model, model)}"
    _class_legend(axes[0, 0].figure, class_names, examples, title)
