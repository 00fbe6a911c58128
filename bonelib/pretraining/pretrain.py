"""Phantoms and annotated subjects -> the weights that the package ships, with their model card.

A corpus of tissue slabs is written once; each training sample shows one of them in a random
appearance. Validation is on series of held-out people, rendered and read like any scan. No
real scan takes part.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import SimpleITK

from bonelib import datasets, devices, metrics, models, provenance
from bonelib.bone_names import KINDS, kind_of
from bonelib.paths import ResultFolder
from bonelib.prediction import load_network
from bonelib.pretraining.corpus import Corpus
from bonelib.pretraining.corpus_writer import held_out, write_corpus
from bonelib.pretraining.train import NAME, train
from bonelib.segment import segment_image
from bonelib.segment.pretrained import Network
from bonelib.segment.probabilities import find_region, margin_on_scan, predict_bone
from bonelib.settings import BONE, Settings

LEVELS = np.linspace(-0.9, 0.9, 37)  # candidates for the least margin of bone

CARD = """# Model card: {name}

Segments axial CT slices of the pelvis, from mid-thigh to the lower lumbar spine, into
background, patient and bone.

- **For research, not for diagnosis or treatment.** An expert must check every result.
- **Input**: any scan in HU, resampled in plane to {spacing:g} mm, window {low:g} to {high:g} HU;
  `bonelib.segment.segment_image` does this. The network sees each slice with the planes
  {neighbour:g} mm below and above it.
- **Training data**: {phantoms} made-up patients and {maps}: {slabs} slabs of tissue, shown
  {samples} times, each time rotated, bent, and with a random contrast, blur and noise; the target
  is the share of each class in a pixel. No real CT took part in training or in the choice of the
  weights. `data/README.md` names the annotations of the shipped weights, with their licences.
- **Choice of weights**: best mean IoU on slices of validation series, whose people are not in the
  training: epoch {epoch}, bone Dice {validation} %. Bone is what leads the other classes by a
  margin of {level:+.2f}, the value with the highest Dice of whole validation scans.
- **Limits**: adults only; contrast media never exceeded 1,100 HU in training. A prosthesis is
  labelled patient, not bone; ribs, arms and the whole spine are labelled bone.
- **Licence of the weights**: that of this project.

## Held-out series

Scores in % on the grid of each series; `validation` are the people who chose epoch and margin,
`test` the default phantoms.

{scores}

## How to reproduce it

`python -m bonelib pretrain{label_maps}`; an interrupted run continues.
{minutes} minutes of training on {device}, Keras {keras}, commit {commit}, corpus {fingerprint}.

| setting | value |
|---|---|
{settings}
"""


def pretrain(
    output: Path,
    label_maps: list[Path],
    settings: Settings,
    phantoms: int,
    workers: int,
) -> Path:
    """Train in folder `output`, continuing an earlier run, and return the folder of weights.

    The subjects of `label_maps` join the corpus: those of split train in training, the others
    in validation. The bone's class is weighted so that the Dice of whole validation scans is
    highest.
    """
    corpus = write_corpus(output / "corpus", label_maps, settings, phantoms, workers)
    history = train(corpus, output, settings)
    best = load_network(ResultFolder(output).best(NAME, settings.epochs_long), NAME, settings)
    weights = output / "weights"
    cases = held_out(output, label_maps, settings, workers)
    network = Network(NAME, models.save_pretrained(best, NAME, weights), settings)
    level = best_level([case for case in cases if case.split == "validation"], network)
    shift_bone(best, level)
    models.save_pretrained(best, NAME, weights)
    devices.set_precision(settings)
    scores = score_cases(cases, partial(segment_image, network=network))
    write_card(weights, settings, corpus, history, scores, level)
    return weights


def best_level(cases: list[datasets.Case], network: Network) -> float:
    """Return the least margin of bone with the highest mean Dice of whole scans."""
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


def score_cases(cases: list[datasets.Case], segment: Callable) -> pd.DataFrame:
    """Return Dice, IoU and recalls by bone in % of each case, on the grid of its scan.

    `segment` turns a scan in HU into a label map; the body is patient and bone together.
    """
    rows = []
    for case in cases:
        scan = case.scan()
        annotation = ids, names = case.annotation(scan)
        ids = SimpleITK.GetArrayFromImage(ids)
        reference = SimpleITK.GetArrayFromImage(case.label_map(scan, annotation))
        predicted = SimpleITK.GetArrayFromImage(segment(scan))
        counts = metrics.confusion_matrix(reference, predicted)
        body = metrics.confusion_matrix(reference.clip(max=1), predicted.clip(max=1), 2)
        row = {"split": case.split, "series": case.series_id}
        row |= {"bone Dice": metrics.dice(counts)[BONE], "bone IoU": metrics.iou(counts)[BONE]}
        row |= {"body Dice": metrics.dice(body)[1]}
        for bone in KINDS:
            numbers = [number for number, name in (names or {}).items() if kind_of(name) == bone]
            inside = predicted[np.isin(ids, numbers)]
            row[f"{bone} found"] = (inside == BONE).mean() if len(inside) else np.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index(["split", "series"]).mul(100).reset_index()


def write_card(
    folder: Path,
    settings: Settings,
    corpus: Corpus,
    history: pd.DataFrame,
    scores: pd.DataFrame,
    level: float,
) -> None:
    """Write the Markdown model card of the weights in `folder`, where bone is above `level`."""
    slabs = corpus.slabs()
    maps = sorted(set(slabs["subject"]) - {""})
    patients = slabs["file"].map(lambda file: Path(file).parent.name)
    best = history.loc[history["val_mean_iou"].idxmax()]
    versions = provenance.versions()
    text = CARD.format(
        name=NAME,
        spacing=settings.pixel_spacing_mm,
        low=settings.window_low_hu,
        high=settings.window_high_hu,
        neighbour=settings.neighbour_mm,
        phantoms=patients[slabs["subject"] == ""].nunique(),
        maps=f"{len(maps)} annotated subjects ({', '.join(maps)})" if maps else "no label maps",
        slabs=len(slabs),
        level=level,
        samples=settings.epochs * settings.steps_per_epoch * settings.batch_size,
        minutes=round(history["seconds"].sum() / 60),
        settings="\n".join(f"| {key} | {value} |" for key, value in asdict(settings).items()),
        label_maps=" --label-maps DIR..." if maps else "",
        fingerprint=corpus.fingerprint,
        commit=provenance.git_commit(),
        keras=versions["keras"],
        device=devices.machine()["processor"],
        epoch=int(best["epoch"]),
        validation=f"{100 * best['val_dice_bone']:.1f}",
        scores=scores.round(1).to_markdown(index=False),
    )
    with provenance.replacing(folder / f"{NAME}.md") as scratch:
        scratch.write_text(text)
