"""Network or baseline + slices -> label maps, on the input's own grid and on the network's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage
from skimage import morphology

from bonelib import models
from bonelib.devices import set_precision, share
from bonelib.settings import BACKGROUND, BASELINE, BONE, PATIENT, Settings
from bonelib.slices import CHANNEL_MEANS

BATCH_SIZE = 4  # slices a forward pass; more gains nothing on a CPU and fits every GPU
BODY_HU = -200.0  # between lung or clothes and fat
BONE_HU = 160.0  # the usual threshold for bone; marrow is filled in afterwards
CLOSING_MM = 4.0  # gaps in a cortex that the baseline bridges
SMALLEST_BONE_MM2 = 60.0  # smaller specks are contrast, calcification or noise
MOST_CERTAIN = 255  # a probability of 1, as 8 bits

Segmenter = Callable[[np.ndarray], tuple[np.ndarray, ...]]


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
            *([part[:count] for part in parts] for parts, count in predict(labelling, images)),
            strict=True,
        )
        return tuple(map(np.concatenate, stacks))

    return segment


def channels(images):
    """Return `slices.network_input` of 8-bit images, computed on the device."""
    grey = keras.ops.cast(keras.ops.convert_to_tensor(images), "float32")
    if len(images.shape) == 3:
        grey = keras.ops.repeat(grey[..., None], len(CHANNEL_MEANS), axis=-1)
    return grey - keras.ops.convert_to_tensor(CHANNEL_MEANS, "float32")


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
        probabilities = self.model(channels(images), training=False)
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


def predict(model: keras.Model, images: np.ndarray, prepare: Callable = np.asarray) -> Iterator:
    """Yield what `model` makes of each batch of images, `prepare`d, and how many they are."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        # Equal batches, so that the graph is compiled once.
        padded = np.resize(batch, (min(BATCH_SIZE, len(images)), *images.shape[1:3]))
        found = model.predict_on_batch(share(prepare(padded)))
        yield found, len(batch)


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
