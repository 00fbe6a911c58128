"""Slices and a seed -> augmented batches (section 4), the same for any number of workers.

`policy` holds the operations, `imgaug_fast` what they are made of. Loader processes import this
module, so that it stays free of Keras.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import cv2
import numpy as np

from bonelib.augment.imgaug_fast import resize_labels
from bonelib.augment.policy import augment_slice
from bonelib.devices import in_order, num_cores
from bonelib.errors import InputError
from bonelib.settings import Settings

BATCHES_AHEAD = 2  # batches on the device before the network asks for them

Sample = tuple[Path, Path, tuple[int, ...]]  # image file, label file, seed of the augmentation


def batches(
    slice_files: Sequence[tuple[Path, Path]],
    output_size: int,
    settings: Settings,
    first_epoch: int = 0,
    workers: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless batches from epoch `first_epoch` on.

    `slice_files` are pairs of PNG files, image and label map. A batch is images, uint8 (batch,
    row, column, 3), or (batch, row, column) without augmentation, and label maps, uint8 (batch,
    output_size, output_size). Order and augmentation depend on `settings.training_seed`, the
    epoch and the sample, never on the number of loader processes (0: none). Raises InputError
    for a slice that cannot be read, and ValueError for an empty list.
    """
    if not slice_files:
        raise ValueError("no slices to load: the split is empty, check slices.csv")
    load = partial(_load, settings=settings, output_size=output_size)
    return in_order(load, _samples(slice_files, settings, first_epoch), workers)


def _samples(
    slice_files: Sequence[tuple[Path, Path]], settings: Settings, first_epoch: int
) -> Iterator[list[Sample]]:
    """Yield the samples of each batch: endless passes, each in an order of its own."""
    seed, per_epoch = settings.training_seed, settings.steps_per_epoch * settings.batch_size
    orders = (
        np.random.default_rng([seed, number]).permutation(len(slice_files)) for number in count()
    )
    samples = (
        (*slice_files[index], (seed, *divmod(position, per_epoch)))
        for position, index in enumerate(chain.from_iterable(orders))
    )
    samples = islice(samples, first_epoch * per_epoch, None)
    while True:
        yield list(islice(samples, settings.batch_size))


def _load(
    samples: list[Sample], settings: Settings, output_size: int
) -> tuple[np.ndarray, np.ndarray]:
    images, label_maps = [], []
    for image_path, label_path, seed in samples:
        image, labels = (_read(path, settings.image_size) for path in (image_path, label_path))
        if settings.augment == "imgaug":
            image, labels = augment_slice(image, labels, seed)
        images.append(image)
        label_maps.append(resize_labels(labels, (output_size, output_size)))
    return np.stack(images), np.stack(label_maps)


def _read(path: Path, image_size: int) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{path}: missing or not an image: prepare the data set again")
    if pixels.dtype != np.uint8 or pixels.shape != (image_size, image_size):
        raise InputError(
            f"{path}: {pixels.dtype} of shape {pixels.shape} instead of 8-bit grey of "
            f"{image_size} x {image_size}: prepare the data set again for this image size"
        )
    return pixels


def num_workers(settings: Settings) -> int:
    """Return the number of loader processes; by default one core is left to the network."""
    return settings.loader_workers if settings.loader_workers >= 0 else num_cores() - 1


def ahead(batches: Generator, count: int = BATCHES_AHEAD) -> Iterator:
    """Yield from `batches` with a thread that works `count` batches ahead; closes `batches`."""
    with closing(batches), ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(count))
        try:
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, batches, None))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)
