"""Trained weights -> scores on held-out series beside the baseline's, and a model card."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import SimpleITK

from bonelib import devices, metrics, models, prediction, provenance, slices
from bonelib.segment.probabilities import fit_to_scan, segment_scan
from bonelib.settings import BASELINE, BONE, PRETRAINING, Settings

CARD = """# Model card: {name}

Classes background, patient and bone in axial CT slices of the pelvis, from mid-thigh to the
lower lumbar spine.

- **For research, not for diagnosis or treatment.** Every result needs a trained eye.
- **Input**: any scan in HU, resampled in plane to {spacing:g} mm, window {low:g} to {high:g} HU;
  `bonelib.segment.probabilities.segment_scan` does it. Slices are seen one by one, each four times,
  shifted by half of the network's output pixel.
- **Trained on** {phantoms} made-up patients and {maps}: {planes} planes of tissues, shown
  {samples} times, each time turned, bent, and with a contrast, blur and noise of its own; the
  network learns the shares of the classes in each pixel. No real CT took part in training or in
  the choice of the weights.
- **Chosen** by validation mean IoU on series that the corpus does not hold: epoch {epoch}, where
  the bone's Dice was {validation} %.
- **Limits**: adults; the femur's lower end, ribs, upper arms and the upper spine were never seen
  as bone, children and contrast above 1,100 HU were not either. A prosthesis is patient, not bone.

## Held-out series

In %, on each series' own grid, beside the classical baseline (threshold and morphology).

{scores}

## How to make it again

`python -m bonelib pretrain{label_maps}{start}`, the same command goes on after a stop;
{minutes} minutes of training on {device}, Keras {keras}, commit {commit}, corpus {fingerprint}.

| setting | value |
|---|---|
{settings}
"""


def score_cases(cases: list, segment: Callable) -> pd.DataFrame:
    """Return bone Dice, bone IoU and body Dice in % of each case, on its scan's own grid.

    `segment` takes a scan in HU, a SimpleITK image, and returns its label map; the body is
    patient and bone. Scores are pooled over a series.
    """
    rows = []
    for case in cases:
        scan = case.scan()
        reference = SimpleITK.GetArrayFromImage(case.label_map(scan))
        predicted = SimpleITK.GetArrayFromImage(segment(scan))
        counts = metrics.confusion_matrix(reference, predicted)
        body = counts[1:, 1:].sum(), counts[0, 1:].sum(), counts[1:, 0].sum()
        rows.append(
            {
                "series": case.series_id,
                "bone Dice": 100 * metrics.dice(counts)[BONE],
                "bone IoU": 100 * metrics.iou(counts)[BONE],
                "body Dice": 100 * 2 * body[0] / (2 * body[0] + body[1] + body[2]),
            }
        )
    return pd.DataFrame(rows)


def network(name: str, settings: Settings, weights: Path) -> Callable:
    """Return what segments a scan by network `name` with the weights in a folder."""
    devices.set_precision(settings)

    def segment(scan: SimpleITK.Image) -> SimpleITK.Image:
        fitted = fit_to_scan(settings, scan)
        model = models.load_pretrained(name, fitted.image_size, weights)
        return segment_scan(model, scan, fitted)

    return segment


def classical_baseline(scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return the label map of a scan by threshold and morphology, on its own pixels."""
    columns = scan.GetSize()[0]
    width_mm = columns * scan.GetSpacing()[0]
    settings = replace(PRETRAINING, image_size=columns, field_of_view_mm=width_mm)
    images = slices.window(SimpleITK.GetArrayFromImage(scan), settings)
    labels = SimpleITK.GetImageFromArray(prediction.threshold_segmenter(settings)(images)[0])
    labels.CopyInformation(scan)
    return labels


def compare(cases: list, name: str, settings: Settings, weights: Path) -> pd.DataFrame:
    """Return `score_cases` of the network and of the classical baseline, one after the other."""
    methods = {name: network(name, settings, weights), BASELINE: classical_baseline}
    tables = [score_cases(cases, segment).assign(method=key) for key, segment in methods.items()]
    return pd.concat(tables, ignore_index=True)


def write_card(
    folder: Path,
    name: str,
    settings: Settings,
    corpus,
    history: pd.DataFrame,
    scores: pd.DataFrame,
    start: Path | None,
) -> None:
    """Write the model card of the weights in `folder`, which began as `start`, as Markdown."""
    maps = sorted({path.parent.name.rpartition("_")[0] for path, _ in corpus.maps})
    best = history.loc[history["val_mean_iou"].idxmax()]
    versions = provenance.versions()
    text = CARD.format(
        name=name,
        spacing=settings.pixel_spacing_mm,
        low=settings.window_low_hu,
        high=settings.window_high_hu,
        phantoms=len({path.parent for path, _ in corpus.phantoms}),
        maps=f"{len(maps)} annotated subjects ({', '.join(maps)})" if maps else "no label maps",
        planes=len(corpus.phantoms) + len(corpus.maps),
        samples=settings.epochs * settings.steps_per_epoch * settings.batch_size,
        minutes=round(history["seconds"].sum() / 60),
        settings="\n".join(f"| {key} | {value} |" for key, value in asdict(settings).items()),
        label_maps=" --label-maps DIR" if maps else "",
        start=f" --start FILE ({_sha256(start)[:12]}...)" if start else "",
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


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
