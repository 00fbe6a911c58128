"""Model + slices -> label maps, on the input's own grid and on the network's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import SimpleITK
from scipy import ndimage
from skimage import morphology

from bonelib import models, provenance
from bonelib.settings import BACKGROUND, BASELINE, BONE, PATIENT, Settings
from bonelib.slices import network_input, to_grid, window

BATCH_SIZE = 4  # slices a forward pass; more gains nothing on a CPU and fits every GPU
BODY_HU = -200.0  # between lung or clothes and fat
BONE_HU = 160.0  # the usual threshold for bone; marrow is filled in afterwards
CLOSING_MM = 4.0  # gaps in a cortex that the baseline bridges
SMALLEST_BONE_MM2 = 60.0  # smaller specks are contrast, calcification or noise

Segmenter = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def set_precision(settings: Settings) -> str:
    """Choose Keras' dtype policy for this machine and return its name.

    `settings.precision` "auto" takes 16-bit products where the hardware has them and
    float32 elsewhere; weights and softmax stay float32 in every case.
    """
    policy = settings.precision
    if policy == "auto":
        policy = provenance.fastest_precision()
    keras.config.set_dtype_policy(policy)
    return policy


def load_network(path: Path, name: str, settings: Settings) -> keras.Model:
    """Return network `name` with the weights of `path`, at this machine's precision.

    The file gives numbers only: the layers come from `bonelib.models`.
    """
    set_precision(settings)
    model = models.build_model(
        name, settings.image_size, decoder_activation=settings.decoder_activation
    )
    model.load_weights(path)
    return model


def network_segmenter(model: keras.Model) -> Segmenter:
    """Return a function from 8-bit slices (slice, row, column) to their label maps.

    It returns two uint8 stacks: on the input grid, from bilinearly upsampled
    probabilities, and on the network's own output grid.
    """

    def segment(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = images.shape[1:3]
        label_maps, native = [], []
        for probabilities in _probabilities(model, images):
            native.append(probabilities.argmax(-1))
            if probabilities.shape[:2] != shape:
                probabilities = cv2.resize(probabilities, shape[::-1])
            label_maps.append(probabilities.argmax(-1))
        return np.stack(label_maps).astype(np.uint8), np.stack(native).astype(np.uint8)

    return segment


def fit_to_scan(settings: Settings, scan: SimpleITK.Image) -> Settings:
    """Return `settings` with the smallest slices that cover the scan at the same spacing."""
    extent_mm = max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    steps = np.ceil(extent_mm / settings.pixel_spacing_mm / models.SIZE_STEP)
    size = int(steps) * models.SIZE_STEP
    return replace(settings, image_size=size, field_of_view_mm=size * settings.pixel_spacing_mm)


def segment_scan(model: keras.Model, scan: SimpleITK.Image, settings: Settings) -> SimpleITK.Image:
    """Return the label map, 0/1/2 as uint8, of a scan in HU on the scan's own grid.

    `settings` say what slices `model` takes, see `fit_to_scan`. Probabilities are brought to
    the pixels of the scan, which the slices have to cover, before a class is chosen.
    """
    images = window(SimpleITK.GetArrayFromImage(to_grid(scan, settings)), settings)
    columns, rows, _ = scan.GetSize()
    width_mm, height_mm, _ = scan.GetSpacing()
    stride = settings.image_size // model.output_shape[1]
    step = max(stride // 2, 1)
    step_mm = step * settings.pixel_spacing_mm
    middle = (settings.image_size - stride) / (2 * step)  # of the field, in steps
    x, y = np.meshgrid(
        (np.arange(columns) - (columns - 1) / 2) * (width_mm / step_mm) + middle,
        (np.arange(rows) - (rows - 1) / 2) * (height_mm / step_mm) + middle,
    )
    x, y = (np.clip(places, 0, 2 * middle).astype(np.float32) for places in (x, y))
    label_maps = [
        cv2.remap(probabilities, x, y, cv2.INTER_LINEAR).argmax(-1)
        for probabilities in _fine_probabilities(model, images, stride, step)
    ]
    labels = SimpleITK.GetImageFromArray(np.stack(label_maps).astype(np.uint8))
    labels.CopyInformation(scan)
    return labels


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
    size = images.shape[1]
    for image in images:
        padded = np.pad(image, (0, step), mode="edge")
        shifts = [padded[y : y + size, x : x + size] for y in (0, step) for x in (0, step)]
        parts = np.stack(list(_probabilities(model, np.stack(shifts))))
        coarse, classes = parts.shape[1], parts.shape[-1]
        parts = parts.reshape(2, 2, coarse, coarse, classes).transpose(2, 0, 3, 1, 4)
        yield parts.reshape(2 * coarse, 2 * coarse, classes)


def _probabilities(model: keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the float32 (row, column, class) of each slice, predicted in equal batches."""
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        # Equal batches, so that the graph is compiled once.
        padded = np.resize(batch, (min(BATCH_SIZE, len(images)), *images.shape[1:3]))
        probabilities = np.asarray(model.predict_on_batch(network_input(padded)))
        yield from probabilities[: len(batch)].astype(np.float32)


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
