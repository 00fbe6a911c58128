"""Colours, marks, sizes, captions and file formats that all figures share.

A class has one colour everywhere. Any two colours differ in lightness as well as in hue, so
they stay apart in grey print and for colour-blind readers. The background class is white in
pictures, as in the paper's Figure 2.
"""

from pathlib import Path

import numpy as np
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bonelib.provenance import replacing

# Blue, orange, green: the paper's order. Yellow, wine, black: where there are more bones.
CLASS_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#F0E442", "#882255", "#000000")
IGNORE_COLOUR = "#BBBBBB"
PAIR_COLOURS = ("#D55E00", "#56B4E9")  # two curves: the paper's orange and blue
FAINT, MIDDLE, DARK = "#C8C8C8", "#888888", "#333333"  # greys
BONE_COLOUR = "#E3DAC9"  # a surface of all bone
# Surfaces of single bones: Paul Tol's scheme "light" first, which shading leaves distinguishable.
SURFACE_COLOURS = (
    "#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00",
    "#DDDDDD", "#CC6677", "#332288", "#DDCC77", "#117733", "#882255", "#999933", "#AA4499",
    "#88CCEE", "#44AA99", "#555555", "#994F00", "#E1BE6A", "#5D3A9B", "#D35FB7",
)  # fmt: skip
WINDOW_HU = (-450, 1050)  # shows bone; scans in their own grey values
MARKS = "os^Dv*"  # of curves, in order
MARK_SIGNS = "●■▲◆▼★"  # the same marks in text
DOTS_PER_INCH = 300
SCREEN_DOTS_PER_INCH = 130  # of a figure in a notebook
COLUMN_MM, PAGE_MM = 85.0, 180.0  # widths of one and two columns of a journal
MM_PER_INCH = 25.4
SMALL_POINTS = 7  # the smallest text in print
STYLE = Path(__file__).with_name("journal.mplstyle")
CAPTIONS = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text())


def canvas(rows: int, columns: int, height_mm: float, width_mm: float = PAGE_MM, **options):
    """Return a figure of rows x columns axes; the size is the whole figure's in print."""
    plt.style.use(STYLE)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH),
        layout="constrained", squeeze=False, **options,
    )  # fmt: skip
    figure.get_layout_engine().set(h_pad=0.08)  # inches: titles stay clear of the ticks above
    figure.set_dpi(SCREEN_DOTS_PER_INCH)
    return figure, axes


def label_edges(axes: np.ndarray, count: int, x: str = "", y: str = "") -> None:
    """Keep the first `count` panels; label their axes at the left and lower edges only."""
    columns = axes.shape[1]
    for panel in axes.flat[count:]:
        panel.remove()
    for index, panel in enumerate(axes.flat[:count]):
        is_lowest, is_leftmost = index + columns >= count, index % columns == 0
        panel.tick_params(labelbottom=is_lowest, labelleft=is_leftmost)
        panel.set(xlabel=x if is_lowest else "", ylabel=y if is_leftmost else "")


def save(figure: Figure, name: str, folder: Path) -> None:
    """Write `figure` as `name`.png and .pdf, with its caption as metadata."""
    caption = CAPTIONS.get(name, name)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both files
    keys = {"png": {"Description": caption}, "pdf": {"Subject": caption, "CreationDate": None}}
    for suffix, metadata in keys.items():
        with replacing(folder / f"{name}.{suffix}") as scratch:
            figure.savefig(scratch, dpi=DOTS_PER_INCH, metadata=metadata)


def surface_colours(count: int) -> list[str]:
    """Return a colour for each of several surfaces: bone's own if there is but one."""
    return [BONE_COLOUR] if count == 1 else (SURFACE_COLOURS * count)[:count]
