"""Slices and a seed -> augmented batches (section 4), the same for any number of workers.

Loaders import this module, so that it stays free of keras and of TensorFlow.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np

from bonelib.augment import ranges
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
    import imgaug.parameters as iap
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    from bonelib.augment import imgaug_fast

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
    return labels.take(rows, axis=0).take(columns, axis=1)


def _resize_label_map(
    label_map: SegmentationMapsOnImage, sizes: tuple[int, int], interpolation: str = "nearest"
) -> SegmentationMapsOnImage:
    return label_map.deepcopy(resize_labels(label_map.arr, sizes))


# imgaug resizes label maps by INTER_NEAREST but images by pixel centres, which puts the
# labels half a pixel beside the image after each crop, pad or perspective.
SegmentationMapsOnImage.resize = _resize_label_map

AIR = {"mode": "constant", "cval": 0}  # grey level 0 is the window's lower end
BATCHES_AHEAD = 2  # batches prepared in advance by each loader process


class SliceError(ValueError):
    """A prepared slice that cannot be read or augmented; names its file."""


@dataclass(frozen=True)
class Operation:
    """One augmentation: how to make it, how often it acts, and whether it moves pixels.

    `share` is its probability, of an occasional one once it is drawn.
    """

    make: Callable[[], iaa.Augmenter]
    share: float
    moves_pixels: bool


def _operations(
    make: dict[str, Callable[[], iaa.Augmenter]], shares: dict[str, float], moving: Iterable[str]
) -> dict[str, Operation]:
    return {name: Operation(make[name], share, name in moving) for name, share in shares.items()}


def _apart(operation: iaa.Augmenter) -> iaa.Augmenter:
    """Return an operation that may treat channels apart and hence needs all three."""
    return iaa.Sequential([imgaug_fast.AsThreeChannels(), operation])


def _crop_or_pad() -> iaa.Augmenter:
    return iaa.CropAndPad(percent=ranges.CROP_OR_PAD, pad_mode="constant", pad_cval=0)


def _scale_rotate_shear() -> iaa.Augmenter:
    scale = {"x": ranges.SCALE, "y": ranges.SCALE}
    return iaa.Affine(scale=scale, rotate=ranges.ROTATION, shear=ranges.SHEAR, order=[0, 1], **AIR)


FREQUENT = _operations(
    {
        "horizontal_flip": lambda: iaa.Fliplr(1.0),
        "vertical_flip": lambda: iaa.Flipud(1.0),
        "crop_or_pad": _crop_or_pad,
        "scale_rotate_shear": _scale_rotate_shear,
    },
    ranges.FREQUENT_SHARES,
    ranges.FREQUENT_SHARES,
)


def occasional(image_size: int = ranges.PAPER_SIZE) -> dict[str, Operation]:
    """Return the operations of which none to five are drawn for an image."""
    make = {
        "blur": lambda: iaa.OneOf(
            [
                iaa.GaussianBlur(ranges.gaussian_sigma(image_size)),
                iaa.AverageBlur(ranges.average_kernel(image_size)),
                iaa.MedianBlur(ranges.median_kernel(image_size)),
            ]
        ),
        "sharpen": lambda: iaa.Sharpen(ranges.SHARPENED_SHARE, ranges.SHARPENED_LIGHTNESS),
        "edges": lambda: imgaug_fast.blend_by_simplex_noise(
            [
                iaa.OneOf(
                    [iaa.EdgeDetect(ranges.EDGES_SHARE), iaa.DirectedEdgeDetect(ranges.EDGES_SHARE)]
                )
            ]
        ),
        "noise": lambda: imgaug_fast.AdditiveGaussianNoise(
            scale=ranges.NOISE_SIGMA, per_channel=ranges.NOISE_PER_CHANNEL
        ),
        "pixel_removal": lambda: _apart(
            iaa.OneOf(
                [
                    iaa.Dropout(_kept(ranges.REMOVED), ranges.REMOVED_PER_CHANNEL),
                    iaa.CoarseDropout(
                        _kept(ranges.REMOVED_COARSELY),
                        size_percent=ranges.COARSE_SIZE,
                        min_size=ranges.MIN_COARSE_PIXELS,
                        per_channel=ranges.COARSE_PER_CHANNEL,
                    ),
                ]
            )
        ),
        "inversion": lambda: iaa.Invert(1.0),
        "brightness": lambda: _apart(
            iaa.Multiply(ranges.BRIGHTNESS, ranges.BRIGHTNESS_PER_CHANNEL)
        ),
        "contrast": lambda: _apart(
            iaa.LinearContrast(ranges.CONTRAST, ranges.CONTRAST_PER_CHANNEL)
        ),
        "histogram_equalisation": iaa.AllChannelsHistogramEqualization,
        "local_moves": lambda: imgaug_fast.ElasticTransformation(
            ranges.local_moves(image_size), ranges.LOCAL_MOVE_BLUR, **AIR
        ),
        "local_affine": lambda: imgaug_fast.PiecewiseAffine(
            ranges.LOCAL_AFFINE, ranges.LOCAL_AFFINE_POINTS, ranges.LOCAL_AFFINE_POINTS, **AIR
        ),
        "perspective": lambda: iaa.PerspectiveTransform(ranges.PERSPECTIVE, **AIR),
    }
    moving = {"local_moves", "local_affine", "perspective"}
    return _operations(make, ranges.OCCASIONAL_SHARES, moving)


def _kept(removed: tuple[float, float]) -> iap.StochasticParameter:
    return imgaug_fast.Binomial(iap.Uniform(1 - removed[1], 1 - removed[0]))


def _sometimes(operations: dict[str, Operation]) -> list[iaa.Augmenter]:
    # In a list, since imgaug forgets to seed a `OneOf` that is handed over bare.
    return [iaa.Sometimes(operation.share, [operation.make()]) for operation in operations.values()]


def operations(image_size: int = ranges.PAPER_SIZE) -> dict[str, Operation]:
    """Return every operation by name, as it is for slices of `image_size` pixels."""
    return FREQUENT | occasional(image_size)


@cache
def policy(image_size: int = ranges.PAPER_SIZE) -> iaa.Augmenter:
    """Return the paper's sequence: the frequent operations and some occasional ones.

    "The sequence of above operations is applied in random order" (section 4).
    """
    some = iaa.SomeOf(
        (0, ranges.MAX_OPERATIONS), _sometimes(occasional(image_size)), random_order=True
    )
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
    # One channel until an operation treats channels apart: it is as good and three times as fast.
    label_map = SegmentationMapsOnImage(labels, shape=image.shape)
    # A list, since an operation may add channels.
    (image,), (label_map,) = augmenter(
        images=[image[..., np.newaxis].copy()], segmentation_maps=[label_map]
    )
    return imgaug_fast.three_channels(image), label_map.get_arr()


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
    """What a loader needs to make one sample."""

    image_path: Path
    label_path: Path
    seed: tuple[int, ...]


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
    samples: list[_Sample], augmented: bool, image_size: int, output_size: int
) -> tuple[np.ndarray, np.ndarray]:
    images, label_maps = [], []
    for sample in samples:
        path = sample.image_path
        try:
            image = _read(path, image_size)
            path = sample.label_path
            labels = _read(path, image_size)
            if augmented:
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
        lambda number: np.random.default_rng([settings.training_seed, number]).permutation(
            len(slice_files)
        )
    )
    per_epoch = settings.steps_per_epoch * settings.batch_size
    for start in count(first_epoch * per_epoch, settings.batch_size):
        batch = []
        for position in range(start, start + settings.batch_size):
            number, index = divmod(position, len(slice_files))
            seed = settings.training_seed, *divmod(position, per_epoch)
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
    (batch, row, column, 3), or without an axis of channels where nothing is augmented, and
    label maps, uint8 (batch, output_size, output_size), see `resize_labels`.
    The order and all augmentation depend on `settings.training_seed`, the
    epoch and the sample, never on `workers`: loader processes, or 0 to load in this one.
    They end with the generator. Raises SliceError, which names the file, for a slice that
    cannot be read, and ValueError for an empty list.
    """
    if not slice_files:
        raise ValueError("no slices to load: the split is empty, check slices.csv")
    load = partial(
        _load,
        augmented=settings.augment == "imgaug",
        image_size=settings.image_size,
        output_size=output_size,
    )
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


def ahead(batches: Generator, count: int = BATCHES_AHEAD) -> Iterator:
    """Yield what `batches` yields, made by a thread, `count` ahead; closes `batches`."""
    with closing(batches), ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(count))
        try:
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, batches, None))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)
