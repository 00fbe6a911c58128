"""The same numbers by JAX as by TensorFlow, on one device and on several, without TensorFlow."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from bonelib import devices, provenance
from bonelib.models import build_model
from bonelib.paths import REPOSITORY, ResultFolder, SliceFolder
from bonelib.settings import get_settings
from tests.synthetic_results import ellipses, write_slices

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is absent: pip install 'bonelib[jax]'"
)

# A training of few steps, the same by every backend: no augmentation, given weights.
OVERRIDES = {
    "batch_size": 4, "steps_per_epoch": 3, "epochs": 1, "epochs_long": 3, "augment": "none",
    "precision": "float32",
}  # fmt: skip
SCORES = ["loss", "accuracy", "val_accuracy", "val_mean_iou"]
# Sums of 16-bit products in another order: what three steps of Adadelta make of that.
TOLERANCE = {"rtol": 5e-3, "atol": 5e-3}

TRAIN = """
import json, sys
from pathlib import Path
from bonelib import training
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import get_settings
if __name__ == "__main__":
    root, *runs = sys.argv[1:]
    for run in map(json.loads, runs):
        settings = get_settings("smoke", run["settings"])
        results = ResultFolder(Path(root, run["results"]))
        start = Path(root, "start.keras")
        training.train("unet", SliceFolder(Path(root, "slices")), results, settings, start=start)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of slices, the weights that trainings start from and the compiler's cache."""
    root = tmp_path_factory.mktemp("backends")
    volumes = {name: (name, ellipses(64)) for name in ("train", "validation", "test")}
    write_slices(root / "slices", volumes, (5.0, 7.5, 7.5))
    provenance.write_json(SliceFolder(root / "slices").description, {"fingerprint": "made"})
    keras.utils.set_random_seed(3)
    build_model("unet", 64).save(root / "start.keras")
    return root


def environment(root, backend, **extra):
    path = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join(path), "KERAS_BACKEND": backend,
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        # Compilation is what takes time here, not arithmetic.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 "
        "--xla_backend_optimization_level=0",
        **extra,
    }  # fmt: skip


def python(root, backend, code, *arguments, **extra):
    """Run `code` under a backend and return what it printed."""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(root, backend, **extra), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def command(results, **changes):
    return json.dumps({"results": results, "settings": OVERRIDES | changes})


def history(root, results):
    return pd.read_csv(ResultFolder(root / results).history("unet"))


@pytest.fixture(scope="module")
def by_jax(root):
    """Trainings by JAX on one device and on several, and in 16 bits."""
    runs = [command(f"devices{count}", devices=count) for count in (1, 2, 0)]
    python(root, "jax", TRAIN, root, *runs, command("bfloat16", precision="mixed_bfloat16"))
    return root


def test_the_tests_of_networks_and_training_pass_by_jax(root):
    chosen = [
        "tests/test_models.py::test_training_steps_reduce_the_loss_and_change_every_weight[unet]",
        "tests/test_models.py::test_a_saved_model_predicts_the_same[pspnet]",
        "tests/test_training.py::test_batch_norm_statistics_are_those_of_the_images",
        "tests/test_training.py::test_an_epoch_ends_with_the_average_of_its_weights",
        "tests/test_prediction.py",
        "tests/test_trained.py",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
        env=environment(root, "jax"), cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]


PROBABILITIES = """
import sys
import numpy as np
from bonelib import models, slices
network = models.load_pretrained("unet", 96)
images = np.random.default_rng(0).integers(0, 256, (2, 96, 96), dtype=np.uint8)
np.save(sys.argv[1], network.predict_on_batch(slices.network_input(images)))
"""


def test_the_same_weights_give_the_same_probabilities(root):
    found = []
    for backend in ("tensorflow", "jax"):
        python(root, backend, PROBABILITIES, root / f"{backend}.npy")
        found.append(np.load(root / f"{backend}.npy"))
    assert np.ptp(found[0]) > 0.5
    np.testing.assert_allclose(*found, atol=1e-4)


def test_the_same_training_gives_the_same_losses(by_jax):
    python(by_jax, "tensorflow", TRAIN, by_jax, command("tensorflow"))
    ours, theirs = history(by_jax, "devices1"), history(by_jax, "tensorflow")
    np.testing.assert_allclose(ours[SCORES], theirs[SCORES], **TOLERANCE)
    for name in ("tensorflow", "devices1"):
        record = provenance.read_json(ResultFolder(by_jax / name).training_record("unet"))
        assert record["backend"] == {"devices1": "jax"}.get(name, name)


def test_sixteen_bits_train_as_well(by_jax):
    ours, full = history(by_jax, "bfloat16").iloc[-1], history(by_jax, "devices1").iloc[-1]
    assert ours["val_mean_iou"] > 0.5
    assert ours["val_mean_iou"] == pytest.approx(full["val_mean_iou"], abs=0.1)
    assert ours["loss"] == pytest.approx(full["loss"], abs=0.1)


@pytest.mark.parametrize("devices", [2, 0])
def test_devices_that_share_batches_train_as_one(by_jax, devices):
    ours, one = history(by_jax, f"devices{devices}"), history(by_jax, "devices1")
    np.testing.assert_allclose(ours[SCORES], one[SCORES], **TOLERANCE)
    record = provenance.read_json(
        ResultFolder(by_jax / f"devices{devices}").training_record("unet")
    )
    assert record["devices"] == (devices or 4)


def test_a_shared_training_that_is_killed_goes_on(by_jax):
    arguments = [sys.executable, "-c", TRAIN, str(by_jax), command("killed", devices=2)]
    with subprocess.Popen(
        arguments, env=environment(by_jax, "jax"), stdout=subprocess.PIPE, text=True
    ) as run:
        for line in run.stdout:
            if line.startswith("epoch  1"):
                break
        run.send_signal(signal.SIGKILL)
    assert ResultFolder(by_jax / "killed").state("unet").exists()
    assert "goes on after epoch 1" in python(by_jax, "jax", *arguments[2:])
    ours, uninterrupted = history(by_jax, "killed"), history(by_jax, "devices2")
    np.testing.assert_allclose(ours[SCORES], uninterrupted[SCORES], rtol=1e-5, atol=1e-5)


IMPORTS = """
import importlib, pkgutil, bonelib
for module in pkgutil.walk_packages(bonelib.__path__, "bonelib."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_imports_without_tensorflow(root, tmp_path):
    """An entry None in sys.modules makes a package look as if it were not installed."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorflow'] = None\n")
    path = os.pathsep.join([str(tmp_path), environment(root, "jax")["PYTHONPATH"]])
    python(root, "jax", IMPORTS, PYTHONPATH=path)


def test_only_jax_shares_batches(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="set KERAS_BACKEND=jax") as caught:
        devices.num_devices(get_settings("paper", {"devices": 2}))
    assert "\n" not in str(caught.value)
