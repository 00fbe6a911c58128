"""The augmentation policy of section 4: its operations, how often each acts, and their ranges.

Ranges are the paper's, and those of the library it used (`aug_all`) where the paper prints
none.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from bonelib.augment import imgaug_fast
from bonelib.augment.imgaug_fast import SegmentationMapsOnImage, iaa, iap

PAPER_SIZE = 512  # pixels of the slices for which ranges in pixels are given
OCCASIONAL_OPERATIONS = 12
MAX_OPERATIONS = 5  # "0 to 5 following operations were randomly performed per each image"
DRAWN_SHARE = MAX_OPERATIONS / 2 / OCCASIONAL_OPERATIONS  # of images that draw a given one

AIR = {"mode": "constant", "cval": 0}  # grey level 0 is the lower end of the intensity window


class Operation(NamedTuple):
    """One augmentation, and the share of images that it acts on.

    The share refers to all images for a frequent operation, to the images that have drawn it
    for an occasional one.
    """

    augmenter: iaa.Augmenter
    share: float = 1.0


def frequent() -> dict[str, Operation]:
    """Return the operations that "were applied most frequently", by name."""
    scale = {"x": (0.8, 1.2), "y": (0.8, 1.2)}
    # Drawn for each side by itself, so that this translates, too.
    crop_or_pad = iaa.CropAndPad(percent=(-0.05, 0.1), pad_mode="constant", pad_cval=0)
    affine = iaa.Affine(scale=scale, rotate=(-45, 45), shear=(-16, 16), order=[0, 1], **AIR)
    return {
        "horizontal_flip": Operation(iaa.Fliplr(1.0), 0.5),
        "vertical_flip": Operation(iaa.Flipud(1.0), 0.2),
        "crop_or_pad": Operation(crop_or_pad, 0.5),
        "scale_rotate_shear": Operation(affine, 0.5),
    }


def occasional(image_size: int = PAPER_SIZE) -> dict[str, Operation]:
    """Return the operations of which an image draws none to five, by name.

    Blurs and local moves are printed in pixels of 512 x 512 slices; they shrink with the slice,
    so that they stay as large in millimetres.
    """
    part = image_size / PAPER_SIZE
    edges = iaa.OneOf([iaa.EdgeDetect((0.5, 1.0)), iaa.DirectedEdgeDetect((0.5, 1.0))])
    noise = imgaug_fast.AdditiveGaussianNoise(scale=(0.0, 0.05 * 255), per_channel=0.5)
    # "By -10% to 10% of the original value". The library adds -10 to 10 grey levels.
    brightness = iaa.Multiply((0.9, 1.1), per_channel=0.5)
    contrast = iaa.LinearContrast((0.5, 2.0), per_channel=0.5)
    elastic = imgaug_fast.ElasticTransformation(alpha=(0.5 * part, 3.5 * part), sigma=0.25, **AIR)
    affine = imgaug_fast.PiecewiseAffine((0.01, 0.05), nb_rows=(2, 4), nb_cols=(2, 4), **AIR)
    return {
        "blur": Operation(_blur(part)),
        "sharpen": Operation(iaa.Sharpen(alpha=(0.0, 1.0), lightness=(0.75, 1.5))),
        "edges": Operation(imgaug_fast.blend_by_simplex_noise([edges])),
        "noise": Operation(noise),
        "pixel_removal": Operation(_on_three_channels(_pixel_removal())),
        # "In 5% of images", although only 2.5 in 12 draw it. The library inverts 1 %.
        "inversion": Operation(iaa.Invert(1.0), 0.05 / DRAWN_SHARE),
        "brightness": Operation(_on_three_channels(brightness)),
        "contrast": Operation(_on_three_channels(contrast)),
        # The paper's overview names it, its list and `aug_all` do not; the library's
        # `aug_non_geometric` applies it to a tenth of the images, and so does this.
        "histogram_equalisation": Operation(
            iaa.AllChannelsHistogramEqualization(), 0.1 / DRAWN_SHARE
        ),
        "local_moves": Operation(elastic, 0.5),
        "local_affine": Operation(affine, 0.5),
        "perspective": Operation(iaa.PerspectiveTransform((0.01, 0.1), **AIR), 0.5),
    }


def _blur(part: float) -> iaa.Augmenter:
    """Return one of three blurs with kernels that are `part` of those of the paper's slices."""
    low, high = (max(1, round(width * part)) for width in (2, 7))
    largest = high - 1 | 1  # the kernel of a median is odd
    median = iaa.MedianBlur((min(low | 1, largest), largest))
    return iaa.OneOf([iaa.GaussianBlur((0.0, 3.0 * part)), iaa.AverageBlur((low, high)), median])


def _pixel_removal() -> iaa.Augmenter:
    """Return the removal of 1 to 10 % of single pixels, or 3 to 10 % in coarse patches.

    The library's coarse patches take up to 15 % of the pixels; the paper says 10 %.
    """
    single, coarse = (
        imgaug_fast.Binomial(iap.Uniform(1 - 0.1, 1 - least)) for least in (0.01, 0.03)
    )
    patches = iaa.CoarseDropout(coarse, size_percent=(0.02, 0.05), min_size=3, per_channel=0.2)
    return iaa.OneOf([iaa.Dropout(single, per_channel=0.5), patches])


def _on_three_channels(augmenter: iaa.Augmenter) -> iaa.Augmenter:
    """Return an operation that may treat channels differently, on three of them."""
    return iaa.Sequential([imgaug_fast.AsThreeChannels(), augmenter])


def operations(image_size: int = PAPER_SIZE) -> dict[str, Operation]:
    """Return every operation by name, for slices of `image_size` pixels."""
    return frequent() | occasional(image_size)


@cache
def policy(image_size: int = PAPER_SIZE) -> iaa.Augmenter:
    """Return the paper's sequence: the frequent operations and some occasional ones.

    "The sequence of above operations is applied in random order" (section 4).
    """
    some = iaa.SomeOf((0, MAX_OPERATIONS), _sometimes(occasional(image_size)), random_order=True)
    return iaa.Sequential([*_sometimes(frequent()), some], random_order=True)


def _sometimes(operations: dict[str, Operation]) -> list[iaa.Augmenter]:
    # In a list, since imgaug does not seed a bare `OneOf`.
    return [iaa.Sometimes(one.share, [one.augmenter]) for one in operations.values()]


def apply_operation(
    augmenter: iaa.Augmenter,
    image: np.ndarray,
    labels: np.ndarray,
    seed: int | Sequence[int] | np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map after one draw of `augmenter`, which depends on `seed` alone.

    `image` and `labels` are uint8 (row, column). The image comes back as uint8 (row, column,
    3), with unequal channels where an operation treats them differently; the label map keeps
    its values (nearest neighbour), with 0 (background) where pixels moved in from outside.
    """
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(seed)
    augmenter.seed_(seed)
    label_map = SegmentationMapsOnImage(labels, shape=image.shape)
    # One channel, until an operation needs three, is three times as fast. A list, since
    # operations may add channels.
    (image,), (label_map,) = augmenter(
        images=[image[..., np.newaxis].copy()], segmentation_maps=[label_map]
    )
    return imgaug_fast.three_channels(image), label_map.get_arr()


def augment_slice(image: np.ndarray, labels: np.ndarray, seed) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label map after one draw of the whole policy; see `apply_operation`."""
    return apply_operation(policy(len(image)), image, labels, seed)
