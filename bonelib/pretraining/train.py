"""A corpus -> a trained network; needs neither scans nor annotations.

    python -m bonelib.pretraining.train CORPUS OUTPUT [--weights FILE] [--set SETTING=VALUE...]

is the part of `python -m bonelib pretrain` that a bare GPU machine runs: Keras, JAX and
imgaug suffice. The same command continues an interrupted training.
"""

import argparse
from pathlib import Path

import pandas as pd

from bonelib import training
from bonelib.paths import ResultFolder
from bonelib.pretraining.corpus import Corpus
from bonelib.settings import PRETRAINING, SHIPPED_MODEL, Settings, parse_overrides, replaced


def train(
    corpus: Corpus, output: Path, settings: Settings, weights: Path | None = None
) -> pd.DataFrame:
    """Train the network that the package ships and return its history, one row per epoch.

    The best epoch is that of the highest mean IoU on the corpus' validation slices.
    """
    return training.train(
        SHIPPED_MODEL, corpus.validation, ResultFolder(output), settings, corpus, weights
    )


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="start from these")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE")
    options = parser.parse_args()
    settings = replaced(PRETRAINING, parse_overrides(options.set))
    train(Corpus(options.corpus, settings), options.output, settings, options.weights)


if __name__ == "__main__":
    main()
