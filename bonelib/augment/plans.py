"""A seed -> what to do to one image: the draws of the policy, for an engine on a device.

Everything but the noise of single pixels is drawn here, with NumPy, by the shares and ranges of
`ranges`. A step is a kind of work on the device and its numbers; several operations are of one
kind: a flip, a crop and a perspective are all homographies.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from bonelib.augment import ranges
from bonelib.augment.imgaug_fast import (
    NOISE_FIELDS,
    NOISE_METHODS,
    NOISE_SIZES,
    falling_diagonals,
    moved_points,
)

KINDS = (
    "nothing", "homography", "perspective", "mesh", "scatter", "blur", "median", "filter",
    "levels", "equalise", "noise", "removal",
)  # fmt: skip
STEPS = len(ranges.FREQUENT_SHARES) + ranges.MAX_OPERATIONS
MESH = ranges.LOCAL_AFFINE_POINTS[1]  # rows and columns of a mesh with room for every one
NUMBERS = 2 * MESH**2 + (MESH - 1) ** 2 + 2  # the most that a step needs, those of a mesh
MAX_FIELDS = 3  # of simplex noise in one mask
SIDES = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # corners (column, row), clockwise


class Plan(NamedTuple):
    """The steps of one image, or of a batch with an axis before the others."""

    kinds: np.ndarray  # (STEPS,), int32: positions in KINDS
    seeds: np.ndarray  # (STEPS,), int32: of the noise of single pixels
    numbers: np.ndarray  # (STEPS, NUMBERS), float32


def draw_plan(image_size: int, seed: int | tuple[int, ...]) -> Plan:
    """Return one draw of the paper's policy, which `seed` alone decides."""
    random = np.random.default_rng(seed)
    occasional = list(ranges.OCCASIONAL_SHARES)
    count = random.integers(ranges.MAX_OPERATIONS + 1)
    others = random.permutation(occasional)[:count].tolist()
    sequence = [[name] for name in ranges.FREQUENT_SHARES] + [others]
    shares = ranges.FREQUENT_SHARES | ranges.OCCASIONAL_SHARES
    names = [
        name
        for part in random.permutation(len(sequence))
        for name in sequence[part]
        if random.random() < shares[name]
    ]
    return plan_of(names, image_size, random)


def draw_plans(image_size: int, seeds: Iterable[int | tuple[int, ...]]) -> Plan:
    """Return the plans of a batch."""
    return Plan(*map(np.stack, zip(*(draw_plan(image_size, seed) for seed in seeds), strict=True)))


def plan_of(names: list[str], image_size: int, random: np.random.Generator) -> Plan:
    """Return the plan that applies the operations `names` in turn, each by its own draw."""
    plan = Plan(
        np.zeros(STEPS, np.int32),
        random.integers(2**31 - 1, size=STEPS, dtype=np.int32),
        np.zeros((STEPS, NUMBERS), np.float32),
    )
    for step, name in enumerate(names):
        kind, numbers = DRAWS[name](image_size, random)
        plan.kinds[step] = KINDS.index(kind)
        plan.numbers[step, : np.size(numbers)] = np.ravel(numbers)
    return plan


Step = tuple[str, np.ndarray | list]


def _horizontal_flip(size: int, random: np.random.Generator) -> Step:
    return _homography([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])


def _vertical_flip(size: int, random: np.random.Generator) -> Step:
    return _homography([[1, 0, 0], [0, -1, size - 1], [0, 0, 1]])


def _homography(sources: np.ndarray | list, nearest: bool = False) -> Step:
    """Return the step by which each pixel reads the image at `sources` @ (column, row, 1)."""
    return "homography", [*np.ravel(sources), nearest]


def _crop_or_pad(size: int, random: np.random.Generator) -> Step:
    top, right, bottom, left = np.round(size * random.uniform(*ranges.CROP_OR_PAD, 4))
    across, down = 1 + (left + right) / size, 1 + (top + bottom) / size
    return _homography(
        [[across, 0, across / 2 - 0.5 - left], [0, down, down / 2 - 0.5 - top], [0, 0, 1]]
    )


def _scale_rotate_shear(size: int, random: np.random.Generator) -> Step:
    across, down = random.uniform(*ranges.SCALE, 2)
    angle = np.deg2rad(random.uniform(*ranges.ROTATION))
    shear = np.deg2rad(random.uniform(*ranges.SHEAR))
    centre = size / 2 - 0.5
    # In the order of imgaug: shear of rows, then scale, then shear of columns and rotation.
    rows = np.array([[1, 0], [np.tan(shear), 1]])
    columns = np.array([[1, -np.tan(shear)], [0, 1]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = np.eye(3)
    forward[:2, :2] = turn @ columns @ np.diag([across, down]) @ rows
    forward[:2, 2] = centre - forward[:2, :2] @ (centre, centre)
    return _homography(np.linalg.inv(forward), nearest=random.random() < 0.5)


def _perspective(size: int, random: np.random.Generator) -> Step:
    jitter = random.normal(0, random.uniform(*ranges.PERSPECTIVE), (4, 2))
    corners = size * np.abs(SIDES - np.mod(np.abs(jitter), 1))
    top, right, bottom, left = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    columns, rows = (max(2, int(max(*sides))) for sides in ((top, bottom), (left, right)))
    shown = SIDES * (columns, rows)
    sources = cv2.getPerspectiveTransform(np.float32(shown), np.float32(corners))
    return "perspective", [*np.ravel(sources), columns, rows]


def _local_affine(size: int, random: np.random.Generator) -> Step:
    low, high = ranges.LOCAL_AFFINE_POINTS
    rows, columns = random.integers(low, high, 2, endpoint=True).tolist()
    jitter = random.normal(0, random.uniform(*ranges.LOCAL_AFFINE), (rows, columns, 2))
    points, falling = np.zeros((MESH, MESH, 2)), np.zeros((MESH - 1, MESH - 1))
    points[:rows, :columns] = moved_points((size, size), jitter)
    falling[: rows - 1, : columns - 1] = falling_diagonals((size, size), rows, columns)
    return "mesh", [*np.ravel(points), *np.ravel(falling), rows - 1, columns - 1]


def _local_moves(size: int, random: np.random.Generator) -> Step:
    return "scatter", [random.uniform(*ranges.local_moves(size))]


def blur_radius(image_size: int) -> int:
    """Return how far the widest blur of one direction reaches, in pixels."""
    gaussian = _gaussian_kernel(ranges.gaussian_sigma(image_size)[1])
    return max(len(gaussian), ranges.average_kernel(image_size)[1]) // 2


def _gaussian_kernel(sigma: float) -> np.ndarray:
    # Widths are imgaug's: at least 5 pixels, else what holds 99, 97 or 95 % of the weight.
    reach = 3.3 if sigma < 3 else 2.9 if sigma < 5 else 2.6
    return cv2.getGaussianKernel(int(max(reach * sigma, 5)) | 1, sigma)[:, 0]


def _blur(size: int, random: np.random.Generator) -> Step:
    sort = random.integers(3)
    if sort == 2:
        low, high = ranges.median_kernel(size)
        return "median", [random.integers(low, high, endpoint=True) | 1]
    if sort == 1:
        width = random.integers(*ranges.average_kernel(size), endpoint=True)
        kernel, before = np.full(width, 1 / width), width // 2
    else:
        sigma = random.uniform(*ranges.gaussian_sigma(size))
        if sigma <= 1e-3:
            return "nothing", []
        kernel = _gaussian_kernel(sigma)
        before = len(kernel) // 2
    radius = blur_radius(size)
    numbers = np.zeros(2 * radius + 1)
    numbers[radius - before :][: len(kernel)] = kernel
    return "blur", numbers


UNCHANGED = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
EDGES = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def _sharpen(size: int, random: np.random.Generator) -> Step:
    share = random.uniform(*ranges.SHARPENED_SHARE)
    effect = np.full((3, 3), -1.0)
    effect[1, 1] = 8 + random.uniform(*ranges.SHARPENED_LIGHTNESS)
    return "filter", [*np.ravel((1 - share) * UNCHANGED + share * effect), 0]


def _edges(size: int, random: np.random.Generator) -> Step:
    share = random.uniform(*ranges.EDGES_SHARE)
    effect = EDGES if random.random() < 0.5 else _directed_edges(random.integers(360))
    fields = random.integers(1, MAX_FIELDS, endpoint=True)
    numbers = [*np.ravel((1 - share) * UNCHANGED + share * effect), fields, random.normal(0, 5)]
    for _ in range(fields):
        method = random.choice(len(NOISE_METHODS), p=list(NOISE_METHODS.values()))
        side = min(random.integers(*NOISE_SIZES, endpoint=True), size)
        numbers += [random.integers(NOISE_FIELDS), method, side]
    return "filter", numbers


def _directed_edges(degrees: int) -> np.ndarray:
    """Return the kernel of imgaug's `DirectedEdgeDetect`."""
    radians = np.deg2rad(degrees) - np.pi / 2
    column, row = np.meshgrid([-1, 0, 1], [-1, 0, 1])
    apart = np.abs(np.arctan2(row, column) - radians) % (2 * np.pi)
    similarity = (1 - np.minimum(apart, 2 * np.pi - apart) / np.pi) ** 4
    similarity[1, 1] = 0
    return UNCHANGED - similarity / similarity.sum()


def _levels(factors: np.ndarray, offsets: np.ndarray) -> Step:
    return "levels", [*factors, *offsets]


def _each_channel(
    random: np.random.Generator, values: tuple[float, float], apart: float
) -> np.ndarray:
    """Return a number for each channel: the same, or in a share `apart` of cases its own."""
    drawn = random.uniform(*values, 3)
    return drawn if random.random() < apart else np.repeat(drawn[0], 3)


def _inversion(size: int, random: np.random.Generator) -> Step:
    return _levels(-np.ones(3), np.full(3, 255))


def _brightness(size: int, random: np.random.Generator) -> Step:
    factors = _each_channel(random, ranges.BRIGHTNESS, ranges.BRIGHTNESS_PER_CHANNEL)
    return _levels(factors, np.zeros(3))


def _contrast(size: int, random: np.random.Generator) -> Step:
    factors = _each_channel(random, ranges.CONTRAST, ranges.CONTRAST_PER_CHANNEL)
    return _levels(factors, 127 * (1 - factors))


def _histogram_equalisation(size: int, random: np.random.Generator) -> Step:
    return "equalise", []


def _noise(size: int, random: np.random.Generator) -> Step:
    return "noise", [
        random.uniform(*ranges.NOISE_SIGMA),
        random.random() < ranges.NOISE_PER_CHANNEL,
    ]


def _pixel_removal(size: int, random: np.random.Generator) -> Step:
    if random.random() < 0.5:
        apart = random.random() < ranges.REMOVED_PER_CHANNEL
        return "removal", [random.uniform(*ranges.REMOVED), apart, size, size]
    sides = (size * random.uniform(*ranges.COARSE_SIZE, 2)).astype(int)
    rows, columns = np.maximum(sides, ranges.MIN_COARSE_PIXELS)
    apart = random.random() < ranges.COARSE_PER_CHANNEL
    return "removal", [random.uniform(*ranges.REMOVED_COARSELY), apart, rows, columns]


DRAWS: dict[str, Callable[[int, np.random.Generator], Step]] = {
    "horizontal_flip": _horizontal_flip,
    "vertical_flip": _vertical_flip,
    "crop_or_pad": _crop_or_pad,
    "scale_rotate_shear": _scale_rotate_shear,
    "blur": _blur,
    "sharpen": _sharpen,
    "edges": _edges,
    "noise": _noise,
    "pixel_removal": _pixel_removal,
    "inversion": _inversion,
    "brightness": _brightness,
    "contrast": _contrast,
    "histogram_equalisation": _histogram_equalisation,
    "local_moves": _local_moves,
    "local_affine": _local_affine,
    "perspective": _perspective,
}
