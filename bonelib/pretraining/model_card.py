"""Trained weights -> scores on held-out series beside the baseline's, and a model card."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK

from bonelib import devices, metrics, prediction, provenance, slices
from bonelib.bone_names import KINDS, kind_of
from bonelib.pretraining.corpus import Corpus
from bonelib.segment import Network, segment_image
from bonelib.settings import BASELINE, BONE, PRETRAINING, Settings

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

Scores in % on the grid of each series, beside the classical baseline (threshold and morphology);
`validation` are the people who chose epoch and margin, `test` the default phantoms.

{scores}

## How to reproduce it

`python -m bonelib pretrain{label_maps}{start}`; an interrupted run continues.
{minutes} minutes of training on {device}, Keras {keras}, commit {commit}, corpus {fingerprint}.

| setting | value |
|---|---|
{settings}
"""


def score_cases(cases: list, segment: Callable) -> pd.DataFrame:
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
    level: float,
    start: Path | None,
) -> None:
    """Write the Markdown model card of the weights in `folder`, trained from `start`."""
    slabs = corpus.slabs()
    maps = sorted(set(slabs["subject"]) - {""})
    patients = slabs["file"].map(lambda name: Path(name).parent.name)
    best = history.loc[history["val_mean_iou"].idxmax()]
    versions = provenance.versions()
    text = CARD.format(
        name=name,
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
