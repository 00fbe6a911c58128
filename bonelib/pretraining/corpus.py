"""Slabs of tissue on disk -> random training batches.

A slab is a plane and the planes below and above it, the three channels of one PNG, which
holds `Tissue` in pixels of `PIXEL_MM`. Rotation, size, contrast, blur and noise are drawn anew
for every sample, so that a network learns shape and context instead of brightness (domain
randomisation). `corpus_writer` writes a corpus; this module needs neither scans nor
annotations, so that a bare GPU machine can train from a copied corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from bonelib import augment, devices, provenance, slices
from bonelib.errors import InputError
from bonelib.paths import SliceFolder
from bonelib.phantom.projection import LOW_ENERGY_SHARE, artefacts
from bonelib.phantom.tissues import TISSUE_HU, Tissue, draw_texture, texture_plane
from bonelib.settings import AIR_HU, BACKGROUND, Settings

PIXEL_MM = 0.78125  # half of the network's pixels, for partial volume
SUBJECT_SHARE = 0.8  # of the samples that show annotated subjects, if there are any
TEXTURE_SEED = 10

SHIFT_MM = (50.0, 25.0)  # standard deviations; a sample shows a part of the body
OVERSAMPLING = 2  # tissue pixels a side for each of the image, for partial volume
SOFT = [tissue for tissue in Tissue if Tissue.GAS <= tissue < Tissue.MARROW]
SPONGY = (Tissue.MARROW, Tissue.SPARSE_TRABECULAR, Tissue.TRABECULAR, Tissue.VERTEBRAL_SHELL)
# Share of slices in which a tissue holds contrast medium, and its range in HU there.
ENHANCED = {
    Tissue.FLUID: (0.2, 60, 900),  # bladder and bowel
    Tissue.BLOOD: (0.25, 70, 400),  # vessels, kidneys, stool
    Tissue.BOWEL_WALL: (0.2, 50, 150),
    Tissue.ENHANCED_BLOOD: (1.0, 60, 450),
    Tissue.BOWEL_CONTRAST: (1.0, 90, 1100),
    Tissue.CALCIFICATION: (1.0, 250, 1300),
}


@dataclass(frozen=True)
class Corpus:
    """The samples of a training; it stands in for `training.AugmentedSlices`."""

    root: Path
    settings: Settings
    has_shares: bool = True

    @property
    def table(self) -> Path:
        """Return the table of slabs (file, subject; a phantom has none), written last."""
        return self.root / "slabs.csv"

    @property
    def validation(self) -> SliceFolder:
        """Return the prepared slices of held-out series."""
        return SliceFolder(self.root / "validation")

    @property
    def fingerprint(self) -> str:
        """Return a hash of the slabs."""
        files = [self.root / name for name in self.slabs()["file"]]
        return provenance.content_hash(files, self.root)

    def slabs(self) -> pd.DataFrame:
        """Return the table of slabs."""
        return pd.read_csv(self.table, dtype=str, keep_default_na=False)

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield random batches without end; each depends on the seed and its number only.

        Images are uint8 (batch, row, column, 3), labels the classes' shares of each pixel of
        the output grid (batch, row, column, class), float32.
        """
        groups = [
            [self.root / name for name in group["file"]]
            for _, group in self.slabs().groupby("subject")
        ]
        load = partial(_draw_batch, groups=groups, settings=self.settings, output_size=output_size)
        numbers = count(first_epoch * self.settings.steps_per_epoch)
        return devices.in_order(load, numbers, augment.num_workers(self.settings))

    def examples(self, number: int) -> np.ndarray:
        """Return the first `number` training images."""
        batches = self.batches(self.settings.image_size, 0)
        needed = -(-number // self.settings.batch_size)
        return np.concatenate([images for images, _ in islice(batches, needed)])[:number]


@cache  # once a process
def _texture() -> np.ndarray:
    return draw_texture(np.random.default_rng(TEXTURE_SEED))


def _draw_batch(
    number: int, groups: list[list[Path]], settings: Settings, output_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch; `groups` are the phantoms' slabs and those of each subject."""
    images, classes = [], []
    for position in range(settings.batch_size):
        random = np.random.default_rng([settings.training_seed, 11, number, position])
        phantoms, *subjects = groups
        group = phantoms
        if subjects and random.random() < SUBJECT_SHARE:
            group = subjects[random.integers(len(subjects))]
        path = group[random.integers(len(group))]
        slab = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if slab is None:
            raise InputError(f"{path}: missing or damaged; write the corpus again")
        image_hu, shares = random_slab(
            np.moveaxis(slab, -1, 0), PIXEL_MM, _texture(), settings.image_size,
            settings.pixel_spacing_mm, random,
        )  # fmt: skip
        images.append(slices.window(image_hu, settings))
        classes.append(cv2.resize(shares, (output_size, output_size), interpolation=cv2.INTER_AREA))
    return np.stack(images), np.stack(classes)


def random_slab(
    tissues: np.ndarray,
    pixel_mm: float,
    texture: np.ndarray,
    image_size: int,
    spacing_mm: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return HU (row, column, plane) and class shares (row, column, class), float32.

    The shares of a pixel are those of background, patient and bone in the middle plane.
    `tissues` (plane, row, column) holds `Tissue` in pixels of `pixel_mm`, `texture` is from
    `tissues.draw_texture`. The planes are rotated, stretched, shifted and bent together.
    """
    size, fine_mm = image_size * OVERSAMPLING, spacing_mm / OVERSAMPLING
    tissues = _warp(tissues, pixel_mm, size, fine_mm, random)
    body = tissues[1] >= Tissue.GAS
    _add_distractors(tissues, fine_mm, random)
    if random.random() < 0.3:
        _add_cloth(tissues, body, fine_mm, random)
    planes = _neighbours(_scan(tissues, texture, fine_mm, random), random)
    bone, inside, *planes = (
        cv2.resize(plane.astype(np.float32), (image_size, image_size), interpolation=cv2.INTER_AREA)
        for plane in (tissues[1] >= Tissue.MARROW, body, *planes)
    )
    image = np.dstack(planes) + _noise(planes[1], inside, spacing_mm, random)
    shares = np.dstack([1 - inside, inside - bone, bone])
    if random.random() < 0.15:
        _cut_by_field(image, shares, random)
    return image, shares


def _neighbours(planes: np.ndarray, random) -> np.ndarray:
    """Mix the planes as thick or distant slices do, or repeat the middle one at a scan's end."""
    low, middle, high = planes
    if random.random() < 0.5:  # a thick slice includes a part of its neighbours
        share = random.uniform(0, 0.25)
        middle = (1 - 2 * share) * middle + share * (low + high)
    if random.random() < 0.3:  # neighbours interpolated between distant slices
        share = random.uniform(0, 0.5)
        low, high = (share * middle + (1 - share) * plane for plane in (low, high))
    end = random.random()
    low, high = (middle if end < 0.03 else low), (middle if end > 0.97 else high)
    return np.stack([low, middle, high] if random.random() < 0.5 else [high, middle, low])


def _warp(tissues, pixel_mm: float, size: int, fine_mm: float, random) -> np.ndarray:
    """Return the tissues, deformed at random, on a square grid around the body."""
    rows, columns = np.nonzero(tissues[1, ::4, ::4] >= Tissue.GAS)
    rows, columns = rows * 4.0, columns * 4.0
    centre = np.array([np.ptp(columns) / 2 + columns.min(), np.ptp(rows) / 2 + rows.min()])
    angle = np.radians(random.normal(0, 6))
    zoom = np.exp(random.normal(0, 0.08) + random.normal(0, 0.05, 2))
    flip = random.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flip / zoom[0], 1 / zoom[1]]) * (fine_mm / pixel_mm)
    shift_mm = random.normal(0, SHIFT_MM, 2)
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = axis[None, :] - shift_mm[0] / fine_mm, axis[:, None] - shift_mm[1] / fine_mm
    bends = [_smooth(random, random.uniform(0, 5) / pixel_mm, 7, (size, size)) for _ in range(2)]
    sources = [
        (row[0] * x + row[1] * y + middle + bend).astype(np.float32)
        for row, middle, bend in zip(matrix, centre, bends, strict=True)
    ]
    border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": 0}
    return np.stack([cv2.remap(plane, *sources, cv2.INTER_NEAREST, **border) for plane in tissues])


def _add_distractors(tissues: np.ndarray, fine_mm: float, random) -> None:
    """Paint bright tubes, blobs and crumbs that are not bone into soft tissue.

    Some appear in one plane only, others at a shift in each.
    """
    if random.random() < 0.4:
        return
    soft = np.isin(tissues, (Tissue.FAT, Tissue.MUSCLE, Tissue.BOWEL_WALL, Tissue.FLUID))
    rows, columns = np.nonzero(soft[1, ::8, ::8])
    if not len(rows):
        return
    mask = np.zeros(tissues.shape[1:], np.uint8)
    for _ in range(random.integers(1, 9)):
        chosen = random.integers(len(rows))
        centre = int(columns[chosen] * 8), int(rows[chosen] * 8)
        radius = np.exp(random.uniform(np.log(1.0), np.log(22.0)))
        axes = [max(round(radius * random.uniform(0.5, 1.3) / fine_mm), 1) for _ in range(2)]
        content = random.choice(
            [Tissue.BOWEL_CONTRAST, Tissue.ENHANCED_BLOOD, Tissue.CALCIFICATION, Tissue.FLUID],
            p=[0.45, 0.25, 0.1, 0.2] if radius > 4 else [0.15, 0.4, 0.4, 0.05],
        )
        turn, extent = random.uniform(0, 360), random.choice([360, random.uniform(90, 270)])
        filled = extent == 360 and random.random() < 0.7
        thick = -1 if filled else max(round(random.uniform(1.5, 0.5 * radius + 2) / fine_mm), 1)
        slope = random.normal(0, 3 / fine_mm, 2) if random.random() < 0.8 else (1e4, 1e4)
        for number, plane in enumerate(tissues):
            mask[:] = 0
            place = np.add(centre, np.multiply(number - 1, slope)).astype(int).tolist()
            cv2.ellipse(mask, place, axes, turn, 0, extent, 1, thick)
            plane[(mask > 0) & soft[number]] = content


def _add_cloth(tissues: np.ndarray, body: np.ndarray, fine_mm: float, random) -> None:
    """Paint a sheet or a gown around a part of the body."""
    away_mm = cv2.distanceTransform(1 - body.astype(np.uint8), cv2.DIST_L2, 3) * fine_mm
    near_mm = random.uniform(0.5, 12) + _smooth(random, 4, 6, body.shape)
    sheet = (away_mm > near_mm) & (away_mm < near_mm + random.uniform(0.6, 1.6)) & ~body
    sheet &= near_mm > random.uniform(-4, 4)
    for plane in tissues:
        plane[sheet & (plane == Tissue.AIR)] = Tissue.COUCH_SHELL


def _scan(tissues, texture, fine_mm: float, random) -> np.ndarray:
    """Return HU without noise, blurred as by a scanner, (plane, row, column) in fine pixels."""
    mean, between, coarse, fine = TISSUE_HU.T.copy()
    mean += 1.5 * between * random.normal(size=len(mean))
    mean[SOFT] += random.normal(0, 8)
    for tissue, (share, low, high) in ENHANCED.items():
        if random.random() < share:
            mean[tissue] = np.exp(random.uniform(np.log(low), np.log(high)))
    mean[list(SPONGY)] += random.normal(-10, 50)
    mean[Tissue.VERTEBRAL_SHELL :] *= random.normal(1, 0.1) * random.uniform(0.65, 1.1)
    mean[Tissue.MARROW] = max(mean[Tissue.MARROW], -110)
    coarse *= random.uniform(0.2, 1.5)
    fine *= random.uniform(0.2, 1.5)
    shape = tissues.shape[1:]
    z_mm = random.uniform(0, 1000)
    # Bone is dense here and pale there, over centimetres and over millimetres.
    uneven = np.zeros(len(mean))
    uneven[list(SPONGY)] = random.uniform(20, 150)  # HU
    uneven[Tissue.THIN_CORTICAL :] = random.uniform(0.1, 0.4) * mean[Tissue.THIN_CORTICAL :]
    density = (_smooth(random, 1, 14, shape) + _smooth(random, 1, 50, shape)) / np.sqrt(2)
    field = _smooth(random, random.uniform(0, 14), 4, shape)  # hardening and scatter vary slowly
    grain_pixels, blur_pixels = random.uniform(0.6, 1.6), random.uniform(0.3, 1.6) / fine_mm
    sharp = random.uniform(0.2, 0.8) if random.random() < 0.3 else 0.0  # overshoots at edges
    bends = _bends(random, random.uniform(0.5, 3) / fine_mm, shape)
    is_thick = random.random() < 0.3  # then a slice includes its neighbours' edges
    images = []
    for plane in tissues:
        grain = cv2.GaussianBlur(random.standard_normal(shape, np.float32), (0, 0), grain_pixels)
        image = mean[plane] + uneven[plane] * density + fine[plane] * (grain / grain.std())
        image += coarse[plane] * texture_plane(texture, shape, fine_mm, z_mm)
        image = image.astype(np.float32)
        if is_thick:
            image = (image + cv2.remap(image, *bends, cv2.INTER_LINEAR)) / 2
        smooth = cv2.GaussianBlur(image, (0, 0), blur_pixels)
        if sharp:
            smooth += sharp * (image - cv2.GaussianBlur(image, (0, 0), 2 / fine_mm))
        images.append(smooth + field * (plane >= Tissue.GAS))
    return np.stack(images)


def _bends(random, pixels: float, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return the columns and rows that pixels come from in an image bent by about `pixels`."""
    columns, rows = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in shape[::-1]))
    return [axis + _smooth(random, pixels, 8, shape) for axis in (columns, rows)]


def _smooth(random, deviation: float, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Return a random field of mean 0 that varies over about 1/`cells` of its side."""
    nodes = random.normal(0, deviation, (cells, cells)).astype(np.float32)
    return cv2.resize(nodes, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _noise(image, inside, spacing_mm: float, random) -> np.ndarray:
    """Return noise in HU for three planes (row, column, plane), the same in kind.

    It is strongest deep in the body, with simulated beam hardening or, sometimes, with streaks.
    """
    strength, shift_hu, streaks = np.exp(random.uniform(np.log(2.0), np.log(45.0))), 0, 0
    if random.random() < 0.2:
        kv = int(random.choice(list(LOW_ENERGY_SHARE)))
        shift_hu, deviation, streaks = artefacts(image, spacing_mm, kv, random)
        streaks = strength * streaks
    else:
        depth = cv2.GaussianBlur(inside, (0, 0), 60 / spacing_mm)
        deviation = 0.35 + 0.65 * depth
        if random.random() < 0.3:
            lines = random.standard_normal(inside.shape, np.float32)
            lines = cv2.GaussianBlur(lines, (0, 0), 12 / spacing_mm, sigmaY=1 / spacing_mm)
            streaks = random.uniform(0, 25) / lines.std() * lines * depth * deviation
    grain_mm = random.uniform(0, 1.8)
    return np.dstack([
        shift_hu
        + strength * deviation * _grain(random, image.shape, grain_mm / spacing_mm)
        + random.choice([-1, 1]) * streaks
        for _ in range(3)
    ])  # fmt: skip


def _grain(random, shape: tuple[int, int], width: float) -> np.ndarray:
    """Return noise of unit variance that is correlated over `width` pixels."""
    noise = random.standard_normal(shape, np.float32)
    if width > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), width)
    return noise / noise.std()


def _cut_by_field(image: np.ndarray, shares: np.ndarray, random) -> None:
    """Fill with air outside a circle, as outside a scanner's field of view."""
    size = len(image)
    centre = size / 2 + random.normal(0, 0.05 * size, 2)
    axis = np.arange(size)
    away = np.hypot(axis[:, None] - centre[0], axis[None, :] - centre[1])
    outside = away > random.uniform(0.36, 0.5) * size
    image[outside] = AIR_HU
    shares[outside] = np.eye(shares.shape[-1])[BACKGROUND]
