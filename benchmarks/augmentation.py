"""Train U-net in the quick profile with each engine of augmentation; compare scores and speed.

python benchmarks/augmentation.py             about 2 minutes a training on 2 cores
python benchmarks/augmentation.py --seeds 5   trainings by each engine, 3 by default
python benchmarks/augmentation.py --keep      writes the results into docs/speed.md, too

It takes the slices that `make quick` has prepared, or prepares them. Loader processes import
this module, so that only its functions import Keras.
"""

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import augment, provenance, runs, scoring, slices
from bonelib.augment import plans
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import AUGMENTATIONS, BONE, Settings

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
MARK = "<!-- what benchmarks/augmentation.py --keep has measured -->"
END = "<!-- end of what it has measured -->"
NETWORK = "unet"
IMAGES = 200  # augmented to measure an engine's seconds
SIZE = 512


def scores(engine: str, seed: int, folder: SliceFolder) -> dict:
    """Train and return the last epoch's loss and the pooled test scores of the best epochs."""
    from bonelib import evaluation, training

    settings = runs.open_run("quick", overrides={"augment": engine, "seed": seed}).settings
    with tempfile.TemporaryDirectory() as scratch:
        results = ResultFolder(Path(scratch))
        history = training.train(NETWORK, folder, results, settings)
        evaluation.evaluate(NETWORK, folder, results, settings)
        read = scoring.read_scores(results, [NETWORK])
        row = {"augment": engine, "seed": seed, "loss, last epoch": history["loss"].iloc[-1]}
        for epochs in settings.horizons(NETWORK):
            chosen = scoring.select(read, NETWORK, epochs, "input")
            row[f"bone IoU %, {epochs} epochs"] = scoring.pooled(chosen, "iou")[1 + BONE]
        return row


def milliseconds(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the milliseconds of a core that each engine takes for an image of SIZE x SIZE.

    Both take them from the network where there is no GPU, and other work does not change them.
    """
    from bonelib.augment import device

    def by_imgaug(numbers):
        for place, number in enumerate(numbers):
            augment.augment_slice(images[place], labels[place], [1, number])

    def by_keras(numbers):
        device.apply_plans(images, labels, plans.draw_plans(SIZE, numbers))

    cv2.setNumThreads(0)
    found = {}
    for engine, run in (("imgaug", by_imgaug), ("keras", by_keras)):
        run(range(len(images)))  # compiles
        started = time.process_time()
        for start in range(0, IMAGES, len(images)):
            run(range(start, start + len(images)))
        found[engine] = 1000 * (time.process_time() - started) / IMAGES
    return found


def conditions(settings: Settings, seeds: int) -> str:
    """Return the hardware and the versions that were measured, and what a number is."""
    versions, machine = provenance.versions(), provenance.device()
    names = ", ".join(f"{name} {versions[name]}" for name in ("keras", "tensorflow", "imgaug"))
    return (
        f"{date.today()}, {provenance.num_cores()} cores ({machine['processor']}), GPUs: "
        f"{', '.join(machine['gpus']) or 'none'}; {names}. {NETWORK} in the quick profile, slices "
        f"of {settings.image_size} × {settings.image_size}, {seeds} trainings by each engine: mean "
        f"± standard deviation. Milliseconds are those of a core, for {SIZE} × {SIZE}."
    )


def summary(table: pd.DataFrame, seconds: dict[str, float]) -> pd.DataFrame:
    """Return a row an engine: its milliseconds, then mean and deviation over the seeds."""
    groups = table.drop(columns="seed").groupby("augment", sort=False)
    means, deviations = groups.mean(), groups.std()
    rows = {"ms of a core an image": {engine: f"{value:.1f}" for engine, value in seconds.items()}}
    for name in means:
        pairs = zip(means[name], deviations[name], strict=True)
        rows[name] = dict(zip(means.index, (f"{m:.3g} ± {d:.2g}" for m, d in pairs), strict=True))
    return pd.DataFrame(rows).reindex(means.index).fillna("").rename_axis("augment")


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help=f"write into {PAGE.name}")
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
    seconds = milliseconds(*enlarged)
    print(seconds, flush=True)
    rows = []
    for seed in range(options.seeds):
        for engine in AUGMENTATIONS:
            rows.append(scores(engine, seed, run.slices))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{table.to_markdown(index=False, floatfmt='.4g')}\n")
    about = conditions(run.settings, options.seeds)
    text = f"{about}\n\n{summary(table, seconds).to_markdown(disable_numparse=True)}\n"
    print(text)
    if options.keep:
        before, _, rest = PAGE.read_text().partition(MARK)
        PAGE.write_text(f"{before}{MARK}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
