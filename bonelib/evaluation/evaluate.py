"""Weights + test slices -> counts, distances, mistakes, label maps, time (section 5.3)."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from bonelib import augment, metrics, models, provenance, slices
from bonelib.evaluation import error_analysis, scoring
from bonelib.evaluation.levels import levels_of
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.prediction import BONE_HU, MOST_CERTAIN, Segmenter, load_segmenter, network_segmenter
from bonelib.settings import BASELINE, BONE, IGNORE, PATIENT, Settings
from bonelib.training import NOT_IN_RESULT

TIMED_SLICES = 20  # slices whose prediction is timed, one by one, after a warm-up

# Of a structure, by whether the reference and the prediction have it.
STATES = {
    (True, True): "found",
    (True, False): "missed",
    (False, True): "invented",
    (False, False): "absent",
}


def evaluate(
    method: str,
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    horizons: Sequence[int] = (),
) -> pd.DataFrame:
    """Score a trained network, or the baseline, on every test slice; return the counts.

    `horizons` are the epochs after which a network is scored, by default all of `settings`.
    One row an image, training horizon and resolution ("input", and "native": the
    network's own output grid, with nearest-neighbour labels); counts n<reference
    class><predicted class> in pixels. Writes them to scores/<method>.csv, and beside it
    what else `scoring` reads: distances of surfaces, reliability of probabilities, causes of
    false bone, and the table of slices; the time and the parameters to
    scores/<method>.json; and the label maps of the longest horizon to predictions/<method>/.
    Where these are there already, of the same weights, slices, settings and code, they are
    left as they are.
    """
    table = slices.read_table(folder.root)
    table = table[table["split"] == "test"]
    files = {
        results.scores(method): scoring.KEY_COLUMNS + metrics.count_columns(settings.num_classes),
        results.surfaces(method): scoring.SURFACE_COLUMNS,
        results.reliability(method): scoring.RELIABILITY_COLUMNS,
        results.false_bone(method): scoring.FALSE_BONE_COLUMNS,
    }
    horizons = horizons or ((0,) if method == BASELINE else settings.horizons(method))
    key = evaluation_key(method, folder, results, settings, horizons)
    written = [
        *files,
        *(results.prediction(method, row.series, row.slice) for row in table.itertuples()),
    ]
    record = provenance.read_json(results.score_record(method))
    if record.get("key") == key and all(file.exists() for file in written):
        print(f"{method} is scored already: {results.scores(method)}")
        return pd.read_csv(results.scores(method), dtype={"series": str})
    found = []
    for horizon in horizons:
        segment, model = load_segmenter(method, results.best(method, horizon), settings)
        with_probabilities = network_segmenter(model, with_probabilities=True) if model else segment
        epoch = best_epoch(pd.read_csv(results.history(method)), horizon) if model else 0
        for series_id, series in tqdm(table.groupby("series"), desc=f"{method}, series"):
            names = {"model": method, "epochs": horizon, "epoch": epoch, "series": series_id}
            predicted, frames = score_series(with_probabilities, folder, series, settings)
            found.append([frame.assign(**names) for frame in frames])
            if horizon == max(horizons):
                for slice_index, label_map in zip(series["slice"], predicted, strict=True):
                    save_label_map(label_map, results.prediction(method, series_id, slice_index))
    frames = [pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True)]
    for frame, (path, columns) in zip(frames, files.items(), strict=True):
        write_table(frame[columns], path)
    write_table(scored_slices(table), results.scored_slices)
    training = provenance.read_json(results.training_record(method))
    images, _ = slices.load(folder.root, table.head(TIMED_SLICES))
    provenance.write_json(
        results.score_record(method),
        {
            "key": key,
            "model": method,
            "parameters": model.count_params() if model else 0,
            "trainable_parameters": models.trainable_parameters(model) if model else 0,
            "milliseconds_per_slice": milliseconds_per_slice(segment, images),
            "slices": len(table),
            "encoder_weights": training.get("encoder_weights"),
        },
    )
    return frames[0][[*files.values()][0]]


def evaluation_key(
    method: str,
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    horizons: Sequence[int],
) -> str:
    """Return a hash of all that decides a method's scores: weights, slices, settings and code."""
    weights = [] if method == BASELINE else [results.best(method, horizon) for horizon in horizons]
    decisive = {
        field: value for field, value in vars(settings).items() if field not in NOT_IN_RESULT
    }
    return provenance.text_hash(
        method,
        horizons,
        decisive,
        provenance.content_hash(weights, results.root),
        provenance.read_json(folder.description).get("fingerprint"),
        provenance.code_hash(__name__),
    )


def score_series(
    segment: Segmenter, folder: SliceFolder, series: pd.DataFrame, settings: Settings
) -> tuple[np.ndarray, list[pd.DataFrame]]:
    """Return the label maps of one series; its counts, distances, reliability, false bone.

    `series` are its rows in the table of slices. Its slices and label maps are in memory, but
    the probabilities of `SLICES_AT_ONCE` slices only.
    """
    images, labels = slices.load(folder.root, series)
    predicted, native, reliability = segment_series(segment, images, labels)
    native_labels = [augment.resize_labels(one, native.shape[1:]) for one in labels]
    spacing_mm = tuple(map(float, series["spacing"].iloc[0].split()))
    grids = {"input": (labels, predicted), "native": (native_labels, native)}
    counts = [
        count_pixels(*pair, series["slice"], settings).assign(resolution=resolution)
        for resolution, pair in grids.items()
    ]
    return predicted, [
        pd.concat(counts),
        measure_surfaces(labels, predicted, spacing_mm, settings),
        tell_reliability(reliability, settings),
        explain_false_bone(images, labels, predicted, spacing_mm, series["slice"], settings),
    ]


def segment_series(
    segment: Segmenter, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label maps on the input grid and on the network's, and `mistakes.reliability`.

    That is empty where `segment` gives no probabilities. Slices go in equal parts, so that
    the network is compiled once.
    """
    parts = -(-len(images) // slices.SLICES_AT_ONCE)
    reliability = np.zeros((0, error_analysis.BINS, 3), np.int64)
    label_maps = []
    for part, reference in zip(
        np.array_split(images, parts), np.array_split(labels, parts), strict=True
    ):
        predicted, native, *probabilities = segment(part)
        label_maps.append((predicted, native))
        if probabilities:
            counts = error_analysis.reliability(*probabilities, reference)
            reliability = reliability + counts if len(reliability) else counts
    return *map(np.concatenate, zip(*label_maps, strict=True)), reliability


def count_pixels(
    references: Sequence[np.ndarray], predicted: np.ndarray, slice_indices, settings: Settings
) -> pd.DataFrame:
    """Return the confusion counts of each slice."""
    counts = [
        metrics.confusion_matrix(*pair, settings.num_classes).ravel()
        for pair in zip(references, predicted, strict=True)
    ]
    frame = pd.DataFrame(counts, columns=metrics.count_columns(settings.num_classes))
    return frame.assign(slice=list(slice_indices))


def measure_surfaces(
    reference: np.ndarray, predicted: np.ndarray, spacing_mm, settings: Settings
) -> pd.DataFrame:
    """Return how far the outline of the patient, bone included, and each class of bone lie off.

    Both are stacks (slice, row, column); what is `IGNORE` in the reference belongs to neither.
    """
    known = reference != IGNORE
    rows = []
    for label, structure in enumerate(("patient", *settings.class_names[BONE:]), PATIENT):
        masks = [
            known & (labels >= PATIENT if label == PATIENT else labels == label)
            for labels in (reference, predicted)
        ]
        state = STATES[tuple(bool(mask.any()) for mask in masks)]
        scores = metrics.surface_scores(*masks, spacing_mm)
        rows.append({"structure": structure, "state": state} | scores)
    return pd.DataFrame(rows)


def tell_reliability(counts: np.ndarray, settings: Settings) -> pd.DataFrame:
    """Return what `mistakes.reliability` counted, a row a class and bin of probability."""
    rows = [
        (settings.class_names[label], place, pixels, levels / MOST_CERTAIN, positive)
        for label, of_class in enumerate(counts)
        for place, (pixels, levels, positive) in enumerate(of_class.tolist())
    ]
    return pd.DataFrame(rows, columns=["class", "bin", "pixels", "probability", "positive"])


def explain_false_bone(
    images: np.ndarray,
    reference: np.ndarray,
    predicted: np.ndarray,
    spacing_mm,
    slice_indices,
    settings: Settings,
) -> pd.DataFrame:
    """Return the pixels wrongly called bone, a row a slice and cause that has any."""
    bright_level = slices.window(BONE_HU, settings)
    causes = error_analysis.causes(images, reference, spacing_mm, bright_level)
    false = error_analysis.false_bone(reference, predicted)
    rows = [
        (slice_index, error_analysis.CAUSES[cause], pixels)
        for slice_index, cause_map, mask in zip(slice_indices, causes, false, strict=True)
        for cause, pixels in zip(*np.unique(cause_map[mask], return_counts=True), strict=True)
    ]
    return pd.DataFrame(rows, columns=["slice", "cause", "pixels"])


def scored_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return where each slice of a table lies and how much bone it holds."""
    spacing_mm = table["spacing"].str.split(expand=True).astype(float)
    bone_mm2 = table["bone_pixels"] * spacing_mm[1] * spacing_mm[2]
    return table.assign(level=levels_of(table), bone_mm2=bone_mm2)[scoring.SLICE_COLUMNS]


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


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, in one step."""
    with provenance.replacing(path) as scratch:
        table.to_csv(scratch, index=False)


def save_label_map(label_map: np.ndarray, path: Path) -> None:
    """Write one label map (row, column) as an 8-bit PNG, in one step."""
    with provenance.replacing(path) as scratch:
        Image.fromarray(label_map).save(scratch)
