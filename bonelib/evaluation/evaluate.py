"""Weights + test slices -> counts, distances, error analysis, label maps, time (section 5.3)."""

import time

import keras
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from bonelib import augment, metrics, models, prediction, provenance, slices
from bonelib.evaluation import error_analysis, scoring
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BASELINE, BONE, CLASS_NAMES, Settings

TIMED_SLICES = 20  # predicted one by one, after a warm-up


def evaluate(
    method: str, folder: SliceFolder, results: ResultFolder, settings: Settings
) -> pd.DataFrame:
    """Score a trained network, or the baseline, on every test slice; return the counts.

    Writes the tables of `scoring.COLUMNS`, a JSON record with time and parameters, and the
    label maps of the longest horizon. Does nothing where the results of the same weights,
    slices, settings and code exist.
    """
    table = slices.read_table(folder.root)
    table = table[table["split"] == "test"]
    files = {kind: results.scores(method, kind) for kind in scoring.COLUMNS}
    key = evaluation_key(method, folder, results, settings)
    label_maps = [results.prediction(method, row.series, row.slice) for row in table.itertuples()]
    is_complete = all(file.exists() for file in (*files.values(), *label_maps))
    if is_complete and provenance.read_json(results.score_record(method)).get("key") == key:
        print(f"{method} is scored already: {files['']}")
        return pd.read_csv(files[""], dtype={"series": str})
    model, tables = score(method, table, folder, results, settings)
    frames = {files[kind]: frame for kind, frame in tables.items()}
    frames[results.scored_slices] = error_analysis.slice_table(table)
    for path, frame in frames.items():
        with provenance.replacing(path) as scratch:
            frame.to_csv(scratch, index=False)
    images, _ = slices.load(folder.root, table.head(TIMED_SLICES))
    timed = segmenter(model, settings, with_probabilities=False)
    training = provenance.read_json(results.training_record(method))
    record = {
        "key": key,
        "model": method,
        "parameters": model.count_params() if model else 0,
        "trainable_parameters": models.trainable_parameters(model) if model else 0,
        "milliseconds_per_slice": milliseconds_per_slice(timed, images),
        "slices": len(table),
        "encoder_weights": training.get("encoder_weights"),
    }
    provenance.write_json(results.score_record(method), record)
    return tables[""]


def evaluation_key(
    method: str, folder: SliceFolder, results: ResultFolder, settings: Settings
) -> str:
    """Return a hash of all that determines scores: weights, settings, slices and code."""
    horizons = settings.horizons(method)
    weights = [results.best(method, horizon) for horizon in horizons if horizon]
    return provenance.text_hash(
        method,
        settings.decisive,
        provenance.content_hash(weights, results.root),
        provenance.read_json(folder.description).get("fingerprint"),
        provenance.code_hash(__name__),
    )


def score(
    method: str, table: pd.DataFrame, folder: SliceFolder, results: ResultFolder, settings: Settings
) -> tuple[keras.Model | None, dict[str, pd.DataFrame]]:
    """Score the slices of a table after each horizon; return the last network and the tables."""
    model, epoch, found = None, 0, {kind: [] for kind in scoring.COLUMNS}
    for horizon in settings.horizons(method):
        if method != BASELINE:
            model = prediction.load_network(results.best(method, horizon), method, settings)
            epoch = best_epoch(pd.read_csv(results.history(method)), horizon)
        segment = segmenter(model, settings, with_probabilities=True)
        for series_id, series in tqdm(table.groupby("series"), desc=f"{method}, series"):
            names = {"model": method, "epochs": horizon, "epoch": epoch, "series": series_id}
            predicted, frames = score_series(segment, folder, series, settings)
            save_label_maps(predicted, series, method, results)
            for kind, frame in frames.items():
                found[kind].append(frame.assign(**names)[scoring.COLUMNS[kind]])
    return model, {kind: pd.concat(frames, ignore_index=True) for kind, frames in found.items()}


def segmenter(
    model: keras.Model | None, settings: Settings, with_probabilities: bool
) -> prediction.Segmenter:
    """Return the segmenter of a network, or that of the baseline."""
    if model is None:
        return prediction.threshold_segmenter(settings)
    return prediction.network_segmenter(model, with_probabilities)


def score_series(
    segment: prediction.Segmenter, folder: SliceFolder, series: pd.DataFrame, settings: Settings
) -> tuple[np.ndarray, dict[str, pd.DataFrame]]:
    """Return the label maps of one series, and its rows of each kind in `scoring.COLUMNS`.

    `series` are its rows in the table of slices.
    """
    images, labels = slices.load(folder.root, series)
    predicted, native, reliability = segment_series(segment, images, labels)
    native_labels = [augment.resize_labels(one, native.shape[1:]) for one in labels]
    spacing_mm = tuple(map(float, series["spacing"].iloc[0].split()))
    grids = {"input": (labels, predicted), "native": (native_labels, native)}
    counts = [
        (resolution, slice_index, *metrics.confusion_matrix(*pair).ravel())
        for resolution, stacks in grids.items()
        for slice_index, *pair in zip(series["slice"], *stacks, strict=True)
    ]
    bright = slices.window(prediction.BONE_HU, settings)
    causes = error_analysis.causes(images, labels, spacing_mm, bright)
    false = [
        (slice_index, error_analysis.CAUSES[cause], pixels)
        for slice_index, of_slice, is_false in zip(
            series["slice"], causes, (predicted == BONE) & (labels < BONE), strict=True
        )
        for cause, pixels in zip(*np.unique(of_slice[is_false], return_counts=True), strict=True)
    ]
    return predicted, {
        "": pd.DataFrame(counts, columns=["resolution", "slice", *scoring.COUNT_COLUMNS]),
        "surfaces": error_analysis.measure_surfaces(labels, predicted, spacing_mm),
        "reliability": reliability_rows(reliability),
        "false_bone": pd.DataFrame(false, columns=["slice", "cause", "pixels"]),
    }


def segment_series(
    segment: prediction.Segmenter, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label maps on the input grid and the native one, and `error_analysis.reliability`.

    The last is empty where `segment` returns no probabilities. Slices go in equal parts: the
    network is compiled once, and only the probabilities of one part are in memory.
    """
    count = -(-len(images) // slices.SLICES_AT_ONCE)
    label_maps, reliability = [], []
    for part, reference in zip(
        np.array_split(images, count), np.array_split(labels, count), strict=True
    ):
        predicted, native, *probabilities = segment(part)
        label_maps.append((predicted, native))
        reliability += [error_analysis.reliability(one, reference) for one in probabilities]
    predicted, native = map(np.concatenate, zip(*label_maps, strict=True))
    return predicted, native, sum(reliability) if reliability else []


def reliability_rows(counts: np.ndarray) -> pd.DataFrame:
    """Return the counts of `error_analysis.reliability`, one row per class and bin."""
    rows = [
        (name, index, pixels, levels / prediction.MOST_CERTAIN, positive)
        for name, of_class in zip(CLASS_NAMES, counts, strict=False)
        for index, (pixels, levels, positive) in enumerate(of_class.tolist())
    ]
    return pd.DataFrame(rows, columns=["class", "bin", "pixels", "probability", "positive"])


def best_epoch(history: pd.DataFrame, horizon: int) -> int:
    """Return the epoch, from 1, with the best mean IoU of the first `horizon`."""
    first = history.head(horizon)
    return int(first["epoch"][first["val_mean_iou"].idxmax()])


def milliseconds_per_slice(segment: prediction.Segmenter, images: np.ndarray) -> float:
    """Return the mean time from one 8-bit slice to its label map (Table 2)."""
    segment(images[:1])
    started = time.perf_counter()
    for image in images:
        segment(image[None])
    return round(1000 * (time.perf_counter() - started) / len(images), 2)


def save_label_maps(
    predicted: np.ndarray, series: pd.DataFrame, method: str, results: ResultFolder
) -> None:
    """Write each label map of a series as an 8-bit PNG."""
    for row, label_map in zip(series.itertuples(), predicted, strict=True):
        with provenance.replacing(results.prediction(method, row.series, row.slice)) as scratch:
            Image.fromarray(label_map).save(scratch)
