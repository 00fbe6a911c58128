"""SegNet: U-net's decoder without skip connections (section 3.4)."""

import keras

from bonelib.models.encoders import plain_encoder
from bonelib.models.unet import DECODER_FILTERS, decoder_block


def segnet(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of SegNet, at half the rows and columns of `image`.

    As in the library, and unlike section 3.4, it upsamples by nearest neighbour instead of
    by pooling indices, and its decoder is linear.
    """
    x = plain_encoder(image, blocks=4)[-1]
    x = decoder_block(x, DECODER_FILTERS[0], "linear", name="decoder1")
    for number, filters in enumerate(DECODER_FILTERS[1:], start=2):
        x = keras.layers.UpSampling2D(2, name=f"decoder{number}_double")(x)
        x = decoder_block(x, filters, "linear", name=f"decoder{number}")
    return keras.layers.Conv2D(num_classes, 3, padding="same", name="scores")(x)
