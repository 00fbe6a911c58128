"""U-net, its variants with other encoders, SegNet (sections 3.3, 3.4, 5.4), and `unet25d`."""

import keras

from bonelib.models.encoders import plain_encoder, resnet50_encoder, vgg16_encoder

DECODER_FILTERS = (512, 256, 128, 64)
LEVEL_FILTERS = (24, 48, 96, 192, 256)  # of unet25d, each level at half of the resolution before


def unet(image, num_classes: int, decoder_activation: str, **_) -> keras.KerasTensor:
    """Return the class scores of U-net, at half the rows and columns of `image`."""
    return _decode(plain_encoder(image, blocks=4), num_classes, decoder_activation)


def vgg_unet(
    image, num_classes: int, decoder_activation: str, encoder_weights
) -> keras.KerasTensor:
    """Return the class scores of U-net with a VGG16 encoder, at half the size of `image`."""
    return _decode(vgg16_encoder(image, encoder_weights), num_classes, decoder_activation)


def resnet50_unet(
    image, num_classes: int, decoder_activation: str, encoder_weights
) -> keras.KerasTensor:
    """Return the class scores of U-net with a ResNet50 encoder, at half the size of `image`."""
    return _decode(resnet50_encoder(image, encoder_weights), num_classes, decoder_activation)


def segnet(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of SegNet, U-net without skips, at half the size of `image`.

    As in the library, and unlike section 3.4, it upsamples by nearest neighbour instead of
    by pooling indices, and its decoder is linear.
    """
    features = plain_encoder(image, blocks=4)
    return _decode(features, num_classes, "linear", skips=False)


def _decode(features: list, num_classes: int, activation: str, skips: bool = True):
    f1, f2, f3, x = features
    for number, (filters, skip) in enumerate(
        zip(DECODER_FILTERS, (None, f3, f2, f1), strict=True), start=1
    ):
        name = f"decoder{number}"
        if number > 1:
            x = keras.layers.UpSampling2D(2, name=f"{name}_double")(x)
            if skips:
                x = keras.layers.Concatenate(name=f"{name}_skip")([x, skip])
        convolve = keras.layers.Conv2D(
            filters, 3, padding="same", activation=activation, name=f"{name}_conv"
        )
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(convolve(x))
    return keras.layers.Conv2D(num_classes, 3, padding="same", name="scores")(x)


def unet25d(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of the residual 2.5-D U-net of the shipped weights.

    It is not one of the paper's. The three channels of `image` (batch, row, column, 3) are a
    slice and the planes below and above it; the scores are on its own grid.
    """
    x = image / 64.0  # about unit variance
    skips = []
    for level, filters in enumerate(LEVEL_FILTERS):
        if skips:
            x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
        x = _residual_block(x, filters, f"encoder{level}")
        skips.append(x)
    for level, skip in list(enumerate(skips[:-1]))[::-1]:
        x = _convolution(x, LEVEL_FILTERS[level], 1, f"decoder{level}_reduce")
        x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"decoder{level}_up")(x)
        x = keras.layers.Concatenate(name=f"decoder{level}_skip")([x, skip])
        x = _residual_block(x, LEVEL_FILTERS[level], f"decoder{level}")
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
