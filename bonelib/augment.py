"""Slices and a seed -> augmented batches (section 4), the same for any number of workers.

Loader processes import this module, so that it stays free of keras and of TensorFlow, and
imgaug is imported here only.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np

from bonelib.settings import Settings


@contextmanager
def _numpy_1_names() -> Iterator[None]:
    """Lend NumPy 2 the one name that imgaug 0.4.0 asks for while it is imported.

    imgaug also uses `np.complex`, when it draws frequency noise, which no operation here does.
    """
    np.sctypes = {  # noqa: NPY201
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64],
    }
    try:
        yield
    finally:
        del np.sctypes  # noqa: NPY201


with _numpy_1_names():
    import imgaug.augmenters as iaa
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

# scikit-image renames what imgaug calls; the locked version has both names.
warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning, r"imgaug\.")


def resize_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the labels at the pixel centres of a grid of `shape` (row, column).

    OpenCV's INTER_NEAREST, which the library used, reads a pixel at its corner instead: that
    would shift the labels of PSPNet's output by 1.5 pixels against its interpolated scores.
    """
    rows, columns = (
        ((np.arange(size) + 0.5) * (whole / size)).astype(np.intp)
        for size, whole in zip(shape, labels.shape[:2], strict=True)
    )
    return labels[rows[:, np.newaxis], columns]


def _resize_label_map(
    label_map: SegmentationMapsOnImage, sizes: tuple[int, int], interpolation: str = "nearest"
) -> SegmentationMapsOnImage:
    return label_map.deepcopy(resize_labels(label_map.arr, sizes))


# imgaug resizes label maps by INTER_NEAREST but images by pixel centres, which puts the
# labels half a pixel beside the image after each crop, pad or perspective.
SegmentationMapsOnImage.resize = _resize_label_map

AIR = {"mode": "constant", "cval": 0}  # grey level 0 is the window's lower end
PAPER_SIZE = 512  # pixels of the slices for which ranges in pixels are given
OCCASIONAL_OPERATIONS = 12
MAX_OPERATIONS = 5  # "0 to 5 following operations were randomly performed per each image"
DRAWN_SHARE = MAX_OPERATIONS / 2 / OCCASIONAL_OPERATIONS  # of images that draw a given one
BATCHES_AHEAD = 2  # batches prepared in advance by each loader process


class SliceError(ValueError):
    """A prepared slice that cannot be read or augmented; names its file."""


@dataclass(frozen=True)
class Operation:
    """One augmentation: how to make it, how often it acts, and whether it moves pixels.

    `share` is its probability, of an occasional one once it is drawn. Ranges are the paper's,
    and those of the library it used (`aug_all`) where the paper prints none.
    """

    make: Callable[[], iaa.Augmenter]
    share: float
    moves_pixels: bool


# "The following operations were applied most frequently"
FREQUENT = {
    "horizontal_flip": Operation(lambda: iaa.Fliplr(1.0), 0.5, True),
    "vertical_flip": Operation(lambda: iaa.Flipud(1.0), 0.2, True),
    # Each side draws its own share, which also translates the image.
    "crop_or_pad": Operation(
        lambda: iaa.CropAndPad(percent=(-0.05, 0.1), pad_mode="constant", pad_cval=0), 0.5, True
    ),
    "scale_rotate_shear": Operation(
        lambda: iaa.Affine(
            scale={"x": (0.8, 1.2), "y": (0.8, 1.2)},
            rotate=(-45, 45),
            shear=(-16, 16),
            order=[0, 1],
            **AIR,
        ),
        0.5,
        True,
    ),
}


def occasional(image_size: int = PAPER_SIZE) -> dict[str, Operation]:
    """Return the operations of which none to five are drawn for an image.

    Blurs and local moves are printed in pixels of 512 x 512 slices; they shrink with the
    slice, so that they stay as large in millimetres.
    """
    part = image_size / PAPER_SIZE
    kernels = max(1, round(2 * part)), max(1, round(7 * part))
    largest_odd = kernels[1] - 1 | 1
    return {
        "blur": Operation(
            lambda: iaa.OneOf(
                [
                    iaa.GaussianBlur((0.0, 3.0 * part)),
                    iaa.AverageBlur(kernels),
                    iaa.MedianBlur((min(kernels[0] | 1, largest_odd), largest_odd)),
                ]
            ),
            1.0,
            False,
        ),
        "sharpen": Operation(lambda: iaa.Sharpen((0.0, 1.0), (0.75, 1.5)), 1.0, False),
        "edges": Operation(
            lambda: iaa.BlendAlphaSimplexNoise(
                [iaa.OneOf([iaa.EdgeDetect((0.5, 1.0)), iaa.DirectedEdgeDetect((0.5, 1.0))])]
            ),
            1.0,
            False,
        ),
        "noise": Operation(
            lambda: iaa.AdditiveGaussianNoise(scale=(0.0, 0.05 * 255), per_channel=0.5), 1.0, False
        ),
        # The library's coarse patches take up to 15 % of the pixels; the paper says 10 %.
        "pixel_removal": Operation(
            lambda: iaa.OneOf(
                [
                    iaa.Dropout((0.01, 0.1), per_channel=0.5),
                    iaa.CoarseDropout((0.03, 0.1), size_percent=(0.02, 0.05), per_channel=0.2),
                ]
            ),
            1.0,
            False,
        ),
        # "In 5% of images", though it is drawn for 2.5 in 12 only. The library inverts 1 %.
        "inversion": Operation(lambda: iaa.Invert(1.0), 0.05 / DRAWN_SHARE, False),
        # "By -10% to 10% of the original value". The library adds -10 to 10 grey levels.
        "brightness": Operation(lambda: iaa.Multiply((0.9, 1.1), per_channel=0.5), 1.0, False),
        "contrast": Operation(lambda: iaa.LinearContrast((0.5, 2.0), per_channel=0.5), 1.0, False),
        # The paper's overview names it, its list and `aug_all` do not; the library's
        # `aug_non_geometric` applies it to a tenth of the images, and so does this.
        "histogram_equalisation": Operation(
            iaa.AllChannelsHistogramEqualization, 0.1 / DRAWN_SHARE, False
        ),
        "local_moves": Operation(
            lambda: iaa.ElasticTransformation(alpha=(0.5 * part, 3.5 * part), sigma=0.25, **AIR),
            0.5,
            True,
        ),
        "local_affine": Operation(lambda: iaa.PiecewiseAffine((0.01, 0.05), **AIR), 0.5, True),
        "perspective": Operation(lambda: iaa.PerspectiveTransform((0.01, 0.1), **AIR), 0.5, True),
    }


def _sometimes(operations: dict[str, Operation]) -> list[iaa.Augmenter]:
    # In a list, since imgaug forgets to seed a `OneOf` that is handed over bare.
    return [iaa.Sometimes(operation.share, [operation.make()]) for operation in operations.values()]


def operations(image_size: int = PAPER_SIZE) -> dict[str, Operation]:
    """Return every operation by name, as it is for slices of `image_size` pixels."""
    return FREQUENT | occasional(image_size)


@cache
def policy(image_size: int = PAPER_SIZE) -> iaa.Augmenter:
    """Return the paper's sequence: the frequent operations and some occasional ones.

    "The sequence of above operations is applied in random order" (section 4).
    """
    some = iaa.SomeOf((0, MAX_OPERATIONS), _sometimes(occasional(image_size)), random_order=True)
    return iaa.Sequential([*_sometimes(FREQUENT), some], random_order=True)


def apply_operation(
    augmenter: iaa.Augmenter,
    image: np.ndarray,
    labels: np.ndarray,
    seed: int | Sequence[int] | np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map after one draw of `augmenter`, which `seed` alone decides.

    `image` and `labels` are uint8 (row, column). The image comes back as uint8 (row, column,
    3), its channels unequal where an operation treats them apart; the label map as it went
    in, nearest neighbour, 0 (background) where the image was moved in from outside.
    """
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(seed)
    augmenter.seed_(seed)
    channels = np.repeat(image[..., np.newaxis], 3, axis=-1)
    label_map = SegmentationMapsOnImage(labels, shape=channels.shape)
    channels, label_map = augmenter(image=channels, segmentation_maps=label_map)
    return channels, label_map.get_arr()


def augment_slice(
    image: np.ndarray,
    labels: np.ndarray,
    seed: int | Sequence[int] | np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map after one draw of the paper's policy (section 4).

    Shapes and values are those of `apply_operation`; 255 (ignore) stays 255.
    """
    return apply_operation(policy(len(image)), image, labels, seed)


@dataclass(frozen=True)
class _Sample:
    """What a loader needs to make one sample; `seed` None leaves the slice as it is."""

    image_path: Path
    label_path: Path
    seed: tuple[int, ...] | None


def _read(path: Path, image_size: int) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise SliceError("missing or not an image: prepare the data set again")
    if pixels.dtype != np.uint8 or pixels.shape != (image_size, image_size):
        raise SliceError(
            f"{pixels.dtype} of shape {pixels.shape} instead of 8-bit grey of "
            f"{image_size} x {image_size}: prepare the data set again for this image size"
        )
    return pixels


def _load(
    samples: list[_Sample], image_size: int, output_size: int
) -> tuple[np.ndarray, np.ndarray]:
    images, label_maps = [], []
    for sample in samples:
        path = sample.image_path
        try:
            image = _read(path, image_size)
            path = sample.label_path
            labels = _read(path, image_size)
            if sample.seed is None:
                image = np.repeat(image[..., np.newaxis], 3, axis=-1)
            else:
                image, labels = augment_slice(image, labels, sample.seed)
        except Exception as error:
            raise SliceError(f"{path}: {error}") from error
        images.append(image)
        label_maps.append(resize_labels(labels, (output_size, output_size)))
    return np.stack(images), np.stack(label_maps)


def _samples(
    slice_files: Sequence[tuple[Path, Path]], settings: Settings, first_epoch: int
) -> Iterator[list[_Sample]]:
    """Yield the samples of each batch: endless passes, each in an order of its own."""
    orders = cache(
        lambda number: np.random.default_rng([settings.seed, number]).permutation(len(slice_files))
    )
    per_epoch = settings.steps_per_epoch * settings.batch_size
    for start in count(first_epoch * per_epoch, settings.batch_size):
        batch = []
        for position in range(start, start + settings.batch_size):
            number, index = divmod(position, len(slice_files))
            seed = (settings.seed, *divmod(position, per_epoch)) if settings.augment else None
            batch.append(_Sample(*slice_files[orders(number)[index]], seed))
        yield batch


def num_workers(settings: Settings) -> int:
    """Return the number of loader processes; by default one core is left to the network."""
    if settings.loader_workers >= 0:
        return settings.loader_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores - 1


def _start_loader() -> None:
    """Leave interrupts to the parent, use one thread, and end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def batches(
    slice_files: Sequence[tuple[Path, Path]],
    output_size: int,
    settings: Settings,
    first_epoch: int = 0,
    workers: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches without end, from epoch `first_epoch` on.

    `slice_files` are pairs of PNG files, image and label map. A batch is images, uint8
    (batch, row, column, 3), and label maps, uint8 (batch, output_size, output_size), see
    `resize_labels`. The order and every augmentation depend only on `settings.seed`, the
    epoch and the sample, never on `workers`: loader processes, or 0 to load in this one.
    They end with the generator. Raises SliceError, which names the file, for a slice that
    cannot be read, and ValueError for an empty list.
    """
    if not slice_files:
        raise ValueError("no slices to load: the split is empty, check slices.csv")
    load = partial(_load, image_size=settings.image_size, output_size=output_size)
    return in_order(load, _samples(slice_files, settings, first_epoch), workers)


def in_order(load: Callable, jobs: Iterator, workers: int) -> Iterator:
    """Yield `load(job)` of each job in turn, `workers` processes ahead; 0 loads in this one.

    `load` and the jobs have to be picklable. The processes end with the generator.
    """
    if workers == 0:
        yield from map(load, jobs)
        return
    # A forked copy of a process in which TensorFlow has threads can hang, hence "spawn".
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_loader
    )
    try:
        waiting = deque(executor.submit(load, job) for job in islice(jobs, BATCHES_AHEAD * workers))
        for job in jobs:
            loaded = waiting.popleft().result()
            waiting.append(executor.submit(load, job))
            yield loaded
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
