"""Train the shipped network with one change at a time; a table of bone Dice on held-out people.

    python benchmarks/pretraining_levers.py CORPUS OUTPUT [--epochs 2] [--only NAME...]

CORPUS is the folder `corpus` that `python -m bonelib pretrain` has written. The trainings are
short; one that was stopped goes on, and one that is finished is not repeated.
"""

import argparse
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image

from bonelib import training
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.pretraining import corpus as appearance
from bonelib.pretraining.corpus import Corpus
from bonelib.settings import PRETRAINING, SHIPPED_MODEL

# Not in worker processes, which would not see the patched appearance.
SETTINGS = replace(PRETRAINING, loader_workers=0)


@dataclass(frozen=True)
class Lever:
    """One change: of a setting, of the network, of the slabs shown, or of their appearance."""

    settings: tuple = ()  # pairs of name and value
    network: str = SHIPPED_MODEL
    shown: Callable[[pd.DataFrame], pd.Series] = lambda slabs: slabs["file"] != ""
    single_plane: bool = False
    appearance: tuple = ()  # pairs of a name in `bonelib.pretraining.corpus` and its value


LEVERS = {
    "as shipped": Lever(),
    "single slices": Lever(single_plane=True),
    "U-net of the paper": Lever(network="unet"),
    "phantoms only": Lever(shown=lambda slabs: slabs["subject"] == ""),
    "a third of the people": Lever(shown=lambda slabs: slabs["subject"].isin(["", "s001", "s004"])),
    "spongy bone of one density": Lever(appearance=(("SPONGY", ()),)),
    "no contrast, no calcification": Lever(
        appearance=(("ENHANCED", {}), ("_add_distractors", lambda *arguments: None))
    ),
    "no average of weights": Lever(settings=(("weight_average", 0.0),)),
}


def middle(images: np.ndarray) -> np.ndarray:
    """Return images (..., plane) whose three planes are all the middle one."""
    return np.repeat(images[..., 1:2], 3, axis=-1)


@dataclass(frozen=True)
class ChangedCorpus(Corpus):
    """A corpus with the changes of a lever."""

    lever: Lever = LEVERS["as shipped"]
    output: Path = Path()

    @property
    def validation(self) -> SliceFolder:
        """Return the validation slices; with a single plane, a copy."""
        original = SliceFolder(self.root / "validation")
        copy = SliceFolder(self.output / "validation")
        if not self.lever.single_plane:
            return original
        if not copy.root.exists():
            shutil.copytree(original.root, copy.root)
            for file in copy.image("", 0).parent.glob("*.png"):
                Image.fromarray(middle(np.array(Image.open(file)))).save(file)
        return copy

    def slabs(self) -> pd.DataFrame:
        """Return the table of the slabs shown."""
        slabs = super().slabs()
        return slabs[self.lever.shown(slabs)]

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield batches as the corpus does."""
        for images, shares in super().batches(output_size, first_epoch):
            yield middle(images) if self.lever.single_plane else images, shares


def best_dice(name: str, corpus: Path, output: Path, epochs: int) -> float:
    """Train with a lever and return the bone Dice in % of the epoch with the best mean IoU."""
    lever, folder = LEVERS[name], output / name.replace(" ", "_")
    settings = replace(SETTINGS, epochs=epochs, epochs_long=epochs, **dict(lever.settings))
    changed = ChangedCorpus(corpus, settings, lever=lever, output=folder)
    with ExitStack() as stack:
        for attribute, value in lever.appearance:
            stack.enter_context(patch.object(appearance, attribute, value))
        history = training.train(
            lever.network, changed.validation, ResultFolder(folder), settings, changed
        )
    return 100 * history.loc[history["val_mean_iou"].idxmax(), "val_dice_bone"]


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=2, help="of 2,000 samples; default: 2")
    parser.add_argument("--only", nargs="+", default=list(LEVERS), choices=list(LEVERS))
    options = parser.parse_args()
    train = partial(best_dice, corpus=options.corpus, output=options.output, epochs=options.epochs)
    dice = pd.Series({name: train(name) for name in options.only}, name="bone Dice %")
    table = dice.to_frame()
    if "as shipped" in dice:
        table["change"] = dice - dice["as shipped"]
    print(table.to_markdown(floatfmt=".2f"))


if __name__ == "__main__":
    main()
