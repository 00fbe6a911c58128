"""Slices, histories and scores -> every figure of the paper and of the supplement.

::

    style       colours, sizes in print, captions, files
    pictures    slices and scans: which slices are shown, how they are drawn
    paper       Figures 1 to 7, and S1 to S6 of the supplement
    niivue      scans and surfaces to scroll and turn, in a notebook
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bonelib import slices
from bonelib.evaluation import scoring
from bonelib.figures import paper, pictures
from bonelib.figures.style import CAPTIONS, COLUMN_MM, canvas, save
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BASELINE, Settings

__all__ = ["CAPTIONS", "all_figures", "best_to_worst", "canvas", "save", "summary"]

# Heights in print
CURVES_MM = 62.0
PANEL_MM = 44.0  # one of small multiples
RELIABILITY_MM = 62.0  # with its histogram
FOREST_ROW_MM = 3.9
BAR_MM = 7.0
MARGIN_MM = 16.0  # labels of the axes and legends


def all_figures(
    folder: SliceFolder, results: ResultFolder, settings: Settings, models: Sequence[str]
) -> dict[str, Figure]:
    """Return every figure by its file name; leave out those whose files are absent.

    Figures 1 and 2 need prepared slices in `folder`, 6 and 7 predictions as well; 3 to 5 need a
    network's history, the supplement needs scores.
    """
    methods = [*models, BASELINE]
    scores = scoring.read_scores(results, methods)
    made = dict(_curves(scoring.read_histories(results, models)))
    if folder.description.exists():
        made |= dict(_slices(folder, results, settings, scores))
    if len(scores):
        made |= dict(_supplement(results, methods, scores))
    for figure in made.values():
        plt.close(figure)  # a notebook shows a figure where it names it
    return {name: made[name] for name in CAPTIONS if name in made}


def summary(made: Mapping[str, Figure]) -> str:
    """Return one line: how many figures were drawn and which are missing."""
    absent = [name for name in CAPTIONS if name.startswith("figure") and name not in made]
    note = f"; skipped, for want of slices, predictions or scores: {', '.join(absent)}"
    return f"{len(made)} figures" + (note if absent else "")


def _curves(histories: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Figure]]:
    if not histories:
        return
    model = pictures.choose_model(list(histories))
    for draw in (paper.figure3, paper.figure4, paper.figure5):
        figure, axes = canvas(1, 1, CURVES_MM, COLUMN_MM)
        draw(histories[model], axes[0, 0], model)
        yield draw.__name__, figure


def _slices(
    folder: SliceFolder, results: ResultFolder, settings: Settings, scores: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    chosen = pictures.choose_levels(slices.read_table(folder.root))
    levels = [pictures.read_example(folder, row) for row in chosen.itertuples()]
    augmented = [levels[0], *pictures.augmented_examples(levels[0], settings.seed)]
    for draw, shown in ((paper.figure1, levels), (paper.figure2, augmented)):
        figure, axes = pictures.picture_canvas(shown, columns=2, count=4)
        draw(shown, axes)
        yield draw.__name__, figure
    methods = list(scores["model"].unique())
    if predicted := [one for one in methods if results.prediction(one, "", 0).parent.exists()]:
        row = pictures.choose_compared(scores)
        example = pictures.read_example(folder, row, results, methods)
        count = len(example.predictions) + 2
        figure, axes = pictures.picture_canvas([example], 5, count, lines=3, legend_lines=1)
        paper.figure6(example, axes, scoring.read_records(results, methods))
        yield "figure6", figure
        model = pictures.choose_model(predicted)
        yield "figure7", best_to_worst(folder, results, scores, model)


def best_to_worst(
    folder: SliceFolder, results: ResultFolder, scores: pd.DataFrame, model: str
) -> Figure:
    """Draw Figure 7 of any network: four test slices from its best to its worst."""
    chosen = pictures.choose_quartiles(scores, model).itertuples()
    shown = [pictures.read_example(folder, row, results, [model]) for row in chosen]
    figure, axes = pictures.picture_canvas(shown, columns=4, count=8, lines=2, legend_lines=2)
    paper.figure7(shown, axes, model)
    return figure


def _supplement(
    results: ResultFolder, methods: Sequence[str], scores: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    names = scoring.method_names(scores, scoring.read_records(results, methods))
    rows = paper.by_method(scores[scores["resolution"] == "input"], names)
    placed = rows.merge(scoring.read_slices(results), on=["series", "slice"])
    reliability, false_bone = (
        paper.by_method(scoring.read_scores(results, methods, kind), names)
        for kind in ("reliability", "false_bone")
    )
    if len(names) > 1:
        pairs = paper.pairwise(rows, names)
        lines = len(pairs) + (1 + paper.BLOCK_GAP) * pairs["first"].nunique()
        figure, axes = canvas(1, 1, lines * FOREST_ROW_MM + MARGIN_MM)
        paper.figureS1(pairs, axes[0, 0])
        yield "figureS1_comparisons", figure
    down, across = paper.multiples_shape(rows)
    multiples = (down, across, down * PANEL_MM + MARGIN_MM)
    for name, draw in {
        "figureS2_levels": paper.figureS2,
        "figureS3_bone_size": paper.figureS3,
        "figureS4_confusion": paper.figureS4,
    }.items():
        figure, axes = canvas(*multiples)
        draw(placed, axes)
        yield name, figure
    if len(reliability):
        down, across = paper.multiples_shape(reliability)
        height_mm, ratios = down * RELIABILITY_MM + MARGIN_MM, [3, 1.3] * down
        figure, axes = canvas(2 * down, across, height_mm, height_ratios=ratios)
        paper.figureS5(reliability, axes)
        yield "figureS5_reliability", figure
    if len(false_bone):
        figure, axes = canvas(1, 2, rows["method"].nunique() * BAR_MM + MARGIN_MM)
        paper.figureS6(false_bone, rows, axes)
        yield "figureS6_false_bone", figure
