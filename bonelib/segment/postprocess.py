"""Probabilities of a scan -> the same without metal, islands, holes and steps between slices.

Each step has a name and can be left out. A step changes probabilities in place, so that label
map and surface follow from the same numbers.
"""

from collections.abc import Callable, Iterable

import numpy as np
import SimpleITK
from scipy import ndimage

from bonelib.segment.probabilities import Probabilities, Progress, silent
from bonelib.settings import BACKGROUND, BONE, NUM_CLASSES, PATIENT
from bonelib.slices import SLICES_AT_ONCE

METAL_HU = 2000.0  # the densest cortex of a pelvis lies below
SMOOTHING_MM = 1.0  # standard deviation across slices; more costs thin bone
SMALLEST_BONE_ML = 2.0  # a smaller island is contrast, calcification or noise
LARGEST_HOLE_ML = 0.1  # a larger one is a joint's or a canal's
SMALLEST_LIMB_ML = 100.0  # what is smaller and apart from the patient is not the patient


def remove_metal(probabilities: Probabilities, scan: SimpleITK.Image) -> None:
    """Turn bone brighter than `METAL_HU`, which only an implant is, into patient."""
    values = probabilities.values
    for first in range(0, len(values), SLICES_AT_ONCE):
        part = values[first : first + SLICES_AT_ONCE]
        grid = probabilities.image(np.empty(part.shape[:3], np.uint8), first)
        image_hu = SimpleITK.Resample(scan, grid, SimpleITK.Transform(), SimpleITK.sitkLinear)
        metal = SimpleITK.GetArrayFromImage(image_hu) > METAL_HU
        part[metal, PATIENT] += part[metal, BONE]
        part[metal, BONE] = 0


def smooth(probabilities: Probabilities, scan: SimpleITK.Image) -> None:
    """Average across neighbouring slices by a Gaussian of `SMOOTHING_MM`."""
    sigma = SMOOTHING_MM / probabilities.spacing_mm[0]
    values = probabilities.values
    for row in range(values.shape[1]):  # one at a time, in float32
        block = values[:, row].astype(np.float32)
        values[:, row] = ndimage.gaussian_filter1d(block, sigma, axis=0, mode="nearest")


def remove_islands(probabilities: Probabilities, scan: SimpleITK.Image) -> None:
    """Turn bone that is apart and smaller than `SMALLEST_BONE_ML` into patient."""
    bone = probabilities.label_map() == BONE
    if not bone.any():
        return
    islands = _small_parts(bone, probabilities.spacing_mm, SMALLEST_BONE_ML)
    # Their blurred edges go, too, or a speck would come back between two voxels.
    edges = ndimage.binary_dilation(islands, np.ones((3, 3, 3))) & (~bone | islands)
    values = probabilities.values
    values[edges, PATIENT] += values[edges, BONE]
    values[edges, BONE] = 0


def fill_holes(probabilities: Probabilities, scan: SimpleITK.Image) -> None:
    """Make bone of what it encloses on all sides, up to `LARGEST_HOLE_ML`.

    Larger cavities are there: a canal of marrow, the space of a joint.
    """
    bone = probabilities.label_map() == BONE
    holes = ndimage.binary_fill_holes(bone) & ~bone
    small = _small_parts(holes, probabilities.spacing_mm, LARGEST_HOLE_ML)
    _set_class(probabilities, small, BONE)


def close_outline(probabilities: Probabilities, scan: SimpleITK.Image) -> None:
    """Make the patient whole: gas inside is patient, what lies apart from the body is not.

    Bone outside of the body is none.
    """
    body = probabilities.label_map() != BACKGROUND
    if not body.any():
        return
    apart = _small_parts(body, probabilities.spacing_mm, SMALLEST_LIMB_ML, keep_largest=True)
    _set_class(probabilities, apart, BACKGROUND)
    body &= ~apart
    for index, part in enumerate(body):
        inner = ndimage.binary_fill_holes(part) & ~part
        probabilities.values[index][inner] = np.eye(NUM_CLASSES)[PATIENT]


STEPS: dict[str, Callable[[Probabilities, SimpleITK.Image], None]] = {
    "metal": remove_metal,
    "smooth": smooth,
    "islands": remove_islands,
    "holes": fill_holes,
    "outline": close_outline,
}


def apply(
    probabilities: Probabilities,
    scan: SimpleITK.Image,
    steps: Iterable[str] = tuple(STEPS),
    progress: Progress = silent,
) -> None:
    """Apply the steps of these names, in the order of `STEPS`; change `probabilities`.

    `scan`, in HU, is what they were predicted from.
    Raises ValueError, with the valid names, for an unknown step.
    """
    unknown = sorted(set(steps) - set(STEPS))
    if unknown:
        raise ValueError(f"unknown step '{unknown[0]}': choose from {', '.join(STEPS)}")
    chosen = [step for name, step in STEPS.items() if name in steps]
    for done, step in enumerate(chosen, start=1):
        step(probabilities, scan)
        progress(done, len(chosen))


def _small_parts(
    mask: np.ndarray, spacing_mm, smallest_ml: float, keep_largest: bool = False
) -> np.ndarray:
    """Return the connected parts of a mask that are smaller than a volume."""
    parts, _ = ndimage.label(mask)
    volumes_ml = np.bincount(parts.ravel()) * np.prod(spacing_mm) / 1000
    small = volumes_ml < smallest_ml
    small[0] = False  # what is not in the mask
    if keep_largest:
        small[1 + volumes_ml[1:].argmax()] = False
    return small[parts]


def _set_class(probabilities: Probabilities, where: np.ndarray, label: int) -> None:
    probabilities.values[where] = np.eye(NUM_CLASSES)[label]
