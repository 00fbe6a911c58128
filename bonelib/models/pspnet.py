"""PSPNet: pyramid pooling for context (section 3.2)."""

import keras
import numpy as np

from bonelib.models.encoders import plain_encoder

POOLED_SIZES = (1, 2, 3, 6)


@keras.saving.register_keras_serializable(package="bonelib")
class AdaptiveAverage(keras.layers.Layer):
    """Adaptive average pooling to `size` x `size`, for features of any resolution.

    Window k of n rows spans those from floor(k n / size) to ceil((k + 1) n / size). Keras 3.15's
    own layer fails on TensorFlow for `size` 1.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape):
        """Compute the weight of each row and column in each window."""
        self.row_shares, self.column_shares = (
            _window_shares(length, self.size) for length in input_shape[1:3]
        )
        self.built = True

    def call(self, features):
        """Return features of shape (batch, size, size, channel)."""
        rows = keras.ops.convert_to_tensor(self.row_shares, features.dtype)
        columns = keras.ops.convert_to_tensor(self.column_shares, features.dtype)
        pooled = keras.ops.einsum("pr,brcf->bpcf", rows, features)
        return keras.ops.einsum("qc,bpcf->bpqf", columns, pooled)

    def get_config(self):
        """Return the configuration from which a saved model rebuilds the layer."""
        return super().get_config() | {"size": self.size}


def _window_shares(length: int, size: int) -> np.ndarray:
    shares = np.zeros((size, length), np.float32)
    for window in range(size):
        start, stop = window * length // size, -(-(window + 1) * length // size)
        shares[window, start:stop] = 1 / (stop - start)
    return shares


def pspnet(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of PSPNet, at a quarter of the rows and columns of `image`.

    The library's fixed pooling windows need image sizes that are multiples of 192; adaptive
    windows equal them there and allow 512, too. As in the library, and unlike section 3.2,
    the convolutions are not dilated.
    """
    features = plain_encoder(image, blocks=5)[-1]
    rows, columns = features.shape[1:3]
    branches = [features]
    for size in POOLED_SIZES:
        x = AdaptiveAverage(size, name=f"pool{size}")(features)
        x = _convolve(x, name=f"pool{size}")
        x = keras.layers.Resizing(rows, columns, name=f"pool{size}_enlarge")(x)
        branches.append(x)
    x = keras.layers.Concatenate(name="pyramid")(branches)
    x = _convolve(x, name="merge")
    x = keras.layers.Conv2D(num_classes, 3, padding="same", name="scores")(x)
    return keras.layers.UpSampling2D(8, interpolation="bilinear", name="enlarge")(x)


def _convolve(x, name: str):
    x = keras.layers.Conv2D(512, 1, use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
