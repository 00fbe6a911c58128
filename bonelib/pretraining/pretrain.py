"""Phantoms and annotated subjects -> the weights that the package ships, with their card.

A corpus of tissue slabs is written once; each training sample shows one of them in a random
appearance. Validation is on series of held-out people, rendered and read like any scan. No
real scan takes part.
"""

from pathlib import Path

import keras
import numpy as np
import SimpleITK

from bonelib import datasets, models
from bonelib.paths import ResultFolder
from bonelib.prediction import load_network
from bonelib.pretraining import model_card
from bonelib.pretraining.corpus_writer import held_out, write_corpus
from bonelib.pretraining.train import NAME, train
from bonelib.segment.pretrained import Network
from bonelib.segment.probabilities import find_region, margin_on_scan, predict_bone
from bonelib.settings import BONE, PRETRAINING, Settings

PHANTOMS = 16  # made-up patients in the corpus
LEVELS = np.linspace(-0.9, 0.9, 37)  # candidates for the least margin of bone


def pretrain(
    output: Path,
    label_maps: list[Path],
    settings: Settings,
    phantoms: int,
    workers: int,
    start: Path | None = None,
) -> Path:
    """Train in folder `output`, continuing an earlier run, and return the folder of weights.

    The subjects of `label_maps` join the corpus: those of split train in training, the others
    in validation. `start` is a file of weights to start from. The bone's class is weighted so
    that the Dice of whole validation scans is highest. Raises ValueError for settings that the
    shipped network cannot have and for a missing `start`.
    """
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
    history = train(corpus, output, settings, start)
    best = load_network(ResultFolder(output).best(NAME, settings.epochs_long), NAME, settings)
    weights = output / "weights"
    cases = held_out(output, label_maps, settings, workers)
    file = models.save_pretrained(best, NAME, weights)
    level = best_level([case for case in cases if case.split == "validation"], file, settings)
    shift_bone(best, level)
    models.save_pretrained(best, NAME, weights)
    scores = model_card.compare(cases, NAME, settings, weights)
    model_card.write_card(weights, NAME, settings, corpus, history, scores, level, start)
    return weights


def best_level(cases: list[datasets.Case], weights: Path, settings: Settings) -> float:
    """Return the least margin of bone with the highest mean Dice of whole scans."""
    network = Network(NAME, weights, settings)
    dice = []
    for case in cases:
        scan = case.scan()
        bone = SimpleITK.GetArrayFromImage(case.label_map(scan)) == BONE
        margin = predict_bone(network, scan, find_region(network, scan))
        margins = SimpleITK.GetArrayViewFromImage(margin_on_scan(margin, scan))
        found = np.array([(margins > level).sum() for level in LEVELS])
        hits = np.array([(margins[bone] > level).sum() for level in LEVELS])
        dice.append(2 * hits / (found + bone.sum()))
    return float(LEVELS[np.argmax(np.mean(dice, axis=0))])


def shift_bone(model: keras.Model, level: float) -> None:
    """Make the margin of bone 0 where it was `level`, by the bias of the bone's score.

    A margin of m between two classes is a difference of log((1 + m) / (1 - m)) in score.
    """
    layer = model.get_layer("scores")
    kernel, bias = layer.get_weights()
    bias[BONE:] -= np.log((1 + level) / (1 - level))
    layer.set_weights([kernel, bias])
