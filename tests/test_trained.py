import json
from dataclasses import asdict

import pytest

from bonelib import models
from bonelib.errors import InputError
from bonelib.segment import pretrained
from bonelib.settings import PRETRAINING, get_settings


@pytest.fixture
def weights(tmp_path):
    """Weights of PSPNet, the smallest, as a training leaves them."""
    models.build_model("pspnet", 64).save(tmp_path / "best_of_2.keras")
    settings = get_settings("smoke", {"window_low_hu": -150})
    record = {"settings": asdict(settings) | {"augment": True}}  # as older trainings wrote it
    (tmp_path / "training.json").write_text(json.dumps(record))
    return tmp_path / "best_of_2.keras"


def test_shipped_weights_are_for_the_slices_they_were_trained_on():
    network = pretrained.find_network("unet")
    assert network.settings == PRETRAINING and not network.note
    assert network.sized(32, 64).input_shape == (None, 32, 64, 3)


def test_a_training_tells_its_window_and_its_pixels(weights):
    network = pretrained.find_network("pspnet", weights)
    assert network.settings.window_low_hu == -150
    assert network.settings.pixel_spacing_mm == get_settings("smoke").pixel_spacing_mm
    assert network.sized(96, 64).output_shape == (None, 24, 16, 3)


def test_weights_alone_are_taken_for_those_of_the_shipped_slices(weights):
    (weights.parent / "training.json").unlink()
    network = pretrained.find_network("pspnet", weights)
    assert network.settings == PRETRAINING and "1.5625 mm" in network.note


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("fcn8", None, "no weights of 'fcn8' are shipped, only of unet"),
        ("unet", "absent.keras", "absent.keras: there is no such file"),
        ("unet", "best_of_2.keras", "best_of_2.keras: holds no weights of the network 'unet'"),
        ("unet", "training.json", "training.json: holds no weights of the network 'unet'"),
    ],
)
def test_weights_that_do_not_serve_are_refused_in_one_line(weights, name, file, message):
    with pytest.raises(InputError, match=message) as caught:
        pretrained.find_network(name, file and weights.parent / file).sized(64, 64)
    assert "\n" not in str(caught.value)
