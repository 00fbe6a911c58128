"""Phantoms and label maps -> the weights that the package ships.

A corpus of tissue planes is written once; each training sample shows one of them in a random
appearance. Validation is on series of held-out patients, rendered and prepared like any data
set. No real scan takes part.
"""

from dataclasses import replace
from pathlib import Path

from bonelib import datasets, models, preparation, training
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.prediction import load_network
from bonelib.pretraining import model_card
from bonelib.pretraining.corpus import write_corpus
from bonelib.pretraining.label_maps import Subject, read_label_maps, render
from bonelib.settings import PRETRAINING, Settings

PHANTOMS = 96  # made-up patients in the corpus


def pretrain(
    name: str,
    output: Path,
    label_maps: Path | None,
    settings: Settings,
    phantoms: int,
    workers: int,
    start: Path | None = None,
) -> Path:
    """Train network `name` in folder `output`, continuing an earlier run, and return its weights.

    The training subjects of `label_maps`, if given, join the corpus. `start` is a file of
    `models.save_pretrained` to start from. Writes the best weights and their model card to the
    folder `output`/weights and returns it. Raises ValueError for settings that the shipped
    networks cannot have and for a missing `start`.
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
    subjects = read_label_maps(label_maps) if label_maps is not None else []
    training_subjects = [subject for subject in subjects if subject.split == "train"]
    corpus = write_corpus(output / "corpus", training_subjects, settings, phantoms, workers)
    unseen = [subject for subject in subjects if subject.split != "train"]
    cases = held_out(output, unseen, settings, workers)
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


def held_out(
    output: Path, subjects: list[Subject], settings: Settings, workers: int
) -> list[datasets.Case]:
    """Return series that the corpus does not hold: the default phantoms and `subjects`.

    The phantom's training series are not trained on here, so they validate as well.
    """
    cases = [
        replace(case, split="test" if case.split == "test" else "validation")
        for case in datasets.find_cases("phantom", output / "phantom", settings, workers)
    ]
    if subjects:
        render(output / "label_maps", subjects, settings, workers=workers)
        cases += datasets.find_cases("folder", output / "label_maps", settings, splits=())
    return cases
