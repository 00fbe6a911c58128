"""The encoders: the library's plain one, VGG16 and ResNet50; where weights come from."""

from pathlib import Path

import keras

from bonelib.errors import InputError

# The file names of keras.applications, and of weights saved with `save_weights`.
WEIGHT_FILES = {
    name: (f"{stem}_weights_tf_dim_ordering_tf_kernels_notop.h5", f"{stem}_notop.weights.h5")
    for name, stem in (("VGG16", "vgg16"), ("ResNet50", "resnet50"))
}

PLAIN_FILTERS = (64, 128, 256, 256, 256)


def plain_encoder(image, blocks: int) -> list:
    """Return the feature maps f1, f2, ... of the library's own encoder, one per block.

    A block is a 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max pooling, so that
    feature map n has 1/2**n of the image's rows and columns.
    """
    features, x = [], image
    for number, filters in enumerate(PLAIN_FILTERS[:blocks], start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", name=f"block{number}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = keras.layers.ReLU(name=f"block{number}_relu")(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
        features.append(x)
    return features


def vgg16_encoder(image, weights: str | Path | None) -> list:
    """Return the feature maps f1 to f4 of VGG16, after the poolings (section 5.4)."""
    encoder = load_encoder("VGG16", image, weights)
    return [encoder.get_layer(f"block{number}_pool").output for number in range(1, 5)]


def resnet50_encoder(image, weights: str | Path | None) -> list:
    """Return the feature maps f1 to f4 of ResNet50 (section 5.4).

    As in the library, f1 is the output of the first convolution, before its normalisation,
    and the others are the outputs of stages 2 to 4.
    """
    encoder = load_encoder("ResNet50", image, weights)
    names = ("conv1_conv", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out")
    return [encoder.get_layer(name).output for name in names]


def load_encoder(name: str, image, weights: str | Path | None) -> keras.Model:
    """Return the keras.applications network `name`, without its classifier, on `image`.

    `weights` is None (random), "imagenet" (downloaded by Keras into its cache) or a path: a
    weight file, or a folder with a file of a name in `WEIGHT_FILES`. Raises
    InputError if they cannot be found, downloaded or read.
    """
    network = getattr(keras.applications, name)
    if weights is None:
        return network(include_top=False, weights=None, input_tensor=image)
    is_download = str(weights) == "imagenet"
    file = weights if is_download else find_weights(name, Path(weights))
    try:
        return network(include_top=False, weights=str(file), input_tensor=image)
    except Exception as error:  # Keras and h5py raise many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if is_download:
            raise InputError(
                f"the ImageNet weights of {name} could not be downloaded ({reason}): connect to "
                f"the internet, or set encoder_weights to a folder with {WEIGHT_FILES[name][0]}, "
                "or to none for a random encoder"
            ) from error
        raise InputError(
            f"{file}: not the weights of {name} without its classifier ({reason}): use "
            f"{WEIGHT_FILES[name][0]} of keras.applications"
        ) from error


def find_weights(name: str, path: Path) -> Path:
    """Return the weight file of encoder `name` at `path`, a folder or the file itself."""
    candidates = [path / file for file in WEIGHT_FILES[name]] if path.is_dir() else [path]
    for file in candidates:
        if file.is_file() and file.suffix == ".h5":
            return file
    raise InputError(
        f"{path}: no weights of {name} here: put {' or '.join(WEIGHT_FILES[name])} into this "
        "folder, or name a file that ends in .h5"
    )
