"""Network + scan -> how probable bone is, at every point of the region that contains bone.

The result is one float32 image, the *margin*: the probability of bone minus that of the
likeliest other class, from -1 to 1. Bone is where it is positive, and the bone's surface is
where it is zero, so that label map and surface agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

from bonelib.labels import image_like, on_grid
from bonelib.preparation import to_grid
from bonelib.pretrained import Network, Predictor
from bonelib.scans import Grid
from bonelib.settings import SHIPPED_MODEL, SIZE_STEP, Settings
from bonelib.slices import SLICES_AT_ONCE, window

SEARCH_HU = 150.0  # muscle lies below, part of each bone above
SEARCH_PIXELS = 2  # pixels of the network along each side of a pixel of the search
SMALLEST_FIND_ML = 2.0  # smaller finds of the search are contrast agent or calcification
MARGIN_MM = 15.0  # around the finds, for bone that the search missed
THICKEST_MM = 1.5  # up to which thin slices are averaged: alone they show mostly noise
METAL_HU = 2000.0  # above the densest cortical bone of a pelvis
SMALLEST_BONE_ML = 0.5  # smaller islands are mostly noise; ends of ribs are larger
LARGEST_HOLE_ML = 0.1  # larger cavities are anatomy: a joint space or a canal
ALIGNMENT = SIZE_STEP // 2  # pixels: within a region, poolings then see the same as without it


def ignore(*progress) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Region:
    """The part of a scan that contains bone, on the grid of the network's input."""

    settings: Settings  # of slices that cover the whole scan
    slices: slice
    rows: slice
    columns: slice


def find_region(network: Network, scan: SimpleITK.Image, body: SimpleITK.Image) -> Region:
    """Return the bounding box of bright tissue and a margin around it; all of the scan if none is.

    `body`, the mask of the patient, lies on the scan's grid. The paper's networks have seen whole
    slices only, and the Dice of bone of a VGG-U-net fell from 87 to 39 % in parts of slices; so
    their box has all rows and columns.
    """
    settings = _covering(network.settings, scan)
    size, count = settings.image_size, scan.GetSize()[2]
    coarse = replace(settings, image_size=size // SEARCH_PIXELS)
    bright = []
    for first in range(0, count, SLICES_AT_ONCE):  # to save memory
        part = np.s_[:, :, first : first + SLICES_AT_ONCE]
        image_hu = SimpleITK.GetArrayFromImage(to_grid(scan[part], coarse))
        inside = SimpleITK.GetArrayFromImage(to_grid(body[part], coarse, is_label=True))
        bright.append((image_hu > SEARCH_HU) & (inside > 0))
    voxel_ml = scan.GetSpacing()[2] * coarse.pixel_spacing_mm**2 / 1000
    found = remove_small_objects(np.concatenate(bright), max_size=SMALLEST_FIND_ML / voxel_ml)
    if not found.any():
        return Region(settings, slice(0, count), *[slice(0, size)] * 2)
    (box,) = ndimage.find_objects(found.view(np.uint8))
    rows = columns = slice(0, size)
    if network.name == SHIPPED_MODEL:
        margin = int(np.ceil(MARGIN_MM / settings.pixel_spacing_mm))
        rows, columns = (
            _aligned(part.start * SEARCH_PIXELS - margin, part.stop * SEARCH_PIXELS + margin, size)
            for part in box[1:]
        )
    margin = int(np.ceil(MARGIN_MM / scan.GetSpacing()[2]))
    slices = slice(max(0, box[0].start - margin), min(count, box[0].stop + margin))
    return Region(settings, slices, rows, columns)


def predict_bone(
    predict: Predictor, scan: SimpleITK.Image, region: Region, progress: Callable = ignore
) -> tuple[SimpleITK.Image, dict[str, str]]:
    """Return the margin of bone in a scan in HU, -1 outside of the region, on all its slices.

    Also return the precision and the backend of Keras. `progress` gets the slices done and all.
    """
    start, stop = region.slices.start, region.slices.stop
    sides = region.rows, region.columns
    size = region.settings.image_size
    parts = [range(at, min(at + SLICES_AT_ONCE, stop)) for at in range(start, stop, SLICES_AT_ONCE)]
    images = (input_slices(scan, region.settings, part)[:, *sides] for part in parts)
    predicted = []
    for part, result in zip(parts, predict(images), strict=True):
        predicted.append(result)
        progress(part.stop - start, stop - start)
    margins, (computed, *_) = zip(*predicted, strict=True)
    stride = (sides[0].stop - sides[0].start) // margins[0].shape[1]  # input to output
    rows, columns = (slice(side.start // stride, side.stop // stride) for side in sides)
    # All of the scan, since naming bones depends on what the scan could show.
    margin = np.full((scan.GetDepth(), size // stride, size // stride), -1, np.float32)
    margin[start:stop, rows, columns] = np.concatenate(margins)
    pixel_mm = stride * region.settings.pixel_spacing_mm
    first, middle = to_grid(scan[:, :, :1], region.settings), (stride - 1) / 2
    origin_mm = first.TransformContinuousIndexToPhysicalPoint((middle, middle, 0))
    spacing_mm = pixel_mm, pixel_mm, scan.GetSpacing()[2]
    grid = Grid(margin.shape[::-1], spacing_mm, origin_mm, scan.GetDirection())
    return grid.image(margin), computed


def bone_on_grid(margin: SimpleITK.Image, grid: Grid) -> SimpleITK.Image:
    """Return 1 where the interpolated margin is positive, else 0, as uint8 on the grid."""
    return grid.build(lambda part: part.resample(margin, SimpleITK.sitkLinear, -1.0) > 0)


def _covering(settings: Settings, scan: SimpleITK.Image) -> Settings:
    """Return `settings` with the smallest slices that cover the scan at the same spacing."""
    extent_mm = max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    size = int(np.ceil(extent_mm / settings.pixel_spacing_mm / SIZE_STEP)) * SIZE_STEP
    return replace(settings, image_size=size, field_of_view_mm=size * settings.pixel_spacing_mm)


def input_slices(scan: SimpleITK.Image, settings: Settings, positions: Sequence[int]) -> np.ndarray:
    """Return the network's 8-bit input of ascending slices: (position, row, column, channel).

    The channels are the slice and the planes `settings.neighbour_mm` below and above it,
    repeated at the scan's ends.
    """
    reach, last = settings.neighbour_mm / scan.GetSpacing()[2], scan.GetSize()[2] - 1
    wanted = np.clip(np.add.outer(positions, [-reach, 0.0, reach]), 0, last)  # (position, channel)
    first = int(wanted.min())
    part = to_grid(scan[:, :, first : int(np.ceil(wanted.max())) + 1], settings)
    image_hu = SimpleITK.GetArrayViewFromImage(part)
    below = np.floor(wanted - first).astype(int)
    share = (wanted - first - below).astype(np.float32)[..., None, None]
    above = np.minimum(below + 1, len(image_hu) - 1)
    planes = (1 - share) * image_hu[below] + share * image_hu[above]
    return np.moveaxis(window(planes, settings), 1, -1)


def _aligned(first: int, last: int, size: int) -> slice:
    """Return a range around `first` to `last`: aligned, a multiple of 32, within the slice."""
    first = max(0, first) // ALIGNMENT * ALIGNMENT
    length = min(size, -(-(min(size, last) - first) // SIZE_STEP) * SIZE_STEP)
    first = min(first, size - length)
    return slice(first, first + length)


# What cannot be bone


def clean(margin: SimpleITK.Image, scan: SimpleITK.Image, body: SimpleITK.Image) -> SimpleITK.Image:
    """Return the margin of `predict_bone` without what cannot be bone.

    `scan` in HU and `body`, the mask of the patient, share a grid.
    """
    values = SimpleITK.GetArrayFromImage(margin)
    voxel_ml = np.prod(margin.GetSpacing()) / 1000
    for box in ndimage.find_objects((values > 0).view(np.uint8)):  # one, or none
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        part, grid = values[box], margin[box[::-1]]
        remove_metal(part, SimpleITK.GetArrayFromImage(SimpleITK.Resample(scan, grid)))
        part[SimpleITK.GetArrayFromImage(on_grid(body, grid)) == 0] = -1
        remove_islands(part, voxel_ml)
        fill_holes(part, voxel_ml)
    return image_like(values, margin)


def remove_metal(margin: np.ndarray, image_hu: np.ndarray) -> None:
    """Remove bone above `METAL_HU`, which only implants reach."""
    margin[image_hu > METAL_HU] = -1


def remove_islands(margin: np.ndarray, voxel_ml: float) -> None:
    """Remove separate pieces of bone below `SMALLEST_BONE_ML`."""
    bone = margin > 0
    large = remove_small_objects(bone, max_size=SMALLEST_BONE_ML / voxel_ml)
    # Interpolation would bring back a speck from its blurred edge.
    around = ndimage.binary_dilation(bone & ~large, np.ones((3, 3, 3), bool))
    margin[around & ~large] = -1


def fill_holes(margin: np.ndarray, voxel_ml: float) -> None:
    """Fill cavities in bone up to `LARGEST_HOLE_ML`, so that its surface has no bubbles."""
    bone = margin > 0
    margin[remove_small_holes(bone, max_size=LARGEST_HOLE_ML / voxel_ml) & ~bone] = 1
