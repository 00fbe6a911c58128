"""Trained weights -> scores on held-out series beside the baseline's, and a model card."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import SimpleITK

from bonelib import devices, metrics, prediction, provenance, slices
from bonelib.pretraining.corpus import Corpus
from bonelib.segment import Network, segment_image
from bonelib.settings import BASELINE, BONE, PRETRAINING, Settings

CARD = """# Model card: {name}

Segments axial CT slices of the pelvis, from mid-thigh to the lower lumbar spine, into
background, patient and bone.

- **For research, not for diagnosis or treatment.** An expert must check every result.
- **Input**: any scan in HU, resampled in plane to {spacing:g} mm, window {low:g} to {high:g} HU;
  `bonelib.segment.segment_image` does this. The network sees single slices, each four times,
  shifted by half of its output pixel.
- **Training data**: {phantoms} made-up patients and {maps}: {planes} planes of tissues, shown
  {samples} times, each time rotated, bent, and with a random contrast, blur and noise; the target
  is the share of each class in a pixel. No real CT took part in training or in the choice of the
  weights.
- **Choice of weights**: best mean IoU on validation series that are not in the corpus: epoch
  {epoch}, bone Dice {validation} %.
- **Limits**: adults only; the femur's lower end, ribs, upper arms and upper spine were never
  labelled as bone in training; contrast media never exceeded 1,100 HU. A prosthesis is labelled
  patient, not bone.

## Held-out series

Scores in % on the grid of each series, beside the classical baseline (threshold and morphology).

{scores}

## How to reproduce it

`python -m bonelib pretrain{label_maps}{start}`; an interrupted run continues.
{minutes} minutes of training on {device}, Keras {keras}, commit {commit}, corpus {fingerprint}.

| setting | value |
|---|---|
{settings}
"""


def score_cases(cases: list, segment: Callable) -> pd.DataFrame:
    """Return bone Dice, bone IoU and body Dice in % of each case, on the grid of its scan.

    `segment` turns a scan in HU into a label map; the body is patient and bone together.
    """
    rows = []
    for case in cases:
        scan = case.scan()
        reference = SimpleITK.GetArrayFromImage(case.label_map(scan))
        predicted = SimpleITK.GetArrayFromImage(segment(scan))
        counts = metrics.confusion_matrix(reference, predicted)
        body = metrics.confusion_matrix(reference.clip(max=1), predicted.clip(max=1), 2)
        scores = metrics.dice(counts)[BONE], metrics.iou(counts)[BONE], metrics.dice(body)[1]
        rows.append((case.series_id, *(100 * score for score in scores)))
    return pd.DataFrame(rows, columns=["series", "bone Dice", "bone IoU", "body Dice"])


def network(name: str, settings: Settings, weights: Path) -> Callable:
    """Return a function that segments a scan by network `name` with the weights in a folder."""
    devices.set_precision(settings)

    trained = Network(name, weights / f"{name}.keras", settings)

    def segment(scan: SimpleITK.Image) -> SimpleITK.Image:
        return segment_image(scan, trained)

    return segment


def classical_baseline(scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return the label map of a scan by threshold and morphology, on its own grid."""
    columns = scan.GetSize()[0]
    width_mm = columns * scan.GetSpacing()[0]
    settings = replace(PRETRAINING, image_size=columns, field_of_view_mm=width_mm)
    images = slices.window(SimpleITK.GetArrayFromImage(scan), settings)
    labels = SimpleITK.GetImageFromArray(prediction.threshold_segmenter(settings)(images)[0])
    labels.CopyInformation(scan)
    return labels


def compare(cases: list, name: str, settings: Settings, weights: Path) -> pd.DataFrame:
    """Return `score_cases` of the network and of the classical baseline."""
    methods = {name: network(name, settings, weights), BASELINE: classical_baseline}
    tables = [score_cases(cases, segment).assign(method=key) for key, segment in methods.items()]
    return pd.concat(tables, ignore_index=True)


def write_card(
    folder: Path,
    name: str,
    settings: Settings,
    corpus: Corpus,
    history: pd.DataFrame,
    scores: pd.DataFrame,
    start: Path | None,
) -> None:
    """Write the Markdown model card of the weights in `folder`, trained from `start`."""
    maps = sorted({path.parent.name.rpartition("_")[0] for path, _ in corpus.subjects})
    best = history.loc[history["val_mean_iou"].idxmax()]
    versions = provenance.versions()
    text = CARD.format(
        name=name,
        spacing=settings.pixel_spacing_mm,
        low=settings.window_low_hu,
        high=settings.window_high_hu,
        phantoms=len({path.parent for path, _ in corpus.phantoms}),
        maps=f"{len(maps)} annotated subjects ({', '.join(maps)})" if maps else "no label maps",
        planes=len(corpus.phantoms) + len(corpus.subjects),
        samples=settings.epochs * settings.steps_per_epoch * settings.batch_size,
        minutes=round(history["seconds"].sum() / 60),
        settings="\n".join(f"| {key} | {value} |" for key, value in asdict(settings).items()),
        label_maps=" --label-maps DIR" if maps else "",
        start=f" --start FILE ({_short_hash(start)}...)" if start else "",
        fingerprint=corpus.fingerprint,
        commit=provenance.git_commit(),
        keras=versions["keras"],
        device=devices.machine()["processor"],
        epoch=int(best["epoch"]),
        validation=f"{100 * best['val_dice_bone']:.1f}",
        scores=scores.round(1).to_markdown(index=False),
    )
    with provenance.replacing(folder / f"{name}.md") as scratch:
        scratch.write_text(text)


def _short_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
