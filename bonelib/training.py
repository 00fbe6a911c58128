"""Model + batches -> best weights and history, by the protocol of sections 5.1 and 5.4."""

import importlib.util
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from bonelib import augment, metrics, models, provenance, slices
from bonelib.devices import prepare_keras
from bonelib.errors import InputError
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.prediction import network_input, network_segmenter
from bonelib.settings import CLASS_NAMES, IGNORE, Settings

STATISTICS_BATCH = 8  # slices per forward pass when batch-norm statistics are recomputed


@dataclass(frozen=True)
class AugmentedSlices:
    """The training slices of a prepared data set, augmented as in section 4.

    `pretraining.corpus.Corpus` has the same attributes and methods; its labels are the classes'
    shares of each pixel (batch, row, column, class), float32.
    """

    folder: SliceFolder
    settings: Settings
    fingerprint: str = ""  # the folder's own is already in the training's key
    has_shares: bool = False

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield endless batches from epoch `first_epoch` on; see `augment.batches`."""
        folder, rows = self.folder, self._rows()
        keys = zip(rows["series"], rows["slice"], strict=True)
        files = [(folder.image(*key), folder.labels(*key)) for key in keys]
        workers = augment.num_workers(self.settings)
        return augment.batches(files, output_size, self.settings, first_epoch, workers)

    def examples(self, count: int) -> np.ndarray:
        """Return at most `count` slices without augmentation, evenly spaced in the table."""
        rows = self._rows()
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        return slices.load(self.folder.root, rows.iloc[chosen])[0]

    def _rows(self) -> pd.DataFrame:
        table = slices.read_table(self.folder.root)
        return table[table["split"] == "train"]


def train(
    name: str,
    folder: SliceFolder,
    results: ResultFolder,
    settings: Settings,
    samples=None,
    weights: Path | None = None,
) -> pd.DataFrame:
    """Train network `name` on prepared slices and return its history, one row per epoch.

    `samples` (default: the folder's `AugmentedSlices`) are the training data. The network
    starts from the `.keras` file `weights`, if given.

    Writes training.json, history.csv, best_of_<epochs>.keras and TensorBoard logs into
    `results.training(name)`. A stopped training continues after its last finished epoch, with
    the optimizer's state, if settings, data and code are the same; otherwise it begins again.
    Raises InputError if ImageNet weights are requested but unavailable and
    the settings do not allow a random encoder.
    """
    samples = samples or AugmentedSlices(folder, settings)
    record = provenance.read_json(results.training_record(name))
    start = provenance.content_hash([weights], weights.parent) if weights else None
    key = training_key(name, folder, settings, samples, start)
    if record.get("key") != key:
        shutil.rmtree(results.training(name), ignore_errors=True)
        record = {"key": key, "finished": False, "settings": asdict(settings), "weights": start}
    if record["finished"]:
        print(f"{name} is trained already: {results.training(name).name}")
        return pd.read_csv(results.history(name))

    keras.utils.set_random_seed(settings.training_seed)
    record |= provenance.circumstances()
    record |= {"precision": prepare_keras(settings), "backend": keras.backend.backend()}
    epochs_before = []
    if results.state(name).exists():
        model = keras.models.load_model(results.state(name))
        model.jit_compile = None  # this machine's choice: another's runs JAX uncompiled
        # Rounded up: float16's loss scaling now and then skips a step without counting it.
        count = math.ceil(int(model.optimizer.iterations) / settings.steps_per_epoch)
        epochs_before = pd.read_csv(results.history(name))[:count].to_dict("records")
        print(f"{name} goes on after epoch {count}")
    else:
        model, record["encoder_weights"] = new_model(name, settings, samples.has_shares)
        if weights:
            model.load_weights(weights)
    provenance.write_json(results.training_record(name), record)
    _fit(model, epochs_before, folder, results, settings, samples)
    history = pd.read_csv(results.history(name))
    record |= {"finished": True, "seconds": round(history["seconds"].sum(), 1)}
    provenance.write_json(results.training_record(name), record)
    results.state(name).unlink(missing_ok=True)
    return history


def training_key(name: str, folder: SliceFolder, settings: Settings, samples, start=None) -> str:
    """Return a hash of all that determines a training's result: settings, slices and code."""
    fingerprint = provenance.read_json(folder.description).get("fingerprint")
    parts = fingerprint, samples.fingerprint, provenance.code_hash(__name__), start
    return provenance.text_hash(name, settings.decisive, *parts)


def _fit(model, epochs_before: list[dict], folder, results, settings, samples) -> None:
    table = slices.read_table(folder.root)
    validation = slices.load(folder.root, table[table["split"] == "validation"])
    callbacks = [EpochRecord(results, settings, *validation, epochs_before)]
    if settings.batch_norm_slices:  # before the epoch is scored
        callbacks.insert(0, BatchNormStatistics(samples.examples(settings.batch_norm_slices)))
    if importlib.util.find_spec("tensorflow"):  # it writes TensorBoard's files
        logs = results.training(model.name) / "tensorboard"
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    with closing(training_batches(model, samples, len(epochs_before))) as batches:
        model.fit(
            batches,
            steps_per_epoch=settings.steps_per_epoch,
            initial_epoch=len(epochs_before),
            epochs=max(settings.horizons(model.name)),
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )


def new_model(
    name: str, settings: Settings, has_shares: bool = False
) -> tuple[keras.Model, str | None]:
    """Return a compiled network and the start of its encoder: "imagenet", "random" or None.

    It learns label maps or, with `has_shares`, the classes' shares of each pixel.
    """
    options = {"decoder_activation": settings.decoder_activation}
    model, start = None, "random" if name in models.ENCODERS else None
    if start and settings.encoder_weights != "none":
        weights = {"encoder_weights": settings.encoder_weights}
        try:
            model = models.build_model(name, settings.image_size, **options, **weights)
            start = "imagenet"
        except InputError as error:
            if not settings.allow_random_encoder:
                raise
            print(f"{error}\nGoing on with a random encoder; the tables say so.")
    model = model or models.build_model(name, settings.image_size, **options)
    if has_shares:
        loss = keras.losses.CategoricalCrossentropy()
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=IGNORE)
        accuracy = PixelAccuracy(name="accuracy")
    model.compile(optimizer=_new_optimizer(name, settings), loss=loss, metrics=[accuracy])
    model.optimizer.build(model.trainable_variables)  # within `fit`, TensorFlow takes far longer
    return model, start


def _new_optimizer(name: str, settings: Settings) -> keras.optimizers.Optimizer:
    average = {
        "use_ema": settings.weight_average > 0,
        "ema_momentum": settings.weight_average,
        "ema_overwrite_frequency": settings.steps_per_epoch,
    }
    if settings.optimizer == "adadelta":
        rho, epsilon = settings.rho, settings.epsilon
        return keras.optimizers.Adadelta(settings.learning_rate, rho, epsilon, **average)
    steps = max(settings.horizons(name)) * settings.steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    return keras.optimizers.Adam(rate, **average)


def training_batches(model: keras.Model, samples, first_epoch: int) -> Iterator:
    """Yield endless (network input, labels on the output grid) from epoch `first_epoch` on.

    Images are transferred to the device as 8 bits, a quarter of the network input's bytes.
    """

    def on_device() -> Iterator:
        with closing(samples.batches(model.output_shape[1], first_epoch)) as batches:
            for images, labels in batches:
                yield network_input(images), keras.ops.convert_to_tensor(labels)

    return augment.ahead(on_device())


@keras.saving.register_keras_serializable("bonelib")
class PixelAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """Share of pixels whose most probable class is their label, without `IGNORE`."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: labels (batch, row, column), probabilities with classes last."""
        super().update_state(y_true, y_pred, keras.ops.not_equal(y_true, IGNORE))


class EpochRecord(keras.callbacks.Callback):
    """Score the whole validation set after each epoch; save best weights, history and state.

    These are written in this order, each in one step, so that a training killed at any moment
    continues after its last finished epoch as if it had never stopped (Keras'
    BackupAndRestore overwrites its file in place, and knows neither history nor best weights).
    `rows` is the history of the epochs before.
    """

    def __init__(self, results: ResultFolder, settings: Settings, images, labels, rows: list[dict]):
        super().__init__()
        self.results, self.settings = results, settings
        self.images, self.labels, self.rows = images, labels, rows

    def on_train_begin(self, logs=None):
        """Prepare the validation."""
        self.segment = network_segmenter(self.model, channels=self.images.shape[3:])

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Validate, write the files and print the progress."""
        predicted, _ = self.segment(self.images)
        results, settings, name = self.results, self.settings, self.model.name
        # Slice by slice: ten times as fast as all at once, which exceeds the processor's cache.
        counts = sum(
            metrics.confusion_matrix(*pair) for pair in zip(self.labels, predicted, strict=True)
        )
        logs |= validation_scores(counts)
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        row["seconds"] = round(time.perf_counter() - self.started, 2)
        is_best = all(row["val_mean_iou"] > past["val_mean_iou"] for past in self.rows)
        self.rows.append(row)
        for horizon in settings.horizons(name):
            if epoch < horizon and is_best:
                with provenance.replacing(results.best(name, horizon)) as scratch:
                    # A second model with the same layers, without the optimizer's state.
                    keras.Model(self.model.input, self.model.output, name=name).save(scratch)
        with provenance.replacing(results.history(name)) as scratch:
            pd.DataFrame(self.rows).to_csv(scratch, index=False)
        if row["epoch"] < self.params["epochs"]:  # the last epoch leaves nothing to resume
            with provenance.replacing(results.state(name)) as scratch:
                self.model.save(scratch)
        self._print_progress(row)

    def _print_progress(self, row: dict) -> None:
        epochs = self.params["epochs"]
        seconds = np.median([past["seconds"] for past in self.rows])
        left = timedelta(seconds=round(seconds * (epochs - row["epoch"])))
        print(
            f"epoch {row['epoch']:2d}/{epochs}  loss {row['loss']:.4f}  validation: "
            f"accuracy {row['val_accuracy']:.4f}, mean IoU {row['val_mean_iou']:.4f}, "
            f"bone IoU {row['val_iou_bone']:.4f}  {row['seconds']:.0f} s, {left} left",
            flush=True,
        )


def validation_scores(counts: np.ndarray) -> dict[str, float]:
    """Return the scores of pooled validation counts (classes, classes), named as in a history.

    Means are over the classes of the reference, so that they compare between epochs.
    """
    iou, dice = metrics.iou(counts), metrics.dice(counts)
    present = counts.sum(axis=1) > 0
    return {
        "val_accuracy": metrics.overall_accuracy(counts),
        **{f"val_iou_{name}": iou[index] for index, name in enumerate(CLASS_NAMES)},
        "val_mean_iou": iou[present].mean(),
        **{f"val_dice_{name}": dice[index] for index, name in enumerate(CLASS_NAMES)},
        "val_mean_dice": dice[present].mean(),
    }


class TrainingForward(keras.Model):
    """A network's forward pass in training mode, which `predict_on_batch` compiles."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.model = model

    def call(self, images):
        """Return the highest probability of each pixel, so that every layer is computed."""
        return keras.ops.max(self.model(images, training=True), axis=-1)


class BatchNormStatistics(keras.callbacks.Callback):
    """Recompute the batch-norm statistics after each epoch, in place of running averages.

    Each layer gets the statistics of its inputs, averaged over batches of `images` (slice,
    row, column), in a forward pass with the current weights. Source: Wu & Johnson 2021,
    "Rethinking 'Batch' in BatchNorm", section 3.
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
        kind = keras.layers.BatchNormalization
        self.layers = [layer for layer in model.layers if isinstance(layer, kind)]

    def on_epoch_end(self, epoch, logs=None):
        """Replace the running averages."""
        variables = [v for layer in self.layers for v in (layer.moving_mean, layer.moving_variance)]
        momenta = [layer.momentum for layer in self.layers]
        for layer in self.layers:
            layer.momentum = 0.0  # the "running average" is then that of the last batch
        statistics = []
        for batch in self.batches:
            self.forward.predict_on_batch(network_input(batch))
            statistics.append([keras.ops.convert_to_numpy(variable) for variable in variables])
        for variable, values in zip(variables, zip(*statistics, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0))
        for layer, momentum in zip(self.layers, momenta, strict=True):
            layer.momentum = momentum
