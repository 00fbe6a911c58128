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

from bonelib import datasets, labels, metrics, models, provenance
from bonelib.bone_names import KINDS, kind_of
from bonelib.evaluation.error_analysis import LEVELS, THIRDS, levels_of
from bonelib.paths import ResultFolder
from bonelib.prediction import load_network
from bonelib.pretrained import Network, find_network, predictor
from bonelib.pretraining.corpus import Corpus
from bonelib.pretraining.corpus_writer import held_out, write_corpus
from bonelib.pretraining.train import train
from bonelib.scans import Grid
from bonelib.segment import segment_image
from bonelib.segment.probabilities import find_region, predict_bone
from bonelib.settings import BONE, SHIPPED_MODEL, SIZE_STEP, Settings

MARGINS = np.linspace(-0.9, 0.9, 37)  # candidates for the least margin of bone

CARD = """# Model card: {name}

Segments axial CT slices of the pelvis, from mid-thigh to the lower lumbar spine, into
background, patient and bone.

- **For research, not for diagnosis or treatment.** An expert must check every result.
- **Input**: any scan in HU, resampled in plane to {spacing:g} mm, window {low:g} to {high:g} HU;
  `bonelib.segment.segment_image` does this. The network sees each slice with the planes
  {neighbour:g} mm below and above it.
- **Training data**: {phantoms} made-up patients and {maps}:
  {slabs} slabs of tissue, shown {samples} times, each time rotated, bent, and with a random
  contrast, blur and noise; the target is the share of each class in a pixel. No real CT took part
  in training or in the choice of the weights. `data/README.md` names the annotations of the shipped
  weights, with their licences.
- **Choice of weights**: best mean IoU on slices of validation series, whose people are not in the
  training: epoch {epoch} of {epochs}, bone Dice {validation} %. Bone is what leads the other
  classes by a margin of {level:+.2f}, the value with the highest Dice of whole validation scans.
- **Limits**: adults only; contrast media never exceeded 1,100 HU in training. A prosthesis is
  labelled patient, not bone; ribs, arms and the whole spine are labelled bone.
- **Licence of the weights**: that of this project.

## Held-out series

Scores in % on the grid of each series, by bone and by level (the bones that a slice shows);
`validation` are the people who chose epoch and margin, `test` default phantoms.

{scores}

## How to reproduce it

`python -m bonelib pretrain{label_maps}{weights}`; an interrupted run continues.
{minutes} minutes of training{start} on {device}, Keras {keras}, commit {commit},
corpus {fingerprint}.

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
    start: Path | None = None,
) -> Path:
    """Train in folder `output`, continuing an earlier run, and return the folder of weights.

    The network starts from the weights of file `start`, or from random ones. The subjects of
    `label_maps` join the corpus: those of split train in training, the others in validation.
    The bone's class is weighted so that the Dice of whole validation scans is highest.
    """
    if start:  # refuse weights of another network now, not after the corpus
        find_network(SHIPPED_MODEL, start).sized(SIZE_STEP, SIZE_STEP)
    corpus = write_corpus(output / "corpus", label_maps, settings, phantoms, workers)
    history = train(corpus, output, settings, start)
    results = ResultFolder(output)
    best_file = results.best(SHIPPED_MODEL, settings.epochs_long)
    best = load_network(best_file, SHIPPED_MODEL, settings)
    weights = output / "weights"
    cases = held_out(output, label_maps, settings, workers)
    file = models.save_pretrained(best, SHIPPED_MODEL, weights)
    network = Network(SHIPPED_MODEL, file, settings)
    level = best_level([case for case in cases if case.split == "validation"], network)
    shift_bone(best, level)
    models.save_pretrained(best, SHIPPED_MODEL, weights)
    scores = score_cases(cases, partial(segment_image, network=network))
    record = provenance.read_json(results.training_record(SHIPPED_MODEL))
    write_card(weights, settings, corpus, history, record, scores, level)
    return weights


def best_level(cases: list[datasets.Case], network: Network) -> float:
    """Return the least margin of bone with the highest mean Dice of whole scans."""
    dice = []
    for case in cases:
        scan = case.scan()
        bone = SimpleITK.GetArrayFromImage(case.label_map(scan)) == BONE
        region = find_region(network, scan, labels.body_mask(scan))
        with predictor(network) as predict:
            margin, _ = predict_bone(predict, scan, region)
        margin = Grid.of(scan).resample(margin, SimpleITK.sitkLinear, -1.0)
        margins = SimpleITK.GetArrayFromImage(margin)
        found = np.array([(margins > level).sum() for level in MARGINS])
        hits = np.array([(margins[bone] > level).sum() for level in MARGINS])
        dice.append(2 * hits / (found + bone.sum()))
    return float(MARGINS[np.argmax(np.mean(dice, axis=0))])


def shift_bone(model: keras.Model, level: float) -> None:
    """Make the margin of bone 0 where it was `level`, by the bias of the bone's score.

    A margin of m between two classes is a difference of log((1 + m) / (1 - m)) in score.
    """
    layer = model.get_layer("scores")
    kernel, bias = layer.get_weights()
    bias[BONE:] -= np.log((1 + level) / (1 - level))
    layer.set_weights([kernel, bias])


def score_cases(cases: list[datasets.Case], segment: Callable) -> pd.DataFrame:
    """Return Dice, IoU, recall by bone and Dice of bone by level in % of each case.

    `segment` turns a scan in HU into a label map on its grid, where the scores are computed;
    the body is patient and bone together.
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
        table = pd.DataFrame({"series": "", "position_mm": range(len(ids)), "structures": ""})
        for bone in KINDS:
            numbers = [number for number, name in (names or {}).items() if kind_of(name) == bone]
            shown = np.isin(ids, numbers)
            row[f"{bone}, recall"] = (predicted[shown] == BONE).mean() if shown.any() else np.nan
            table.loc[shown.any(axis=(1, 2)), "structures"] += f" {bone}"
        levels = levels_of(table)
        for level in LEVELS[: -len(THIRDS)]:
            slices = (levels == level).to_numpy()
            counts = metrics.confusion_matrix(reference[slices], predicted[slices])
            row[f"{level}, Dice"] = metrics.dice(counts)[BONE]
        rows.append(row)
    return pd.DataFrame(rows).set_index(["split", "series"]).mul(100).reset_index()


def write_card(
    folder: Path,
    settings: Settings,
    corpus: Corpus,
    history: pd.DataFrame,
    record: dict,
    scores: pd.DataFrame,
    level: float,
) -> None:
    """Write the Markdown model card of the weights in `folder`, where bone is above `level`.

    `record` is that of the training.
    """
    slabs = corpus.slabs()
    maps = sorted(set(slabs["subject"]) - {""})
    patients = slabs["file"].map(lambda file: Path(file).parent.name)
    best = history.loc[history["val_mean_iou"].idxmax()]
    table = scores.drop(columns=["split", "series"])
    table.index = scores["split"] + ": " + scores["series"]
    start = record["weights"]
    text = CARD.format(
        name=SHIPPED_MODEL,
        spacing=settings.pixel_spacing_mm,
        low=settings.window_low_hu,
        high=settings.window_high_hu,
        neighbour=settings.neighbour_mm,
        phantoms=patients[slabs["subject"] == ""].nunique(),
        maps=f"{len(maps)} annotated subjects ({', '.join(maps)})" if maps else "no label maps",
        slabs=len(slabs),
        level=level,
        samples=len(history) * settings.steps_per_epoch * settings.batch_size,
        start=f" from weights {start[:12]}" if start else "",
        minutes=round(history["seconds"].sum() / 60),
        settings="\n".join(f"| {key} | {value} |" for key, value in asdict(settings).items()),
        label_maps=" --label-maps DIR..." if maps else "",
        weights=" --weights FILE" if start else "",
        fingerprint=corpus.fingerprint,
        commit=record["git_commit"],
        keras=record["versions"]["keras"],
        device=record["device"]["processor"],
        epoch=int(best["epoch"]),
        epochs=len(history),
        validation=f"{100 * best['val_dice_bone']:.1f}",
        scores=table.round(1).T.astype(object).fillna("").to_markdown(),
    )
    with provenance.replacing(folder / f"{SHIPPED_MODEL}.md") as scratch:
        scratch.write_text(text)
