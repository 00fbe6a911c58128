"""Scan + network at low resolution -> the region of the bone, for a closer look."""

import keras
import numpy as np
import SimpleITK
from scipy import ndimage

from bonelib.models import SIZE_STEP
from bonelib.prediction import network_segmenter
from bonelib.preparation import to_grid
from bonelib.segment.probabilities import Progress, Region, silent
from bonelib.settings import BONE, Settings
from bonelib.slices import SLICES_AT_ONCE, window

SEARCH_MM = 10.0  # between slices that are searched; the smallest bone of a pelvis is longer
SMALLEST_BONE_ML = 10.0  # a smaller find is contrast or calcification, not where to look
MARGIN_MM = 15.0  # around what is found, for bone that the search cuts short
ALIGNMENT = SIZE_STEP // 2  # pixels: four poolings then see what they see in the whole slice


def find_region(
    model: keras.Model, scan: SimpleITK.Image, settings: Settings, progress: Progress = silent
) -> tuple[Region, tuple[int, int]] | None:
    """Return the box that holds the bone and its (rows, columns) in pixels; None without bone.

    `model` takes slices that `settings` describe, see `probabilities.fit_to_scan`. It sees one
    slice in `SEARCH_MM`, once each, on its own coarse grid.
    """
    every = max(1, round(SEARCH_MM / scan.GetSpacing()[2]))
    searched = scan[:, :, ::every]
    count = searched.GetSize()[2]
    segment, found = network_segmenter(model), []
    for first in range(0, count, SLICES_AT_ONCE):
        part = to_grid(searched[:, :, first : first + SLICES_AT_ONCE], settings)
        _, native = segment(window(SimpleITK.GetArrayFromImage(part), settings))
        found.append(native >= BONE)
        progress(first + len(native), count)
    bone = np.concatenate(found)
    stride = settings.image_size // bone.shape[1]
    pixel_mm = stride * settings.pixel_spacing_mm
    parts, _ = ndimage.label(bone)
    volumes_ml = np.bincount(parts.ravel()) * searched.GetSpacing()[2] * pixel_mm**2 / 1000
    volumes_ml[0] = 0
    kept = (volumes_ml >= SMALLEST_BONE_ML)[parts]
    if not kept.any():
        return None
    box = ndimage.find_objects(kept.astype(np.uint8))[0]
    margin = int(np.ceil(MARGIN_MM / settings.pixel_spacing_mm))
    top, rows = _aligned(box[1], stride, margin, settings.image_size)
    left, columns = _aligned(box[2], stride, margin, settings.image_size)
    slices = range(
        max(0, (box[0].start - 1) * every + 1),
        min(scan.GetSize()[2], box[0].stop * every),
    )
    return Region(slices, top, left), (rows, columns)


def _aligned(found: slice, stride: int, margin: int, size: int) -> tuple[int, int]:
    """Return the first pixel and the length, a multiple of `SIZE_STEP`, of one side of a box."""
    first = max(0, found.start * stride - margin) // ALIGNMENT * ALIGNMENT
    length = min(size, found.stop * stride + margin) - first
    length = min(size, -(-length // SIZE_STEP) * SIZE_STEP)
    return min(first, size - length), length
