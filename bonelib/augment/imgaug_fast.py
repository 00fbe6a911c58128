"""imgaug 0.4.0 on NumPy 2, with its slow operations replaced by fast ones of the same draws.

The only module that imports imgaug.
"""

import warnings
from functools import cache

import cv2
import numpy as np
from matplotlib.tri import LinearTriInterpolator, Triangulation
from scipy.spatial import Delaunay

# NumPy 2 removed this name, which imgaug needs while it is imported. imgaug also uses
# `np.complex` when it draws frequency noise, which no operation here does.
np.sctypes = {  # noqa: NPY201
    "int": [np.int8, np.int16, np.int32, np.int64],
    "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
    "float": [np.float16, np.float32, np.float64],
}
try:
    import imgaug.augmenters as iaa
    import imgaug.parameters as iap
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage
    from imgaug.external.opensimplex import OpenSimplex
finally:
    del np.sctypes  # noqa: NPY201

# scikit-image renames what imgaug calls; the locked version has both names.
warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning, r"imgaug\.")

NOISE_FIELDS = 256  # seeds of simplex noise; imgaug draws from 2^31
NOISE_SIZES = (2, 16)  # pixels of a field before it is enlarged: imgaug's default
# Shares of the ways to enlarge it: imgaug's default.
NOISE_METHODS = {cv2.INTER_NEAREST: 0.05, cv2.INTER_LINEAR: 0.6, cv2.INTER_CUBIC: 0.35}


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


# imgaug resizes label maps by INTER_NEAREST but images by pixel centres, which shifts the
# labels by half a pixel against the image after each crop, pad or perspective.
SegmentationMapsOnImage.resize = _resize_label_map


def three_channels(image: np.ndarray) -> np.ndarray:
    """Return an image (row, column, 1 or 3) with three channels."""
    return cv2.merge([image] * 3) if image.shape[-1] == 1 else image


class AsThreeChannels(iaa.Identity):
    """Repeat a single channel for operations that treat channels differently."""

    def _augment_batch_(self, batch, random_state, parents, hooks):
        batch.images = [three_channels(image) for image in batch.images]
        return batch


class Binomial(iap.Binomial):
    """Zeros and ones, drawn from single-precision numbers."""

    def _draw_samples(self, size, random_state):
        share = self.p.draw_sample(random_state=random_state)
        return (random_state.generator.random(size, dtype=np.float32) < share).astype(np.uint8)


class AdditiveGaussianNoise(iaa.AdditiveGaussianNoise):
    """The same noise drawn by OpenCV, on one channel while the channels are equal."""

    def _augment_batch_(self, batch, random_state, parents, hooks):
        randoms = random_state.duplicate(1 + batch.nb_rows)
        per_channel = self.per_channel.draw_samples((batch.nb_rows,), random_state=randoms[0])
        for number, random in enumerate(randoms[1:]):
            image = batch.images[number]
            sigma = self.value.scale.draw_sample(random_state=random)
            rows, columns = image.shape[:2]
            channels = 3 if per_channel[number] > 0.5 else 1
            noise = np.empty((rows, columns * channels), np.int16)
            cv2.setRNGSeed(int(random.integers(0, 2**31)))
            cv2.randn(noise, 0, float(sigma))  # rounds
            noise = noise.reshape(rows, columns, channels)
            if channels != image.shape[-1]:
                noise, image = three_channels(noise), three_channels(image)
            batch.images[number] = np.atleast_3d(cv2.add(image, noise, dtype=cv2.CV_8U))
        return batch


@cache
def noise_field(seed: int) -> np.ndarray:
    """Return the simplex noise of `seed` as grey levels; smaller fields are its corner."""
    size = NOISE_SIZES[1]
    noise2d = OpenSimplex(seed).noise2d
    noise = [[noise2d(column, row) for column in range(size)] for row in range(size)]
    return (np.clip((np.float32(noise) + 1) / 2, 0, 1) * 255).astype(np.uint8)


class CachedSimplexNoise(iap.SimplexNoise):
    """Simplex noise from NOISE_FIELDS fields, each computed once per process."""

    def _draw_samples_iteration(self, height, width, rng, upscale_method):
        field = noise_field(int(rng.integers(0, NOISE_FIELDS)))
        size = self.size_px_max.draw_sample(random_state=rng)
        rows, columns = (max(int(side * size / max(height, width)), 1) for side in (height, width))
        enlarged = cv2.resize(
            field[:rows, :columns], (width, height), interpolation=int(upscale_method)
        )
        return enlarged.astype(np.float32) / np.float32(255)


def blend_by_simplex_noise(operations: list[iaa.Augmenter]) -> iaa.Augmenter:
    """Return `iaa.BlendAlphaSimplexNoise(operations)` on cached noise."""
    noise = CachedSimplexNoise(
        NOISE_SIZES, iap.Choice(list(NOISE_METHODS), p=list(NOISE_METHODS.values()))
    )
    noise = iap.IterativeNoiseAggregator(noise, iterations=(1, 3), aggregation_method="max")
    return _Blend(iap.Sigmoid.create_for_noise(noise, iap.Normal(0.0, 5.0)), operations)


class _Blend(iaa.BlendAlphaElementwise):
    def _augment_batch_(self, batch, random_state, parents, hooks):
        before = [image.copy() for image in batch.images]
        batch = self.foreground.augment_batch_(batch, parents=[*parents, self], hooks=hooks)
        (mask,) = self.mask_generator.draw_masks(batch, random_state)
        mask = np.atleast_3d(mask).astype(np.float32, copy=False)
        for image, old in zip(batch.images, before, strict=True):
            image[...] = np.rint(old + mask * (image.astype(np.float32) - old))
        return batch


def _move(batch, number: int, sources: tuple, interpolation: int) -> None:
    """Resample image and label map `number` of a batch at `sources`: the maps of `cv2.remap`."""
    moved = cv2.remap(batch.images[number], *sources, interpolation)  # 0 from outside
    batch.images[number] = np.atleast_3d(moved)
    label_map = batch.segmentation_maps[number]
    label_map.arr = np.atleast_3d(cv2.remap(label_map.arr, *sources, cv2.INTER_NEAREST))


class ElasticTransformation(iaa.ElasticTransformation):
    """The same moves, drawn in single precision."""

    def _augment_batch_(self, batch, random_state, parents, hooks):
        samples = self._draw_samples(batch.nb_rows, random_state)
        for number, random in enumerate(samples.random_states):
            shape = batch.images[number].shape[:2]
            moves = random.generator.random((2, *shape), dtype=np.float32)
            moves = (moves * 2 - 1) * np.float32(samples.alphas[number])
            sigma = samples.sigmas[number]
            sources = [
                cv2.GaussianBlur(move, (5, 5), sigma) + position
                for move, position in zip(moves, _pixel_positions(*shape), strict=True)
            ]
            _move(batch, number, sources, cv2.INTER_CUBIC)
        return batch


@cache
def _pixel_positions(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and the row of each pixel."""
    return tuple(np.float32(np.indices((rows, columns))[::-1]))


class PiecewiseAffine(iaa.PiecewiseAffine):
    """The same local moves, interpolated by matplotlib and OpenCV instead of scikit-image."""

    def _augment_batch_(self, batch, random_state, parents, hooks):
        samples = self._draw_samples(batch.nb_rows, random_state)
        for number, jitter in enumerate(samples.jitter):
            shape = batch.images[number].shape[:2]
            counts = samples.nb_rows[number], samples.nb_cols[number]
            sides = [np.linspace(0, *end) for end in zip(shape, counts, strict=True)]
            points = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
            moved = np.clip(points + jitter * shape, 0, np.subtract(shape, 1))
            triangles = Triangulation(*points.T, Delaunay(points[:, ::-1]).simplices)
            rows, columns = (
                np.float32(LinearTriInterpolator(triangles, axis)(*np.indices(shape)))
                for axis in moved.T
            )
            _move(batch, number, (columns, rows), cv2.INTER_LINEAR)
        return batch
