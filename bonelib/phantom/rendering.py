"""Tissues of a slice -> what a CT scanner would show of them, in HU.

Trabecular bone overlaps soft tissue, and contrast, calcification and markers overlap bone,
so that no threshold separates the classes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from bonelib.phantom.anatomy import Tissue
from bonelib.settings import AIR_HU

POINT_SPREAD_MM = 0.7  # standard deviation of the scanner's blur in plane
NOISE_GRAIN_MM = 0.8  # standard deviation of the blur that correlates the noise
NOISE_HU = 9.0  # standard deviation in the middle of a trunk of REFERENCE_AREA_MM2
REFERENCE_AREA_MM2 = 80_000.0
TEXTURE_VOXEL_MM = 4.0

# Mean, difference between patients, coarse texture and fine texture, each in HU.
HU = {
    Tissue.AIR: (AIR_HU, 0, 0, 0),
    Tissue.COUCH_CORE: (-930, 15, 0, 8),
    Tissue.COUCH_SHELL: (150, 60, 0, 30),
    Tissue.SKIN_MARKER: (1200, 400, 0, 0),
    Tissue.GAS: (-960, 5, 0, 0),
    Tissue.FAT: (-102, 4, 9, 5),
    Tissue.SKIN: (10, 10, 15, 10),
    Tissue.MUSCLE: (50, 6, 10, 12),
    Tissue.BOWEL_WALL: (40, 5, 8, 5),
    Tissue.FLUID: (12, 6, 12, 5),
    Tissue.BLOOD: (45, 8, 3, 3),
    Tissue.CARTILAGE: (75, 8, 6, 5),
    Tissue.ENHANCED_BLOOD: (240, 60, 5, 5),
    Tissue.BOWEL_CONTRAST: (330, 90, 60, 15),
    Tissue.CALCIFICATION: (750, 150, 100, 100),
    Tissue.GOLD_SEED: (2500, 200, 0, 0),
    Tissue.MARROW: (-15, 20, 25, 15),
    Tissue.SPARSE_TRABECULAR: (70, 30, 60, 55),
    Tissue.TRABECULAR: (185, 35, 55, 70),
    Tissue.VERTEBRAL_SHELL: (380, 50, 110, 90),
    Tissue.THIN_CORTICAL: (600, 70, 150, 90),
    Tissue.CORTICAL: (1200, 110, 160, 80),
}


@dataclass(frozen=True)
class Scanner:
    """How one patient's tissues look: HU by tissue, and a texture that continues in z."""

    tissue_hu: np.ndarray  # (tissues, 3): mean, coarse and fine standard deviation
    texture: np.ndarray  # (slice, row, column), cyclic, unit variance, TEXTURE_VOXEL_MM
    seed: int

    @classmethod
    def from_seed(cls, seed: int) -> "Scanner":
        """Draw the tissues' HU and the texture of one patient."""
        random = np.random.default_rng([seed, 2])
        rows = np.array([HU[tissue] for tissue in Tissue], np.float32)
        rows[:, 0] += rows[:, 1] * np.clip(random.normal(size=len(rows)), -2, 2)
        return cls(rows[:, [0, 2, 3]], draw_texture(random), seed)

    def render(self, tissues, oversampling: int, spacing_mm: float, z_mm: float, index: int):
        """Return the HU, (row, column) int16, of a slice of tissues.

        `tissues` holds `oversampling` pixels a side for each of the result, whose pixels
        are `spacing_mm` wide; `index` picks the noise.
        """
        random = np.random.default_rng([self.seed, 3, index])
        mean, coarse, fine = (self.tissue_hu[:, column][tissues] for column in range(3))
        fine_spacing_mm = spacing_mm / oversampling
        grain = _grain(random, tissues.shape, 0.7 / fine_spacing_mm)
        plane = texture_plane(self.texture, tissues.shape, fine_spacing_mm, z_mm)
        image = mean + coarse * plane + fine * grain
        image = cv2.GaussianBlur(image, (0, 0), POINT_SPREAD_MM / fine_spacing_mm)
        size = tissues.shape[1] // oversampling, tissues.shape[0] // oversampling
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        body = cv2.resize(
            (tissues >= Tissue.GAS).astype(np.float32), size, interpolation=cv2.INTER_AREA
        )
        image += _noise(random, body, spacing_mm)
        return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def draw_texture(random) -> np.ndarray:
    """Return a cyclic (slice, row, column) texture of `TEXTURE_VOXEL_MM`, unit variance."""
    texture = gaussian_filter(random.normal(size=(48, 128, 128)), 0.9, mode="wrap")
    return (texture / texture.std()).astype(np.float32)


def texture_plane(texture, shape, spacing_mm: float, z_mm: float) -> np.ndarray:
    """Return the plane at `z_mm` of a texture, (row, column) of `shape` and `spacing_mm`."""
    level = z_mm / TEXTURE_VOXEL_MM
    below = int(np.floor(level))
    weight = np.float32(level - below)
    planes = texture[[below % len(texture), (below + 1) % len(texture)]]
    plane = (1 - weight) * planes[0] + weight * planes[1]
    plane /= np.sqrt((1 - weight) ** 2 + weight**2)
    extent = [int(np.ceil(size * spacing_mm / TEXTURE_VOXEL_MM)) for size in shape]
    return cv2.resize(plane[: extent[0], : extent[1]], shape[::-1])


def _grain(random, shape, sigma_pixels: float) -> np.ndarray:
    grain = random.standard_normal(shape, dtype=np.float32)
    if sigma_pixels > 0.3:
        grain = cv2.GaussianBlur(grain, (0, 0), sigma_pixels)
        grain /= grain.std()
    return grain


def _noise(random, body, spacing_mm: float) -> np.ndarray:
    """Return noise in HU that grows with the body's area and towards its middle."""
    area_mm2 = body.sum() * spacing_mm**2
    depth = cv2.GaussianBlur(body, (0, 0), 60 / spacing_mm)
    deviation = NOISE_HU * (area_mm2 / REFERENCE_AREA_MM2) * (0.35 + 0.65 * depth)
    along = _grain(random, body.shape, NOISE_GRAIN_MM / spacing_mm)
    streaks = random.standard_normal(body.shape, dtype=np.float32)
    streaks = cv2.GaussianBlur(streaks, (0, 0), sigmaX=12 / spacing_mm, sigmaY=1 / spacing_mm)
    width = body.sum(axis=1, keepdims=True) * spacing_mm
    photon_starvation = 6 * np.clip((width - 320) / 100, 0, 1) * depth
    return deviation * along + photon_starvation * streaks / streaks.std()
