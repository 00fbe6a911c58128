"""The network of the shipped weights: a residual 2.5-D U-net, not one of the paper's.

Its three input channels are a slice and the planes below and above it, its output has the
slice's full resolution.
"""

import keras

FILTERS = (24, 48, 96, 192, 256)  # of the levels, each at half of the resolution before


def unet25d(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of `image` (batch, row, column, 3), on its own grid."""
    x = image / 64.0  # about unit variance
    skips = []
    for level, filters in enumerate(FILTERS):
        if skips:
            x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
        x = _residual_block(x, filters, f"encoder{level}")
        skips.append(x)
    for level, skip in list(enumerate(skips[:-1]))[::-1]:
        x = _convolution(x, FILTERS[level], 1, f"decoder{level}_reduce")
        x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"decoder{level}_up")(x)
        x = keras.layers.Concatenate(name=f"decoder{level}_skip")([x, skip])
        x = _residual_block(x, FILTERS[level], f"decoder{level}")
    return keras.layers.Conv2D(num_classes, 1, name="scores")(x)


def _residual_block(x, filters: int, name: str) -> keras.KerasTensor:
    """Return two 3 x 3 convolutions of `x`, the first of which the block's end adds."""
    first = _convolution(x, filters, 3, f"{name}_first")
    second = keras.layers.Conv2D(
        filters, 3, padding="same", use_bias=False, name=f"{name}_second_conv"
    )(first)
    second = keras.layers.BatchNormalization(name=f"{name}_second_bn")(second)
    total = keras.layers.Add(name=f"{name}_add")([first, second])
    return keras.layers.ReLU(name=f"{name}_relu")(total)


def _convolution(x, filters: int, width: int, name: str) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, width, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
