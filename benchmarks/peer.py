"""Time one training image of U-net: the library that the paper used, and bonelib.

    pip install --target PEER --no-deps keras-segmentation==0.3.0 tf_keras
    python benchmarks/peer.py PEER

Each side trains on the same 192 x 192 slices, batch 2, fed by its own loader with its own imgaug
augmentation, one side after the other in a process of its own. The library was written for
Keras 2, which `tf_keras` provides on today's TensorFlow.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from bonelib import provenance
from bonelib.paths import SliceFolder
from bonelib.settings import NUM_CLASSES, Settings, get_settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # in the child processes, too

PEER = "keras-segmentation"
SETTINGS = get_settings(
    "paper",
    {
        "image_size": 192,
        "field_of_view_mm": 300.0,  # 1.5625 mm pixels, as in the paper
        "phantom_matrix": 192,
        "phantom_slice_distance_mm": 25.0,
        "encoder_weights": "none",
    },
)
EPOCHS = 5  # after a first one, in which the graph is compiled


def apart(measure, *arguments):
    """Return what `measure` returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def clocks() -> tuple[float, float]:
    """Return the time, and the processor time of this process and its loaders, in seconds."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return time.perf_counter(), sum(part.user + part.system for part in times)


def seconds_an_image(model, batches, callback_class, steps: int) -> np.ndarray:
    """Return what `fit` takes for one image in each epoch: seconds, seconds of a core."""
    starts = []

    class Clock(callback_class):
        def on_epoch_begin(self, epoch, logs=None):
            starts.append(clocks())

        def on_train_end(self, logs=None):
            starts.append(clocks())

    model.fit(
        batches, steps_per_epoch=steps, epochs=1 + EPOCHS, callbacks=[Clock()], verbose=0,
        shuffle=False,
    )  # fmt: skip
    return np.diff(starts, axis=0)[1:] / (steps * SETTINGS.batch_size)


def peer_seconds(site: Path, folder: Path, steps: int) -> np.ndarray:
    """Time the library's own network, loader and augmentation, compiled as its `train` does."""
    sys.path.insert(0, str(site))
    import tf_keras

    sys.modules["keras"] = tf_keras
    import bonelib.augment  # noqa: F401 imports imgaug with the names that NumPy 2 removed

    np.complex = complex  # noqa: NPY001 imgaug's frequency noise asks for it while it draws
    from keras_segmentation.data_utils.data_loader import image_segmentation_generator
    from keras_segmentation.models.unet import unet

    size, classes = SETTINGS.image_size, NUM_CLASSES
    tf_keras.utils.set_random_seed(SETTINGS.seed)
    random.seed(SETTINGS.seed)
    model = unet(classes, size, size)
    model.compile(loss="categorical_crossentropy", optimizer="adadelta", metrics=["accuracy"])
    batches = image_segmentation_generator(
        f"{folder / 'images'}/", f"{folder / 'labels'}/", SETTINGS.batch_size, classes,
        size, size, model.output_height, model.output_width, do_augment=True,
    )  # fmt: skip
    return seconds_an_image(model, batches, tf_keras.callbacks.Callback, steps)


def our_seconds(folder: Path, steps: int, settings: Settings) -> np.ndarray:
    """Time bonelib's network and loader."""
    import keras

    from bonelib import devices, training

    devices.prepare_keras(settings)
    keras.utils.set_random_seed(settings.seed)
    model, _ = training.new_model("unet", settings)
    samples = training.AugmentedSlices(SliceFolder(folder), settings)
    batches = training.training_batches(model, samples, 0)
    found = seconds_an_image(model, batches, keras.callbacks.Callback, steps)
    batches.close()
    return found


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("peer", type=Path, help="folder that holds keras_segmentation and tf_keras")
    parser.add_argument("--steps", type=int, default=20, help="training steps per epoch")
    options = parser.parse_args()
    from bonelib import datasets, devices, preparation

    with tempfile.TemporaryDirectory() as work:
        folder, cores = Path(work, "prepared"), devices.num_cores()
        cases = datasets.find_cases("phantom", Path(work, "ct"), SETTINGS, cores)
        preparation.prepare(cases, folder, SETTINGS, cores)
        rows = {PEER: apart(peer_seconds, options.peer.resolve(), folder, options.steps)}
        for precision in dict.fromkeys(("float32", devices.fastest_precision())):
            settings = replace(SETTINGS, precision=precision)
            rows[f"bonelib, {precision}"] = apart(our_seconds, folder, options.steps, settings)
    medians = {name: np.median(seconds, axis=0) for name, seconds in rows.items()}
    columns = ["seconds an image", "seconds of a core an image"]
    table = pd.DataFrame.from_dict(medians, orient="index", columns=columns)
    for column in columns:  # a busy machine changes the second less
        table[f"{column}, times as fast"] = table[column].iloc[0] / table[column]
    found = itertools.chain.from_iterable(
        metadata.distributions(name=name, path=[str(options.peer)]) for name in (PEER, "tf_keras")
    )
    versions = [f"{one.name} {one.version}" for one in found]
    ours = provenance.versions()
    versions += [f"{name} {ours[name]}" for name in ("tensorflow", "keras", "imgaug", "numpy")]
    print(f"{date.today()}, {cores} cores, load {os.getloadavg()[0]:.1f}; {', '.join(versions)}\n")
    print(table.to_markdown(floatfmt=".3f"))


if __name__ == "__main__":
    main()
