"""A name, or a file of weights -> a trained network, in this process or in one of its own.

A process of its own takes the memory of Keras and TensorFlow, a gigabyte, with it when it ends;
so this module imports them only in functions, and little else.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from bonelib import devices, provenance, without_stderr
from bonelib.errors import InputError
from bonelib.paths import WEIGHTS, ResultFolder
from bonelib.settings import BONE, NOT_SHIPPED, NUM_CLASSES, PRETRAINING, SHIPPED_MODEL, Settings

TRAINING_RECORD = "training.json"  # written beside the weights by a training

Predictor = Callable[[Iterator[np.ndarray]], Iterator[tuple[np.ndarray, dict[str, str]]]]


@dataclass(frozen=True)
class Network:
    """Trained weights, with the intensity window and pixel size that they were trained for."""

    name: str
    weights: Path
    settings: Settings
    note: str = ""  # what had to be assumed

    def sized(self, rows: int, columns: int):
        """Return the Keras model for slices of (rows, columns), multiples of 32.

        Raises InputError if the file holds the weights of another network.
        """
        from bonelib import models

        model = models.build_model(
            self.name,
            (rows, columns),
            decoder_activation=self.settings.decoder_activation,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # Keras warns of layers not loaded
                model.load_weights(self.weights)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            raise InputError(
                f"{self.weights}: holds no weights of the network '{self.name}' for "
                f"{NUM_CLASSES} classes; name the network they belong to"
            ) from error
        return model


def find_network(name: str = SHIPPED_MODEL, weights: Path | None = None) -> Network:
    """Return network `name` with the shipped weights, or with those of a file.

    The settings come from the training record beside the file, else they are those of the
    shipped weights. Raises InputError if there are no such weights.
    """
    settings = PRETRAINING
    if name != SHIPPED_MODEL:  # the paper's networks see single slices
        settings = replace(settings, neighbour_mm=0.0)
    if weights is None:
        if name != SHIPPED_MODEL:
            raise InputError(
                f"{NOT_SHIPPED.format(name)}; train it and give its best_of_<epochs>.keras "
                "as weights"
            )
        return Network(name, WEIGHTS / f"{name}.keras", settings)
    if not weights.is_file():
        raise InputError(f"{weights}: there is no such file; check the path of the weights")
    record = provenance.read_json(weights.parent / TRAINING_RECORD)
    if "settings" in record:
        # Older records hold settings that are no more, and prediction needs none of them.
        known = {setting.name for setting in fields(Settings)} - {"augment"}
        kept = {key: value for key, value in record["settings"].items() if key in known}
        return Network(name, weights, Settings(**kept))
    note = (
        f"there is no {TRAINING_RECORD} beside the weights, so the window and the pixel size of "
        f"{PRETRAINING.pixel_spacing_mm:g} mm of the shipped weights are assumed"
    )
    return Network(name, weights, settings, note)


def network_of_run(name: str | None, results: ResultFolder, settings: Settings) -> Network:
    """Return a run's network after its longest training, at its best epoch; None: the shipped."""
    if name is None:
        return find_network()
    return find_network(name, results.best(name, max(settings.horizons(name))))


@contextmanager
def predictor(network: Network, apart: bool = False) -> Iterator[Predictor]:
    """Yield a function: arrays of slices, all of one size -> the margins of each array.

    A margin, float32 (slice, row, column), is the probability of bone minus that of the
    likeliest other class. Beside it stand Keras' precision and backend. With `apart` the
    network runs in a process of its own, which starts at once.
    """
    _load.cache_clear()  # the file may hold other weights by now
    compute = partial(_margins, network)
    if not apart:
        yield partial(map, compute)
        return
    with devices.processes(1) as executor:
        executor.submit(_import_keras)
        yield partial(devices.computed, executor, compute, ahead=devices.JOBS_AHEAD)


@without_stderr()  # TensorFlow's greeting
def _import_keras() -> None:
    import keras  # noqa: F401


@lru_cache(maxsize=1)
def _load(network: Network, rows: int, columns: int):
    _import_keras()
    devices.prepare_keras(network.settings)
    return network.sized(rows, columns)


def _margins(network: Network, images: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    model = _load(network, *images.shape[1:3])
    import keras

    from bonelib.prediction import network_input, predict

    batches = [np.asarray(part)[:count] for part, count in predict(model, images, network_input)]
    probabilities = np.concatenate(batches).astype(np.float32)
    bone = probabilities[..., BONE:].sum(axis=-1)  # of all classes of bone
    computed = {"precision": keras.config.dtype_policy().name, "backend": keras.backend.backend()}
    return bone - probabilities[..., :BONE].max(axis=-1), computed
