"""Figures 1 to 7 of the paper and S1 to S6 of the supplement, drawn on axes that are given.

Data frames of the supplement have a column `method`, the printed name that `by_method` adds.
Small multiples show one method each, in the paper's order.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bonelib import metrics
from bonelib.evaluation import error_analysis, scoring, statistics
from bonelib.figures.pictures import Example, class_legend, draw_labels, draw_slice
from bonelib.figures.style import (
    CLASS_COLOURS,
    DARK,
    FAINT,
    MARK_SIGNS,
    MARKS,
    MIDDLE,
    PAIR_COLOURS,
    SMALL_POINTS,
    label_edges,
)
from bonelib.published import METHOD_NAMES
from bonelib.settings import BONE, CLASS_NAMES

MAX_MARKS = 12  # on a curve
LEGEND_COLUMNS = 3
COLUMNS = 3  # small multiples side by side
SIGNIFICANT = 0.05
BLOCK_GAP = 0.4  # rows of Figure S1
MAX_GROUPS = 8  # of slices by bone area
MIN_SLICES = 4  # per group, so that its quartiles differ from its extremes
CAUSE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#F0E442", "#CCCCCC")
CAUSE_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
BONE_COLOUR = CLASS_COLOURS[BONE]
MM2_PER_CM2 = 100


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
    _draw_curves(history, columns, PAIR_COLOURS, axes, model, "pixel accuracy (%)")


def figure4(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation IoU of each class by epoch; mark a class without pixels as absent."""
    columns = {
        name.removeprefix("val_iou_") + (" (absent)" if history[name].isna().all() else ""): name
        for name in history.filter(like="val_iou_")
    }
    _draw_curves(history, columns, CLASS_COLOURS, axes, model, "validation IoU (%)")


def figure5(history: pd.DataFrame, axes: Axes, model: str = "unet") -> None:
    """Draw the validation mean IoU and mean Dice coefficient by epoch."""
    columns = {"mean IoU": "val_mean_iou", "mean Dice": "val_mean_dice"}
    _draw_curves(history, columns, PAIR_COLOURS, axes, model, "validation score (%)")


def _draw_curves(
    history: pd.DataFrame, columns: dict, colours, axes: Axes, model: str, label: str
) -> None:
    """Draw columns of a history (label to column) in %, marked by shape as well as colour."""
    for (name, column), colour, mark in zip(columns.items(), colours, MARKS, strict=False):
        axes.plot(
            history["epoch"], 100 * history[column], color=colour, marker=mark, label=name,
            markeredgecolor=DARK, markeredgewidth=0.4, markevery=-(-len(history) // MAX_MARKS),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, len(history) + 0.5)
    axes.set(xlabel="epoch", ylabel=label)
    # Above the axes, since no corner is free of curves in every run.
    axes.legend(
        title=METHOD_NAMES[model], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=LEGEND_COLUMNS
    )


def image_scores(example: Example, labels: np.ndarray) -> tuple[float, float]:
    """Return (mean IoU of the classes present, IoU of bone) in %."""
    iou = metrics.iou(metrics.confusion_matrix(example.labels, labels))
    return float(100 * np.nanmean(iou)), float(100 * iou[BONE])


def figure6(example: Example, axes: np.ndarray, records: Mapping[str, dict] | None = None) -> None:
    """Draw a slice, its reference and every method's segmentation with its bone IoU.

    `records` of the evaluations tell which encoders started from random weights.
    """
    draw_slice(example, axes.flat[0], f"{example.series}, slice {example.slice}")
    draw_labels(example, example.labels, axes.flat[1], "reference")
    for (model, labels), panel in zip(example.predictions.items(), axes.flat[2:], strict=False):
        bone = image_scores(example, labels)[1]
        name = scoring.method_name(model, records).replace(" (", "\n(")
        draw_labels(example, labels, panel, f"{name}\nbone IoU {bone:.1f} %")
    class_legend(axes.flat[0].figure, [example])


def figure7(examples: Sequence[Example], axes: np.ndarray, model: str) -> None:
    """Draw reference (left) and prediction (right) of each slice, with the slice's scores."""
    for letter, example, (left, right) in zip("abcd", examples, axes.reshape(-1, 2), strict=False):
        labels = example.predictions[model]
        mean, bone = image_scores(example, labels)
        title = f"{letter})  {example.series}\nslice {example.slice}"
        draw_labels(example, example.labels, left, title)
        draw_labels(example, labels, right, f"mean IoU {mean:.1f} %\nbone IoU {bone:.1f} %")
    title = f"left: reference, right: {METHOD_NAMES[model]}"
    class_legend(axes.flat[0].figure, examples, title)


# The supplement


def by_method(frame: pd.DataFrame, names: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """Add the printed name of each row's method, ordered as `names`."""
    method = [names[pair] for pair in zip(frame["model"], frame["epochs"], strict=True)]
    return frame.assign(method=pd.Categorical(method, list(names.values()), ordered=True))


def multiples_shape(frame: pd.DataFrame) -> tuple[int, int]:
    """Return the rows and columns of a grid with one panel per method."""
    count = frame["method"].nunique()
    return -(-count // COLUMNS), min(count, COLUMNS)


def _multiples(
    frame: pd.DataFrame, axes: np.ndarray, x: str = "", y: str = ""
) -> Iterator[tuple[pd.DataFrame, Axes]]:
    """Yield each method's rows and its titled panel; label the axes at the edges, `x` and `y`."""
    parts = list(frame.groupby("method", observed=True))
    label_edges(axes, len(parts), x, y)
    for (method, part), panel in zip(parts, axes.flat, strict=False):
        panel.set_title(method.replace(" (", "\n("))  # fits the panel's width
        yield part, panel


def pairwise(scores: pd.DataFrame, names: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """Return `statistics.comparisons` of all pairs of methods, the better one first."""
    rank = {method: scoring.pooled_bone_iou(scoring.select(scores, *method)) for method in names}
    ranked = sorted(names, key=rank.get, reverse=True)
    return statistics.comparisons(scores, {method: names[method] for method in ranked})


def figureS1(pairs: pd.DataFrame, axes: Axes) -> None:
    """Draw a forest plot with one row per pair; `pairs` are rows of `pairwise`."""
    blocks, firsts = pd.factorize(pairs["first"])
    places = np.arange(len(pairs)) + 1 + blocks * (1 + BLOCK_GAP)
    headings = places[~pairs["first"].duplicated()] - 1
    for row, place in zip(pairs.itertuples(), places, strict=True):
        _interval(row, place, axes)
    axes.axvline(0, color=MIDDLE, linewidth=0.8)
    axes.set_ylim(places[-1] + 1, -1)
    names = [*(f"{first}, minus" for first in firsts), *pairs["against"]]
    axes.set_yticks([*headings, *places], names)
    for label in axes.get_yticklabels()[: len(firsts)]:
        label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("difference in bone IoU (percentage points)")


def _interval(row, place: float, axes: Axes) -> None:
    """Draw one difference with its interval, and print both at the right."""
    value, low, high = row.difference, row.difference_low, row.difference_high
    axes.errorbar(
        value, place, xerr=[[value - low], [high - value]], fmt="o", color=DARK, capsize=1.5,
        markerfacecolor=DARK if row.p_holm < SIGNIFICANT else "white", linewidth=1,
    )  # fmt: skip
    axes.annotate(
        f"{value:.1f} ({low:.1f} to {high:.1f})".replace("-", "\N{MINUS SIGN}"), (1.02, place),
        xycoords=axes.get_yaxis_transform(), va="center", fontsize=SMALL_POINTS,
    )  # fmt: skip


def figureS2(rows: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw bone IoU by level of the pelvis, feet at the bottom; `rows` are scores by method."""

    def pooled(*keys: str) -> pd.Series:
        groups = rows.groupby(list(keys), observed=True)
        return groups.apply(scoring.pooled_bone_iou, include_groups=False)

    curves, series = pooled("level", "method").unstack(), pooled("method", "series", "level")
    names, places = list(curves.index), range(len(curves))
    for part, panel in _multiples(rows, axes, x="bone IoU (%)"):
        method = part["method"].iloc[0]
        panel.plot(curves, places, color=FAINT, linewidth=0.7, zorder=1)
        levels = series[method].index.get_level_values("level").map(names.index)
        panel.plot(series[method], levels, "o", color=MIDDLE, markersize=2.5, zorder=2)
        panel.plot(curves[method], places, "D-", color=BONE_COLOUR, zorder=3)
        panel.set(xlim=(-3, 103), ylim=(-0.5, len(names) - 0.5))
        panel.set_yticks(places, names)


def figureS3(rows: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw the bone IoU of slices against their bone area; `rows` are scores by method."""
    rows = rows[rows["bone_mm2"] > 0]
    rows = rows.assign(area=rows["bone_mm2"] / MM2_PER_CM2, bone_iou=scoring.bone_iou(rows))
    for part, panel in _multiples(rows, axes, "bone in the slice (cm²)", "bone IoU (%)"):
        panel.plot(part["area"], part["bone_iou"], ".", color=MIDDLE, markersize=2.5, alpha=0.7)
        low, middle, high = _quartiles_by_area(part)
        panel.errorbar(
            middle["area"], middle["bone_iou"],
            yerr=[middle["bone_iou"] - low["bone_iou"], high["bone_iou"] - middle["bone_iou"]],
            fmt="D-", color=BONE_COLOUR, capsize=2, markersize=3.5,
        )  # fmt: skip
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlim(0.8 * rows["area"].min(), 1.25 * rows["area"].max())
        panel.set_ylim(-3, 103)


def _quartiles_by_area(part: pd.DataFrame) -> list[pd.DataFrame]:
    """Return lower quartile, median and upper quartile of groups with similar bone area."""
    count = int(np.clip(len(part) // MIN_SLICES, 1, MAX_GROUPS))
    ranks = part["area"].rank(method="first")
    groups = part.groupby(pd.qcut(ranks, count, labels=False))[["area", "bone_iou"]]
    return [groups.quantile(share) for share in (0.25, 0.5, 0.75)]


def figureS4(rows: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw each method's confusion matrix in % of the reference's classes, which are its rows."""
    places = range(len(CLASS_NAMES))
    for part, panel in _multiples(rows, axes, "predicted", "reference"):
        counts = scoring.counts(part).sum(axis=0)
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        panel.pcolormesh(
            places, places, shares, cmap="Greys", vmin=0, vmax=140, shading="nearest",
            edgecolors="white", linewidth=0.5,
        )  # fmt: skip
        for row, column in np.ndindex(shares.shape):
            panel.text(
                column, row, percent(shares[row, column]), ha="center", va="center",
                color="white" if shares[row, column] > 70 else "black", fontsize=SMALL_POINTS,
            )  # fmt: skip
        panel.invert_yaxis()
        panel.set_xticks(places, CLASS_NAMES)
        panel.set_yticks(places, CLASS_NAMES)
        panel.tick_params(length=0)
        panel.grid(False)
        panel.spines[:].set_visible(False)


def percent(share: float) -> str:
    """Print a share in %; only exact 0 and 100 are printed as such."""
    if share in (0, 100):
        return f"{share:.0f}"
    return "<0.1" if share < 0.05 else ">99.9" if share >= 99.95 else f"{share:.1f}"


def figureS5(reliability: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw each network's reliability (odd rows of axes) and histogram (even rows).

    `reliability` are rows of the table of that kind by method.
    """
    bins, count = reliability["bin"].max() + 1, reliability["method"].nunique()
    upper, lower = axes[::2], axes[1::2]
    label_edges(lower, count, x="probability of the class", y="pixels")
    panels = _multiples(reliability, upper, y="share of the class")
    for (part, panel), histogram in zip(panels, lower.flat, strict=False):
        panel.plot([0, 1], [0, 1], "--", color=MIDDLE, linewidth=0.8)
        errors = []
        for (name, rows), colour, mark, sign in zip(
            part.groupby("class", sort=False), CLASS_COLOURS, MARKS, MARK_SIGNS, strict=False
        ):
            errors.append(f"{sign} {error_analysis.expected_calibration_error(rows):.2f}")
            sums = rows.groupby("bin")[["pixels", "probability", "positive"]].sum()
            sums = sums[sums["pixels"] > 0]
            shares = sums.div(sums["pixels"], axis=0)
            style = {"color": colour, "marker": mark, "markersize": 3, "linewidth": 1}
            panel.plot(shares["probability"], shares["positive"], label=name, **style)
            middles = (sums.index + 0.5) / bins
            histogram.plot(middles, sums["pixels"], drawstyle="steps-mid", **style)
        panel.set_title(f"{panel.get_title()}\nECE  {'  '.join(errors)}")
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        panel.tick_params(labelbottom=False)
        histogram.set(xlim=(-0.02, 1.02), yscale="log")
    handles = upper.flat[0].get_legend_handles_labels()
    upper.flat[0].figure.legend(*handles, loc="outside upper center", ncols=len(handles[0]))
    highest = max(histogram.get_ylim()[1] for histogram in lower.flat[:count])
    for histogram in lower.flat[:count]:
        histogram.set_ylim(0.5, 2 * highest)
        histogram.yaxis.set_major_locator(LogLocator(numticks=4))
        histogram.yaxis.set_major_formatter(EngFormatter())
        histogram.yaxis.set_minor_locator(NullLocator())


def figureS6(false_bone: pd.DataFrame, rows: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw false bone by cause: in % of the reference's bone (left) and in % of itself (right).

    `false_bone` are rows of the table of that kind, `rows` scores, both by method.
    """
    bone = rows.groupby("method", observed=True).apply(
        lambda part: scoring.counts(part)[:, BONE:].sum(), include_groups=False
    )
    pixels = false_bone.groupby(["method", "cause"], observed=True)["pixels"].sum().unstack()
    pixels = pixels.reindex(index=bone.index, columns=error_analysis.CAUSES).fillna(0)
    total = pixels.sum(axis=1)
    left, right = axes.flat
    _stack(100 * pixels.div(bone, axis=0), left)
    _stack(100 * pixels.div(total.clip(lower=1), axis=0), right)
    left.set_xlabel("false bone (% of the reference's bone)")
    right.set_xlabel("share of the false bone (%)")
    right.tick_params(labelleft=False)
    right.set_xlim(0, 100)
    for place in np.flatnonzero(total == 0):
        left.text(0, place, " none", va="center", fontsize=SMALL_POINTS)
    handles = left.get_legend_handles_labels()
    left.figure.legend(*handles, loc="outside upper center", ncols=len(pixels.columns))


def _stack(shares: pd.DataFrame, axes: Axes) -> None:
    """Draw one stacked bar per row, the first row at the top."""
    start = np.zeros(len(shares))
    for cause, colour, hatch in zip(shares, CAUSE_COLOURS, CAUSE_HATCHES, strict=True):
        axes.barh(
            shares.index.astype(str), shares[cause], left=start, color=colour, hatch=hatch,
            edgecolor=DARK, linewidth=0.4, height=0.7, label=cause,
        )  # fmt: skip
        start += shares[cause].to_numpy()
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
