"""U-net and its variants with a VGG16 or ResNet50 encoder (sections 3.3 and 5.4)."""

import keras

from bonelib.models.encoders import plain_encoder, resnet50_encoder, vgg16_encoder

DECODER_FILTERS = (512, 256, 128, 64)


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


def _decode(features: list, num_classes: int, activation: str):
    f1, f2, f3, x = features
    x = decoder_block(x, DECODER_FILTERS[0], activation, name="decoder1")
    for number, (filters, feature) in enumerate(
        zip(DECODER_FILTERS[1:], (f3, f2, f1), strict=True), start=2
    ):
        x = keras.layers.UpSampling2D(2, name=f"decoder{number}_double")(x)
        x = keras.layers.Concatenate(name=f"decoder{number}_skip")([x, feature])
        x = decoder_block(x, filters, activation, name=f"decoder{number}")
    return keras.layers.Conv2D(num_classes, 3, padding="same", name="scores")(x)


def decoder_block(x, filters: int, activation: str, name: str) -> keras.KerasTensor:
    """Return a 3 x 3 convolution of `x`, with its activation and batch normalisation."""
    x = keras.layers.Conv2D(filters, 3, padding="same", activation=activation, name=f"{name}_conv")(
        x
    )
    return keras.layers.BatchNormalization(name=f"{name}_bn")(x)
