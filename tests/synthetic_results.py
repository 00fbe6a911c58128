"""Make a result folder and prepared slices as the notebooks write them, without training."""

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from bonelib import published, slices
from bonelib.evaluation import evaluate, scoring
from bonelib.evaluation.error_analysis import slice_table
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.provenance import write_json
from bonelib.settings import BASELINE, CLASS_NAMES, get_settings

SETTINGS = get_settings("smoke")
SPACING_MM = (25.0, 7.5, 7.5)
MODELS = ("fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet", "threshold")
# Grid points by which a method's outlines are off: bigger is worse, in the paper's order.
ERRORS = {
    "fcn8": 1.4, "fcn32": 4.0, "pspnet": 2.6, "unet": 1.1, "segnet": 1.8,
    "vgg_unet": 0.8, "resnet50_unet": 0.6, "threshold": 4.6,
}  # fmt: skip


def ellipses(size=48, slices=7, without_bone=1):
    """Return a label volume: a body with two bones, none in the last slices."""
    row, column = np.mgrid[:size, :size] / size - 0.5
    body = (row / 0.36) ** 2 + (column / 0.44) ** 2 < 1
    volume = np.zeros((slices, size, size), np.uint8)
    for index in range(slices):
        volume[index][body] = 1
        if index < slices - without_bone:
            radius = 0.07 + 0.01 * index
            volume[index][row**2 + (np.abs(column) - 0.2) ** 2 < radius**2] = 2
    return volume


def worsen(labels, error, rng):
    """Shift the outlines of a label map by a smooth random field of `error` grid points."""
    field = ndimage.gaussian_filter(rng.normal(size=(2, *labels.shape)), (0, 4, 4))
    shift = error * field / field.std()
    places = np.indices(labels.shape) + shift
    return ndimage.map_coordinates(labels, places, order=0, mode="nearest")


def write_slices(root, volumes, spacing, structures=""):
    """Write prepared slices of {series: (split, label volume)} that show the named structures."""
    folder, rng = SliceFolder(root), np.random.default_rng(0)
    for series, (_, volume) in volumes.items():
        for index, labels in enumerate(volume):
            grey = np.choose(labels.clip(0, 2), [10, 90, 200]) + rng.normal(0, 9, labels.shape)
            for path, picture in (
                (folder.image(series, index), ndimage.gaussian_filter(grey, 0.6)),
                (folder.labels(series, index), labels),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
    pd.DataFrame([
        {"series": series, "slice": index, "split": split, "source": "made",
         "spacing": " ".join(map(str, spacing)), "position_mm": index * spacing[0],
         "bone_pixels": int((labels == 2).sum()), "structures": structures}
        for series, (split, volume) in volumes.items() for index, labels in enumerate(volume)
    ]).to_csv(folder.table, index=False)  # fmt: skip
    write_json(folder.description, {"fingerprint": "made", "dataset": "phantom"})
    return folder


def predict(labels, error, rng):
    """Return wrong labels and 8-bit probabilities, surer of themselves the more they err."""
    predicted = np.stack([worsen(one, error, rng) for one in labels]).astype(np.uint8)
    likely = np.array([ndimage.gaussian_filter(1.0 * (predicted == one), 1) for one in range(3)])
    likely = np.moveaxis(likely ** (0.5 + error), 0, -1)
    probabilities = 255 * likely / likely.sum(axis=-1, keepdims=True)
    return predicted, probabilities.round().astype(np.uint8)


def write_results(root, folder, volumes, random_encoders=()):
    """Write scores, records, histories and predictions of the test series."""
    results = ResultFolder(root)
    table = slices.read_table(folder.root).query("split == 'test'")
    write_text(results.scored_slices, slice_table(table).to_csv(index=False))
    for model in MODELS:
        rng = np.random.default_rng(sum(map(ord, model)))
        found = {kind: [] for kind in scoring.COLUMNS}
        for series, rows in table.groupby("series"):
            for epochs in SETTINGS.horizons(model):
                error = ERRORS[model] * (0.9 if epochs == SETTINGS.epochs_long else 1.0)
                predicted, probabilities = predict(volumes[series][1], error, rng)
                made = (predicted, predicted, probabilities)[: 2 if model == BASELINE else 3]
                _, frames = evaluate.score_series(
                    lambda images, made=made: made, folder, rows, SETTINGS
                )
                names = {"model": model, "epochs": epochs, "epoch": epochs, "series": series}
                for kind, frame in frames.items():
                    found[kind].append(frame.assign(**names)[scoring.COLUMNS[kind]])
            evaluate.save_label_maps(predicted, rows, model, results)
        for kind, frames in found.items():
            write_text(results.scores(model, kind), pd.concat(frames).to_csv(index=False))
        paper = published.TABLE2.get(model, {"parameters": 0, "trainable": 0})
        encoder = {"vgg_unet": "imagenet", "resnet50_unet": "imagenet"}.get(model)
        write_json(results.score_record(model), {
            "model": model, "parameters": paper["parameters"],
            "trainable_parameters": paper["trainable"], "slices": len(table),
            "milliseconds_per_slice": paper.get("milliseconds", 9.4) / 2,
            "encoder_weights": "random" if model in random_encoders else encoder,
        })  # fmt: skip
        if model != BASELINE:
            text = history(max(SETTINGS.horizons(model)), ERRORS[model])
            write_text(results.history(model), text)
    return results


def score_rows(series, model="unet", epochs=10):
    """Return score rows of {series: confusion counts of each slice}."""
    rows = [
        [model, epochs, epochs, "input", name, index, *np.ravel(counts)]
        for name, slices in series.items()
        for index, counts in enumerate(slices)
    ]
    return pd.DataFrame(rows, columns=scoring.COLUMNS[""])


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def history(epochs, error):
    """Return the CSV of a training that learns the classes one after another."""
    epoch = np.arange(1, epochs + 1)
    frame = pd.DataFrame({"epoch": epoch, "loss": 0.5 / epoch})
    frame["accuracy"] = 0.999 - 0.08 * np.exp(-epoch / 2)
    frame["val_accuracy"] = 0.997 - 0.10 * np.exp(-epoch / 1.7) - 0.004 * np.sin(3 * epoch)
    ends = (0.998, 0.965, 0.95 - 0.1 * error)
    for name, end, pace in zip(CLASS_NAMES, ends, (1, 2, 3), strict=True):
        frame[f"val_iou_{name}"] = end * (1 - np.exp(-epoch / pace))
        frame[f"val_dice_{name}"] = 2 * frame[f"val_iou_{name}"] / (1 + frame[f"val_iou_{name}"])
    for measure in ("iou", "dice"):
        frame[f"val_mean_{measure}"] = frame.filter(like=f"val_{measure}_").mean(axis=1)
    return frame.assign(seconds=60.0).to_csv(index=False)


def small_results(folder, **options):
    """Return prepared slices and a result folder of one training and two test series."""
    volumes = {
        "train01": ("train", ellipses()),
        "test01": ("test", ellipses()),
        "test02": ("test", ellipses(without_bone=3)),
    }
    prepared = write_slices(folder / "prepared", volumes, SPACING_MM)
    return prepared, write_results(folder / "results", prepared, volumes, **options)
