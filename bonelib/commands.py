"""A command's options -> what `python -m bonelib` does with them, and says of it.

Keras takes seconds to load, so what needs it is imported by the command that does.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bonelib import datasets, inspection, paths, preparation, published, scans, slices
from bonelib.datasets import public_sets
from bonelib.devices import num_cores
from bonelib.errors import InputError
from bonelib.evaluation import scoring
from bonelib.settings import (
    BASELINE,
    MODEL_NAMES,
    PRETRAINING,
    SPLITS,
    get_settings,
    parse_overrides,
    replaced,
)
from bonelib.workflow import runs

# What the paper's Table 2 leaves out, at three classes.
PARAMETERS = {"vgg_unet": 12_323_523, "resnet50_unet": 16_374_019} | {
    name: row["parameters"] for name, row in published.TABLE2.items()
}
BAR_DELAY_SECONDS = 0.5  # what is over before, or refused, needs no bar
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
GRIDS = {"fcn8": "1/1", "fcn32": "1/1", "pspnet": "1/4"}  # of the image's side; others have half


def run_segment(options: argparse.Namespace) -> None:
    """Segment one scan, and tell what came of it."""
    with _loading_keras():
        from bonelib.segment import postprocess, segmentation

    chosen = segmentation.Options(
        model=options.model,
        weights=options.weights,
        series=options.series,
        bones=options.bones,
        roi=options.roi,
        steps=tuple(name for name in postprocess.STEPS if name not in options.without),
        max_triangles=options.triangles,
        keep_identity=options.keep_identity,
    )
    with _progress_bars() as progress:
        record = segmentation.segment(options.scan, options.output, chosen, progress)
    print("\n".join(describe(record, options.output)))


def describe(record: dict, directory: Path) -> list[str]:
    """Return the lines that tell what a segmentation has found, and where its files are."""
    lines = [
        f"{name.replace('_', ' '):<16} {volume_ml:9.1f} ml"
        + (f" {record['areas_cm2'][name]:9.1f} cm2" if name in record["areas_cm2"] else "")
        + (f" {record['mean_hu'][name]:7.0f} HU" if name in record["mean_hu"] else "")
        for name, volume_ml in record["volumes_ml"].items()
    ]
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in record["seconds"].items())
    lines += [f"seconds: {stages}"]
    lines += [f"note: {note}" for note in record["notes"]]
    return [*lines, f"in {directory}: {', '.join(record['files'])}"]


def run_models(_: argparse.Namespace) -> None:
    """List the networks, and say of which of them trained weights are shipped."""
    shipped = {file.stem: file.with_suffix(".md") for file in sorted(paths.WEIGHTS.glob("*.keras"))}
    print(f"{'model':<15}{'in the paper':<14}{'parameters':>12}   grid   trained weights")
    for name in MODEL_NAMES:
        print(
            f"{name:<15}{published.METHOD_NAMES[name]:<14}{PARAMETERS[name]:>12,}   "
            f"{GRIDS.get(name, '1/2')}    {'shipped' if name in shipped else '-'}"
        )
    print("grid: side of what a network puts out to side of the image; the rest is interpolated")
    for name, card in shipped.items():
        _, purpose, _ = card.read_text().split("\n\n", 2)
        print(f"\n{name}, trained: {' '.join(purpose.split())}\nmodel card: {card}")
    print(
        "\n`python -m bonelib train` trains any of them; `segment --model NAME --weights FILE` "
        "uses it."
    )


def run_inspect(options: argparse.Namespace) -> None:
    """Print what a scan is and what its mask holds."""
    scan = scans.read_scan(options.scan, options.series)
    lines = inspection.describe_scan(scan)
    if options.mask:
        bone_names = options.bone_names and datasets.read_bone_names(options.bone_names)
        case = datasets.Case(
            "scan", SPLITS[-1], options.scan, options.mask, bone_names, options.scan.parent,
            series=options.series,
        )  # fmt: skip
        lines += inspection.describe_mask(scan, *case.annotation(scan))
    print("\n".join(lines))
    if options.output:
        scans.write_volume(scan, options.output)
        print(f"written to {options.output}")


def run_convert(options: argparse.Namespace) -> None:
    """Convert a data set to the layout `folder`, and say how to use it."""
    if options.name == "label_maps":
        from bonelib.pretraining import label_maps  # slow to import

        label_maps.convert(
            options.data, options.output, get_settings("paper"), options.renderings, num_cores()
        )
    else:
        counts = public_sets.convert(options.name, options.data, options.output, num_cores())
        print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print(f"use it by\npython run_all.py --dataset folder --data {options.output}")


def run_prepare(options: argparse.Namespace) -> None:
    """Bring the series of a data set into slices, as notebook 01 does."""
    run = runs.run_of(options)
    table = preparation.prepare(
        run.cases(num_cores()), run.slices.root, run.settings, workers=num_cores()
    )
    counts = table.groupby("split", sort=False).agg(
        series=("series", "nunique"), slices=("slice", "size")
    )
    print(counts.to_markdown())
    for name, note in slices.read_notes(run.slices.root).itertuples(index=False):
        print(f"note: {name}: {note}")
    print(f"prepared slices are in {run.slices.root}")


def run_train(options: argparse.Namespace) -> None:
    """Train one network on prepared slices, as notebook 03 does."""
    run = runs.run_of(options)
    slices.read_table(run.slices.root)  # refuses what is not prepared, before Keras is loaded
    with _loading_keras():
        from bonelib import training
        from bonelib.evaluation import evaluate

    history = training.train(options.model, run.slices, run.results, run.settings)
    best = evaluate.best_epoch(history, len(history))
    score = 100 * history.loc[history["epoch"] == best, "val_mean_iou"].item()
    print(f"best of {len(history)} epochs: {best}, with a mean IoU of {score:.2f} % on validation")
    print(f"weights and history are in {run.results.training(options.model)}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Score one method on the test slices, as notebook 04 does, and print its pooled scores."""
    run = runs.run_of(options)
    slices.read_table(run.slices.root)
    for horizon in () if options.model == BASELINE else run.settings.horizons(options.model):
        weights = run.results.best(options.model, horizon)
        if not weights.exists():
            raise InputError(
                f"{weights}: is not there; run `python -m bonelib train --model {options.model}` "
                "with the same options first"
            )
    with _loading_keras():
        from bonelib.evaluation import evaluate

    scores = evaluate.evaluate(options.model, run.slices, run.results, run.settings)
    print(scoring.pooled_scores(scores, run.settings).round(2).to_markdown(index=False))
    print(f"scores of each slice are in {run.results.scores(options.model)}")


def run_pretrain(options: argparse.Namespace) -> None:
    """Train, and say where the weights are."""
    settings = replaced(PRETRAINING, parse_overrides(options.set))
    with _loading_keras():
        from bonelib.pretraining import train

    weights = train.pretrain(
        options.model,
        options.output.resolve(),
        options.label_maps,
        settings,
        train.PHANTOMS if options.phantoms is None else options.phantoms,
        options.workers,
        options.start,
    )
    print(f"weights and model card are in {weights}")


def run_score(options: argparse.Namespace) -> None:
    """Print the scores of each series of a split."""
    with _loading_keras():
        from bonelib.pretraining import model_card

    cases = datasets.find_cases(
        options.dataset, options.data, PRETRAINING, num_cores(), (options.split,)
    )
    chosen = [case for case in cases if case.split == options.split]
    table = model_card.compare(chosen, options.model, PRETRAINING, options.weights or paths.WEIGHTS)
    print(table.round(1).to_markdown(index=False))


@contextmanager
def _loading_keras() -> Iterator[None]:
    """Drop what TensorFlow writes of itself when it is imported; no setting silences it.

    It writes past Python, to the file descriptor. What goes wrong is an exception all the same.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what draws a bar for each stage, by its name and how much of all is done.

    A stage is done when the next one begins, or all is.
    """
    bars = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            finish()
            bars[stage] = tqdm(
                desc=f"{stage:<16}", total=total, bar_format=BAR, delay=BAR_DELAY_SECONDS
            )
        bars[stage].total = total
        bars[stage].update(done - bars[stage].n)

    def finish() -> None:
        for bar in list(bars.values())[-1:]:
            bar.update(bar.total - bar.n)
            bar.close()

    try:
        yield progress
        finish()
    finally:
        for bar in bars.values():
            bar.leave = False  # one that has not come to its end; what is wrong, follows
            bar.close()
