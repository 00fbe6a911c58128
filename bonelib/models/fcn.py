"""FCN8 and FCN32: fully convolutional networks (section 3.1)."""

import keras

from bonelib.models.encoders import plain_encoder


def fcn8(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of FCN8 on the grid of `image`.

    The deepest scores are upsampled by 2 twice, added each time to the scores of a finer
    feature map, and then upsampled by 8.
    """
    _, _, f3, f4, f5 = plain_encoder(image, blocks=5)
    scores = _head(f5, num_classes)
    for features, name in ((f4, "f4"), (f3, "f3")):
        scores = _enlarge(scores, num_classes, kernel=4, stride=2, name=f"double_to_{name}")
        # Twice the size plus two pixels: the library crops these at the bottom and right.
        scores = keras.layers.Cropping2D(((0, 2), (0, 2)), name=f"crop_to_{name}")(scores)
        scores = keras.layers.Add(name=f"add_{name}")(
            [scores, _class_scores(features, num_classes, name=f"scores_{name}")]
        )
    scores = _enlarge(scores, num_classes, kernel=16, stride=8, name="enlarge")
    return keras.layers.Cropping2D(4, name="crop_to_image")(scores)  # 520 -> 512


def fcn32(image, num_classes: int, **_) -> keras.KerasTensor:
    """Return the class scores of FCN32 on the grid of `image`, upsampled by 32 in one step."""
    scores = _head(plain_encoder(image, blocks=5)[-1], num_classes)
    scores = _enlarge(scores, num_classes, kernel=64, stride=32, name="enlarge")
    return keras.layers.Cropping2D(16, name="crop_to_image")(scores)  # 544 -> 512


def _head(x, num_classes: int):
    for name, kernel in (("head1", 7), ("head2", 1)):
        x = keras.layers.Conv2D(
            4096, kernel, padding="same", activation="relu", name=f"{name}_conv"
        )(x)
        x = keras.layers.Dropout(0.5, name=f"{name}_dropout")(x)
    return _class_scores(x, num_classes, name="scores_f5")


def _class_scores(x, num_classes: int, name: str):
    return keras.layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name=name)(x)


def _enlarge(x, num_classes: int, kernel: int, stride: int, name: str):
    return keras.layers.Conv2DTranspose(
        num_classes, kernel, strides=stride, use_bias=False, name=name
    )(x)
