"""Train U-net in the quick profile with each engine of augmentation; compare scores and speed.

python benchmarks/augmentation.py [--seeds 3]    about 2 minutes a training on 2 cores

It takes the slices that `make quick` has prepared, or prepares them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import augment, evaluation, provenance, runs, slices, tables, training
from bonelib.augment import device, plans
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import AUGMENTATIONS, BONE

NETWORK = "unet"
IMAGES = 200  # augmented to measure an engine's seconds
SIZE = 512


def scores(engine: str, seed: int, folder: SliceFolder) -> dict:
    """Train and return the last epoch's loss and the pooled test scores of the best epochs."""
    settings = runs.open_run("quick", overrides={"augment": engine, "seed": seed}).settings
    with tempfile.TemporaryDirectory() as scratch:
        results = ResultFolder(Path(scratch))
        history = training.train(NETWORK, folder, results, settings)
        evaluation.evaluate(NETWORK, folder, results, settings)
        read = tables.read_scores(results, [NETWORK])
        row = {"augment": engine, "seed": seed, "loss, last epoch": history["loss"].iloc[-1]}
        for epochs in settings.horizons(NETWORK):
            chosen = tables.select(read, NETWORK, epochs, "input")
            row[f"bone IoU %, {epochs} epochs"] = tables.pooled(chosen, "iou")[1 + BONE]
        return row


def milliseconds(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the milliseconds an image of SIZE x SIZE by each engine, one process."""
    cv2.setNumThreads(0)
    augment.augment_slice(images[0], labels[0], 0)
    started = time.perf_counter()
    for number in range(IMAGES):
        pair = images[number % len(images)], labels[number % len(images)]
        augment.augment_slice(*pair, [1, number])
    imgaug = (time.perf_counter() - started) / IMAGES
    device.apply_plans(images, labels, plans.draw_plans(SIZE, range(len(images))))
    started = time.perf_counter()
    for start in range(0, IMAGES, len(images)):
        seeds = range(start, start + len(images))
        device.apply_plans(images, labels, plans.draw_plans(SIZE, seeds))
    keras = (time.perf_counter() - started) / IMAGES
    return {"imgaug": 1000 * imgaug, "keras": 1000 * keras}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    run = runs.open_run("quick")
    workers = provenance.num_cores()
    slices.prepare(run.cases(workers), run.slices.root, run.settings, workers)
    files = slices.read_table(run.slices.root)
    images, labels = slices.load(run.slices.root, files.iloc[:: len(files) // 4][:4])
    enlarged = [
        np.stack([cv2.resize(part, (SIZE, SIZE), interpolation=kind) for part in stack])
        for stack, kind in ((images, cv2.INTER_LINEAR), (labels, cv2.INTER_NEAREST))
    ]
    for engine, value in milliseconds(*enlarged).items():
        print(f"{engine}: {value:.1f} ms an image of {SIZE} x {SIZE}", flush=True)
    rows = []
    for seed in range(options.seeds):
        for engine in AUGMENTATIONS:
            rows.append(scores(engine, seed, run.slices))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{table.to_markdown(index=False, floatfmt='.4g')}\n")
    means = table.drop(columns="seed").groupby("augment", sort=False).agg(["mean", "std"])
    means.columns = [" ".join(names) for names in means.columns]
    print(means.to_markdown(floatfmt=".4g"))


if __name__ == "__main__":
    main()
