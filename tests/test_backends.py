"""The same numbers by JAX without TensorFlow as by TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from bonelib import provenance, training
from bonelib.models import build_model
from bonelib.paths import REPOSITORY, ResultFolder, SliceFolder
from bonelib.prediction import network_input
from bonelib.pretrained import find_network
from bonelib.settings import get_settings
from tests.synthetic_results import ellipses, write_slices

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is absent: pip install 'bonelib[jax]'"
)

# A training of few steps, the same by every backend: no augmentation, given weights.
OVERRIDES = {
    "image_size": 32, "batch_size": 4, "steps_per_epoch": 2, "epochs": 1, "epochs_long": 2,
    "augment": "none", "precision": "float32",
}  # fmt: skip
SCORES = ["loss", "accuracy", "val_accuracy", "val_mean_iou"]
# Sums in another order: what a few steps of Adadelta make of the rounding.
TOLERANCE = {"rtol": 5e-3, "atol": 5e-3}

# Imports all modules without TensorFlow, predicts, and trains with a stop in between.
BY_JAX = """
import importlib, json, pkgutil, sys
from pathlib import Path
from unittest import mock

sys.modules["tensorflow"] = None  # as if it were not installed
import keras
import numpy as np
import bonelib
from bonelib import training
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.pretrained import find_network
from bonelib.settings import get_settings

root, overrides, new_model = Path(sys.argv[1]), json.loads(sys.argv[2]), training.new_model
fit = keras.Model.fit

def started(*arguments):
    model, encoder = new_model(*arguments)
    # The state will say so, as that of TensorFlow on a processor does.
    model.compile_from_config(model.get_compile_config() | {"jit_compile": False})
    model.jit_compile = None
    model.load_weights(root / "start.keras")
    return model, encoder

def fit_and_tell(model, *arguments, **options):
    print("compiled:", model.jit_compile)
    return fit(model, *arguments, **options)

def train():
    settings = get_settings("smoke", overrides)
    folder, results = SliceFolder(root / "slices"), ResultFolder(root / "jax")
    with mock.patch.object(training, "new_model", started):
        training.train("unet", folder, results, settings)

if __name__ == "__main__":
    for module in pkgutil.walk_packages(bonelib.__path__, "bonelib."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    network = find_network().sized(96, 96)
    np.save(root / "jax.npy", network.predict_on_batch(np.load(root / "images.npy")))
    stop = {"side_effect": KeyboardInterrupt}  # by then everything of the epoch is written
    try:
        with mock.patch.object(training.EpochRecord, "_print_progress", **stop):
            train()
    except KeyboardInterrupt:
        with mock.patch.object(keras.Model, "fit", fit_and_tell):
            train()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of slices, images, initial weights and the compiler's cache."""
    root = tmp_path_factory.mktemp("backends")
    volumes = {name: (name, ellipses(32)) for name in ("train", "validation", "test")}
    write_slices(root / "slices", volumes, (5.0, 15.0, 15.0))
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96), dtype=np.uint8)
    np.save(root / "images.npy", network_input(images))
    keras.utils.set_random_seed(3)
    build_model("unet", 32).save(root / "start.keras")
    return root


def history(root, results):
    return pd.read_csv(ResultFolder(root / results).history("unet"))[SCORES]


@pytest.fixture(scope="module")
def by_jax(root):
    """The folder with what JAX has computed."""
    path = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path), "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        # Compilation takes most of the time here, not arithmetic.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }  # fmt: skip
    command = [sys.executable, "-c", BY_JAX, root, json.dumps(OVERRIDES)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "goes on after epoch 1\ncompiled: True" in run.stdout
    return root


def test_the_same_weights_give_the_same_probabilities(by_jax):
    keras.config.set_dtype_policy("float32")
    ours = find_network().sized(96, 96).predict_on_batch(np.load(by_jax / "images.npy"))
    assert np.ptp(ours) > 0.5
    np.testing.assert_allclose(ours, np.load(by_jax / "jax.npy"), atol=1e-4)


def test_the_same_training_gives_the_same_losses_stopped_or_not(by_jax, monkeypatch):
    settings, results = get_settings("smoke", OVERRIDES), ResultFolder(by_jax / "tensorflow")
    keras.config.set_dtype_policy("float32")
    model, encoder = training.new_model("unet", settings)
    model.load_weights(by_jax / "start.keras")
    monkeypatch.setattr(training, "new_model", lambda *_: (model, encoder))
    training.train("unet", SliceFolder(by_jax / "slices"), results, settings)
    np.testing.assert_allclose(history(by_jax, "jax"), history(by_jax, "tensorflow"), **TOLERANCE)
    for backend in ("tensorflow", "jax"):
        record = provenance.read_json(ResultFolder(by_jax / backend).training_record("unet"))
        assert record["backend"] == backend
