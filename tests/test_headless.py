"""Training and evaluation from prepared slices alone, on a machine with little else than JAX."""

import os
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest

from bonelib import headless, provenance
from bonelib.evaluation import variants
from bonelib.paths import REPOSITORY, ResultFolder
from bonelib.settings import get_settings
from bonelib.workflow import runs
from tests.synthetic_results import ellipses, write_slices

pytestmark = pytest.mark.skipif(
    not provenance.versions().get("jax"), reason="JAX is absent: pip install 'bonelib[jax]'"
)

# Packages that a machine for training may lack; None in sys.modules refuses their import.
ABSENT = (
    "tensorflow", "SimpleITK", "pydicom", "highdicom", "pylibjpeg", "trimesh", "shapely",
    "jupyter", "IPython", "ipywidgets", "papermill", "nbformat", "jupytext", "doit", "dask",
    "distributed", "statsmodels", "yaml",
)  # fmt: skip
SMALL = {
    "image_size": 32, "steps_per_epoch": 2, "batch_size": 2, "epochs": 1, "epochs_long": 3,
    "batch_norm_slices": 0, "loader_workers": 1,
}  # fmt: skip
JOBS = ["unet", "unet-own-1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of slices, the compiler's cache, and a module that hides packages."""
    root = tmp_path_factory.mktemp("headless")
    volumes = {name: (name, ellipses(32, 4)) for name in ("train", "validation", "test")}
    write_slices(root / "slices", volumes, (5.0, 15.0, 15.0))
    lines = [f"sys.modules[{name!r}] = None" for name in ABSENT]
    (root / "sitecustomize.py").write_text("\n".join(["import sys", *lines]))
    return root


def start(root, results, *options, models=JOBS):
    """Start the command without the absent packages."""
    path = [str(root), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(path),
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-m", "bonelib.headless", str(root / "slices"), str(results)]
    command += ["--profile", "smoke", "--models", *models, *options]
    command += ["--set", *(f"{name}={value}" for name, value in SMALL.items())]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def stopped(root):
    """Results of a training that is stopped after its first epoch, and its processes."""
    with start(root, root / "results", models=["unet"]) as run:
        for line in run.stdout:
            if "epoch  1/3" in line:
                break
        children = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGTERM)
        run.stdout.read()
    return ResultFolder(root / "results"), run.returncode, children


def test_a_stopped_run_leaves_no_process(stopped):
    results, code, children = stopped
    assert code == headless.INTERRUPTED
    assert children and not psutil.wait_procs(children, timeout=10)[1]
    assert not list(results.training("unet").glob(".*"))


def test_two_networks_are_trained_and_scored_at_once_and_then_skipped(root, stopped):
    results = stopped[0]
    with start(root, results.root, "--at-once", "2") as run:
        said = run.communicate()[0]
    assert run.returncode == headless.DONE, said
    assert "unet | unet goes on after epoch" in said
    for job in JOBS:
        assert f"{job} | epoch  3/3" in said and f"{job}: done" in said
    first_done = min(said.index(f"{job}: done") for job in JOBS)
    assert max(said.index(f"{job} | epoch") for job in JOBS) < first_done
    settings = get_settings("smoke", SMALL)
    compared = variants.read_ablations(results, settings)
    assert set(compared[["variant", "replicate"]].itertuples(index=False, name=None)) == {
        ("own", 0), ("own", 1),
    }  # fmt: skip
    assert set(pd.read_csv(results.scores("unet"))["epochs"]) == {1, 3}
    run, models, _ = runs.open_kept(results.root, results)
    assert run.settings == settings and models == ["unet"] and run.dataset == "phantom"
    assert provenance.read_json(results.manifest)["dataset_fingerprint"] == "made"
    record = provenance.read_json(results.training_record("unet"))
    assert record["backend"] == "jax" and record["finished"] and "tensorflow" not in record
    files = [results.best("unet", 3), results.scores("unet"), results.prediction("unet", "test", 0)]
    before = [file.stat().st_mtime_ns for file in files]
    with start(root, results.root, models=["unet"]) as again:
        said = again.communicate()[0]
    assert again.returncode == headless.DONE
    assert "trained already" in said and "scored already" in said
    assert [file.stat().st_mtime_ns for file in files] == before


def test_bad_input_is_one_line(root, tmp_path, capsys):
    arguments = [str(root / "slices"), str(tmp_path / "results"), "--models", "unet-own-7"]
    assert headless.main(arguments) == 2
    said = capsys.readouterr().err
    assert "unknown training 'unet-own-7': did you mean 'unet-own-2'?" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "results").exists()
