"""Every network passes the same tests; keras.applications is the encoders' referee."""

from unittest.mock import Mock

import keras
import numpy as np
import pytest

from bonelib import models
from bonelib.errors import InputError
from bonelib.models import encoders
from bonelib.models.pspnet import AdaptiveAverage
from bonelib.settings import NUM_CLASSES

# Total and trainable parameters: Table 2, and the library's own count for the last two.
PARAMETERS = {
    "fcn8": (69_736_873, 69_734_953),
    "fcn32": (69_769_603, 69_767_683),
    "pspnet": (3_282_819, 3_275_779),
    "unet": (4_472_323, 4_468_995),
    "segnet": (3_698_179, 3_694_851),
    "vgg_unet": (12_323_523, 12_321_603),
    "resnet50_unet": (16_374_019, 16_341_507),
}
SHRINKS = {"fcn8": 1, "fcn32": 1, "pspnet": 4}  # the others by 2


@pytest.fixture(scope="module", params=models.MODELS)
def model(request):
    """Each network once, on the smallest image that leaves the FCN something to crop."""
    keras.utils.set_random_seed(0)
    yield models.build_model(request.param, 64)
    keras.backend.clear_session()


def images(count, size, seed=0):
    return np.random.default_rng(seed).normal(0, 50, (count, size, size, 3)).astype(np.float32)


def test_parameters_are_exactly_the_papers(model):
    assert model.count_params() == PARAMETERS[model.name][0]
    assert models.trainable_parameters(model) == PARAMETERS[model.name][1]
    assert list(models.MODELS) == list(PARAMETERS)


def test_probabilities_come_out_on_the_networks_own_grid(model):
    probabilities = np.array(model(images(2, 64)))
    own_size = 64 // SHRINKS.get(model.name, 2)
    assert probabilities.shape == (2, own_size, own_size, NUM_CLASSES)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert probabilities.std() > 0
    sides = models.build_model(model.name, (32, 96)).output_shape[1:3]
    assert sides == (32 * own_size // 64, 96 * own_size // 64)


@pytest.mark.parametrize("name", ["pspnet", "unet"])
def test_a_saved_model_predicts_the_same_and_its_output_is_float32_in_mixed_precision(
    name, tmp_path
):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.build_model(name, 64)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("scores").compute_dtype == "float16"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.name == model.name
    image = images(1, 64)
    expected = np.array(model(image))
    assert expected.dtype == np.float32 and np.isfinite(expected).all()
    np.testing.assert_array_equal(np.array(loaded(image)), expected)


def test_training_steps_reduce_the_loss_and_change_every_weight(model):
    """Weights that stay would be cut off from the loss; NaN would have no order."""
    weights = model.get_weights()
    before = {weight.path: np.array(weight) for weight in model.trainable_weights}
    labels = np.zeros((2, *model.output_shape[1:3]), np.uint8)
    labels[:, : labels.shape[1] // 2] = 1
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # it would make the losses of single steps incomparable
    # Three steps are not worth a graph, but JAX compiles each operation of an eager one, too.
    eagerly = keras.backend.backend() == "tensorflow"
    model.compile(
        keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", run_eagerly=eagerly
    )
    losses = [model.train_on_batch(images(2, 64) / 50, labels) for _ in range(3)]
    assert np.all(np.isfinite(losses)) and min(losses[1:]) < losses[0]
    unchanged = [
        weight.path
        for weight in model.trainable_weights
        if np.array_equal(before[weight.path], weight)
    ]
    # A bias before batch normalisation has no effect, hence only rounding moves it.
    assert not [path for path in unchanged if not path.endswith("bias")]
    model.set_weights(weights)


def test_bad_requests_say_what_is_valid():
    with pytest.raises(ValueError, match="unknown model 'u-net': did you mean 'unet'"):
        models.build_model("u-net")
    for size in (500, 0, -32):
        with pytest.raises(ValueError, match=f"image_size {size} is not a multiple of 32"):
            models.build_model("unet", size)


@pytest.mark.parametrize("name", ["unet", "vgg_unet", "segnet"])
def test_decoder_activation_is_the_u_nets_alone(name):
    for activation in ("linear", "relu"):
        model = models.build_model(name, 32, num_classes=5, decoder_activation=activation)
        assert model.output_shape == (None, 16, 16, 5)
        found = {model.get_layer(f"decoder{k}_conv").activation.__name__ for k in range(1, 5)}
        assert found == {"linear" if name == "segnet" else activation}
        order = [layer.name for layer in model.layers]
        assert order.index("decoder1_conv") < order.index("decoder1_bn")


def test_pspnet_pools_windows_that_cover_the_features():
    for features in (1, 2, 4, 16):
        values = np.random.default_rng(0).normal(size=(1, features, features, 2))
        for size in (1, 2, 3, 6):
            pooled = np.array(AdaptiveAverage(size)(values.astype(np.float32)))
            edges = [
                slice(k * features // size, -(-(k + 1) * features // size)) for k in range(size)
            ]
            expected = [
                [values[0, rows, columns].mean((0, 1)) for columns in edges] for rows in edges
            ]
            np.testing.assert_allclose(pooled[0], expected, atol=1e-5)


FEATURES = {
    "VGG16": [f"block{number}_pool" for number in range(1, 5)],
    "ResNet50": ["conv1_conv", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out"],
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_network_starts_from_the_weights_of_its_own_encoder(name, tmp_path):
    """Its features are those of the whole keras.applications network whose weights it loads."""
    keras.utils.set_random_seed(1)
    network = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    network.save_weights(tmp_path / encoders.WEIGHT_FILES[name][1])
    expected = keras.Model(network.input, [network.get_layer(x).output for x in FEATURES[name]])
    model_name = f"{name.replace('16', '').lower()}_unet"
    assert models.ENCODERS[model_name] == name
    model = models.build_model(model_name, 64, encoder_weights=tmp_path)
    features = keras.Model(model.input, [model.get_layer(x).output for x in FEATURES[name]])
    assert [one.shape[1] for one in features.outputs] == [32, 16, 8, 4]
    for ours, theirs in zip(features(images(1, 64)), expected(images(1, 64)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_unusable_encoder_weights_are_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    def refused(weights, words):
        with pytest.raises(InputError, match=words) as caught:
            models.build_model("vgg_unet", 32, encoder_weights=weights)
        assert str(weights) in str(caught.value).lower() and "\n" not in str(caught.value)

    other, text = tmp_path / "other.weights.h5", tmp_path / "text.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save_weights(other)
    text.write_text("no weights")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "put .*notop.h5 or .*notop.weights.h5 into this folder")
    refused(tmp_path / "nowhere", "no weights of")
    refused(other, "not the weights of VGG16")
    refused(text, "not the weights of VGG16")
    failure = Mock(side_effect=Exception("URL fetch failure:\nNone -- [Errno -2]"))
    monkeypatch.setattr(keras.applications, "VGG16", failure)
    refused("imagenet", "could not be downloaded")
