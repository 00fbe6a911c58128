"""Network or threshold baseline + slices -> label maps, on the input's grid and the network's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage
from skimage import morphology

from bonelib import models
from bonelib.devices import prepare_keras
from bonelib.settings import BACKGROUND, BONE, PATIENT, Settings

# ImageNet's mean red, green and blue, which the paper's library subtracted from the channels.
CHANNEL_MEANS = (123.68, 116.779, 103.939)
BATCH_SIZE = 4  # slices per forward pass; more gains nothing on a CPU, and this fits every GPU
BODY_HU = -200.0  # between lung or clothes and fat
BONE_HU = 160.0  # the usual threshold for bone; marrow is filled in afterwards
CLOSING_MM = 4.0  # gaps in the cortical bone that the baseline closes
SMALLEST_BONE_MM2 = 60.0  # smaller components are contrast agent, calcification or noise
MOST_CERTAIN = 255  # a probability of 1 as 8 bits

# 8-bit slices (slice, row, column) -> their label maps, uint8: on the slices' grid and on the
# network's output grid.
Segmenter = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def load_network(path: Path, name: str, settings: Settings) -> keras.Model:
    """Return network `name` with the weights of file `path`, at this machine's precision."""
    prepare_keras(settings)
    model = models.build_model(
        name, settings.image_size, decoder_activation=settings.decoder_activation
    )
    model.load_weights(path)
    return model


def network_segmenter(
    model: keras.Model, with_probabilities: bool = False, channels: tuple[int, ...] = ()
) -> Segmenter:
    """Return the segmenter of a network; `channels` is (3,) for slices with an axis of channels.

    Label maps on the slices' grid come from bilinearly upsampled probabilities. With
    probabilities, a third array holds these: (slice, row, column, class), 255 for 1.
    """
    # One model with the network: at 512 x 512 the argmax takes longer in NumPy than the network
    # takes on a GPU.
    images = keras.Input((*model.input_shape[1:3], *channels), dtype="uint8")
    native = model(network_input(images), training=False)
    probabilities = native
    for axis in (2, 1):
        probabilities = _upsample(probabilities, images.shape[axis], axis)
    outputs = [
        keras.ops.cast(keras.ops.argmax(one, axis=-1), "uint8") for one in (probabilities, native)
    ]
    if with_probabilities:
        levels = keras.ops.round(MOST_CERTAIN * keras.ops.cast(probabilities, "float32"))
        outputs.append(keras.ops.cast(levels, "uint8"))
    labelling = keras.Model(images, outputs)

    def segment(images: np.ndarray) -> tuple[np.ndarray, ...]:
        batches = [[part[:count] for part in parts] for parts, count in predict(labelling, images)]
        return tuple(map(np.concatenate, zip(*batches, strict=True)))

    return segment


def predict(model: keras.Model, images: np.ndarray, prepare: Callable = np.asarray) -> Iterator:
    """Yield what `model` returns for each batch of `prepare`d images, and the batch's length."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        # Batches of equal size, so that the graph is compiled once.
        padded = np.resize(batch, (min(BATCH_SIZE, len(images)), *images.shape[1:]))
        yield model.predict_on_batch(prepare(padded)), len(batch)


def network_input(images):
    """Return three channels minus ImageNet's means, the network input of the paper's library.

    `images` is uint8 (slice, row, column), with or without an axis of three channels; the
    result is a tensor, float32 (slice, row, column, 3).
    """
    grey = keras.ops.cast(images, "float32")
    if len(images.shape) == 3:
        grey = keras.ops.repeat(grey[..., None], len(CHANNEL_MEANS), axis=-1)
    return grey - keras.ops.convert_to_tensor(CHANNEL_MEANS, "float32")


def _upsample(values, length: int, axis: int):
    """Interpolate linearly along an axis; values are constant beyond the outermost centres."""
    count = values.shape[axis]
    if count == length:
        return values
    centres = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    low = np.floor(centres).astype(np.int32)
    shape = [length if position == axis else 1 for position in range(4)]
    share_above = (centres - low).astype(np.float32).reshape(shape)
    below = keras.ops.take(values, low, axis=axis)
    above = keras.ops.take(values, np.minimum(low + 1, count - 1), axis=axis)
    return below * (1 - share_above) + above * share_above


def threshold_segmenter(settings: Settings) -> Segmenter:
    """Return the classical baseline: thresholds and morphology, slice by slice.

    It has one grid, so that both label maps are the same.
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
        bone = morphology.remove_small_objects(bone, max_size=smallest_bone - 1)
        return np.where(bone, BONE, np.where(body, PATIENT, BACKGROUND)).astype(np.uint8)

    def segment(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        label_maps = np.stack([segment_slice(image) for image in images])
        return label_maps, label_maps

    return segment
