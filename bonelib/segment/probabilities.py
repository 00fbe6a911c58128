"""Network + scan -> how probable bone is, at every point of the region that contains bone.

The result is one float32 image, the *margin*: the probability of bone minus that of the
likeliest other class, from -1 to 1. Bone is where it is positive, and the bone's surface is
where it is zero, so that label map and surface agree.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import keras
import numpy as np
import SimpleITK
from scipy import ndimage

from bonelib.labels.grids import image_like
from bonelib.models import SIZE_STEP
from bonelib.prediction import network_input, network_segmenter, predict
from bonelib.preparation import to_grid
from bonelib.segment.pretrained import Network
from bonelib.settings import BONE, Settings
from bonelib.slices import SLICES_AT_ONCE, window

SEARCH_MM = 10.0  # between the slices searched for bone; the smallest bone of a pelvis is longer
SMALLEST_FIND_ML = 2.0  # smaller finds of the search are contrast agent or calcification
MARGIN_MM = 15.0  # around the finds, for bone that the search missed
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

    The network sees one slice in `SEARCH_MM`, once, and its output is not refined.
    """
    settings = _covering(network.settings, scan)
    size, count = settings.image_size, scan.GetSize()[2]
    find_bone = network_segmenter(network.sized(size, size))
    step = max(1, round(SEARCH_MM / scan.GetSpacing()[2]))
    searched, found = scan[:, :, ::step], []
    for first, images in _inputs(searched, settings):
        _, labels = find_bone(images)
        found.append(labels >= BONE)
        progress(first + len(images), searched.GetSize()[2])
    bone = np.concatenate(found)
    stride = size // bone.shape[1]
    voxel_mm3 = searched.GetSpacing()[2] * (stride * settings.pixel_spacing_mm) ** 2
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
    seen = scan[:, :, region.slices]
    margins = []
    for _, images in _inputs(seen, region.settings):
        for probabilities in _fine_probabilities(model, images[:, region.rows, region.columns]):
            bone = probabilities[..., BONE:].sum(axis=-1)  # of all classes of bone
            margins.append(bone - probabilities[..., :BONE].max(axis=-1))
            progress(len(margins), seen.GetSize()[2])
    first = to_grid(seen[:, :, :1], region.settings)
    pixel_mm = region.settings.pixel_spacing_mm
    step_mm = rows * pixel_mm / margins[0].shape[0]
    # The first value lies in the middle of the network's first output pixel.
    offset = (rows // model.output_shape[1] - 1) / 2
    image = SimpleITK.GetImageFromArray(np.stack(margins))
    image.SetSpacing((step_mm, step_mm, scan.GetSpacing()[2]))
    image.SetDirection(scan.GetDirection())
    corner = (region.columns.start + offset, region.rows.start + offset, 0)
    image.SetOrigin(first.TransformContinuousIndexToPhysicalPoint(corner))
    # Padded to the whole scan, since naming bones depends on what the scan could show.
    parts, step = (region.columns, region.rows), rows // margins[0].shape[0]
    size = region.settings.image_size
    before = [*(part.start // step for part in parts), region.slices.start]
    after = [
        *((size - part.stop) // step for part in parts), scan.GetSize()[2] - region.slices.stop
    ]  # fmt: skip
    return SimpleITK.ConstantPad(image, before, after, -1.0)


def bone_on_scan(margin: SimpleITK.Image, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return 1 where the interpolated margin is positive, else 0, on the grid of the scan."""
    bone = np.empty(scan.GetSize()[::-1], np.uint8)
    for first in range(0, len(bone), SLICES_AT_ONCE):  # to save memory
        part = scan[:, :, first : first + SLICES_AT_ONCE]
        values = SimpleITK.Resample(margin, part, SimpleITK.Transform(), SimpleITK.sitkLinear, -1.0)
        bone[first : first + SLICES_AT_ONCE] = SimpleITK.GetArrayViewFromImage(values) > 0
    return image_like(bone, scan)


def _covering(settings: Settings, scan: SimpleITK.Image) -> Settings:
    """Return `settings` with the smallest slices that cover the scan at the same spacing."""
    extent_mm = max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    size = int(np.ceil(extent_mm / settings.pixel_spacing_mm / SIZE_STEP)) * SIZE_STEP
    return replace(settings, image_size=size, field_of_view_mm=size * settings.pixel_spacing_mm)


def _inputs(scan: SimpleITK.Image, settings: Settings) -> Iterator[tuple[int, np.ndarray]]:
    """Yield 8-bit slices (slice, row, column) for the network in parts, and each part's start."""
    for first in range(0, scan.GetSize()[2], SLICES_AT_ONCE):
        part = to_grid(scan[:, :, first : first + SLICES_AT_ONCE], settings)
        yield first, window(SimpleITK.GetArrayViewFromImage(part), settings)


def _aligned(first: int, last: int, size: int) -> slice:
    """Return a range around `first` to `last`: aligned, a multiple of 32, within the slice."""
    first = max(0, first) // ALIGNMENT * ALIGNMENT
    length = min(size, -(-(min(size, last) - first) // SIZE_STEP) * SIZE_STEP)
    first = min(first, size - length)
    return slice(first, first + length)


def _fine_probabilities(model: keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the probabilities (row, column, class) of each slice on a grid finer than the output.

    An output pixel of a network covers `stride` pixels a side. If that is more than one,
    the slice is predicted four times, shifted by half of it, and the results are interlaced
    ("shift and stitch", Long et al. 2015, section 3.2).
    """
    rows, columns = images.shape[1:]
    stride = rows // model.output_shape[1]
    if stride == 1:
        yield from _probabilities(model, images)
        return
    half = stride // 2
    for image in images:
        padded = np.pad(image, (0, half), mode="edge")
        shifts = [padded[y : y + rows, x : x + columns] for y in (0, half) for x in (0, half)]
        parts = np.stack(list(_probabilities(model, np.stack(shifts))))
        coarse = parts.shape[1:]
        parts = parts.reshape(2, 2, *coarse).transpose(2, 0, 3, 1, 4)
        yield parts.reshape(2 * coarse[0], 2 * coarse[1], coarse[2])


def _probabilities(model: keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the float32 (row, column, class) of each slice, predicted in equal batches."""
    for probabilities, count in predict(model, images, network_input):
        yield from np.asarray(probabilities, np.float32)[:count]
