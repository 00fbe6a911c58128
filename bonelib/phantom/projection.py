"""HU of a slice -> the beam hardening and the noise that its X-rays cause.

A parallel beam of two energies is projected on a coarse grid, which is enough for bands and
streaks. The error of the rays' equivalent paths in water becomes hardening, their variance
becomes noise, and rays with few photons become streaks.
"""

import cv2
import numpy as np
from scipy import fft

from bonelib.settings import AIR_HU

GRID = 144  # maximum pixels a side of the coarse grid
NUM_ANGLES = 150  # of the beam, over half a turn
DENSE_HU = 100.0  # above it, the excess over water is calcium, iodine or metal
# Attenuation per cm at 50 and 100 keV: of water, and the excess of cortical bone over water
# (NIST tables), and the share of the signal that the lower energy stands for, by tube voltage:
# at 120 kV, bone hardens as it does with six energies from 40 to 120 keV.
WATER_PER_CM = np.array([0.227, 0.171])
BONE_EXCESS_PER_CM = np.array([0.587, 0.186])
LOW_ENERGY_SHARE = {80: 0.8, 100: 0.6, 120: 0.43, 140: 0.3}
USUAL_WATER_CM = 25.0  # path behind which bone has its tabulated HU
LONGEST_WATER_CM = 50.0  # upper limit of the equivalent path in water
LARGEST_HARDENING_HU = 400.0

TUBE_MODULATION = 0.5  # share of a view's attenuation that the tube current compensates
REFERENCE_WATER_CM = 30.0  # diameter of the water cylinder with a deviation of 1 in its middle
STARVED_VARIANCE = 2.0  # of a ray, relative to the cylinder's; any excess becomes streaks
LARGEST_STREAK = 8.0  # relative to the deviation in the cylinder's middle
STREAK_FINENESS = 2  # pixels of the streaks a side for each of the coarse grid


def artefacts(
    image_hu: np.ndarray, spacing_mm: float, kv: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hardening in HU and the noise's deviation and streaks, each (row, column) float32.

    `image_hu` (row, column) is the ideal slice with pixels of `spacing_mm`, `kv` the tube
    voltage (80, 100, 120 or 140). Deviation and streaks are relative to the noise in the
    middle of 30 cm of water. Only the streaks use `random`.
    """
    rows, columns = image_hu.shape
    side = max(rows, columns)
    size = min(GRID, side)
    pixel_cm = spacing_mm / 10 / (size / side)
    square = np.pad(image_hu, ((0, side - rows), (0, side - columns)), constant_values=AIR_HU)
    square = np.maximum(square, AIR_HU).astype(np.float32)
    coarse = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    margin = (_num_detectors(size) - size) // 2
    rest = _num_detectors(size) - size - margin
    coarse = np.pad(coarse, (margin, rest), constant_values=AIR_HU)  # room for every rotation
    dense = np.where(coarse > DENSE_HU, coarse, 0) / 1000
    paths_cm = pixel_cm * _project(np.dstack([1 + coarse / 1000 - dense, dense]))
    water_cm, dense_cm = np.maximum(paths_cm[..., 0], 0), paths_cm[..., 1]
    seen_cm = _seen_as_water(water_cm, dense_cm, kv)
    variance = _ray_variance(water_cm, seen_cm)
    added = _filter(seen_cm - water_cm - dense_cm) * np.pi / pixel_cm
    usual = np.minimum(variance, STARVED_VARIANCE)
    back = _project_back(np.dstack([added, usual]), range(NUM_ANGLES), size) / NUM_ANGLES
    hardening_hu = np.clip(1000 * back[..., 0], -LARGEST_HARDENING_HU, LARGEST_HARDENING_HU)
    deviation = np.sqrt(np.maximum(back[..., 1], 0))
    streaks = _draw_streaks(np.sqrt(variance - usual), STREAK_FINENESS * size, random)
    return tuple(
        cv2.resize(plane.astype(np.float32), (side, side))[:rows, :columns]
        for plane in (hardening_hu, deviation, streaks)
    )


def _num_detectors(size: int) -> int:
    """Return the even number of detectors that cover a square of `size` pixels a side."""
    return 2 * int(np.ceil(size / np.sqrt(2)))


def _turn(width: int, number: int) -> np.ndarray:
    middle = (width - 1) / 2
    return cv2.getRotationMatrix2D((middle, middle), 180 * number / NUM_ANGLES, 1)


def _project(image: np.ndarray) -> np.ndarray:
    """Return the sums of `image` (row, column, channel) along the rays: (angle, ray, channel)."""
    turns = (_turn(len(image), number) for number in range(NUM_ANGLES))
    return np.stack([cv2.warpAffine(image, turn, image.shape[:2]).sum(axis=0) for turn in turns])


def _project_back(rays: np.ndarray, numbers, size: int) -> np.ndarray:
    """Return (size, size, channel) from rays (angle, ray, channel) at the angles `numbers`."""
    width, channels = rays.shape[1:]
    total = np.zeros((size, size, channels), np.float32)
    for number, row in zip(numbers, rays.astype(np.float32), strict=True):
        smeared = np.broadcast_to(row, (width, width, channels)).copy()
        turn = cv2.invertAffineTransform(_turn(width, number))
        turn[:, 2] -= (width - size) // 2
        total += cv2.warpAffine(smeared, turn, (size, size)).reshape(total.shape)
    return total


def _filter(rays: np.ndarray) -> np.ndarray:
    """Return rays (angle, ray) after the ramp filter (Kak and Slaney, chapter 3, equation 61)."""
    width = rays.shape[1]
    lags = np.arange(-width, width)
    response = np.zeros(2 * width)
    odd = lags % 2 == 1
    response[odd] = -1 / (np.pi * lags[odd]) ** 2
    response[width] = 1 / 4
    ramp = fft.rfft(fft.ifftshift(response)).real
    return fft.irfft(fft.rfft(rays, 2 * width, axis=1) * ramp, axis=1)[:, :width]


def _seen_as_water(water_cm: np.ndarray, dense_cm: np.ndarray, kv: int) -> np.ndarray:
    """Return the path in water, in cm, of the same signal: a scanner corrects for water only."""
    low = LOW_ENERGY_SHARE[kv]
    shares = np.array([low, 1 - low])
    left = shares * np.exp(-WATER_PER_CM * USUAL_WATER_CM)
    dense_per_cm = BONE_EXCESS_PER_CM * (left @ WATER_PER_CM) / (left @ BONE_EXCESS_PER_CM)

    def log_signal(water_cm, dense_cm):
        parts = [
            np.log(share) - per_cm * water_cm - dense * dense_cm
            for share, per_cm, dense in zip(shares, WATER_PER_CM, dense_per_cm, strict=True)
        ]
        return -np.logaddexp(*parts)

    table_cm = np.linspace(0, LONGEST_WATER_CM, 501)
    return np.interp(log_signal(water_cm, dense_cm), log_signal(table_cm, 0), table_cm)


def _ray_variance(water_cm: np.ndarray, seen_cm: np.ndarray) -> np.ndarray:
    """Return the variance of each ray, relative to that in the middle of 30 cm of water."""
    per_cm = WATER_PER_CM.mean()
    made_up_cm = TUBE_MODULATION * water_cm.max(axis=1, keepdims=True)
    usual_cm = (1 - TUBE_MODULATION) * REFERENCE_WATER_CM
    return np.exp(per_cm * (seen_cm - made_up_cm - usual_cm))


def _draw_streaks(deviation: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the back-projected noise, (size, size), of rays with these deviations."""
    numbers = np.flatnonzero(deviation.any(axis=1))
    if not len(numbers):
        return np.zeros((size, size), np.float32)
    deviation = cv2.resize(deviation[numbers], (_num_detectors(size), len(numbers)))
    rays = _filter(deviation * random.standard_normal(deviation.shape))
    # White rays of variance 1 have a variance of 1/12 after the ramp.
    streaks = _project_back(rays[..., None], numbers, size)[..., 0] * np.sqrt(12 / NUM_ANGLES)
    return np.clip(streaks, -LARGEST_STREAK, LARGEST_STREAK)
