"""The files of a run -> every figure that they allow, at its size in print."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bonelib import slices
from bonelib.evaluation import scoring
from bonelib.figures import choosing, examples, paper, supplement
from bonelib.figures.style import CAPTIONS, COLUMN_MM, printed
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import Settings

# Heights in print
CURVES_MM = 60.0
PANEL_MM = 44.0  # of one of small multiples
FOREST_ROW_MM = 3.9
BAR_MM = 7.0
MARGIN_MM = 16.0  # of axes' names and legends

ACROSS = 5  # pictures in Figure 6

Named = Iterator[tuple[str, Figure]]


def all_figures(
    folder: SliceFolder, results: ResultFolder, settings: Settings, models: Sequence[str]
) -> dict[str, Figure]:
    """Return every figure by its file name; one whose files are absent is left out.

    Figures 1 and 2 need prepared slices in `folder`, 6 and 7 predictions, too; 3 to 5 need a
    network's history, the supplement's need scores. Where one network stands for all it is
    `choose_model` of those that there are.
    """
    methods = settings.methods(models)
    scores = scoring.read_scores(results, methods)
    made = dict(_curves(scoring.read_histories(results, models)))
    if folder.description.exists():
        made |= dict(_examples(folder, settings))
        if not scores.empty and any((results.root / "predictions").glob("*/*.png")):
            made |= dict(_segmentations(folder, results, settings, methods, scores))
    if not scores.empty:
        made |= dict(_evidence(results, settings, methods, scores))
    for figure in made.values():
        plt.close(figure)  # a notebook shows it where it names it
    return {name: made[name] for name in CAPTIONS if name in made}


def drawn(made: Mapping[str, Figure]) -> str:
    """Say how many figures there are, and which not, in one line."""
    absent = [name for name in CAPTIONS if name.startswith("figure") and name not in made]
    note = f"; skipped, for want of slices, predictions or scores: {', '.join(absent)}"
    return f"{len(made)} figures" + (note if absent else "")


def _examples(folder: SliceFolder, settings: Settings) -> Named:
    chosen = choosing.choose_levels(slices.read_table(folder.root))
    shown = [examples.read_example(folder, row) for row in chosen.itertuples()]
    augmented = examples.augmented_examples(shown[0], settings.seed, count=3)
    for name, draw, drawn in (
        ("figure1", paper.figure1, shown),
        ("figure2", paper.figure2, [shown[0], *augmented]),
    ):
        figure, axes = examples.picture_canvas(drawn, 2, 4)
        draw(drawn, axes)
        yield name, figure


def _curves(histories: Mapping[str, pd.DataFrame]) -> Named:
    if not histories:
        return
    model = choosing.choose_model(list(histories))
    for draw in (paper.figure3, paper.figure4, paper.figure5):
        figure, axes = printed(1, 1, CURVES_MM, COLUMN_MM)
        draw(histories[model], axes[0, 0], model)
        yield draw.__name__, figure


def _segmentations(
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    methods: Sequence[str],
    scores: pd.DataFrame,
) -> Named:
    row = choosing.choose_compared(scores)
    predicted = examples.read_predictions(results, methods, row)
    example = examples.read_example(folder, row)
    records = scoring.read_records(results, methods)
    figure, axes = examples.picture_canvas([example], ACROSS, len(predicted) + 2, 3, legend_lines=1)
    paper.figure6(example, predicted, axes, settings.class_names, records)
    yield "figure6", figure

    model = choosing.choose_model(list(predicted))
    chosen = list(choosing.choose_quartiles(scores, model).itertuples())
    shown = [examples.read_example(folder, row) for row in chosen]
    predictions = [examples.read_predictions(results, [model], row)[model] for row in chosen]
    figure, axes = examples.picture_canvas(shown, 4, 8, 2, legend_lines=2)
    paper.figure7(shown, predictions, axes, model, settings.class_names)
    yield "figure7", figure


def _evidence(
    results: ResultFolder, settings: Settings, methods: Sequence[str], scores: pd.DataFrame
) -> Named:
    names = supplement.method_names(scores, scoring.read_records(results, methods))
    rows = supplement.by_method(scores[scores["resolution"] == "input"], names)
    placed = rows.merge(scoring.read_slices(results), on=["series", "slice"])
    multiples = supplement.multiples_shape(rows)
    height_mm = multiples[0] * PANEL_MM + MARGIN_MM

    if len(names) > 1:
        pairs = supplement.pairwise(rows, names)
        lines = len(pairs) + (1 + supplement.BLOCK_GAP) * pairs["first"].nunique()
        figure, axes = printed(1, 1, lines * FOREST_ROW_MM + MARGIN_MM)
        supplement.figureS1(pairs, axes[0, 0])
        yield "figureS1_comparisons", figure
    if not placed.empty:
        for name, draw in (
            ("figureS2_levels", supplement.figureS2),
            ("figureS3_bone_size", supplement.figureS3),
        ):
            figure, axes = printed(*multiples, height_mm)
            draw(placed, axes)
            yield name, figure
    figure, axes = printed(*multiples, height_mm)
    supplement.figureS4(rows, axes, settings.class_names)
    yield "figureS4_confusion", figure

    reliability = supplement.by_method(scoring.read_reliability(results, methods), names)
    if not reliability.empty:
        down, across = supplement.multiples_shape(reliability)
        figure, axes = printed(
            2 * down, across, down * 1.4 * PANEL_MM + MARGIN_MM, height_ratios=[3, 1.3] * down
        )
        supplement.figureS5(reliability, axes)
        yield "figureS5_reliability", figure
    false_bone = supplement.by_method(scoring.read_false_bone(results, methods), names)
    if not false_bone.empty:
        figure, axes = printed(1, 2, rows["method"].nunique() * BAR_MM + MARGIN_MM)
        supplement.figureS6(false_bone, rows, axes)
        yield "figureS6_false_bone", figure
