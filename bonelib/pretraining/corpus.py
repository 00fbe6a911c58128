"""Slabs of tissue on disk -> random training batches.

A slab is a plane and the planes below and above it, the three channels of one PNG, which
holds `Tissue` in pixels of `PIXEL_MM`. `corpus_writer` writes a corpus; this module needs
neither scans nor annotations, so that a bare GPU machine can train from a copied corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import augment, devices, provenance, slices
from bonelib.paths import SliceFolder
from bonelib.phantom.tissues import draw_texture
from bonelib.pretraining.random_ct import random_slab
from bonelib.settings import Settings

PIXEL_MM = 0.78125  # half of the network's pixels, for partial volume
SUBJECT_SHARE = 0.8  # of the samples that show annotated subjects, if there are any
TEXTURE_SEED = 10


@dataclass(frozen=True)
class Corpus:
    """The samples of a training; it stands in for `training.AugmentedSlices`."""

    root: Path
    settings: Settings
    has_shares: bool = True

    @property
    def table(self) -> Path:
        """Return the table of slabs (file, subject; a phantom has none), written last."""
        return self.root / "slabs.csv"

    @property
    def validation(self) -> SliceFolder:
        """Return the prepared slices of held-out series."""
        return SliceFolder(self.root / "validation")

    @property
    def fingerprint(self) -> str:
        """Return a hash of the slabs."""
        files = [self.root / name for name in self.slabs()["file"]]
        return provenance.content_hash(files, self.root)

    def slabs(self) -> pd.DataFrame:
        """Return the table of slabs."""
        return pd.read_csv(self.table, dtype=str, keep_default_na=False)

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield random batches without end; each depends on the seed and its number only.

        Images are uint8 (batch, row, column, 3), labels the classes' shares of each pixel of
        the output grid (batch, row, column, class), float32.
        """
        groups = [
            [self.root / name for name in group["file"]]
            for _, group in self.slabs().groupby("subject")
        ]
        load = partial(_draw_batch, groups=groups, settings=self.settings, output_size=output_size)
        numbers = count(first_epoch * self.settings.steps_per_epoch)
        return devices.in_order(load, numbers, augment.num_workers(self.settings))

    def examples(self, number: int) -> np.ndarray:
        """Return the first `number` training images."""
        batches = self.batches(self.settings.image_size, 0)
        needed = -(-number // self.settings.batch_size)
        return np.concatenate([images for images, _ in islice(batches, needed)])[:number]


@cache  # once a process
def _texture() -> np.ndarray:
    return draw_texture(np.random.default_rng(TEXTURE_SEED))


def _draw_batch(
    number: int, groups: list[list[Path]], settings: Settings, output_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch; `groups` are the phantoms' slabs and those of each subject."""
    images, classes = [], []
    for position in range(settings.batch_size):
        random = np.random.default_rng([settings.training_seed, 11, number, position])
        phantoms, *subjects = groups
        group = phantoms
        if subjects and random.random() < SUBJECT_SHARE:
            group = subjects[random.integers(len(subjects))]
        path = group[random.integers(len(group))]
        slab = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if slab is None:
            raise augment.SliceError(f"{path}: missing or damaged; write the corpus again")
        image_hu, shares = random_slab(
            np.moveaxis(slab, -1, 0), PIXEL_MM, _texture(), settings.image_size,
            settings.pixel_spacing_mm, random,
        )  # fmt: skip
        images.append(slices.window(image_hu, settings))
        classes.append(cv2.resize(shares, (output_size, output_size), interpolation=cv2.INTER_AREA))
    return np.stack(images), np.stack(classes)
