"""A name -> keras.Model: the paper's seven networks, with the layers of the library it used.

Input: images (batch, row, column, 3), float, with the channel means subtracted. Output: softmax
probabilities (batch, row, column, class) on the network's own grid, which is the image's grid
for FCN8 and FCN32, a quarter of its size for PSPNet and half of its size for the others.
"""

import math
from pathlib import Path

import keras

from bonelib.errors import unknown
from bonelib.models.fcn import fcn8, fcn32
from bonelib.models.pspnet import pspnet
from bonelib.models.unet import resnet50_unet, segnet, unet, unet25d, vgg_unet
from bonelib.paths import WEIGHTS
from bonelib.settings import NOT_SHIPPED, NUM_CLASSES, PRETRAINING, SHIPPED_MODEL, SIZE_STEP

__all__ = ["ENCODERS", "MODELS", "build_model", "save_pretrained", "trainable_parameters"]

MODELS = {
    network.__name__: network
    for network in (fcn8, fcn32, pspnet, unet, segnet, vgg_unet, resnet50_unet)
}
ENCODERS = {"vgg_unet": "VGG16", "resnet50_unet": "ResNet50"}  # those of keras.applications


def build_model(
    name: str,
    image_size: int | tuple[int, int] = 512,
    num_classes: int = NUM_CLASSES,
    encoder_weights: str | Path | None = None,
    decoder_activation: str = "linear",
) -> keras.Model:
    """Return the untrained network `name`, with the given weights in its encoder.

    `image_size` is the side of a square, or (rows, columns). `encoder_weights` (None,
    "imagenet" or a path, see `encoders.load_encoder`) applies to `vgg_unet` and
    `resnet50_unet`, `decoder_activation` to these two and `unet`: "linear" as in the library
    of January 2020, "relu" as after March 2020. Raises ValueError for an unknown name or a
    size that is not a multiple of 32, and InputError for encoder weights.
    """
    networks = MODELS | {SHIPPED_MODEL: unet25d}
    if name not in networks:
        raise ValueError(unknown("model", name, networks))
    rows, columns = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    for length in (rows, columns):
        if length <= 0 or length % SIZE_STEP:
            raise ValueError(f"image_size {length} is not a multiple of {SIZE_STEP}")
    image = keras.Input((rows, columns, 3), name="image")
    scores = networks[name](
        image,
        num_classes,
        encoder_weights=encoder_weights,
        decoder_activation=decoder_activation,
    )
    # float32 keeps the loss accurate when the other layers compute in 16 bits.
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scores)
    return keras.Model(image, probabilities, name=name)


def load_pretrained(name: str, image_size: int | tuple[int, int] = 512) -> keras.Model:
    """Return network `name` with the trained weights that the package ships.

    They expect slices with the pixel spacing and intensity window of `settings.PRETRAINING`.
    Raises ValueError for one without weights.
    """
    if name != SHIPPED_MODEL:
        raise ValueError(NOT_SHIPPED.format(name))
    model = build_model(name, image_size, decoder_activation=PRETRAINING.decoder_activation)
    model.load_weights(WEIGHTS / f"{name}.keras")
    return model


def save_pretrained(model: keras.Model, name: str, folder: Path = WEIGHTS) -> Path:
    """Write the weights of `model`, a network `name`, as float16 and return the file."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        half = build_model(name, model.input_shape[1])
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(model.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.keras"
    half.save(file)
    return file


def trainable_parameters(model: keras.Model) -> int:
    """Return the number of trainable parameters (Table 2)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)
