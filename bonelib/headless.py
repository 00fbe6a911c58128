"""Prepared slices -> trained and scored networks, on a machine without notebooks.

    python -m bonelib.headless SLICES RESULTS --models unet segnet --at-once 2 --minutes 50

A job is a network, or a network with the settings of one of `bonelib.evaluation.variants`, such
as `unet:replicate=1` or `unet:augment=none`. Finished jobs are skipped, and a training continues
after its last finished epoch, here and in run_all.py. Needs Keras, JAX or TensorFlow, and
imgaug, but no package that reads scans and no Jupyter.
"""

import importlib.util
import io
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path

from bonelib import errors, provenance
from bonelib.devices import num_cores
from bonelib.evaluation import variants
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import (
    MODEL_NAMES,
    PROFILES,
    Settings,
    get_settings,
    parse_overrides,
    replaced,
)
from bonelib.slices import read_table

GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL

# Exit codes.
DONE, FAILED, TIME_IS_UP, INTERRUPTED = 0, 1, 3, 130  # and 2 for bad input

# Defaults: variables that are set already stay.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the device
    # Compiled code is shared between processes.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # XLA's own cache of kernels is one file, which simultaneous writers corrupt.
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


@dataclass(frozen=True)
class Job:
    """One training and its evaluation."""

    name: str
    model: str
    folder: SliceFolder
    results: ResultFolder
    settings: Settings
    horizons: tuple[int, ...] = ()  # epoch counts to evaluate; default: all


class Prefixed(io.TextIOBase):
    """A text stream that prints complete lines, each after a name."""

    def __init__(self, name: str):
        self.name, self.rest, self.stream = name, "", sys.stdout

    def write(self, text: str) -> int:
        """Print the complete lines; of a progress bar, only its last state."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            line = line.rpartition("\r")[2]
            self.stream.write(f"{self.name} | {line}\n" if line.strip() else "")
        self.stream.flush()
        return len(text)


def perform(job: Job) -> None:
    """Train and evaluate in this process."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # cleans up
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    with redirect_stdout(Prefixed(job.name)) as out, redirect_stderr(out):
        from bonelib import training
        from bonelib.evaluation import evaluate

        training.train(job.model, job.folder, job.results, job.settings)
        print("training is finished", flush=True)
        evaluate.evaluate(job.model, job.folder, job.results, job.settings, job.horizons)


def parse_job(text: str, own: ResultFolder, folder: SliceFolder, settings: Settings) -> Job:
    """Return the job that MODEL or MODEL:SETTING=VALUE,… names; raises ValueError."""
    model, _, changes = text.partition(":")
    if model not in MODEL_NAMES:
        raise ValueError(errors.unknown("model", model, MODEL_NAMES))
    overrides = parse_overrides(changes.split(",") if changes else [])
    training = variants.find(model, overrides, settings)
    changed = replaced(settings, training.overrides(settings))
    horizons = () if training.is_own else (settings.epochs_long,)
    return Job(text, model, folder, training.results(own), changed, horizons)


def run(jobs: list[Job], at_once: int, seconds: float) -> dict[str, str]:
    """Run jobs in order, `at_once` at a time, until the time is up; return the state of each."""
    context = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + seconds
    states, waiting, running = {job.name: "waiting" for job in jobs}, deque(jobs), {}
    try:
        while running or waiting:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                process = context.Process(target=perform, args=(job,), name=job.name)
                process.start()
                running[process.sentinel] = process
                states[job.name] = "stopped"  # unless it ends in time
            left = None if seconds == float("inf") else max(deadline - time.monotonic(), 0)
            if not (ended := wait(running, left)):
                break
            for sentinel in ended:
                process = running.pop(sentinel)
                process.join()
                states[process.name] = "failed" if process.exitcode else "done"
                print(f"{process.name}: {states[process.name]}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        last = time.monotonic() + GRACE_SECONDS
        for process in running.values():
            process.join(max(last - time.monotonic(), 0))
            process.kill()
            process.join()
    return states


def _manifest(results: ResultFolder, jobs: list[Job], settings: Settings) -> dict:
    """Return the manifest of the results, updated for this run."""
    described = provenance.read_json(jobs[0].folder.description)
    manifest = provenance.read_json(results.manifest)
    trained = {job.model for job in jobs} | {*manifest.get("models", [])}
    return manifest | provenance.circumstances() | {
        "profile": settings.profile,
        "dataset": described.get("dataset", jobs[0].folder.root.name),
        "models": [name for name in MODEL_NAMES if name in trained],
        "seed": settings.seed,
        "settings": asdict(settings),
        "dataset_fingerprint": described.get("fingerprint"),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    summary, _, details = __doc__.partition("\n\n")
    parser = errors.Parser("bonelib.headless", description=summary, epilog=details)
    add = parser.add_argument
    add("slices", type=Path, help="a folder of prepared slices")
    add("results", type=Path, help="the folder of results")
    add("--profile", default="paper", choices=PROFILES, metavar="NAME", help=", ".join(PROFILES))
    add("--models", nargs="+", default=list(MODEL_NAMES), metavar="JOB")
    add("--at-once", type=int, default=1, metavar="N", help="jobs on one device")
    add("--minutes", type=float, default=float("inf"), help="time limit")
    add("--set", nargs="+", default=[], metavar="SETTING=VALUE")
    options = parser.parse_args(arguments)
    folder, results = SliceFolder(options.slices.resolve()), ResultFolder(options.results.resolve())
    at_once = max(options.at_once, 1)
    try:
        settings = get_settings(options.profile, parse_overrides(options.set))
        workers = max(num_cores() // at_once - 1, 1)
        sharing = {"loader_workers": workers} if settings.loader_workers < 0 else {}
        jobs = [
            parse_job(text, results, folder, replaced(settings, sharing))
            for text in dict.fromkeys(options.models)
        ]
        read_table(folder.root)
    except ValueError as error:  # InputError is one
        return errors.fail("bonelib.headless", error)
    environment = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(results.compiled)}
    if importlib.util.find_spec("tensorflow") is None:
        environment["KERAS_BACKEND"] = "jax"
    os.environ |= environment | dict(os.environ)
    provenance.write_json(results.manifest, _manifest(results, jobs, settings))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        states = run(jobs, at_once, 60 * options.minutes)
    except KeyboardInterrupt:
        print("Stopped; run the same command again to continue.", flush=True)
        return INTERRUPTED
    left = [f"{name} ({state})" for name, state in states.items() if state != "done"]
    print(f"left: {', '.join(left)}" if left else "all done")
    if "failed" in states.values():
        return FAILED
    return TIME_IS_UP if left else DONE


if __name__ == "__main__":
    sys.exit(main())
