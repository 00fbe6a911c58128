"""A name -> keras.Model: the seven networks of the paper, with the library's layers.

An image goes in as float (row, column, 3), its channel means already subtracted; softmax
probabilities come out as (row, column, class) on the network's own grid: the image's for
FCN8 and FCN32, a quarter of its size for PSPNet, half for the others.
"""

import math
from pathlib import Path

import keras

from bonelib.models.encoders import EncoderWeightsError
from bonelib.models.fcn import fcn8, fcn32
from bonelib.models.pspnet import pspnet
from bonelib.models.segnet import segnet
from bonelib.models.unet import resnet50_unet, unet, vgg_unet
from bonelib.paths import WEIGHTS
from bonelib.settings import NUM_CLASSES, PRETRAINING

__all__ = [
    "ENCODERS",
    "MODELS",
    "EncoderWeightsError",
    "build_model",
    "encoder_of",
    "load_pretrained",
    "multiply_adds",
    "pretrained_names",
    "save_pretrained",
    "trainable_parameters",
]

MODELS = {
    "fcn8": fcn8,
    "fcn32": fcn32,
    "pspnet": pspnet,
    "unet": unet,
    "segnet": segnet,
    "vgg_unet": vgg_unet,
    "resnet50_unet": resnet50_unet,
}

ENCODERS = {"vgg_unet": "VGG16", "resnet50_unet": "ResNet50"}  # those of keras.applications

SIZE_STEP = 32  # five poolings halve the image


def encoder_of(name: str) -> str | None:
    """Return the keras.applications network whose weights model `name` can start from."""
    _check_name(name)
    return ENCODERS.get(name)


def build_model(
    name: str,
    image_size: int | tuple[int, int] = 512,
    num_classes: int = NUM_CLASSES,
    encoder_weights: str | Path | None = None,
    decoder_activation: str = "linear",
) -> keras.Model:
    """Return the network `name`, untrained but for the weights of its encoder.

    `image_size` is the side of a square, or (rows, columns). `encoder_weights` (None,
    "imagenet" or a path, see `encoders.load_encoder`) is for `vgg_unet` and `resnet50_unet`;
    the others have nothing to load. `decoder_activation` is for these two and `unet`:
    "linear" as in the library of January 2020, or "relu" as after March 2020. Raises
    ValueError for an unknown name or a size that is not a multiple of 32, and
    EncoderWeightsError.
    """
    _check_name(name)
    rows, columns = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    for length in (rows, columns):
        if length <= 0 or length % SIZE_STEP:
            raise ValueError(f"image_size {length} is not a multiple of {SIZE_STEP}")
    image = keras.Input((rows, columns, 3), name="image")
    scores = MODELS[name](
        image,
        num_classes,
        encoder_weights=encoder_weights,
        decoder_activation=decoder_activation,
    )
    # float32 keeps the loss accurate where the other layers compute in float16.
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scores)
    return keras.Model(image, probabilities, name=name)


def pretrained_names(folder: Path = WEIGHTS) -> list[str]:
    """Return the networks whose trained weights the package ships, or that `folder` holds."""
    return sorted(file.stem for file in folder.glob("*.keras"))


def load_pretrained(
    name: str = "unet", image_size: int | tuple[int, int] = 512, folder: Path = WEIGHTS
) -> keras.Model:
    """Return network `name` with the weights that the package ships, ready to predict.

    They are for slices of `settings.PRETRAINING.pixel_spacing_mm` a pixel, windowed by its
    `window_hu`; `image_size` is any multiple of 32. Their model card is `weights/<name>.md`.
    `folder` may be another that `save_pretrained` wrote to. Raises ValueError for a network
    without such weights.
    """
    if name not in pretrained_names(folder):
        shipped = ", ".join(pretrained_names(folder)) or "none"
        raise ValueError(f"no weights of '{name}' are shipped: choose one of {shipped}")
    model = build_model(name, image_size, decoder_activation=PRETRAINING.decoder_activation)
    model.load_weights(folder / f"{name}.keras")
    return model


def save_pretrained(model: keras.Model, name: str, folder: Path = WEIGHTS) -> Path:
    """Write the weights of `model`, a network `name`, in half precision; return the file."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        size = model.input_shape[1]
        half = build_model(name, size, decoder_activation=PRETRAINING.decoder_activation)
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(model.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.keras"
    half.save(file)
    return file


def trainable_parameters(model: keras.Model) -> int:
    """Return the number of parameters that training changes (Table 2)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def multiply_adds(model: keras.Model) -> int:
    """Return the multiply-adds of one image's prediction, from the convolutions' kernels.

    A kernel acts once for each output pixel, or input pixel of a transposed convolution.
    """
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            grid = layer.input.shape if transposed else layer.output.shape
            total += math.prod(grid[1:-1]) * math.prod(layer.kernel.shape)
    return total


def _check_name(name: str) -> None:
    if name not in MODELS:
        raise ValueError(f"unknown model '{name}': choose one of {', '.join(MODELS)}")
