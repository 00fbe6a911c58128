"""The second engine: plans carried out on the device that trains, whole batches at a time.

Only networks' processes import this module, since it imports keras. Images are float32 (row,
column, channel) of whole grey levels, label maps int32 (row, column).
"""

from collections.abc import Iterator
from functools import cache

import cv2
import keras
import numpy as np
from keras import ops

from bonelib.augment import ranges, resize_labels
from bonelib.augment.imgaug_fast import (
    INTERPOLATIONS,
    NOISE_FIELDS,
    NOISE_METHODS,
    NOISE_SIZES,
    noise_field,
)
from bonelib.augment.plans import KINDS, MAX_FIELDS, MESH, NUMBERS, STEPS, Plan, blur_radius


class _Draws(keras.random.SeedGenerator):
    """A seed that is a number on the device; the step that has it draws once."""

    def __init__(self, seed):
        # No variables as of the parent: the same seed has to give the same draw.
        self.seed = seed

    def next(self, ordered=True):
        return ops.cast(ops.stack([self.seed, ops.zeros_like(self.seed)]), "uint32")


class _Steps:
    """What each kind of step does to an image and its label map of a fixed size.

    Every method is one of KINDS: (image, labels, seed, numbers) -> (image, labels).
    """

    def __init__(self, size: int):
        self.size = size
        self.row, self.column = np.float32(np.indices((size, size)))
        self.radius = blur_radius(size)
        self.median_radius = ranges.median_kernel(size)[1] // 2
        self.fields = np.float32([noise_field(seed) for seed in range(NOISE_FIELDS)])
        self.enlarging = np.stack([_enlarging(size, method) for method in NOISE_METHODS])

    def nothing(self, image, labels, seed, numbers):
        return image, labels

    def homography(self, image, labels, seed, numbers):
        """Read each pixel where a matrix puts it."""
        row, column = _mapped(numbers, self.row, self.column)
        nearest = numbers[9] > 0.5
        image = self.linear(
            image, *(ops.where(nearest, ops.floor(x + 0.5), x) for x in (row, column))
        )
        return image, self.nearest(labels, row, column)

    def perspective(self, image, labels, seed, numbers):
        """Draw a quadrangle as a rectangle, then enlarge that, as imgaug does."""
        image = self.linear(image, *_mapped(numbers, self.row, self.column))
        nearest = []
        for axis, count in enumerate((numbers[10], numbers[9])):
            scale = count / self.size
            at = np.arange(self.size, dtype=np.float32)
            nearest.append(ops.floor((at + 0.5) * scale))
            # OpenCV's INTER_AREA, by which imgaug enlarges, blends only where pixels meet.
            below = ops.floor(at * scale + 1e-4)
            part = ops.maximum(at + 1 - (below + 1) / scale, 0)
            part = ops.where(below < count - 1, part - ops.floor(part), 0.0)
            below = ops.cast(ops.minimum(below, count - 1), "int32")
            above = ops.minimum(below + 1, self.size - 1)
            part = part[:, None] if axis else part[:, None, None]
            image = (1 - part) * ops.take(image, below, axis) + part * ops.take(image, above, axis)
        row, column = _mapped(numbers, nearest[0][:, None], nearest[1])
        return _levels(image), self.nearest(labels, row, column)

    def mesh(self, image, labels, seed, numbers):
        """Read each pixel where the triangle around it puts it, see `faster`."""
        points = ops.reshape(numbers[: 2 * MESH**2], (MESH**2, 2))
        falling = ops.reshape(numbers[2 * MESH**2 : -2], ((MESH - 1) ** 2,))
        row, column = (
            at * (numbers[end] / self.size)
            for at, end in zip((self.row, self.column), (-2, -1), strict=True)
        )
        row_of, column_of = ops.floor(row), ops.floor(column)
        down, right = (row - row_of)[..., None], (column - column_of)[..., None]
        row_of, column_of = ops.cast(row_of, "int32"), ops.cast(column_of, "int32")
        corner = row_of * MESH + column_of
        a, b, c, d = (ops.take(points, corner + step, axis=0) for step in (0, 1, MESH, MESH + 1))
        falls = ops.take(falling, row_of * (MESH - 1) + column_of)[..., None] > 0.5
        falling_cut = ops.where(
            right >= down,
            a + right * (b - a) + down * (d - b),
            a + right * (d - c) + down * (c - a),
        )
        rising_cut = ops.where(
            right + down <= 1,
            a + right * (b - a) + down * (c - a),
            b + c - d + right * (d - c) + down * (d - b),
        )
        source = ops.where(falls, falling_cut, rising_cut)
        row, column = source[..., 0], source[..., 1]
        return self.linear(image, row, column), self.nearest(labels, row, column)

    def scatter(self, image, labels, seed, numbers):
        """Read each pixel a little away, its neighbours elsewhere.

        imgaug blurs the moves by a quarter of a pixel, which changes them by a thousandth.
        """
        moves = keras.random.uniform((2, self.size, self.size), -1.0, 1.0, seed=_Draws(seed))
        row, column = self.row + numbers[0] * moves[0], self.column + numbers[0] * moves[1]
        return self.cubic(image, row, column), self.nearest(labels, row, column)

    def blur(self, image, labels, seed, numbers):
        """Average rows, then columns, with the weights given."""
        for axis in (0, 1):
            padded = self.padded(image, self.radius, "reflect", axis)
            image = sum(
                numbers[tap] * self.window(padded, tap, axis) for tap in range(2 * self.radius + 1)
            )
        return _levels(image), labels

    def median(self, image, labels, seed, numbers):
        """Find the median bit by bit: a value is at most it if few enough are below."""
        radius = self.median_radius
        padded = image
        for axis in (0, 1):
            padded = self.padded(padded, radius, "edge", axis)
        reach = (numbers[0] - 1) / 2
        taps = [
            (
                across,
                down,
                ops.cast(max(abs(across - radius), abs(down - radius)) <= reach, "int32"),
            )
            for across in range(2 * radius + 1)
            for down in range(2 * radius + 1)
        ]
        half = ops.cast((numbers[0] ** 2 - 1) / 2, "int32")

        def next_bit(bit, median):
            higher = median + ops.cast(ops.right_shift(128, bit), "float32")
            below = sum(
                weight
                * ops.cast(self.window(self.window(padded, down, 0), across, 1) < higher, "int32")
                for across, down, weight in taps
            )
            return ops.where(below <= half, higher, median)

        return ops.fori_loop(0, 8, next_bit, ops.zeros_like(image)), labels

    def filter(self, image, labels, seed, numbers):
        """Convolve with three by three weights, all over or where simplex noise says so."""
        padded = image
        for axis in (0, 1):
            padded = self.padded(padded, 1, "reflect", axis)
        filtered = _levels(
            sum(
                numbers[3 * down + across] * self.window(self.window(padded, down, 0), across, 1)
                for down in range(3)
                for across in range(3)
            )
        )
        mask = ops.where(numbers[9] > 0, self.noise_mask(numbers[9:]), 1.0)[..., None]
        return ops.round(image + mask * (filtered - image)), labels

    def noise_mask(self, numbers):
        """Return weights (row, column) from the largest of some fields of simplex noise."""
        largest = ops.zeros((self.size, self.size))
        for number in range(MAX_FIELDS):
            which, method, side = ops.unstack(
                ops.cast(numbers[2 + 3 * number : 5 + 3 * number], "int32"), 3
            )
            weights = ops.take(ops.take(self.enlarging, method, axis=0), side, axis=0)
            enlarged = ops.matmul(
                ops.matmul(weights, ops.take(self.fields, which, axis=0)), ops.transpose(weights)
            )
            enlarged = ops.where(number < numbers[0], _levels(enlarged) / 255, 0.0)
            largest = ops.maximum(largest, enlarged)
        return ops.sigmoid(20 * largest - 10 - numbers[1])

    def levels(self, image, labels, seed, numbers):
        """Multiply and add; imgaug cuts fractions off."""
        return ops.floor(ops.clip(image * numbers[:3] + numbers[3:6], 0, 255)), labels

    def equalise(self, image, labels, seed, numbers):
        """Equalise each channel's histogram as OpenCV does."""
        channels = []
        for channel in range(3):
            values = ops.cast(ops.reshape(image[..., channel], (-1,)), "int32")
            # A product of nibbles counts the same way each time, which not every bincount does.
            high, low = (ops.one_hot(nibble, 16) for nibble in (values // 16, values % 16))
            counts = ops.reshape(ops.matmul(ops.transpose(high), low), (-1,))
            darkest = ops.take(counts, ops.min(values))
            scale = 255 / ops.maximum(self.size**2 - darkest, 1)
            table = _levels((ops.cumsum(counts) - darkest) * scale)
            equal = ops.cast(ops.take(table, values), "float32")
            equal = ops.where(darkest < self.size**2, equal, ops.cast(values, "float32"))
            channels.append(ops.reshape(equal, (self.size, self.size)))
        return ops.stack(channels, axis=-1), labels

    def noise(self, image, labels, seed, numbers):
        """Add Gaussian noise, to each channel its own or to all the same."""
        noise = keras.random.normal((self.size, self.size, 3), seed=_Draws(seed)) * numbers[0]
        noise = ops.where(numbers[1] > 0.5, noise, noise[..., :1])
        return ops.clip(image + ops.round(noise), 0, 255), labels

    def removal(self, image, labels, seed, numbers):
        """Blacken pixels of a coarse image or of this one, of all channels or of each its own."""
        drawn = keras.random.uniform((self.size, self.size, 3), seed=_Draws(seed))
        for axis in (0, 1):
            position = np.arange(self.size, dtype=np.float32) * (numbers[2 + axis] / self.size)
            drawn = ops.take(drawn, ops.cast(ops.floor(position + 1e-3), "int32"), axis=axis)
        drawn = ops.where(numbers[1] > 0.5, drawn, drawn[..., :1])
        return ops.where(drawn < numbers[0], 0.0, image), labels

    def padded(self, image, radius, mode, axis):
        """Return an image with `radius` pixels more on both ends of an axis."""
        index = np.pad(np.arange(self.size), radius, mode=mode)
        return ops.take(image, index.astype(np.int32), axis=axis)

    def window(self, padded, start, axis):
        """Return `size` rows or columns of a padded image from `start` on."""
        if axis == 0:
            return padded[start : start + self.size]
        return padded[:, start : start + self.size]

    def at(self, padded, row, column):
        """Return the values (row, column, channel) at whole positions, 0 outside."""
        row, column = (ops.clip(x, -1, self.size) + 1 for x in (row, column))
        index = ops.cast(row * (self.size + 2) + column, "int32")
        return ops.take(padded, index, axis=0)

    def framed(self, values):
        """Return values (row, column, channel) within zeros, as (pixel, channel)."""
        frame = ops.pad(values, ((1, 1), (1, 1), (0, 0)))
        return ops.reshape(frame, (-1, values.shape[-1]))

    def nearest(self, labels, row, column):
        """Return the labels that are nearest to positions."""
        row, column = ops.floor(row + 0.5), ops.floor(column + 0.5)
        return self.at(self.framed(labels[..., None]), row, column)[..., 0]

    def linear(self, image, row, column):
        """Return the image at positions, linear between its pixels."""
        return self.between(image, row, column, 0, lambda part: (1 - part, part))

    def cubic(self, image, row, column):
        """Return the image at positions, by OpenCV's cubic interpolation."""
        return self.between(image, row, column, -1, _cubic_weights)

    def between(self, image, row, column, first, weights):
        """Return the image at positions as a weighted sum of pixels from `first` on."""
        padded = self.framed(image)
        row_of, column_of = ops.floor(row), ops.floor(column)
        down, right = weights(row - row_of), weights(column - column_of)
        return _levels(
            sum(
                (down[i] * right[j])[..., None]
                * self.at(padded, row_of + (first + i), column_of + (first + j))
                for i in range(len(down))
                for j in range(len(right))
            )
        )


def _mapped(matrix, row, column):
    """Return row and column of `matrix`, three by three in a row, @ (column, row, 1)."""
    column, row, scale = (
        matrix[first] * column + matrix[first + 1] * row + matrix[first + 2] for first in (0, 3, 6)
    )
    return row / scale, column / scale


def _levels(values):
    return ops.clip(ops.round(values), 0, 255)


def _cubic_weights(part, sharpness=-0.75):
    def inner(x):
        return ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1

    def outer(x):
        return ((sharpness * x - 5 * sharpness) * x + 8 * sharpness) * x - 4 * sharpness

    return outer(part + 1), inner(part), inner(1 - part), outer(2 - part)


def _enlarging(size: int, method: str) -> np.ndarray:
    """Return the weights by which OpenCV enlarges a side: (pixels of a field, size, pixel)."""
    largest = NOISE_SIZES[1]
    weights = np.zeros((largest + 1, size, largest), np.float32)
    for side in range(1, largest + 1):
        weights[side, :, :side] = cv2.resize(
            np.eye(side, dtype=np.float32), (side, size), interpolation=INTERPOLATIONS[method]
        )
    return weights


class Augmentation(keras.Layer):
    """Images, label maps and plans -> augmented images and label maps, uint8."""

    def __init__(self, image_size: int, output_size: int):
        super().__init__(dtype="float32")
        self.image_size, self.output_size = image_size, output_size
        self.steps = _Steps(image_size)

    def compute_output_spec(self, images, labels, kinds, seeds, numbers):
        """Say what comes out without tracing it."""
        shapes = (self.image_size, self.image_size, 3), (self.output_size, self.output_size)
        return [keras.KerasTensor((None, *shape), dtype="uint8") for shape in shapes]

    def call(self, images, labels, kinds, seeds, numbers):
        """Carry out the plans one image after another: only the kind that is drawn is computed."""
        branches = [getattr(self.steps, kind) for kind in KINDS]

        def augmented(item):
            image, labels, kinds, seeds, numbers = item

            def step(index, pair):
                return ops.switch(kinds[index], branches, *pair, seeds[index], numbers[index])

            return ops.fori_loop(0, STEPS, step, (image, labels))

        images = ops.repeat(ops.cast(images, "float32")[..., None], 3, axis=-1)
        images, labels = ops.map(
            augmented, (images, ops.cast(labels, "int32"), kinds, seeds, numbers)
        )
        index = resize_labels(np.arange(self.image_size)[:, None], (self.output_size, 1))[:, 0]
        for axis in (1, 2):
            labels = ops.take(labels, index.astype(np.int32), axis=axis)
        return ops.cast(images, "uint8"), ops.cast(labels, "uint8")


@cache
def engine(image_size: int, output_size: int) -> keras.Model:
    """Return a model without weights that augments: Keras compiles it for any device."""
    square = (image_size, image_size)
    inputs = [
        keras.Input(square, dtype="uint8"),
        keras.Input(square, dtype="uint8"),
        keras.Input((STEPS,), dtype="int32"),
        keras.Input((STEPS,), dtype="int32"),
        keras.Input((STEPS, NUMBERS), dtype="float32"),
    ]
    return keras.Model(inputs, Augmentation(image_size, output_size)(*inputs))


def apply_plans(
    images: np.ndarray, labels: np.ndarray, plans: Plan, output_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return augmented images (slice, row, column, 3) and label maps on the output grid.

    `images` and `labels` are uint8 (slice, row, column), `plans` those of all slices.
    """
    model = engine(images.shape[1], output_size or images.shape[1])
    return tuple(model.predict_on_batch([images, labels, *plans]))


def augmented(batches: Iterator, output_size: int) -> Iterator:
    """Yield the batches of `augment.batches` as they are after their plans."""
    for images, labels, plans in batches:
        yield apply_plans(images, labels, plans, output_size)
