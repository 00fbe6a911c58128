"""U-net, its variants with a VGG16 or ResNet50 encoder, and SegNet (sections 3.3, 3.4, 5.4)."""

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
