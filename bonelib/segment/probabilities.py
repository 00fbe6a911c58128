"""Network + scan -> how probable bone is, at every point of the region that contains bone.

The result is one float32 image, the *margin*: the probability of bone minus that of the
likeliest other class, from -1 to 1. Bone is where it is positive, and the bone's surface is
where it is zero, so that label map and surface agree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import SimpleITK
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

from bonelib.labels import image_like, on_grid
from bonelib.models import SIZE_STEP
from bonelib.prediction import network_input, network_segmenter, predict
from bonelib.preparation import to_grid
from bonelib.segment.pretrained import Network
from bonelib.settings import BONE, Settings
from bonelib.slices import SLICES_AT_ONCE, window

SEARCH_MM = 10.0  # between the slices searched for bone; the smallest bone of a pelvis is longer
SMALLEST_FIND_ML = 2.0  # smaller finds of the search are contrast agent or calcification
MARGIN_MM = 15.0  # around the finds, for bone that the search missed
THINNEST_MM = 1.0  # thinner slices are averaged: alone they show more noise than anatomy
METAL_HU = 2000.0  # above the densest cortical bone of a pelvis
SMALLEST_BONE_ML = 2.0  # smaller islands are contrast agent, calcification or noise
LARGEST_HOLE_ML = 0.1  # larger cavities are anatomy: a joint space or a canal
ALIGNMENT = SIZE_STEP // 2  # pixels: within a region, poolings then see the same as without it

Progress = Callable[[int, int], None]  # called with the number of parts done and of all parts


def ignore(done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Region:
    """The part of a scan that contains bone, on the grid of the network's input."""

    settings: Settings  # of slices that cover the whole scan
    slices: slice
    rows: slice
    columns: slice


def find_region(network: Network, scan: SimpleITK.Image, progress: Progress = ignore) -> Region:
    """Return the bounding box of bone and a margin around it; all of the scan if none is found.

    The network sees one slice in `SEARCH_MM`.
    """
    settings = _covering(network.settings, scan)
    size, count = settings.image_size, scan.GetSize()[2]
    find_bone = network_segmenter(network.sized(size, size), channels=(3,))
    step = max(1, round(SEARCH_MM / scan.GetSpacing()[2]))
    searched, found = range(0, count, step), []
    for position in searched:
        _, labels = find_bone(input_slices(scan, settings, [position]))
        found.append(labels >= BONE)
        progress(len(found), len(searched))
    bone = np.concatenate(found)
    stride = size // bone.shape[1]
    voxel_mm3 = step * scan.GetSpacing()[2] * (stride * settings.pixel_spacing_mm) ** 2
    parts, _ = ndimage.label(bone)
    large = np.bincount(parts.ravel()) * voxel_mm3 / 1000 >= SMALLEST_FIND_ML
    large[0] = not large[1:].any()  # without any bone, all of the scan is taken
    (box,) = ndimage.find_objects(large[parts].astype(np.uint8))
    margin = int(np.ceil(MARGIN_MM / settings.pixel_spacing_mm))
    rows, columns = (
        _aligned(part.start * stride - margin, part.stop * stride + margin, size)
        for part in box[1:]
    )
    slices = slice(max(0, (box[0].start - 1) * step + 1), min(count, box[0].stop * step))
    return Region(settings, slices, rows, columns)


def predict_bone(
    network: Network, scan: SimpleITK.Image, region: Region, progress: Progress = ignore
) -> SimpleITK.Image:
    """Return the margin of bone in a scan in HU, -1 outside of the region, on all its slices."""
    rows, columns = (part.stop - part.start for part in (region.rows, region.columns))
    model = network.sized(rows, columns)
    distance_mm = scan.GetSpacing()[2]
    thickness = max(1, round(THINNEST_MM / distance_mm))  # slices of the scan in each predicted one
    starts = np.arange(region.slices.start, region.slices.stop, thickness)
    positions = starts + (thickness - 1) / 2
    margins = []
    for first in range(0, len(positions), SLICES_AT_ONCE):
        chosen = positions[first : first + SLICES_AT_ONCE]
        images = input_slices(scan, region.settings, chosen, thickness)
        for probabilities in _probabilities(model, images[:, region.rows, region.columns]):
            bone = probabilities[..., BONE:].sum(axis=-1)  # of all classes of bone
            margins.append(bone - probabilities[..., :BONE].max(axis=-1))
            progress(len(margins), len(positions))
    first = to_grid(scan[:, :, :1], region.settings)
    pixel_mm = region.settings.pixel_spacing_mm
    stride = rows // model.output_shape[1]  # input pixels to an output pixel
    image = SimpleITK.GetImageFromArray(np.stack(margins))
    image.SetSpacing((stride * pixel_mm, stride * pixel_mm, thickness * distance_mm))
    image.SetDirection(scan.GetDirection())
    middle = (stride - 1) / 2  # of the first output pixel
    corner = (region.columns.start + middle, region.rows.start + middle, positions[0])
    image.SetOrigin(first.TransformContinuousIndexToPhysicalPoint(corner))
    # Padded to the whole scan, since naming bones depends on what the scan could show.
    parts, size = (region.columns, region.rows), region.settings.image_size
    above = scan.GetSize()[2] - region.slices.stop
    before = [*(part.start // stride for part in parts), region.slices.start // thickness]
    after = [*((size - part.stop) // stride for part in parts), above // thickness]
    return SimpleITK.ConstantPad(image, before, after, -1.0)


def margin_on_scan(margin: SimpleITK.Image, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return the margin on the grid of a scan or of a part of it, interpolated linearly."""
    return SimpleITK.Resample(margin, scan, SimpleITK.Transform(), SimpleITK.sitkLinear, -1.0)


def bone_on_scan(margin: SimpleITK.Image, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return 1 where the interpolated margin is positive, else 0, on the grid of the scan."""
    bone = np.empty(scan.GetSize()[::-1], np.uint8)
    for first in range(0, len(bone), SLICES_AT_ONCE):  # to save memory
        values = margin_on_scan(margin, scan[:, :, first : first + SLICES_AT_ONCE])
        bone[first : first + SLICES_AT_ONCE] = SimpleITK.GetArrayViewFromImage(values) > 0
    return image_like(bone, scan)


def _covering(settings: Settings, scan: SimpleITK.Image) -> Settings:
    """Return `settings` with the smallest slices that cover the scan at the same spacing."""
    extent_mm = max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    size = int(np.ceil(extent_mm / settings.pixel_spacing_mm / SIZE_STEP)) * SIZE_STEP
    return replace(settings, image_size=size, field_of_view_mm=size * settings.pixel_spacing_mm)


def input_slices(
    scan: SimpleITK.Image, settings: Settings, positions: Sequence[float], thickness: int = 1
) -> np.ndarray:
    """Return the network's 8-bit input at ascending positions: (position, row, column, channel).

    Positions count the scan's slices from 0, `thickness` of which are averaged. The channels
    are the slice and the planes `settings.neighbour_mm` below and above it, repeated at the
    scan's ends.
    """
    reach, last = settings.neighbour_mm / scan.GetSpacing()[2], scan.GetSize()[2] - 1
    shifts = np.add.outer([-reach, 0.0, reach], np.arange(thickness) - (thickness - 1) / 2)
    wanted = np.clip(np.add.outer(positions, shifts), 0, last)  # (position, channel, part)
    first = int(wanted.min())
    part = to_grid(scan[:, :, first : int(np.ceil(wanted.max())) + 1], settings)
    image_hu = SimpleITK.GetArrayViewFromImage(part)
    below = np.floor(wanted - first).astype(int)
    share = (wanted - first - below).astype(np.float32)[..., None, None]
    above = np.minimum(below + 1, len(image_hu) - 1)
    planes = (1 - share) * image_hu[below] + share * image_hu[above]
    return np.moveaxis(window(planes.mean(axis=2), settings), 1, -1)


def _aligned(first: int, last: int, size: int) -> slice:
    """Return a range around `first` to `last`: aligned, a multiple of 32, within the slice."""
    first = max(0, first) // ALIGNMENT * ALIGNMENT
    length = min(size, -(-(min(size, last) - first) // SIZE_STEP) * SIZE_STEP)
    first = min(first, size - length)
    return slice(first, first + length)


def _probabilities(model: keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the float32 (row, column, class) of each slice, predicted in equal batches."""
    for probabilities, count in predict(model, images, network_input):
        yield from np.asarray(probabilities, np.float32)[:count]


# What cannot be bone


def clean(margin: SimpleITK.Image, scan: SimpleITK.Image, body: SimpleITK.Image) -> SimpleITK.Image:
    """Return the margin of `predict_bone` without what cannot be bone.

    `scan` in HU and `body`, the mask of the patient, share a grid.
    """
    values = SimpleITK.GetArrayFromImage(margin)
    voxel_ml = np.prod(margin.GetSpacing()) / 1000
    remove_metal(values, SimpleITK.GetArrayFromImage(SimpleITK.Resample(scan, margin)))
    values[SimpleITK.GetArrayFromImage(on_grid(body, margin)) == 0] = -1
    remove_islands(values, voxel_ml)
    fill_holes(values, voxel_ml)
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
