"""Run every notebook, in order, through papermill; skip what is up to date.

    python run_all.py                                   the paper's protocol, on the phantom
    python run_all.py --profile quick                   the same in minutes, on a CPU
    python run_all.py --dataset folder --data DIR       your own scans (data/README.md)
    python run_all.py --models unet segnet --set epochs=4
    python run_all.py --profile quick --ablations       what the paper leaves open, too
    python run_all.py --scheduler HOST:8786             on a dask cluster (docs/running.md)
    python run_all.py --reference                       tables and report of a run kept here

Killed at any time and started again, it goes on where it was.
"""

import argparse
import contextlib
import os
import signal
import sys
from functools import partial
from pathlib import Path

import psutil

from bonelib import datasets, errors, paths
from bonelib.evaluation import variants
from bonelib.settings import MODEL_NAMES, PROFILES, parse_overrides
from bonelib.workflow import runs
from bonelib.workflow.driver import Driver
from bonelib.workflow.steps import Plan

fail = partial(errors.fail, "run_all.py")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    summary, _, details = __doc__.partition("\n\n")
    parser = errors.Parser("run_all.py", description=summary, epilog=details)
    add = parser.add_argument
    add("--profile", default="paper", choices=PROFILES, metavar="NAME",
        help=f"how much to compute: {', '.join(PROFILES)} (default)")  # fmt: skip
    add("--dataset", default="phantom", metavar="NAME", help=" or ".join(datasets.DATASETS))
    add("--data", default="", metavar="DIR", help="the data set's folder")
    add("--models", nargs="+", default=MODEL_NAMES, choices=MODEL_NAMES, metavar="NAME",
        help=", ".join(MODEL_NAMES))  # fmt: skip
    add("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings")
    add("--results", default="", metavar="DIR", help="default: results/<profile>")
    add("--workers", type=int, metavar="N", help="notebooks at the same time")
    add("--scheduler", default="", metavar="ADDRESS", help="a dask cluster's, all on one disk")
    add("--ablations", action="store_true", help="train variants, too, and compare them")
    add("--reference", nargs="?", const=str(paths.REFERENCE), default="", metavar="DIR",
        help="tables, curves and report from kept scores (default: results/reference)")  # fmt: skip
    add("--force", action="store_true", help="run what is up to date, too")
    add("--list", action="store_true", help="say what would run, and stop")
    add("--yes", action="store_true", help="do not ask before hours of work")
    return parser.parse_args(arguments)


def running(options: argparse.Namespace) -> Driver:
    """Return the driver of what the options name; raises ValueError for what cannot be run."""
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers takes a number from 1, not {options.workers}")
    if options.ablations and variants.MODEL not in options.models:
        raise ValueError(f"--ablations compares trainings of {variants.MODEL}: add it to --models")
    if options.reference:
        return rebuilding(options)
    overrides, models = parse_overrides(options.set), list(dict.fromkeys(options.models))
    run = runs.open_run(options.profile, options.dataset, options.data, options.results, overrides)
    datasets.check(run.dataset, run.data_dir, run.settings)
    workers = options.workers or (0 if options.scheduler else run.settings.parallel_notebooks)
    plan = Plan(run, models, overrides, options.force, 1 if options.scheduler else workers)
    steps = plan.steps(options.ablations)
    return Driver(run, models, steps, workers, options.scheduler, options.force)


def rebuilding(options: argparse.Namespace) -> Driver:
    """Return the driver of kept results; raises ValueError where there are none."""
    kept = Path(options.reference)
    results = paths.ResultFolder(Path(options.results or paths.REBUILT).resolve())
    run, models, changes = runs.open_kept(kept, results)
    if not options.list:
        runs.restore(kept, results)
    workers = options.workers or run.settings.parallel_notebooks
    steps = Plan(run, models, changes).rebuilding()
    return Driver(run, models, steps, workers, force=options.force)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    options = parse(arguments)
    try:
        driver = running(options)
        if options.list:
            print(driver.plan(driver.stale()))
            return 0
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
        is_asked = sys.stdin.isatty() and sys.stdout.isatty() and not options.yes
        if driver.start(is_asked):
            return 0
        return 2 if driver.refused else 1
    except ValueError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on where it was.", file=sys.stderr)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        os._exit(130)  # threads that wait for the notebooks just ended have nothing left to do


if __name__ == "__main__":
    sys.exit(main())
