"""Model + slices -> label maps, on the input's own grid and on the network's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import SimpleITK
from scipy import ndimage
from skimage import morphology

from bonelib import models, provenance
from bonelib.labels import body_mask
from bonelib.labels.grids import image_like
from bonelib.settings import BACKGROUND, BASELINE, BONE, NUM_CLASSES, PATIENT, Settings
from bonelib.slices import CHANNEL_MEANS, SLICES_AT_ONCE, network_input, to_grid, window

BATCH_SIZE = 4  # slices a forward pass; more gains nothing on a CPU and fits every GPU
BODY_HU = -200.0  # between lung or clothes and fat
BONE_HU = 160.0  # the usual threshold for bone; marrow is filled in afterwards
CLOSING_MM = 4.0  # gaps in a cortex that the baseline bridges
SMALLEST_BONE_MM2 = 60.0  # smaller specks are contrast, calcification or noise
MOST_CERTAIN = 255  # a probability of 1, as 8 bits

Progress = Callable[[int, int], None]  # is told how much of all is done

Segmenter = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def silent(done: int, total: int) -> None:
    """Tell nobody about progress."""


def set_precision(settings: Settings) -> str:
    """Choose Keras' dtype policy for this machine and return its name.

    `settings.precision` "auto" takes 16-bit products where the hardware has them and
    float32 elsewhere; weights and softmax stay float32 in every case.
    """
    policy = settings.precision
    if policy == "auto":
        policy = provenance.fastest_precision(keras.backend.backend())
    keras.config.set_dtype_policy(policy)
    return policy


def load_network(path: Path, name: str, settings: Settings) -> keras.Model:
    """Return network `name` with the weights of `path`, at this machine's precision.

    The file gives numbers only: the layers come from `bonelib.models`.
    """
    set_precision(settings)
    model = models.build_model(
        name,
        settings.image_size,
        settings.num_classes,
        decoder_activation=settings.decoder_activation,
    )
    model.load_weights(path)
    return model


def network_segmenter(model: keras.Model, with_probabilities: bool = False) -> Segmenter:
    """Return a function from 8-bit slices (slice, row, column) to their label maps.

    It returns two uint8 stacks: on the input grid, from bilinearly upsampled
    probabilities, and on the network's own output grid. With probabilities, a third has
    those of the input grid (slice, row, column, class), 255 for certainty.
    """
    # Compiled with the network: at 512 x 512 NumPy takes longer to find a slice's classes
    # than a GPU takes for the network.
    labelling = Labelling(model, with_probabilities)

    def segment(images: np.ndarray) -> tuple[np.ndarray, ...]:
        stacks = zip(
            *([part[:count] for part in parts] for parts, count in _predict(labelling, images)),
            strict=True,
        )
        return tuple(map(np.concatenate, stacks))

    return segment


class Labelling(keras.Model):
    """A network with what makes its input from slices and label maps from its output."""

    def __init__(self, model: keras.Model, with_probabilities: bool = False):
        super().__init__()
        self.model = model
        self.with_probabilities = with_probabilities

    def call(self, images):
        """Return label maps of 8-bit slices (slice, row, column) on their grid and the network's.

        Upsampling is bilinear between pixel centres; probabilities follow where asked for.
        """
        grey = keras.ops.cast(images, "float32")
        channels = keras.ops.stack([grey - mean for mean in CHANNEL_MEANS], axis=-1)
        probabilities = self.model(channels, training=False)
        native = probabilities
        for axis in (2, 1):
            probabilities = _upsampled(probabilities, images.shape[axis], axis)
        label_maps = _classes(probabilities), _classes(native)
        if not self.with_probabilities:
            return label_maps
        levels = keras.ops.round(MOST_CERTAIN * keras.ops.cast(probabilities, "float32"))
        return *label_maps, keras.ops.cast(levels, "uint8")


def _classes(probabilities):
    return keras.ops.cast(keras.ops.argmax(probabilities, axis=-1), "uint8")


def _upsampled(values, length: int, axis: int):
    """Interpolate linearly along an axis; beyond the outermost pixel centres nothing changes."""
    count = values.shape[axis]
    if count == length:
        return values
    centres = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    low = np.floor(centres).astype(np.int32)
    shape = [length if position == axis else 1 for position in range(4)]
    share = (centres - low).astype(np.float32).reshape(shape)
    below = keras.ops.take(values, low, axis=axis)
    above = keras.ops.take(values, np.minimum(low + 1, count - 1), axis=axis)
    return below * (1 - share) + above * share


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
    for probabilities, count in _predict(model, images, network_input):
        yield from np.asarray(probabilities, np.float32)[:count]


def _predict(model: keras.Model, images: np.ndarray, prepare: Callable = np.asarray) -> Iterator:
    """Yield what `model` makes of each batch of images, `prepare`d, and how many they are."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        # Equal batches, so that the graph is compiled once.
        padded = np.resize(batch, (min(BATCH_SIZE, len(images)), *images.shape[1:3]))
        found = model.predict_on_batch(shared(prepare(padded)))
        yield found, len(batch)


def shared(batch: np.ndarray):
    """Return a batch dealt out to the devices that share a training, see `training.sharing`."""
    distribution = keras.distribution.distribution()
    if distribution is None or len(batch) % distribution.num_model_replicas:
        return batch
    layout = distribution.get_data_layout(batch.shape)
    return keras.distribution.distribute_tensor(batch, layout)


def threshold_segmenter(settings: Settings) -> Segmenter:
    """Return the classical baseline: thresholds and morphology, slice by slice.

    Same signature as `network_segmenter`; its two stacks are the same.
    """
    low, high = settings.window_hu
    body_level, bone_level = (
        np.round(255 * (hu - low) / (high - low)) for hu in (BODY_HU, BONE_HU)
    )
    closing = morphology.disk(max(1, round(CLOSING_MM / settings.pixel_spacing_mm)))
    smallest_bone = max(2, round(SMALLEST_BONE_MM2 / settings.pixel_spacing_mm**2))

    def segment_slice(image: np.ndarray) -> np.ndarray:
        body = ndimage.binary_opening(image > body_level, morphology.disk(2))
        body = ndimage.binary_fill_holes(body)
        bone = ndimage.binary_closing((image >= bone_level) & body, closing)
        bone = ndimage.binary_fill_holes(bone)
        components, count = ndimage.label(bone)
        sizes = ndimage.sum_labels(bone, components, range(count + 1))
        bone = (sizes >= smallest_bone)[components] & bone
        return np.where(bone, BONE, np.where(body, PATIENT, BACKGROUND)).astype(np.uint8)

    def segment(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        label_maps = np.stack([segment_slice(image) for image in images])
        return label_maps, label_maps

    return segment


def load_segmenter(method: str, weights: Path | None, settings: Settings):
    """Return (segmenter, keras.Model or None) of a network or of the baseline."""
    if method == BASELINE:
        return threshold_segmenter(settings), None
    model = load_network(weights, method, settings)
    return network_segmenter(model), model
