"""What Keras' running averages of batch normalisation cost: scores with and without them.

    python benchmarks/batch_norm.py --profile night --models unet resnet50_unet

For each trained network of a run, prints the test IoU of every twelfth slice as trained, and
with batch normalisation's statistics recomputed from training slices, plain and augmented.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from bonelib import metrics, paths, slices, training
from bonelib.augment import policy
from bonelib.prediction import load_network, network_segmenter
from bonelib.settings import CLASS_NAMES, MODEL_NAMES, PROFILES, get_settings

TEST_STEP = 12
TRAINING_SLICES = 64


def test_iou(model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the pooled IoU of each class in %."""
    predicted, _ = network_segmenter(model)(images)
    counts = sum(metrics.confusion_matrix(*pair) for pair in zip(labels, predicted, strict=True))
    return 100 * metrics.iou(counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="night", choices=list(PROFILES))
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=MODEL_NAMES)
    parser.add_argument("--slices", type=Path, help="default: the profile's phantom")
    parser.add_argument("--results", type=Path, help="default: results/PROFILE")
    options = parser.parse_args()
    settings = get_settings(options.profile)
    folder = options.slices or paths.prepared(options.profile, "phantom")
    results = paths.ResultFolder(options.results or paths.RESULTS / options.profile)
    table = slices.read_table(folder)
    test = slices.load(folder, table[table["split"] == "test"].iloc[::TEST_STEP])
    train = table[table["split"] == "train"]
    chosen = np.linspace(0, len(train) - 1, TRAINING_SLICES).round().astype(int)
    plain, labels = slices.load(folder, train.iloc[chosen])
    augmented = np.stack(
        [
            policy.augment_slice(*pair, (settings.seed, number))[0]
            for number, pair in enumerate(zip(plain, labels, strict=True))
        ]
    )
    rows = []
    for name in options.models:
        for horizon in settings.horizons(name):
            if not results.best(name, horizon).exists():
                continue
            model = load_network(results.best(name, horizon), name, settings)
            for statistics, images in (
                ("running averages", None), ("plain slices", plain), ("augmented", augmented),
            ):  # fmt: skip
                if images is not None:
                    recompute = training.BatchNormStatistics(images)
                    recompute.set_model(model)
                    recompute.on_epoch_end(horizon)
                iou = test_iou(model, *test).round(2)
                rows.append((name, horizon, statistics, *iou))
                print(*rows[-1], flush=True)
    columns = ["network", "epochs", "statistics", *CLASS_NAMES]
    print(pd.DataFrame(rows, columns=columns).to_markdown(index=False))


if __name__ == "__main__":
    main()
