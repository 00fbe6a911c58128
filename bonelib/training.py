"""Model + batches -> best weights and history, by the protocol of sections 5.1 and 5.4."""

import importlib.util
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import pandas as pd

from bonelib import augment, metrics, models, provenance, slices
from bonelib.devices import num_devices, set_precision, share, sharing
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.prediction import channels, load_network, network_segmenter
from bonelib.settings import BONE, CLASS_NAMES, IGNORE, Settings

# Settings that say how a run is carried out, not what comes out of it.
NOT_IN_RESULT = {
    "profile", "loader_workers", "parallel_notebooks", "allow_random_encoder", "devices",
}  # fmt: skip

STATISTICS_BATCH = 8  # slices a forward pass that measures batch normalisation


@keras.saving.register_keras_serializable("bonelib")
class PixelAccuracy(keras.metrics.Mean):
    """Share of pixels whose most probable class is their label, `IGNORE` left out."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: labels (batch, row, column), probabilities with classes last."""
        known = keras.ops.not_equal(y_true, IGNORE)
        right = keras.ops.equal(
            keras.ops.cast(y_true, "int32"),
            keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32"),
        )
        super().update_state(keras.ops.cast(right, "float32"), keras.ops.cast(known, "float32"))


class EpochRecord(keras.callbacks.Callback):
    """Score the whole validation set after each epoch; keep best weights, history and state.

    The three are written in that order, each in one step, so that a run killed at any
    moment goes on from the last finished epoch as if it had never stopped.
    """

    def __init__(self, results: ResultFolder, settings: Settings, images, labels, history):
        super().__init__()
        self.results, self.settings = results, settings
        self.images, self.labels = images, labels
        self.rows = history.to_dict("records")

    def on_train_begin(self, logs=None):
        """Prepare the validation."""
        self.segment = network_segmenter(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Validate, record and say how far the training is."""
        predicted, _ = self.segment(self.images)
        settings = self.settings
        # Slice by slice: ten times as fast as in one array, which no cache holds.
        counts = sum(
            metrics.confusion_matrix(*pair, settings.num_classes)
            for pair in zip(self.labels, predicted, strict=True)
        )
        logs |= validation_scores(counts, settings.class_names)
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        row["seconds"] = round(time.perf_counter() - self.started, 2)
        earlier = max((past["val_mean_iou"] for past in self.rows), default=-np.inf)
        self.rows.append(row)
        name = self.model.name
        for horizon in settings.horizons(name):
            if epoch < horizon and (row["val_mean_iou"] > earlier or epoch == 0):
                with provenance.replacing(self.results.best(name, horizon)) as scratch:
                    # A twin on the same layers, without the optimizer's state.
                    keras.Model(self.model.input, self.model.output, name=name).save(scratch)
        with provenance.replacing(self.results.history(name)) as scratch:
            pd.DataFrame(self.rows).to_csv(scratch, index=False)
        if row["epoch"] < self.params["epochs"]:  # after the last, nothing is left to go on with
            with provenance.replacing(self.results.state(name)) as scratch:
                self.model.save(scratch)
        self._say(row)

    def _say(self, row):
        epochs = self.params["epochs"]
        seconds = np.median([past["seconds"] for past in self.rows])
        left = timedelta(seconds=round(seconds * (epochs - row["epoch"])))
        bones = [
            f"{bone} IoU {row[f'val_iou_{bone}']:.4f}" for bone in self.settings.class_names[BONE:]
        ]
        print(
            f"epoch {row['epoch']:2d}/{epochs}  loss {row['loss']:.4f}  validation: "
            f"accuracy {row['val_accuracy']:.4f}, mean IoU {row['val_mean_iou']:.4f}, "
            f"{', '.join(bones)}  {row['seconds']:.0f} s, {left} left",
            flush=True,
        )


class TrainingForward(keras.Model):
    """A network's forward pass as in training, which `predict_on_batch` compiles.

    Called as it is, a network computes layer by layer, and JAX compiles each alone.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.model = model

    def call(self, images):
        """Return the most probable class's probability, pixel by pixel."""
        return keras.ops.max(self.model(images, training=True), axis=-1)


class BatchNormStatistics(keras.callbacks.Callback):
    """Measure the statistics of batch normalisation anew after each epoch.

    Each layer gets the average, over batches of `images` (slice, row, column), of what it
    sees in a forward pass with the weights as they are; without images it keeps the running
    averages. Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3.
    """

    def __init__(self, images: np.ndarray):
        super().__init__()
        count = -(-len(images) // STATISTICS_BATCH)
        # Each batch holds slices from feet to head.
        self.batches = [images[first::count] for first in range(count)]

    def set_model(self, model):
        """Prepare the forward pass."""
        super().set_model(model)
        self.forward = TrainingForward(model)

    def on_epoch_end(self, epoch, logs=None):
        """Replace the running averages."""
        if not self.batches:
            return
        layers = [
            layer
            for layer in self.model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        variables = [
            variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)
        ]
        momenta = [layer.momentum for layer in layers]
        measured = []
        for layer in layers:
            layer.momentum = 0.0  # a layer then holds what it saw last, compiled or not
        for batch in self.batches:
            self.forward.predict_on_batch(share(slices.network_input(batch)))
            measured.append([keras.ops.convert_to_numpy(variable) for variable in variables])
        for position, variable in enumerate(variables):
            variable.assign(np.mean([values[position] for values in measured], axis=0))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class Samples(Protocol):
    """What a network is trained on."""

    has_shares: bool  # of classes in each pixel, in place of one class

    @property
    def fingerprint(self) -> str:
        """Return a hash of all that the samples depend on besides the settings."""

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield endless batches from epoch `first_epoch` on: images and what is in them.

        Images are (batch, row, column), uint8, or with an axis of three channels. With them
        come label maps (batch, output_size, output_size), uint8, or the classes' shares
        (batch, output_size, output_size, class), float32.
        """

    def examples(self, count: int) -> np.ndarray:
        """Return at most `count` images, (slice, row, column), that show the samples' variety."""


@dataclass(frozen=True)
class AugmentedSlices:
    """The training slices of a prepared data set, augmented as in section 4."""

    folder: SliceFolder
    settings: Settings
    fingerprint: str = ""  # the folder's own is in the training's key already
    has_shares: bool = False

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield endless batches from epoch `first_epoch` on."""
        table = slices.read_table(self.folder.root)
        files = [
            (self.folder.image(row.series, row.slice), self.folder.labels(row.series, row.slice))
            for row in table[table["split"] == "train"].itertuples()
        ]
        workers = augment.num_workers(self.settings)
        return augment.batches(files, output_size, self.settings, first_epoch, workers)

    def examples(self, count: int) -> np.ndarray:
        """Return at most `count` slices as they are, evenly spaced in the table."""
        table = slices.read_table(self.folder.root)
        rows = table[table["split"] == "train"]
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        return slices.load(self.folder.root, rows.iloc[chosen])[0]


def validation_scores(
    counts: np.ndarray, class_names: Sequence[str] = CLASS_NAMES
) -> dict[str, float]:
    """Return the scores of pooled validation counts (classes, classes), as named in a history.

    Means are over the classes that the reference has, so that those of all epochs compare.
    """
    iou, dice = metrics.iou(counts), metrics.dice(counts)
    present = counts.sum(axis=1) > 0
    return {
        "val_accuracy": metrics.overall_accuracy(counts),
        **{f"val_iou_{name}": iou[index] for index, name in enumerate(class_names)},
        "val_mean_iou": iou[present].mean(),
        **{f"val_dice_{name}": dice[index] for index, name in enumerate(class_names)},
        "val_mean_dice": dice[present].mean(),
    }


def train(
    name: str,
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    restart: bool = False,
    samples: Samples | None = None,
    start: Path | None = None,
) -> pd.DataFrame:
    """Train network `name` on prepared slices and return its history, one row an epoch.

    `samples` are what to train on in place of the folder's augmented training slices, `start`
    weights to begin with in place of random ones.

    Writes training.json, history.csv, best_of_<epochs>.keras and TensorBoard logs into
    `results.training(name)`. A training that was stopped goes on after its last finished
    epoch, with the optimizer's state, if settings, data and code are the same; otherwise,
    or with `restart`, it begins anew. Raises `models.EncoderWeightsError` where ImageNet
    weights are asked for, cannot be had, and the settings allow no random encoder.
    """
    record = provenance.read_json(results.training_record(name))
    samples = samples or AugmentedSlices(folder, settings)
    key = training_key(name, folder, settings, samples, start)
    if restart or record.get("key") != key:
        shutil.rmtree(results.training(name), ignore_errors=True)
        record = {"key": key, "finished": False, "settings": asdict(settings)}
    if record["finished"]:
        print(f"{name} is trained already: {results.training(name).name}")
        return pd.read_csv(results.history(name))

    keras.utils.set_random_seed(settings.training_seed)
    record["precision"] = set_precision(settings)
    record |= {"backend": keras.backend.backend(), "devices": num_devices(settings)}
    record |= provenance.circumstances()
    with sharing(settings):
        model, finished_epochs = resumed_model(results.state(name), settings)
        if model is None:
            model, record["encoder_weights"] = new_model(name, settings, samples.has_shares)
            if start is not None:
                model.load_weights(start)
        provenance.write_json(results.training_record(name), record)

        history = pd.DataFrame()
        if finished_epochs:
            history = pd.read_csv(results.history(name)).iloc[:finished_epochs]
            print(f"{name} goes on after epoch {finished_epochs}")
        table = slices.read_table(folder.root)
        images, labels = slices.load(folder.root, table[table["split"] == "validation"])
        epochs = max(settings.horizons(name))
        count = settings.batch_norm_slices
        images_to_measure = samples.examples(count) if count else images[:0]
        with closing(training_batches(model, samples, finished_epochs)) as batches:
            model.fit(
                batches,
                steps_per_epoch=settings.steps_per_epoch,
                initial_epoch=finished_epochs,
                epochs=epochs,
                callbacks=[
                    BatchNormStatistics(images_to_measure),
                    EpochRecord(results, settings, images, labels, history),
                    *tensorboard(results.training(name) / "tensorboard"),
                ],
                verbose=0,
                shuffle=False,
            )
    history = pd.read_csv(results.history(name))
    provenance.write_json(
        results.training_record(name),
        record | {"finished": True, "seconds": round(history["seconds"].sum(), 1)},
    )
    results.state(name).unlink(missing_ok=True)
    return history


def training_key(
    name: str,
    folder: SliceFolder,
    settings: Settings,
    samples: Samples,
    start: Path | None = None,
) -> str:
    """Return a hash of all that decides a training's result: settings, slices and code."""
    decisive = {
        field: value for field, value in vars(settings).items() if field not in NOT_IN_RESULT
    }
    fingerprint = provenance.read_json(folder.description).get("fingerprint")
    parts = name, decisive, fingerprint, samples.fingerprint, provenance.code_hash(__name__)
    if start is not None:
        parts = *parts, provenance.content_hash([start], start.parent)
    return provenance.text_hash(*parts)


def new_model(
    name: str, settings: Settings, has_shares: bool = False
) -> tuple[keras.Model, str | None]:
    """Return a compiled network and what its encoder starts from: imagenet, random or None.

    It learns label maps or, if the samples have them, the classes' shares of each pixel.
    """
    build = {
        "image_size": settings.image_size,
        "num_classes": settings.num_classes,
        "decoder_activation": settings.decoder_activation,
    }
    start = None
    wanted = settings.encoder_weights
    if models.encoder_of(name) is None or wanted == "none":
        model = models.build_model(name, **build)
        start = "random" if models.encoder_of(name) else None
    else:
        try:
            model = models.build_model(name, encoder_weights=wanted, **build)
            start = "imagenet"
        except models.EncoderWeightsError as error:
            if not settings.allow_random_encoder:
                raise
            print(f"{error}\nGoing on from a random encoder; the tables say so.")
            model = models.build_model(name, **build)
            start = "random"
    if has_shares:
        loss = keras.losses.CategoricalCrossentropy()
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=IGNORE)
        accuracy = PixelAccuracy(name="accuracy")
    optimizer = new_optimizer(max(settings.horizons(name)), settings)
    model.compile(optimizer=optimizer, loss=loss, metrics=[accuracy])
    return model, start


def new_optimizer(epochs: int, settings: Settings) -> keras.optimizers.Optimizer:
    """Return the optimizer of a training of `epochs`. Raises ValueError for an unknown one."""
    average = {
        "use_ema": settings.weight_average > 0,
        "ema_momentum": settings.weight_average,
        "ema_overwrite_frequency": settings.steps_per_epoch,
    }
    if settings.optimizer == "adadelta":
        rho, epsilon = settings.rho, settings.epsilon
        return keras.optimizers.Adadelta(settings.learning_rate, rho, epsilon, **average)
    if settings.optimizer == "adam":
        steps = epochs * settings.steps_per_epoch
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
        return keras.optimizers.Adam(rate, **average)
    raise ValueError(f"unknown optimizer '{settings.optimizer}': choose adadelta or adam")


def resumed_model(state: Path, settings: Settings) -> tuple[keras.Model | None, int]:
    """Return the compiled network as of its last finished epoch, and that epoch."""
    if not state.exists():
        return None, 0
    model = keras.models.load_model(state)
    # Rounded up: scaling the loss for float16 skips, and does not count, a step now and then.
    return model, math.ceil(int(model.optimizer.iterations) / settings.steps_per_epoch)


def training_batches(model: keras.Model, samples: Samples, first_epoch: int) -> Iterator:
    """Yield endless (network input, labels on the output grid) from epoch `first_epoch` on.

    8-bit images go to the device: a quarter of the bytes of the network's input.
    """

    def on_device() -> Iterator:
        with closing(samples.batches(model.output_shape[1], first_epoch)) as batches:
            for images, labels in batches:
                yield channels(images), keras.ops.convert_to_tensor(labels)

    return augment.ahead(on_device())


def tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    """Return the TensorBoard callback where TensorFlow, which writes its files, is installed."""
    if importlib.util.find_spec("tensorflow") is None:
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False)]


def load_best(name: str, epochs: int, results: ResultFolder, settings: Settings) -> keras.Model:
    """Return network `name` as of its best of the first `epochs` epochs."""
    return load_network(results.best(name, epochs), name, settings)
