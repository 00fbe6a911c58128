"""Weights + test slices -> per-image counts, label maps, time per slice (section 5.3)."""

import time

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from bonelib import augment, metrics, models, provenance, slices
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.prediction import load_segmenter
from bonelib.settings import BASELINE, Settings

TIMED_SLICES = 20  # slices whose prediction is timed, one by one, after a warm-up


def evaluate(
    method: str, folder: SliceFolder, results: ResultFolder, settings: Settings
) -> pd.DataFrame:
    """Score a trained network, or the baseline, on every test slice; return the counts.

    One row an image, training horizon and resolution ("input", and "native": the
    network's own output grid, with nearest-neighbour labels); counts n<reference
    class><predicted class> in pixels. Writes them to scores/<method>.csv, the time and
    the parameters to scores/<method>.json, and the label maps of the longest horizon to
    predictions/<method>/.
    """
    table = slices.read_table(folder.root)
    table = table[table["split"] == "test"]
    history = pd.DataFrame()
    if method != BASELINE:
        history = pd.read_csv(results.history(method))
    horizons = (0,) if method == BASELINE else settings.horizons(method)
    rows = []
    for horizon in horizons:
        segment, model = load_segmenter(method, results.best(method, horizon), settings)
        epoch = best_epoch(history, horizon)
        is_longest = horizon == max(horizons)
        for series_id, series in tqdm(table.groupby("series"), desc=f"{method}, series"):
            images, labels = slices.load(folder.root, series)
            predicted, native = segment(images)
            native_labels = [augment.resize_labels(one, native.shape[1:]) for one in labels]
            for index, slice_index in enumerate(series["slice"]):
                for resolution, pair in {
                    "input": (labels[index], predicted[index]),
                    "native": (native_labels[index], native[index]),
                }.items():
                    counts = metrics.confusion_matrix(*pair, settings.num_classes)
                    rows.append(
                        (method, horizon, epoch, resolution, series_id, slice_index, *counts.flat)
                    )
                if is_longest:
                    save_label_map(
                        predicted[index], results.prediction(method, series_id, slice_index)
                    )
    keys = ["model", "epochs", "epoch", "resolution", "series", "slice"]
    scores = pd.DataFrame(rows, columns=keys + metrics.count_columns(settings.num_classes))
    with provenance.replacing(results.scores(method)) as scratch:
        scores.to_csv(scratch, index=False)
    training = provenance.read_json(results.training_record(method))
    images, _ = slices.load(folder.root, table.head(TIMED_SLICES))
    provenance.write_json(
        results.score_record(method),
        {
            "model": method,
            "parameters": model.count_params() if model else 0,
            "trainable_parameters": models.trainable_parameters(model) if model else 0,
            "milliseconds_per_slice": milliseconds_per_slice(segment, images),
            "slices": len(table),
            "encoder_weights": training.get("encoder_weights"),
        },
    )
    return scores


def best_epoch(history: pd.DataFrame, horizon: int) -> int:
    """Return the epoch, from 1, of the best mean IoU of the first `horizon`; 0 without any."""
    if not horizon:
        return 0
    first = history.head(horizon)
    return int(first["epoch"][first["val_mean_iou"].idxmax()])


def milliseconds_per_slice(segment, images: np.ndarray) -> float:
    """Return the mean time from one 8-bit slice to its label map (Table 2)."""
    segment(images[:1])
    started = time.perf_counter()
    for image in images:
        segment(image[None])
    return round(1000 * (time.perf_counter() - started) / len(images), 2)


def save_label_map(label_map: np.ndarray, path) -> None:
    """Write one label map (row, column) as an 8-bit PNG, in one step."""
    with provenance.replacing(path) as scratch:
        Image.fromarray(label_map).save(scratch)
