"""Tissues of a slice -> its image in HU, as a CT scanner shows it.

::

    a seed -> protocol: tube voltage, kernel, dose, slice thickness
           -> scanner: HU of each tissue at that voltage, texture
    tissues of several cuts of a slice -> mean HU -> blur of the kernel
           -> + beam hardening, noise with the kernel's grain, streaks (`projection`)

HU of trabecular bone overlap those of soft tissue, and HU of contrast media, calcification
and markers overlap those of bone, so no threshold separates the classes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from bonelib.phantom.projection import artefacts
from bonelib.phantom.tissues import HEAVY, TISSUE_HU, Tissue

NOISE_HU = 10.0  # standard deviation in the middle of 30 cm of water, usual protocol
USUAL_THICKNESS_MM = 2.5
LOW_NOISE_PER_MM = 0.1  # offset of the noise's power spectrum at low frequencies
TEXTURE_VOXEL_MM = 4.0
TEXTURE_GRAIN_MM = 0.5  # standard deviation of the blur of the fine texture
# By tube voltage: its share of the protocols, the factor for HU above soft tissue of tissues
# that hold calcium, iodine or metal, and the change of fat's HU.
VOLTAGES = {80: (0.08, 1.4, -15), 100: (0.2, 1.17, -7), 120: (0.54, 1.0, 0), 140: (0.18, 0.92, 4)}
THICKNESSES_MM = {1.0: 0.1, 1.25: 0.1, 2.5: 0.35, 3.0: 0.35, 5.0: 0.1}  # and their shares
SOFT_TISSUE_HU = 50.0


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: sharpness and noise."""

    share: float  # of the protocols
    point_spread_mm: float  # standard deviation of the blur in plane
    overshoot: float  # at edges: share of the difference to a blur twice as wide
    noise: float  # relative standard deviation
    noise_cutoff_per_mm: float  # spatial frequency above which noise fades


KERNELS = {
    "soft": Kernel(0.25, 0.9, 0.0, 0.65, 0.3),
    "standard": Kernel(0.6, 0.65, 0.0, 1.0, 0.5),
    "sharp": Kernel(0.15, 0.45, 0.3, 1.7, 0.8),
}


@dataclass(frozen=True)
class Protocol:
    """The scan parameters of a series."""

    kv: int = 120  # one of VOLTAGES
    kernel: str = "standard"  # one of KERNELS
    dose: float = 1.0  # relative; noise falls with its square root
    slice_thickness_mm: float = USUAL_THICKNESS_MM

    @classmethod
    def from_seed(cls, seed: int) -> "Protocol":
        """Draw a protocol."""
        random = np.random.default_rng([seed, 12])
        voltages = [share for share, *_ in VOLTAGES.values()]
        kernels = [kernel.share for kernel in KERNELS.values()]
        return cls(
            kv=int(random.choice(list(VOLTAGES), p=voltages)),
            kernel=str(random.choice(list(KERNELS), p=kernels)),
            dose=float(np.exp(np.clip(random.normal(0, 0.4), -0.8, 0.8))),
            slice_thickness_mm=float(
                random.choice(list(THICKNESSES_MM), p=list(THICKNESSES_MM.values()))
            ),
        )


@dataclass(frozen=True)
class Scanner:
    """The look of one patient's tissues: HU by tissue and a texture that is continuous in z."""

    tissue_hu: np.ndarray  # (tissues, 3): mean, coarse and fine standard deviation
    texture: np.ndarray  # (slice, row, column), cyclic, unit variance, TEXTURE_VOXEL_MM
    seed: int
    protocol: Protocol = Protocol()

    @classmethod
    def from_seed(cls, seed: int, protocol: Protocol | None = None) -> "Scanner":
        """Draw the tissues' HU, the texture and, unless given, the protocol."""
        protocol = protocol or Protocol.from_seed(seed)
        random = np.random.default_rng([seed, 2])
        tissue_hu = TISSUE_HU[:, [0, 2, 3]]
        tissue_hu[:, 0] += TISSUE_HU[:, 1] * np.clip(random.normal(size=len(Tissue)), -2, 2)
        tissue_hu = _at_voltage(tissue_hu, protocol.kv)
        return cls(tissue_hu, draw_texture(random), seed, protocol)

    def render(self, tissues, oversampling: int, spacing_mm: float, z_mm: float, index: int):
        """Return the HU of a slice, (row, column) int16, with pixels of `spacing_mm`.

        `tissues` is (cut, row, column), one or more cuts within the slice's thickness, with
        `oversampling` pixels along each side of a pixel of the result. `index` seeds the noise.
        """
        random = np.random.default_rng([self.seed, 3, index])
        mean, coarse, fine = (values[tissues].mean(axis=0) for values in self.tissue_hu.T)
        fine_spacing_mm = spacing_mm / oversampling
        grain = _grain(random, mean.shape, TEXTURE_GRAIN_MM / fine_spacing_mm)
        plane = texture_plane(self.texture, mean.shape, fine_spacing_mm, z_mm)
        image = _reconstruct(mean + coarse * plane + fine * grain, self.kernel, fine_spacing_mm)
        size = mean.shape[1] // oversampling, mean.shape[0] // oversampling
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        hardening_hu, deviation, streaks = artefacts(image, spacing_mm, self.protocol.kv, random)
        grain = _noise_grain(random, image.shape, spacing_mm, self.kernel.noise_cutoff_per_mm)
        noise = self.kernel.noise * deviation * grain + streaks
        image += hardening_hu + self.noise_hu * noise
        return np.clip(np.rint(image), -1024, 3071).astype(np.int16)

    @property
    def kernel(self) -> Kernel:
        """Return the protocol's reconstruction kernel."""
        return KERNELS[self.protocol.kernel]

    @property
    def noise_hu(self) -> float:
        """Return the noise in the middle of 30 cm of water with the standard kernel."""
        photons = self.protocol.dose * self.protocol.slice_thickness_mm
        return NOISE_HU * float(np.sqrt(USUAL_THICKNESS_MM / photons))


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


def _at_voltage(tissue_hu: np.ndarray, kv: int) -> np.ndarray:
    """Return mean, coarse and fine HU of each tissue, given at 120 kV, at another voltage."""
    _, factor, fat_shift_hu = VOLTAGES[kv]
    tissue_hu = tissue_hu.copy()
    tissue_hu[Tissue.FAT, 0] += fat_shift_hu
    tissue_hu[HEAVY, 0] += (factor - 1) * np.maximum(tissue_hu[HEAVY, 0] - SOFT_TISSUE_HU, 0)
    tissue_hu[HEAVY, 1:] *= factor
    return tissue_hu


def _reconstruct(image: np.ndarray, kernel: Kernel, spacing_mm: float) -> np.ndarray:
    """Return the image blurred by the kernel, with its overshoot at edges."""
    sigma = kernel.point_spread_mm / spacing_mm
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    if kernel.overshoot:
        image += kernel.overshoot * (image - cv2.GaussianBlur(image, (0, 0), 2 * sigma))
    return image


def _noise_grain(random, shape, spacing_mm: float, cutoff_per_mm: float) -> np.ndarray:
    """Return noise of unit variance with the spectrum of filtered back-projection.

    Its power grows with the spatial frequency, like the ramp filter, up to the kernel's cutoff.
    """
    rows, columns = shape
    frequency = np.hypot(fft.fftfreq(rows, spacing_mm)[:, None], fft.rfftfreq(columns, spacing_mm))
    power = (frequency + LOW_NOISE_PER_MM) * np.exp(-((frequency / cutoff_per_mm) ** 2))
    white = random.standard_normal(shape, dtype=np.float32)
    grain = fft.irfft2(fft.rfft2(white) * np.sqrt(power).astype(np.float32), shape)
    return grain / grain.std()
