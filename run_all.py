"""Run every notebook, in order, through papermill; skip what is up to date.

    python run_all.py                                   the paper's protocol, on the phantom
    python run_all.py --profile quick                   the same in minutes, on a CPU
    python run_all.py --dataset folder --data DIR       your own scans (data/README.md)
    python run_all.py --models unet segnet --set epochs=4
    python run_all.py --profile quick --ablations       what the paper leaves open, too
    python run_all.py --scheduler HOST:8786             on a dask cluster (README.md)
    python run_all.py --reference                       tables and report of a run kept here

Killed at any time and started again, it goes on where it was.
"""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil

from bonelib import paths
from bonelib.evaluation.variants import WITHOUT_ENCODER
from bonelib.settings import MODEL_NAMES, parse_overrides
from bonelib.workflow import reference, runs
from bonelib.workflow.driver import Driver

REFERENCE = paths.RESULTS / "reference"
REBUILT = paths.RESULTS / "from-reference"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        """Leave with exit code 2."""
        sys.exit(fail(message))


def fail(message: str) -> int:
    """Say in one line what is wrong and return the exit code of bad input."""
    print(f"run_all.py: {message}", file=sys.stderr)
    return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    summary, _, details = __doc__.partition("\n\n")
    parser = Parser(
        description=summary, epilog=details, formatter_class=argparse.RawTextHelpFormatter
    )
    runs.add_options(parser)
    parser.add_argument(
        "--models", nargs="+", default=list(MODEL_NAMES), choices=MODEL_NAMES, metavar="NAME",
        help=", ".join(MODEL_NAMES),
    )  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="notebooks at the same time")
    parser.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="a dask cluster's, all on one disk"
    )
    parser.add_argument(
        "--ablations", action="store_true", help="train variants, too, and compare them"
    )
    parser.add_argument(
        "--reference", nargs="?", const=str(REFERENCE), default="", metavar="DIR",
        help="tables, curves and report from kept scores (default: results/reference)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="run what is up to date, too")
    parser.add_argument("--list", action="store_true", help="say what would run, and stop")
    return parser.parse_args(arguments)


def running(options: argparse.Namespace) -> Driver:
    """Return the driver of what the options name; raises ValueError for what cannot be run."""
    if options.ablations and WITHOUT_ENCODER not in options.models:
        raise ValueError(f"--ablations compares trainings of {WITHOUT_ENCODER}: add it to --models")
    run = runs.run_of(options)
    run.check()
    workers = options.workers or (0 if options.scheduler else run.settings.parallel_notebooks)
    return Driver(
        run, list(dict.fromkeys(options.models)), parse_overrides(options.set),
        workers, options.scheduler, options.force, options.ablations,
    )  # fmt: skip


def rebuilding(options: argparse.Namespace) -> Driver:
    """Return the driver of kept results; raises ValueError where there are none."""
    kept = Path(options.reference)
    results = paths.ResultFolder(Path(options.results or REBUILT).resolve())
    run, models, changes = reference.open_kept(kept, results)
    if not options.list:
        reference.restore(kept, results)
    workers = options.workers or run.settings.parallel_notebooks
    return Driver(run, models, changes, workers, force=options.force, is_rebuilding=True)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    options = parse(arguments)
    if options.workers is not None and options.workers < 1:
        return fail(f"--workers takes a number from 1, not {options.workers}")
    try:
        driver = rebuilding(options) if options.reference else running(options)
    except ValueError as error:
        return fail(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        if options.list:
            print(driver.plan(driver.stale()))
            return 0
        if driver.start():
            return 0
        return 2 if driver.refused else 1
    except ValueError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on where it was.", file=sys.stderr)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        os._exit(130)  # threads that wait for the notebooks just ended have nothing left to do


if __name__ == "__main__":
    sys.exit(main())
