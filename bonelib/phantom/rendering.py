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
from pathlib import Path

import cv2
import numpy as np
import yaml
from scipy import fft

from bonelib.phantom.projection import artefacts
from bonelib.phantom.tissues import HEAVY, TISSUE_HU, Tissue, draw_texture, texture_plane

NOISE_HU = 10.0  # standard deviation in the middle of 30 cm of water, usual protocol
USUAL_THICKNESS_MM = 2.5
LOW_NOISE_PER_MM = 0.1  # offset of the noise's power spectrum at low frequencies
TEXTURE_GRAIN_MM = 0.5  # standard deviation of the blur of the fine texture
SOFT_TISSUE_HU = 50.0

_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


@dataclass(frozen=True)
class Protocol:
    """The scan parameters of a series."""

    kv: int = 120
    kernel: str = "standard"
    dose: float = 1.0  # relative; noise falls with its square root
    slice_thickness_mm: float = USUAL_THICKNESS_MM

    @classmethod
    def from_seed(cls, seed: int) -> "Protocol":
        """Draw a protocol."""
        random = np.random.default_rng([seed, 12])
        return cls(
            kv=_draw(random, "voltages"),
            kernel=_draw(random, "kernels"),
            dose=float(np.exp(np.clip(random.normal(0, 0.4), -0.8, 0.8))),
            slice_thickness_mm=_draw(random, "thicknesses_mm"),
        )


def _draw(random, table: str):
    shares = [values["share"] for values in _DATA[table].values()]
    return random.choice(list(_DATA[table]), p=shares).item()


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
        _, factor, fat_hu = _DATA["voltages"][protocol.kv].values()
        tissue_hu[Tissue.FAT, 0] += fat_hu
        tissue_hu[HEAVY, 0] += (factor - 1) * np.maximum(tissue_hu[HEAVY, 0] - SOFT_TISSUE_HU, 0)
        tissue_hu[HEAVY, 1:] *= factor
        return cls(tissue_hu, draw_texture(random), seed, protocol)

    def render(self, tissues, oversampling: int, spacing_mm: float, z_mm: float, index: int):
        """Return the HU of a slice, (row, column) int16, with pixels of `spacing_mm`.

        `tissues` is (cut, row, column), one or more cuts within the slice's thickness, with
        `oversampling` pixels along each side of a pixel of the result. `index` seeds the noise.
        """
        protocol, kernel = self.protocol, _DATA["kernels"][self.protocol.kernel]
        random = np.random.default_rng([self.seed, 3, index])
        mean, coarse, fine = (values[tissues].mean(axis=0) for values in self.tissue_hu.T)
        fine_spacing_mm = spacing_mm / oversampling
        grain = _grain(random, mean.shape, TEXTURE_GRAIN_MM / fine_spacing_mm)
        plane = texture_plane(self.texture, mean.shape, fine_spacing_mm, z_mm)
        image = _reconstruct(mean + coarse * plane + fine * grain, kernel, fine_spacing_mm)
        size = mean.shape[1] // oversampling, mean.shape[0] // oversampling
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        hardening_hu, deviation, streaks = artefacts(image, spacing_mm, protocol.kv, random)
        grain = _noise_grain(random, image.shape, spacing_mm, kernel["noise_cutoff_per_mm"])
        noise = kernel["noise"] * deviation * grain + streaks
        photons = protocol.dose * protocol.slice_thickness_mm
        noise_hu = NOISE_HU * float(np.sqrt(USUAL_THICKNESS_MM / photons))
        image += hardening_hu + noise_hu * noise
        return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _grain(random, shape, sigma_pixels: float) -> np.ndarray:
    grain = random.standard_normal(shape, dtype=np.float32)
    if sigma_pixels > 0.3:
        grain = cv2.GaussianBlur(grain, (0, 0), sigma_pixels)
        grain /= grain.std()
    return grain


def _reconstruct(image: np.ndarray, kernel: dict[str, float], spacing_mm: float) -> np.ndarray:
    """Return the image blurred by the kernel, with its overshoot at edges."""
    sigma = kernel["point_spread_mm"] / spacing_mm
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    if kernel["overshoot"]:
        image += kernel["overshoot"] * (image - cv2.GaussianBlur(image, (0, 0), 2 * sigma))
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
