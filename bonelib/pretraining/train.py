"""Phantoms and label maps -> the weights that the package ships.

A corpus of tissue planes is written once; each training sample shows one of them in an
appearance of its own (`phantom.randomised`). Validation is on series of held-out patients,
rendered as a scanner would and prepared as any data set. No real scan takes part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as numbers
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from bonelib import augment, datasets, preparation, provenance, slices
from bonelib.devices import in_order
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.phantom.rendering import draw_texture
from bonelib.prediction import load_network
from bonelib.pretraining.corpus import PLANES, write_planes
from bonelib.pretraining.label_maps import read_label_maps, render
from bonelib.pretraining.random_ct import random_slice
from bonelib.settings import PRETRAINING, Settings

PHANTOMS = 96  # made-up patients in the corpus
MAP_SHARE = 0.65  # of the samples that come from label maps, where there are any
TEXTURE_SEED = 10


@dataclass(frozen=True)
class Corpus:
    """Tissue planes to draw samples from: files, and the widths of their pixels in mm."""

    phantoms: list[tuple[Path, float]]
    maps: list[tuple[Path, float]]
    settings: Settings
    workers: int
    has_shares: bool = True

    @property
    def fingerprint(self) -> str:
        """Return a hash of the planes' files."""
        files = [path for path, _ in self.phantoms + self.maps]
        return provenance.content_hash(files, files[0].parents[1])

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield endless random batches; a sample depends on the seed and its number only."""
        load = partial(_draw_batch, corpus=self, output_size=output_size)
        return in_order(load, numbers(first_epoch * self.settings.steps_per_epoch), self.workers)

    def examples(self, count: int) -> np.ndarray:
        """Return the first `count` images of the training."""
        batches = self.batches(self.settings.image_size, 0)
        needed = -(-count // self.settings.batch_size)
        return np.concatenate([images for images, _ in islice(batches, needed)])[:count]


def write_corpus(
    directory: Path, label_maps: Path | None, settings: Settings, phantoms: int, workers: int
) -> Corpus:
    """Write tissue planes of `phantoms` made-up patients and of label maps; some may be there.

    Of the data set `label_maps`, where one is given, its training subjects are taken.
    """
    subjects, names = [], {}
    if label_maps is not None:
        subjects, names = read_label_maps(label_maps)
        subjects = [subject for subject in subjects if subject.split == "train"]
    planes = write_planes(
        directory, phantoms, subjects, names, settings.renderings, settings.seed, workers
    )
    split = phantoms * PLANES
    return Corpus(planes[:split], planes[split:], settings, augment.num_workers(settings))


def held_out(
    output: Path, label_maps: Path | None, settings: Settings, workers: int
) -> list[datasets.Case]:
    """Return series that the corpus does not hold: phantoms and subjects of the label maps.

    The phantom's training series are not trained on here, so they validate, too.
    """
    cases = [
        replace(case, split="test" if case.split == "test" else "validation")
        for case in datasets.find_cases("phantom", output / "phantom", settings, workers)
    ]
    if label_maps is not None:
        subjects, names = read_label_maps(label_maps)
        unseen = [subject for subject in subjects if subject.split != "train"]
        if unseen:
            render(output / "label_maps", unseen, names, settings, workers=workers)
            cases += datasets.find_cases("folder", output / "label_maps", settings, splits=())
    return cases


_textures: list[np.ndarray] = []  # drawn once a process


def _draw_batch(number: int, corpus: Corpus, output_size: int) -> tuple[np.ndarray, np.ndarray]:
    settings = corpus.settings
    if not _textures:
        _textures.append(draw_texture(np.random.default_rng(TEXTURE_SEED)))
    images, classes = [], []
    for position in range(settings.batch_size):
        random = np.random.default_rng([settings.seed, 11, number, position])
        of_map = bool(corpus.maps) and random.random() < MAP_SHARE
        chosen = corpus.maps if of_map else corpus.phantoms
        path, pixel_mm = chosen[random.integers(len(chosen))]
        tissues = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if tissues is None:
            raise augment.SliceError(f"{path}: missing or damaged; remove its folder and run again")
        image_hu, shares = random_slice(
            tissues, pixel_mm, _textures[0], settings.image_size, settings.pixel_spacing_mm, random
        )
        images.append(slices.window(image_hu, settings))
        classes.append(cv2.resize(shares, (output_size, output_size), interpolation=cv2.INTER_AREA))
    return np.stack(images), np.stack(classes)


def pretrain(
    name: str,
    output: Path,
    label_maps: Path | None,
    settings: Settings,
    phantoms: int,
    workers: int,
    start: Path | None = None,
) -> Path:
    """Train network `name` into folder `output`, going on where an earlier run stopped.

    `start` are weights, as `models.save_pretrained` writes them, to begin with. Writes the
    best weights and their model card to `output`/weights and returns that folder.
    Raises ValueError for settings that the shipped networks cannot have and a missing `start`.
    """
    # keras, which the loader processes do without
    from bonelib import models, training
    from bonelib.pretraining import model_card

    if settings.decoder_activation != PRETRAINING.decoder_activation:
        raise ValueError(
            f"decoder_activation is '{settings.decoder_activation}', but shipped networks have "
            f"'{PRETRAINING.decoder_activation}'; leave the setting out"
        )
    if phantoms < 1:
        raise ValueError(f"--phantoms takes a number from 1, not {phantoms}")
    if start is not None and not start.is_file():
        raise ValueError(f"--start: there is no file {start}")
    corpus = write_corpus(output / "corpus", label_maps, settings, phantoms, workers)
    cases = held_out(output, label_maps, settings, workers)
    folder = SliceFolder(output / "validation")
    preparation.prepare(cases, folder.root, settings, workers)
    results = ResultFolder(output)
    history = training.train(name, folder, results, settings, samples=corpus, start=start)
    best = load_network(results.best(name, settings.epochs_long), name, settings)
    weights = output / "weights"
    models.save_pretrained(best, name, weights)
    test = [case for case in cases if case.split == "test"]
    scores = model_card.compare(test, name, settings, weights)
    model_card.write_card(weights, name, settings, corpus, history, scores, start)
    return weights
