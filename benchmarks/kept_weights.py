"""Score the kept weights of the reference run anew, beside the scores in the README's table.

papermill notebooks/01_prepare_data.ipynb prepared.ipynb -p profile paper
python benchmarks/kept_weights.py
"""

import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from bonelib import metrics, paths, slices
from bonelib.evaluation import scoring
from bonelib.prediction import load_network, network_segmenter
from bonelib.settings import CLASS_NAMES, MODEL_NAMES, get_settings


def iou(model, folder: Path, table: pd.DataFrame):
    """Return the IoU of each class in %, pooled over the slices of a table."""
    segment, counts = network_segmenter(model), 0
    for _, series in tqdm(table.groupby("series"), model.name, unit="series"):
        images, labels = slices.load(folder, series)
        pairs = zip(labels, segment(images)[0], strict=True)
        counts += sum(metrics.confusion_matrix(*pair) for pair in pairs)
    return 100 * metrics.iou(counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = paths.prepared("paper", "phantom")
    parser.add_argument("--slices", type=Path, default=default, help=f"default: {default}")
    options = parser.parse_args()
    settings, kept = get_settings("paper"), paths.ResultFolder(paths.REFERENCE)
    table = slices.read_table(options.slices)
    table = table[table["split"] == "test"]
    rows = []
    for name in MODEL_NAMES:
        scores = scoring.read_scores(kept, [name])
        for epochs in settings.horizons(name):
            if kept.best(name, epochs).exists():
                model = load_network(kept.best(name, epochs), name, settings)
                _, *before = scoring.pooled(scoring.select(scores, name, epochs), "iou")
                now = iou(model, options.slices, table).round(2)
                rows += [(name, epochs, "kept scores", *before), (name, epochs, "weights", *now)]
    print(pd.DataFrame(rows, columns=["network", "epochs", "", *CLASS_NAMES]).to_markdown())


if __name__ == "__main__":
    main()
