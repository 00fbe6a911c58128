"""Weights + test slices -> counts, distances, error analysis, label maps, time (section 5.3)."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from bonelib import augment, metrics, models, prediction, provenance, slices
from bonelib.evaluation import error_analysis, scoring
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import BASELINE, BONE, Settings

TIMED_SLICES = 20  # predicted one by one, after a warm-up


def evaluate(
    method: str,
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    horizons: Sequence[int] = (),
) -> pd.DataFrame:
    """Score a trained network, or the baseline, on every test slice; return the counts.

    Writes the CSV files that `scoring` reads, a JSON record with time and parameters, and the
    label maps of the longest horizon. `horizons` are the numbers of epochs after which a
    network is scored, by default all of `settings`. Does nothing where the results of the
    same weights, slices, settings and code exist.
    """
    table = slices.read_table(folder.root)
    table = table[table["split"] == "test"]
    horizons = horizons or ((0,) if method == BASELINE else settings.horizons(method))
    weights = [results.best(method, horizon) for horizon in horizons if method != BASELINE]
    key = provenance.text_hash(
        method,
        horizons,
        settings.decisive,
        provenance.content_hash(weights, results.root),
        provenance.read_json(folder.description).get("fingerprint"),
        provenance.code_hash(__name__),
    )
    files = {
        results.scores(method): scoring.KEY_COLUMNS + metrics.count_columns(settings.num_classes),
        results.surfaces(method): scoring.SURFACE_COLUMNS,
        results.reliability(method): scoring.RELIABILITY_COLUMNS,
        results.false_bone(method): scoring.FALSE_BONE_COLUMNS,
    }
    label_maps = [results.prediction(method, row.series, row.slice) for row in table.itertuples()]
    is_complete = all(file.exists() for file in (*files, *label_maps))
    if is_complete and provenance.read_json(results.score_record(method)).get("key") == key:
        print(f"{method} is scored already: {results.scores(method)}")
        return pd.read_csv(results.scores(method), dtype={"series": str})
    found = []
    for horizon in horizons:
        model, epoch, segment = None, 0, prediction.threshold_segmenter(settings)
        if method != BASELINE:
            model = prediction.load_network(results.best(method, horizon), method, settings)
            epoch = best_epoch(pd.read_csv(results.history(method)), horizon)
            segment = prediction.network_segmenter(model, with_probabilities=True)
        for series_id, series in tqdm(table.groupby("series"), desc=f"{method}, series"):
            names = {"model": method, "epochs": horizon, "epoch": epoch, "series": series_id}
            predicted, frames = score_series(segment, folder, series, settings)
            found.append([frame.assign(**names) for frame in frames])
            if horizon == max(horizons):
                save_label_maps(predicted, series, method, results)
    parts = [pd.concat(frames, ignore_index=True) for frames in zip(*found, strict=True)]
    tables = dict(zip(files, parts, strict=True))
    tables[results.scored_slices] = error_analysis.slice_table(table)
    for path, frame in tables.items():
        with provenance.replacing(path) as scratch:
            frame.to_csv(scratch, index=False, columns=files.get(path))
    images, _ = slices.load(folder.root, table.head(TIMED_SLICES))
    timed = prediction.network_segmenter(model) if model else segment
    record = {
        "key": key,
        "model": method,
        "parameters": model.count_params() if model else 0,
        "trainable_parameters": models.trainable_parameters(model) if model else 0,
        "milliseconds_per_slice": milliseconds_per_slice(timed, images),
        "slices": len(table),
        "encoder_weights": provenance.read_json(results.training_record(method)).get(
            "encoder_weights"
        ),
    }
    provenance.write_json(results.score_record(method), record)
    return parts[0][files[results.scores(method)]]


def score_series(
    segment: prediction.Segmenter, folder: SliceFolder, series: pd.DataFrame, settings: Settings
) -> tuple[np.ndarray, list[pd.DataFrame]]:
    """Return the label maps of one series, and its counts, distances, reliability, false bone.

    `series` are its rows in the table of slices.
    """
    images, labels = slices.load(folder.root, series)
    predicted, native, reliability = segment_series(segment, images, labels)
    native_labels = [augment.resize_labels(one, native.shape[1:]) for one in labels]
    spacing_mm = tuple(map(float, series["spacing"].iloc[0].split()))
    grids = {"input": (labels, predicted), "native": (native_labels, native)}
    counts = [
        (resolution, slice_index, *metrics.confusion_matrix(*pair, settings.num_classes).ravel())
        for resolution, stacks in grids.items()
        for slice_index, *pair in zip(series["slice"], *stacks, strict=True)
    ]
    columns = ["resolution", "slice", *metrics.count_columns(settings.num_classes)]
    cause_maps = error_analysis.causes(
        images, labels, spacing_mm, slices.window(prediction.BONE_HU, settings)
    )
    return predicted, [
        pd.DataFrame(counts, columns=columns),
        error_analysis.measure_surfaces(labels, predicted, spacing_mm, settings),
        reliability_rows(reliability, settings),
        false_bone_rows(cause_maps, labels, predicted, series["slice"]),
    ]


def segment_series(
    segment: prediction.Segmenter, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label maps on the input grid and the native one, and `error_analysis.reliability`.

    The last is empty where `segment` returns no probabilities. Slices go in equal parts: the
    network is compiled once, and only the probabilities of one part are in memory.
    """
    count = -(-len(images) // slices.SLICES_AT_ONCE)
    parts = (np.array_split(stack, count) for stack in (images, labels))
    label_maps, reliability = [], []
    for part, reference in zip(*parts, strict=True):
        predicted, native, *probabilities = segment(part)
        label_maps.append((predicted, native))
        reliability += [error_analysis.reliability(one, reference) for one in probabilities]
    return *map(np.concatenate, zip(*label_maps, strict=True)), sum(
        reliability
    ) if reliability else []


def reliability_rows(counts: np.ndarray, settings: Settings) -> pd.DataFrame:
    """Return the counts of `error_analysis.reliability`, one row per class and bin."""
    rows = [
        (settings.class_names[label], index, pixels, levels / prediction.MOST_CERTAIN, positive)
        for label, of_class in enumerate(counts)
        for index, (pixels, levels, positive) in enumerate(of_class.tolist())
    ]
    return pd.DataFrame(rows, columns=["class", "bin", "pixels", "probability", "positive"])


def false_bone_rows(
    cause_maps: np.ndarray,
    reference: np.ndarray,
    predicted: np.ndarray,
    slice_indices: Sequence[int],
) -> pd.DataFrame:
    """Return the pixels predicted as bone whose known reference is none, by slice and cause."""
    false = (predicted >= BONE) & (reference < BONE)
    rows = [
        (slice_index, error_analysis.CAUSES[cause], pixels)
        for slice_index, causes, mask in zip(slice_indices, cause_maps, false, strict=True)
        for cause, pixels in zip(*np.unique(causes[mask], return_counts=True), strict=True)
    ]
    return pd.DataFrame(rows, columns=["slice", "cause", "pixels"])


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
