"""What the paper leaves open: variants of the training beside the run's own."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bonelib.evaluation import variants
from bonelib.evaluation.scoring import method_name
from bonelib.evaluation.variants import OWN, REPLICATES, VARIANTS, Variant
from bonelib.paths import ResultFolder
from bonelib.settings import TABLE3_MODELS, Settings
from bonelib.tables.table import Table

NOT_RUN = "Not run: `python run_all.py --profile quick --ablations`."

NATIVE = Variant(
    "native_grid",
    "scored on the native grid",
    "Does it matter on which grid the scores are taken?",
    "the paper does not say, and its networks' outputs are not as large as their inputs",
)

MEASURES = {"bone": "IoU of bone", "mean": "mean IoU"}


def ablation_table(results: ResultFolder, settings: Settings) -> Table:
    """Return each variant's scores beside those of the run's own settings, after long training.

    A row a network, variant and measure: the replicates' scores in %, their mean and sample
    standard deviation, the difference of the means to the run's own, and whether it is larger
    than either standard deviation.
    """
    caption = (
        f"Variants of the training, best of {settings.epochs_long} epochs: scores of "
        f"{REPLICATES} trainings each, that differ in their random numbers alone."
    )
    scores = variants.read_ablations(results, settings)
    if scores.empty:
        return Table(pd.DataFrame(), caption, (NOT_RUN,))
    shown, rows = {}, []
    for model in TABLE3_MODELS:
        groups = dict(_groups(scores[scores["model"] == model]))
        shown |= {variant.name: variant for variant, _ in groups.values()}
        own = groups.get(OWN.name, (OWN, scores.head(0)))[1]
        rows += [row for group in groups.values() for row in _rows(model, *group, own)]
    rows += _missing(set(scores["model"]), results, settings)
    notes = (
        "%, counts pooled over all pixels of the test slices. Difference: of the mean to that of "
        f"the trainings {OWN.title}; beyond spread: it is larger than the sample standard "
        "deviation of either, which is little proof with so few trainings.",
        *(f"{each.title[0].upper()}{each.title[1:]}: {each.question} Open because {each.reason}."
          for each in shown.values()),
    )  # fmt: skip
    return Table(pd.DataFrame(rows), caption, notes, blocks="name", formats={"difference": _signed})


def _signed(points: float) -> str:
    return "" if np.isnan(points) else f"{points:+.2f}".replace("-", "−")


def _groups(scores: pd.DataFrame) -> Iterator[tuple[str, tuple[Variant, pd.DataFrame]]]:
    """Yield by name each variant and its rows; the own trainings' native grid is one, too."""
    for variant in (OWN, NATIVE, *VARIANTS[1:]):
        is_native = variant == NATIVE
        part = scores[
            (scores["variant"] == (OWN if is_native else variant).name)
            & (scores["resolution"] == ("native" if is_native else "input"))
        ]
        if len(part):
            yield variant.name, (variant, part)


def _rows(model: str, variant: Variant, part: pd.DataFrame, own: pd.DataFrame) -> Iterator[dict]:
    for measure, title in MEASURES.items():
        values = part.set_index("replicate")[measure]
        difference, beyond = np.nan, ""
        if variant != OWN:
            difference = values.mean() - own[measure].mean()
            spread = np.fmax(values.std(), own[measure].std())
            beyond = "" if np.isnan(spread) else "yes" if abs(difference) > spread else "no"
        yield {
            "name": method_name(model),
            "setting": variant.title,
            "measure": title,
            **{f"training_{one + 1}": values.get(one, np.nan) for one in range(REPLICATES)},
            "mean": round(values.mean(), 2),
            "spread": round(values.std(), 2),
            "difference": round(difference, 2),
            "beyond_spread": beyond,
        }


def _missing(found: set[str], results: ResultFolder, settings: Settings) -> list[dict]:
    """Return a row for each network that has no trainings to compare, with the reason."""
    weightless = [
        model
        for model in TABLE3_MODELS
        if model not in found and not variants.starts_from_imagenet(results, model, settings)
    ]
    return [
        {
            "name": method_name(model),
            "setting": VARIANTS[-1].title,
            "measure": "not run: no ImageNet weights here",
        }
        for model in weightless
        if model in VARIANTS[-1].models
    ]
