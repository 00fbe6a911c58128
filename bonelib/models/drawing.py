"""A keras.Model -> a drawing of its stages, derived from its layers."""

import math
from dataclasses import dataclass, field

import keras
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bonelib.models.pspnet import AdaptiveAverage

COLOURS = {"image": "#999999", "down": "#56B4E9", "up": "#E69F00", "classes": "#009E73"}


@dataclass(eq=False)
class Stage:
    """Layers in a row that share a resolution: `size` rows and columns.

    `channels` are the most that one of its convolutions gives.
    """

    image_size: int
    size: int
    channels: int
    column: int
    kind: str  # a key of COLOURS
    learns: bool = False
    sources: list["Stage"] = field(default_factory=list)  # what it takes in, the main one first
    y: float = 0.0

    @property
    def width(self) -> float:
        """Return the width in columns; it grows with the logarithm of the channels."""
        return 0.1 + 0.06 * math.log2(self.channels)

    @property
    def height(self) -> float:
        """Return the height, 20 for the image's size; the root lets small sizes show."""
        return 20 * math.sqrt(self.size / self.image_size)

    @property
    def top(self) -> float:
        """Return the upper edge."""
        return self.y + self.height / 2


def stages(model: keras.Model) -> list[Stage]:
    """Return the stages of `model` in the order of its layers.

    A layer starts a stage where it changes the resolution; padding and cropping do not
    count, a pyramid's pooling always does. What a merging layer takes from an earlier stage
    makes that stage a source.
    """
    image_size = model.input_shape[1]
    found: list[Stage] = []
    stage_of: dict[str, Stage] = {}
    for layer in model.layers:
        _, rows, _, channels = layer.output.shape
        inputs = list(dict.fromkeys(stage_of[name] for name in _input_names(layer)))
        if not inputs:
            stage = Stage(image_size, rows, channels, 0, "image")
        elif layer.output is model.outputs[0]:
            column = inputs[0].column + 1
            stage = Stage(image_size, rows, channels, column, "classes", sources=inputs)
        elif len(inputs) > 1:
            stage = _merge(inputs, found, stage_of)
        elif isinstance(layer, keras.layers.ZeroPadding2D):
            stage = inputs[0]
        elif isinstance(layer, keras.layers.Cropping2D):
            stage = inputs[0]
            stage.size = rows
        elif inputs[0].size == rows and inputs[0].kind != "image" and not _is_branch(layer):
            stage = inputs[0]
        else:
            stage = _enter(inputs[0], rows, channels, found)
        if stage not in found:
            found.append(stage)
        if hasattr(layer, "kernel"):
            stage.channels = max(channels, stage.channels if stage.learns else 0)
            stage.learns = True
        stage_of[layer.name] = stage
    return found


def _input_names(layer: keras.Layer) -> list[str]:
    tensors = [] if isinstance(layer, keras.layers.InputLayer) else layer.input
    tensors = tensors if isinstance(tensors, list) else [tensors]
    return [tensor._keras_history.operation.name for tensor in tensors]


def _is_branch(layer: keras.Layer) -> bool:
    return isinstance(layer, AdaptiveAverage)


def _enter(source: Stage, size: int, channels: int, found: list[Stage]) -> Stage:
    """Return the stage of `size` that follows `source`: branches of a block share one."""
    for stage in found:
        if stage.sources == [source] and stage.size == size:
            return stage
    kind = "up" if size > source.size else "down"
    column = source.column + 1
    return Stage(source.image_size, size, channels, column, kind, sources=[source])


def _merge(inputs: list[Stage], found: list[Stage], stage_of: dict[str, Stage]) -> Stage:
    """Return the latest of `inputs` with the others as sources.

    Inputs that only resize, such as the branches of a pyramid, become part of it.
    """
    stage = max(inputs, key=found.index)
    for other in inputs:
        if other is stage:
            continue
        if other.learns or other.column != stage.column:
            stage.sources.append(other)
            continue
        stage.sources += other.sources
        found.remove(other)
        stage_of.update({name: stage for name, was in stage_of.items() if was is other})
    return stage


def draw_architecture(model: keras.Model, axes: Axes) -> None:
    """Draw the stages of `model` on `axes`: boxes from left to right, joined by arrows.

    Boxes are as high as the resolution and as wide as the channels are many (not to
    scale), and labelled with both; arrows over a box are skip connections.
    """
    found = stages(model)
    columns = {stage.column: [] for stage in found}
    for stage in found:
        columns[stage.column].append(stage)
    for column in columns.values():
        _stack(column)
    ceiling = max(stage.top for stage in found)
    for stage in found:
        _draw_box(stage, axes)
        for source in stage.sources:
            between = [other for other in found if source.column < other.column < stage.column]
            if between:
                ceiling = max(ceiling, _draw_skip(source, stage, between, axes))
            else:
                _draw_flow(source, stage, axes)
    floor = min(stage.y - stage.height / 2 for stage in found)
    axes.set_xlim(-0.6, max(columns) + 0.6)
    axes.set_ylim(floor - 3.5, ceiling + 1)
    axes.set_axis_off()


def _stack(column: list[Stage]) -> None:
    """Place the stages of one column below each other, around the middle line."""
    label_height = 3.0
    height = sum(stage.height for stage in column) + label_height * (len(column) - 1)
    top = height / 2
    for stage in column:
        stage.y = top - stage.height / 2
        top -= stage.height + label_height


def _draw_box(stage: Stage, axes: Axes) -> None:
    corner = (stage.column - stage.width / 2, stage.y - stage.height / 2)
    axes.add_patch(
        Rectangle(
            corner, stage.width, stage.height,
            facecolor=COLOURS[stage.kind], edgecolor="black", linewidth=0.6, zorder=2,
        )
    )  # fmt: skip
    axes.text(
        stage.column, corner[1] - 0.5, f"{stage.size}² × {stage.channels}",
        ha="center", va="top", fontsize=7,
    )  # fmt: skip


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "linewidth": 0.8, "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style, zorder=3)


def _draw_flow(source: Stage, stage: Stage, axes: Axes) -> None:
    start = (source.column + source.width / 2, source.y)
    _arrow(axes, start, (stage.column - stage.width / 2, stage.y))


def _draw_skip(source: Stage, stage: Stage, between: list[Stage], axes: Axes) -> float:
    """Draw an arrow over the stages `between` and return its height."""
    clear = max(other.top for other in between) + 0.2
    level = min(source.top, stage.top) - 0.2
    if level > clear:
        start = (source.column + source.width / 2, level)
        _arrow(axes, start, (stage.column - stage.width / 2, level))
        return level
    level = max(clear, source.top, stage.top) + 1
    axes.plot(
        [source.column, source.column, stage.column], [source.top, level, level],
        linewidth=0.8, color="0.3",
    )  # fmt: skip
    _arrow(axes, (stage.column, level), (stage.column, stage.top))
    return level
