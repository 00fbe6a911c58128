"""Network + scan -> probabilities that lie in space -> label map on the scan's own grid."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import keras
import numpy as np
import SimpleITK

from bonelib import models
from bonelib.labels import body_mask
from bonelib.labels.grids import image_like
from bonelib.prediction import predict
from bonelib.preparation import to_grid
from bonelib.settings import BACKGROUND, BONE, NUM_CLASSES, PATIENT, Settings
from bonelib.slices import SLICES_AT_ONCE, network_input, window

Progress = Callable[[int, int], None]  # is told how much of all is done


def silent(done: int, total: int) -> None:
    """Tell nobody about progress."""


@dataclass(frozen=True)
class Probabilities:
    """How probable each class is, background, patient and bone, on a grid of its own.

    `values` is float16 of shape (slice, row, column, class) and its slices are the scan's;
    `spacing_mm` is (slice, row, column), `origin_mm` (x, y, z) and `direction` as SimpleITK's.
    """

    values: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]

    def label_map(self) -> np.ndarray:
        """Return the most probable class of each voxel, uint8 (slice, row, column)."""
        return np.stack([_most_probable(part) for part in self.values])

    def image(self, values: np.ndarray, first: int = 0) -> SimpleITK.Image:
        """Return slices of this grid, from index `first` on, as an image that lies in space.

        `values` is an array of (slice, row, column).
        """
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing(self.spacing_mm[::-1])
        upward = np.reshape(self.direction, (3, 3))[:, 2]
        image.SetOrigin(self.origin_mm + first * self.spacing_mm[0] * upward)
        image.SetDirection(self.direction)
        return image


@dataclass(frozen=True)
class Region:
    """The part of a scan that a network sees, in slices and in pixels of the network's input."""

    slices: range
    top: int = 0
    left: int = 0


def fit_to_scan(settings: Settings, scan: SimpleITK.Image) -> Settings:
    """Return `settings` with the smallest slices that cover the scan at the same spacing."""
    extent_mm = max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    steps = np.ceil(extent_mm / settings.pixel_spacing_mm / models.SIZE_STEP)
    size = int(steps) * models.SIZE_STEP
    return replace(settings, image_size=size, field_of_view_mm=size * settings.pixel_spacing_mm)


def segment_scan(model: keras.Model, scan: SimpleITK.Image, settings: Settings) -> SimpleITK.Image:
    """Return the label map, 0/1/2 as uint8, of a scan in HU on the scan's own grid.

    `settings` say what slices `model` takes, see `fit_to_scan`.
    """
    return to_scan(predict_scan(model, scan, settings), scan)


def predict_scan(
    model: keras.Model,
    scan: SimpleITK.Image,
    settings: Settings,
    region: Region | None = None,
    progress: Progress = silent,
) -> Probabilities:
    """Return the probabilities of a scan in HU, which is brought to the network in parts.

    `settings` say what slices cover the scan, see `fit_to_scan`. `model` takes such slices or,
    with a `region`, parts of them; outside it there is patient, by its outline, or background.
    Classes from the third on are bone. `progress` is told how many slices of all are done.
    """
    count = scan.GetSize()[2]
    rows, columns = model.input_shape[1:3]
    stride = rows // model.output_shape[1]
    step = max(stride // 2, 1)
    fine = settings.image_size // step
    values = np.zeros((count, fine, fine, NUM_CLASSES), np.float16)
    place = region or Region(range(count))
    within = np.index_exp[
        place.top // step : (place.top + rows) // step,
        place.left // step : (place.left + columns) // step,
    ]
    for first in range(0, count, SLICES_AT_ONCE):
        part = to_grid(scan[:, :, first : first + SLICES_AT_ONCE], settings)
        if region:
            _fill_outline(values[first : first + SLICES_AT_ONCE], part, step)
        seen = [index for index in range(part.GetSize()[2]) if first + index in place.slices]
        images = window(SimpleITK.GetArrayViewFromImage(part)[seen], settings)
        images = images[:, place.top : place.top + rows, place.left : place.left + columns]
        found = _fine_probabilities(model, images, stride, step)
        for index, probabilities in zip(seen, found, strict=True):
            values[first + index][within] = _three_classes(probabilities)
            progress(first + index + 1, count)
    pixel_mm, step_mm = settings.pixel_spacing_mm, step * settings.pixel_spacing_mm
    across, down, _ = np.reshape(scan.GetDirection(), (3, 3)).T
    corner = to_grid(scan[:, :, :1], settings).GetOrigin()
    origin_mm = corner + (stride - 1) / 2 * pixel_mm * (across + down)
    spacing_mm = (scan.GetSpacing()[2], step_mm, step_mm)
    return Probabilities(values, spacing_mm, tuple(origin_mm), scan.GetDirection())


def to_scan(probabilities: Probabilities, scan: SimpleITK.Image) -> SimpleITK.Image:
    """Return the label map, 0/1/2 as uint8, on the grid of the scan that was predicted.

    Probabilities are interpolated before a class is chosen; beyond their grid its edge counts.
    """
    columns, rows, _ = scan.GetSize()
    width_mm, height_mm, _ = scan.GetSpacing()
    across, down, _ = np.reshape(scan.GetDirection(), (3, 3)).T
    shift_mm = np.subtract(scan.GetOrigin(), probabilities.origin_mm)
    _, row_mm, column_mm = probabilities.spacing_mm
    x = (np.arange(columns) * width_mm + shift_mm @ across) / column_mm
    y = (np.arange(rows) * height_mm + shift_mm @ down) / row_mm
    fine_rows, fine_columns = probabilities.values.shape[1:3]
    x, y = (
        np.clip(places, 0, length - 1).astype(np.float32)
        for places, length in zip(np.meshgrid(x, y), (fine_columns, fine_rows), strict=True)
    )
    label_maps = np.empty((len(probabilities.values), rows, columns), np.uint8)
    for label_map, part in zip(label_maps, probabilities.values, strict=True):
        label_map[:] = _most_probable(cv2.remap(part.astype(np.float32), x, y, cv2.INTER_LINEAR))
    return image_like(label_maps, scan)


def _most_probable(values: np.ndarray) -> np.ndarray:
    """Return what argmax over background, patient and bone does, ten times as fast; uint8."""
    background, patient, bone = (values[..., label] for label in range(NUM_CLASSES))
    is_patient = patient > background
    is_bone = bone > np.maximum(background, patient)
    return np.where(is_bone, np.uint8(BONE), is_patient.astype(np.uint8))


def _fill_outline(values: np.ndarray, part: SimpleITK.Image, step: int) -> None:
    """Write what lies outside of a region: patient by its outline, or background."""
    outline = SimpleITK.GetArrayFromImage(body_mask(part))[:, ::step, ::step]
    for label in (BACKGROUND, PATIENT):
        values[..., label] = outline == label


def _three_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return background, patient and bone: a network may tell one bone from another."""
    bone = probabilities[..., BONE:].sum(axis=-1, keepdims=True)
    return np.concatenate([probabilities[..., :BONE], bone], axis=-1)


def _fine_probabilities(
    model: keras.Model, images: np.ndarray, stride: int, step: int
) -> Iterator[np.ndarray]:
    """Yield the probabilities of each slice at every `step` pixels of the input.

    An output pixel of a network covers `stride` pixels a side. Where that is more than one,
    the slice is predicted four times, shifted by half of it, too, and the results are
    interlaced ("shift and stitch", Long et al. 2015, section 3.2).
    """
    if stride == 1:
        yield from _probabilities(model, images)
        return
    rows, columns = images.shape[1:]
    for image in images:
        padded = np.pad(image, (0, step), mode="edge")
        shifts = [padded[y : y + rows, x : x + columns] for y in (0, step) for x in (0, step)]
        parts = np.stack(list(_probabilities(model, np.stack(shifts))))
        coarse = parts.shape[1:]
        parts = parts.reshape(2, 2, *coarse).transpose(2, 0, 3, 1, 4)
        yield parts.reshape(2 * coarse[0], 2 * coarse[1], coarse[2])


def _probabilities(model: keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the float32 (row, column, class) of each slice, predicted in equal batches."""
    for probabilities, count in predict(model, images, network_input):
        yield from np.asarray(probabilities, np.float32)[:count]
