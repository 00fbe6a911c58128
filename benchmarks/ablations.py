"""Each training of `run_all.py --ablations` minus the threshold: points of bone IoU, paired.

    python benchmarks/ablations.py

The trainings are those of results/reference; both methods meet the same resampled slices.
"""

import pandas as pd

from bonelib.evaluation import scoring, statistics, variants
from bonelib.settings import BASELINE
from bonelib.workflow.runs import open_run


def main() -> None:
    """Print the table."""
    run = open_run("reference")
    threshold = scoring.select(scoring.read_scores(run.results, [BASELINE]), BASELINE)
    rows = []
    for training in variants.ablations(run.settings):
        scores = scoring.read_scores(training.results(run.results), [training.model])
        scores = scoring.select(scores, training.model, run.settings.epochs_long)
        if len(scores):
            found = statistics.difference(scores, threshold, "iou")["bone"]
            rows.append((training.variant.title, training.replicate + 1, *found))
    columns = ["setting", "training", "points", "low", "high"]
    print(pd.DataFrame(rows, columns=columns).round(1).to_markdown(index=False))


if __name__ == "__main__":
    main()
