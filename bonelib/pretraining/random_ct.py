"""Tissues of a slice and a random generator -> a training sample of random appearance.

`phantom.rendering` shows a patient as one scanner would. This module draws rotation, size,
contrast, blur and noise anew for every sample, so that a network learns shape and context
instead of brightness (domain randomisation). It is fast enough to run during training.
"""

import cv2
import numpy as np

from bonelib.phantom.projection import LOW_ENERGY_SHARE, artefacts
from bonelib.phantom.rendering import texture_plane
from bonelib.phantom.tissues import TISSUE_HU, Tissue
from bonelib.settings import AIR_HU, BACKGROUND

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


def random_slice(
    tissues: np.ndarray,
    pixel_mm: float,
    texture: np.ndarray,
    image_size: int,
    spacing_mm: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return HU, (image_size, image_size), and class shares, (image_size, image_size, 3), float32.

    The shares of a pixel are those of background, patient and bone. `tissues` (row, column)
    holds `Tissue` in pixels of `pixel_mm`, `texture` is from `rendering.draw_texture`. The
    slice is rotated, stretched, shifted and bent.
    """
    size, fine_mm = image_size * OVERSAMPLING, spacing_mm / OVERSAMPLING
    tissues = _warp(tissues, pixel_mm, size, fine_mm, random)
    body = tissues >= Tissue.GAS
    _add_distractors(tissues, fine_mm, random)
    if random.random() < 0.3:
        _add_cloth(tissues, body, fine_mm, random)
    image = _scan(tissues, texture, fine_mm, random)
    bone, inside, image = (
        cv2.resize(plane.astype(np.float32), (image_size, image_size), interpolation=cv2.INTER_AREA)
        for plane in (tissues >= Tissue.MARROW, body, image)
    )
    if random.random() < 0.2:
        image += _physics(image, spacing_mm, random)
    else:
        image += _noise(inside, spacing_mm, random)
    shares = np.dstack([1 - inside, inside - bone, bone])
    if random.random() < 0.15:
        _cut_by_field(image, shares, random)
    return image, shares


def _warp(tissues, pixel_mm: float, size: int, fine_mm: float, random) -> np.ndarray:
    """Return the tissues, deformed at random, on a square grid around the body."""
    rows, columns = np.nonzero(tissues[::4, ::4] >= Tissue.GAS)
    rows, columns = rows * 4.0, columns * 4.0
    centre = np.array([np.ptp(columns) / 2 + columns.min(), np.ptp(rows) / 2 + rows.min()])
    angle = np.radians(random.normal(0, 6))
    zoom = np.exp(random.normal(0, 0.08) + random.normal(0, 0.05, 2))
    flip = random.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flip / zoom[0], 1 / zoom[1]]) * (fine_mm / pixel_mm)
    shift_mm = random.normal(0, 18, 2)
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = axis[None, :] - shift_mm[0] / fine_mm, axis[:, None] - shift_mm[1] / fine_mm
    bends = [_smooth(random, random.uniform(0, 5) / pixel_mm, 7, (size, size)) for _ in range(2)]
    sources = [
        (row[0] * x + row[1] * y + middle + bend).astype(np.float32)
        for row, middle, bend in zip(matrix, centre, bends, strict=True)
    ]
    return cv2.remap(
        tissues, *sources, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )


def _add_distractors(tissues: np.ndarray, fine_mm: float, random) -> None:
    """Paint bright tubes, blobs and crumbs that are not bone into soft tissue."""
    if random.random() < 0.4:
        return
    soft = np.isin(tissues, (Tissue.FAT, Tissue.MUSCLE, Tissue.BOWEL_WALL, Tissue.FLUID))
    rows, columns = np.nonzero(soft[::8, ::8])
    if not len(rows):
        return
    mask = np.zeros(tissues.shape, np.uint8)
    for _ in range(random.integers(1, 9)):
        chosen = random.integers(len(rows))
        centre = int(columns[chosen] * 8), int(rows[chosen] * 8)
        radius = np.exp(random.uniform(np.log(1.0), np.log(22.0)))
        axes = [max(round(radius * random.uniform(0.5, 1.3) / fine_mm), 1) for _ in range(2)]
        content = random.choice(
            [Tissue.BOWEL_CONTRAST, Tissue.ENHANCED_BLOOD, Tissue.CALCIFICATION, Tissue.FLUID],
            p=[0.45, 0.25, 0.1, 0.2] if radius > 4 else [0.15, 0.4, 0.4, 0.05],
        )
        mask[:] = 0
        turn, extent = random.uniform(0, 360), random.choice([360, random.uniform(90, 270)])
        filled = extent == 360 and random.random() < 0.7
        thick = -1 if filled else max(round(random.uniform(1.5, 0.5 * radius + 2) / fine_mm), 1)
        cv2.ellipse(mask, centre, axes, turn, 0, extent, 1, thick)
        tissues[(mask > 0) & soft] = content


def _add_cloth(tissues: np.ndarray, body: np.ndarray, fine_mm: float, random) -> None:
    """Paint a sheet or a gown around a part of the body."""
    away_mm = cv2.distanceTransform(1 - body.astype(np.uint8), cv2.DIST_L2, 3) * fine_mm
    near_mm = random.uniform(0.5, 12) + _smooth(random, 4, 6, tissues.shape)
    sheet = (away_mm > near_mm) & (away_mm < near_mm + random.uniform(0.6, 1.6)) & ~body
    sheet &= near_mm > random.uniform(-4, 4)
    tissues[sheet & (tissues == Tissue.AIR)] = Tissue.COUCH_SHELL


def _scan(tissues, texture, fine_mm: float, random) -> np.ndarray:
    """Return HU without noise, blurred as by a scanner, in fine pixels."""
    mean, between, coarse, fine = TISSUE_HU.T.copy()
    mean += 1.5 * between * random.normal(size=len(mean))
    mean[SOFT] += random.normal(0, 8)
    for tissue, (share, low, high) in ENHANCED.items():
        if random.random() < share:
            mean[tissue] = np.exp(random.uniform(np.log(low), np.log(high)))
    density, energy = random.normal(0, 45), random.normal(1, 0.1)
    mean[list(SPONGY)] += density
    mean[Tissue.MARROW :] *= energy
    mean[Tissue.MARROW] = max(mean[Tissue.MARROW], -110)
    coarse *= random.uniform(0.2, 1.5)
    fine *= random.uniform(0.2, 1.5)
    z_mm = random.uniform(0, 1000)
    plane = texture_plane(texture, tissues.shape, fine_mm, z_mm)
    grain = cv2.GaussianBlur(
        random.standard_normal(tissues.shape, np.float32), (0, 0), random.uniform(0.6, 1.6)
    )
    image = mean[tissues] + coarse[tissues] * plane + fine[tissues] * (grain / grain.std())
    if random.random() < 0.3:  # a thick slice includes its neighbours' edges
        image = (image + _displaced(image, random.uniform(0.5, 3) / fine_mm, random)) / 2
    blur_mm = random.uniform(0.3, 1.6)
    smooth = cv2.GaussianBlur(image, (0, 0), blur_mm / fine_mm)
    if random.random() < 0.3:  # a sharp kernel overshoots at edges
        smooth += random.uniform(0.2, 0.8) * (image - cv2.GaussianBlur(image, (0, 0), 2 / fine_mm))
    field = _smooth(random, random.uniform(0, 14), 4, tissues.shape)
    return smooth + field * (tissues >= Tissue.GAS)  # hardening and scatter vary slowly


def _displaced(image: np.ndarray, pixels: float, random) -> np.ndarray:
    """Return the image smoothly bent by about `pixels`."""
    columns, rows = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in image.shape[::-1]))
    sources = [axis + _smooth(random, pixels, 8, image.shape) for axis in (columns, rows)]
    return cv2.remap(image, *sources, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _smooth(random, deviation: float, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Return a random field of mean 0 that varies over about 1/`cells` of its side."""
    nodes = random.normal(0, deviation, (cells, cells)).astype(np.float32)
    return cv2.resize(nodes, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _physics(image: np.ndarray, spacing_mm: float, random) -> np.ndarray:
    """Return simulated beam hardening and noise in HU."""
    kv = int(random.choice(list(LOW_ENERGY_SHARE)))
    hardening_hu, deviation, streaks = artefacts(image, spacing_mm, kv, random)
    noise = _grain(random, image.shape, spacing_mm) * deviation + streaks
    return hardening_hu + _strength(random) * noise


def _strength(random) -> float:
    return np.exp(random.uniform(np.log(2.0), np.log(45.0)))


def _noise(inside, spacing_mm: float, random) -> np.ndarray:
    """Return correlated noise in HU, strongest deep in the body, sometimes with streaks."""
    depth = cv2.GaussianBlur(inside, (0, 0), 60 / spacing_mm)
    noise = _strength(random) * _grain(random, inside.shape, spacing_mm)
    if random.random() < 0.3:
        streaks = random.standard_normal(inside.shape, np.float32)
        streaks = cv2.GaussianBlur(streaks, (0, 0), 12 / spacing_mm, sigmaY=1 / spacing_mm)
        noise += streaks * (random.uniform(0, 25) / streaks.std()) * depth
    return noise * (0.35 + 0.65 * depth)


def _grain(random, shape: tuple[int, int], spacing_mm: float) -> np.ndarray:
    """Return noise of unit variance with a random correlation length."""
    noise = random.standard_normal(shape, np.float32)
    grain_mm = random.uniform(0, 1.8)
    if grain_mm > 0.5:
        noise = cv2.GaussianBlur(noise, (0, 0), grain_mm / spacing_mm)
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
