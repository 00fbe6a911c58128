"""A corpus -> a trained network; needs neither scans nor annotations.

    python -m bonelib.pretraining.train CORPUS OUTPUT [--set SETTING=VALUE...]

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


def train(corpus: Corpus, output: Path, settings: Settings) -> pd.DataFrame:
    """Train the network that the package ships and return its history, one row per epoch.

    The best epoch is that of the highest mean IoU on the corpus' validation slices.
    """
    return training.train(
        SHIPPED_MODEL, corpus.validation, ResultFolder(output), settings, samples=corpus
    )


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE")
    options = parser.parse_args()
    settings = replaced(PRETRAINING, parse_overrides(options.set))
    train(Corpus(options.corpus, settings), options.output, settings)


if __name__ == "__main__":
    main()
