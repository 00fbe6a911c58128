"""Measure what an augmented image costs by each engine, in time of a core.

python benchmarks/augmentation.py          prints milliseconds, in a minute
python benchmarks/augmentation.py --keep   writes them into docs/speed.md, too

What the engines are worth to a training is told by `run_all.py --profile quick --ablations`.
It takes the slices that `make quick` has prepared, or prepares them.
"""

import argparse
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import augment, preparation, provenance, slices
from bonelib.augment import device, plans
from bonelib.workflow import runs

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
MARK = "<!-- what benchmarks/augmentation.py --keep has measured -->"
END = "<!-- end of what it has measured -->"
IMAGES = 200
SIZE = 512
AT_ONCE = 4  # images, as many as differ


def milliseconds(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the milliseconds of a core that each engine takes for an image of SIZE x SIZE.

    Both take them from the network where there is no GPU, and other work does not change them.
    """

    def by_imgaug(numbers):
        for place, number in enumerate(numbers):
            augment.augment_slice(images[place], labels[place], [1, number])

    def by_keras(numbers):
        device.apply_plans(images, labels, plans.draw_plans(SIZE, numbers))

    cv2.setNumThreads(0)
    found = {}
    for engine, run in (("imgaug", by_imgaug), ("keras", by_keras)):
        run(range(AT_ONCE))  # compiles
        started = time.process_time()
        for start in range(0, IMAGES, AT_ONCE):
            run(range(start, start + AT_ONCE))
        found[engine] = 1000 * (time.process_time() - started) / IMAGES
    return found


def main() -> None:
    """Measure, print, and keep the table where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help=f"write into {PAGE.name}")
    options = parser.parse_args()
    run = runs.open_run("quick")
    workers = provenance.num_cores()
    preparation.prepare(run.cases(workers), run.slices.root, run.settings, workers)
    table = slices.read_table(run.slices.root)
    images, labels = slices.load(run.slices.root, table.iloc[:: len(table) // AT_ONCE][:AT_ONCE])
    enlarged = [
        np.stack([cv2.resize(part, (SIZE, SIZE), interpolation=kind) for part in stack])
        for stack, kind in ((images, cv2.INTER_LINEAR), (labels, cv2.INTER_NEAREST))
    ]
    found = pd.Series(milliseconds(*enlarged), name="ms of a core an image").rename_axis("augment")
    versions, machine = provenance.versions(), provenance.device()
    names = ", ".join(f"{name} {versions[name]}" for name in ("keras", "tensorflow", "imgaug"))
    text = (
        f"{date.today()}, a core of {machine['processor']}; {names}; {IMAGES} images of {SIZE} × "
        f"{SIZE}.\n\n{found.to_frame().to_markdown(floatfmt='.1f')}\n"
    )
    print(text)
    if options.keep:
        before, _, rest = PAGE.read_text().partition(MARK)
        PAGE.write_text(f"{before}{MARK}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
