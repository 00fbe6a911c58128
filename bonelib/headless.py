"""Prepared slices -> trained and scored networks, on a machine without notebooks.

    timeout 50m python -m bonelib.headless SLICES RESULTS --models unet segnet --at-once 2

Names a network, or one of the trainings of `run_all.py --ablations`, such as unet-own-1 or
unet-no_augmentation-0. Finished trainings are skipped, and stopped ones continue after their last
finished epoch, here and in run_all.py. Needs Keras, JAX or TensorFlow, and imgaug, but no package
that reads scans and no Jupyter.
"""

import importlib.util
import io
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import wait
from pathlib import Path

from bonelib import errors, provenance
from bonelib.devices import num_cores
from bonelib.evaluation import variants
from bonelib.evaluation.variants import Training
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
DONE, FAILED, INTERRUPTED = 0, 1, 130  # and 2 for bad input

# Defaults: variables that are set already stay.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the device
    # Compiled code is shared between processes.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # XLA's own cache of kernels is one file, which simultaneous writers corrupt.
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


class Prefixed(io.TextIOBase):
    """A text stream that prints each line that is written to it, after a name.

    With `seconds` it prints progress bars alone, and at most one line in that time.
    """

    def __init__(self, name: str, seconds: float = 0.0, show: Callable = print):
        self.name, self.seconds, self.show = name, seconds, show
        self.stream, self.printed = sys.stdout, time.monotonic()

    def write(self, text: str) -> int:
        """Print the lines of `text`."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if self.seconds:
            is_due = time.monotonic() - self.printed >= self.seconds
            lines = [line for line in lines if "%|" in line][-1:] if is_due else []
        for line in lines:
            self.printed = time.monotonic()
            self.show(f"    {self.name} | {line}", file=self.stream, flush=True)
        return len(text)


def perform(training: Training, folder: SliceFolder, own: ResultFolder, settings: Settings) -> None:
    """Train and evaluate in this process."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # cleans up
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    settings = replaced(settings, training.overrides(settings))
    given = training.model, folder, training.results(own), settings
    with redirect_stdout(Prefixed(training.name)) as out, redirect_stderr(out):
        from bonelib.evaluation.evaluate import evaluate
        from bonelib.training import train

        train(*given)
        print("training is finished", flush=True)
        evaluate(*given)


def run(trainings: list[Training], given: tuple, at_once: int) -> list[str]:
    """Perform trainings in order, `at_once` at a time; return the names of those that failed.

    `given` are the other arguments of `perform`.
    """
    context = multiprocessing.get_context("spawn")
    failed, waiting, running = [], deque(trainings), {}
    try:
        while running or waiting:
            while waiting and len(running) < at_once:
                one = waiting.popleft()
                process = context.Process(target=perform, args=(one, *given), name=one.name)
                process.start()
                running[process.sentinel] = process
            for sentinel in wait(running):
                process = running.pop(sentinel)
                process.join()
                failed += [process.name] if process.exitcode else []
                print(f"{process.name}: {'failed' if process.exitcode else 'done'}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        last = time.monotonic() + GRACE_SECONDS
        for process in running.values():
            process.join(max(last - time.monotonic(), 0))
            process.kill()
            process.join()
    return failed


def write_manifest(
    models: set[str], folder: SliceFolder, results: ResultFolder, settings: Settings
) -> None:
    """Write the manifest of the results, or add `models` to it."""
    described, manifest = map(provenance.read_json, (folder.description, results.manifest))
    every = [name for name in MODEL_NAMES if name in models | {*manifest.get("models", [])}]
    dataset = described.get("dataset", folder.root.name)
    manifest |= provenance.manifest(settings, dataset, every)
    manifest["dataset_fingerprint"] = described.get("fingerprint")
    provenance.write_json(results.manifest, manifest)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    summary, _, details = __doc__.partition("\n\n")
    parser = errors.Parser("bonelib.headless", description=summary, epilog=details)
    add = parser.add_argument
    add("slices", type=Path, help="a folder of prepared slices")
    add("results", type=Path, help="the folder of results")
    add("--profile", default="paper", choices=PROFILES, metavar="NAME", help=", ".join(PROFILES))
    add(
        "--models", nargs="+", default=list(MODEL_NAMES), metavar="NAME", help="trainings, in order"
    )
    add("--at-once", type=int, default=1, metavar="N", help="trainings on one device")
    add("--set", nargs="+", default=[], metavar="SETTING=VALUE")
    options = parser.parse_args(arguments)
    folder, results = SliceFolder(options.slices.resolve()), ResultFolder(options.results.resolve())
    at_once = max(options.at_once, 1)
    try:
        settings = get_settings(options.profile, parse_overrides(options.set))
        known = variants.trainings(settings, MODEL_NAMES)
        if unknown := [name for name in options.models if name not in known]:
            raise ValueError(errors.unknown("training", unknown[0], known))
        read_table(folder.root)
    except ValueError as error:  # InputError is one
        return errors.fail("bonelib.headless", error)
    environment = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(results.compiled)}
    if importlib.util.find_spec("tensorflow") is None:
        environment["KERAS_BACKEND"] = "jax"
    os.environ |= environment | dict(os.environ)
    trainings = [known[name] for name in dict.fromkeys(options.models)]
    write_manifest({training.model for training in trainings}, folder, results, settings)
    workers = max(num_cores() // at_once - 1, 1)
    sharing = {"loader_workers": workers} if settings.loader_workers < 0 else {}
    given = folder, results, replaced(settings, sharing)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        failed = run(trainings, given, at_once)
    except KeyboardInterrupt:
        print("Stopped; run the same command again to continue.", flush=True)
        return INTERRUPTED
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())
