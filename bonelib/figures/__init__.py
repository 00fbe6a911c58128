"""Slices, curves and scores -> the paper's figures and a supplement, on axes that are given.

::

    style      colours, marks, sizes in print, captions, files
    pictures   slices and label maps -> pictures in millimetres
    choosing   which slices and networks are shown, by rule
    paper      Figures 1 to 7
    evidence   Figures S1 to S6
    drawing    a run -> every figure that its files allow
"""

from bonelib.figures.choosing import (
    choose_compared,
    choose_levels,
    choose_model,
    choose_quartiles,
    choose_series,
)
from bonelib.figures.drawing import all_figures, drawn
from bonelib.figures.examples import (
    Example,
    augmented_examples,
    draw_labels,
    draw_slice,
    read_example,
    read_predictions,
)
from bonelib.figures.paper import (
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    image_scores,
)
from bonelib.figures.style import (
    CAPTIONS,
    CLASS_COLOURS,
    COLUMN_MM,
    PAGE_MM,
    canvas,
    printed,
    read_caption,
    save,
)
from bonelib.figures.supplement import (
    by_method,
    figureS1,
    figureS2,
    figureS3,
    figureS4,
    figureS5,
    figureS6,
    method_names,
    multiples_shape,
    pairwise,
)

__all__ = [
    "CAPTIONS",
    "CLASS_COLOURS",
    "COLUMN_MM",
    "PAGE_MM",
    "Example",
    "all_figures",
    "augmented_examples",
    "by_method",
    "canvas",
    "choose_compared",
    "choose_levels",
    "choose_model",
    "choose_quartiles",
    "choose_series",
    "draw_labels",
    "draw_slice",
    "drawn",
    "figure1",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "figure6",
    "figure7",
    "figureS1",
    "figureS2",
    "figureS3",
    "figureS4",
    "figureS5",
    "figureS6",
    "image_scores",
    "method_names",
    "multiples_shape",
    "pairwise",
    "printed",
    "read_caption",
    "read_example",
    "read_predictions",
    "save",
]
