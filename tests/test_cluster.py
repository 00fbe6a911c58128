"""Notebooks on a scheduler and workers in processes of their own, of which one is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from bonelib import provenance
from bonelib.errors import InputError
from bonelib.paths import REPOSITORY, ResultFolder
from bonelib.workflow import cluster, driver, steps
from bonelib.workflow.runs import open_run

TRAINING = "03_train_model-unet"
OVERRIDES = {"epochs": 1, "epochs_long": 3, "steps_per_epoch": 10, "image_size": 32}


def wait_for(condition, seconds=400.0):
    """Wait until a condition holds and return what it gave; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


class Processes:
    """A scheduler and workers, each a process, which find each other by a file."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.all = folder, folder / "scheduler.json", {}
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = wait_for(self._address)

    def _start(self, kind, *options):
        name = options[options.index("--name") + 1] if "--name" in options else kind
        with (self.folder / f"{name}.log").open("w") as log:
            self.all[name] = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options,
                 "--scheduler-file", str(self.file)],
                stdout=log, stderr=log,
            )  # fmt: skip

    def _address(self):
        try:
            return json.loads(self.file.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def add_worker(self, name, *options):
        """Start a worker and wait until the scheduler knows it."""
        self._start(
            "worker", "--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--local-directory", str(self.folder), *options,
        )  # fmt: skip
        with Client(self.address) as client:
            wait_for(lambda: f"'name': '{name}'" in str(client.scheduler_info(n_workers=-1)))

    def kernels(self, notebook: str) -> list[tuple[str, psutil.Process]]:
        """Return the kernels that run a notebook, each with its worker's name."""
        return [
            (name, child)
            for name, process in self.all.items()
            for child in psutil.Process(process.pid).children()
            if steps.kernel_mark(notebook) in child.cmdline()
        ]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """A scheduler and two workers, one of them with a GPU."""
    started = Processes(tmp_path_factory.mktemp("cluster"))
    started.add_worker("plain")
    started.add_worker("gpu", "--resources", "GPU=1")
    yield started
    for process in started.all.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def disturbed(processes, small_scans, tmp_path_factory):
    """A run of which the worker that trains is killed after the first epoch."""
    results = ResultFolder(tmp_path_factory.mktemp("disturbed") / "results")
    run = open_run("smoke", "folder", str(small_scans), str(results.root), OVERRIDES)
    planned = steps.Plan(run, ["unet"], OVERRIDES).steps()
    chosen = [step for step in planned if step.name.startswith(("01", "03", "04", "05"))]
    driven = driver.Driver(run, ["unet"], chosen, 0, processes.address)
    succeeded = []
    thread = threading.Thread(target=lambda: succeeded.append(driven.start()))
    thread.start()
    wait_for(lambda: not thread.is_alive() or results.state("unet").exists())
    ((killed, kernel),) = processes.kernels(TRAINING)
    processes.all[killed].send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([kernel], timeout=10)
    processes.add_worker("another_gpu", "--resources", "GPU=1")
    thread.join(timeout=300)
    return results, succeeded, killed, alive


def test_a_run_goes_on_when_the_worker_that_trains_is_killed(disturbed):
    results, succeeded, killed, alive = disturbed
    assert succeeded == [True]
    assert killed == "gpu"
    assert not alive, "a killed worker takes its kernel with it"
    assert "unet goes on after epoch" in results.notebook(TRAINING).read_text()
    notebooks = provenance.read_json(results.manifest)["notebooks"]
    assert {record["status"] for record in notebooks.values()} == {"done"}
    networks = (TRAINING, "04_evaluate_model-unet")  # they wait for a card
    assert {notebooks[name]["worker"] for name in networks} == {"another_gpu"}
    assert (results.tables / "table1.csv").exists()


def test_ctrl_c_at_the_driver_ends_the_kernels_of_its_workers(processes, small_scans, tmp_path):
    output = tmp_path / "output"
    with output.open("w") as file:
        run = subprocess.Popen(
            [sys.executable, "-u", str(REPOSITORY / "run_all.py"), "--profile", "smoke",
             "--dataset", "folder", "--data", str(small_scans), "--models", "unet",
             "--results", str(tmp_path / "results"), "--scheduler", processes.address],
            stdout=file, stderr=file,
            # A shell's background job, which these tests may be, ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    kernels = wait_for(lambda: processes.kernels("01_prepare_data"))
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 130, output.read_text()
    _, alive = psutil.wait_procs([kernel for _, kernel in kernels], timeout=20)
    assert not alive
    assert "goes on where it was" in output.read_text()


def perform(client, work, *arguments, inputs=()):
    return cluster.perform(client, partial(work, *arguments), "work", list(inputs), [], True)


def die():
    os._exit(1)


def test_work_that_kills_its_workers_ends_in_one_line():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local) as client,
        pytest.raises(RuntimeError, match="1 workers died while they ran or held it") as caught,
    ):
        perform(client, die)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def threads():
    """A client of a cluster within this process."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        yield client


def test_a_worker_waits_for_files_and_another_disk_or_version_is_named(
    threads, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "DISK_SECONDS", 0.0)
    with pytest.raises(InputError, match="worker .* does not see .*nothing: .*same disk"):
        perform(threads, print, inputs=[tmp_path / "nothing"])
    monkeypatch.setattr(cluster, "DISK_SECONDS", 10.0)
    late = tmp_path / "late"
    threading.Timer(0.3, late.touch).start()
    record = perform(threads, print, 1, inputs=[late])
    assert late.exists() and set(record) == {"worker", "seconds"}
    hashes = iter(["here", "there"])
    monkeypatch.setattr(cluster, "package_hash", lambda: next(hashes))
    with pytest.raises(InputError, match="worker .* has another version of bonelib"):
        perform(threads, print)
