import keras
import numpy as np
import pytest

from bonelib import metrics, prediction
from bonelib.settings import get_settings
from tests.synthetic_results import ellipses

SETTINGS = get_settings("smoke", {"precision": "float32"})


@pytest.fixture(scope="module")
def segment():
    """A network that averages 2 x 2 pixels and calls dark 0, grey 1 and bright 2."""
    keras.config.set_dtype_policy("float32")
    image = keras.Input((16, 16, 3))
    x = keras.layers.AveragePooling2D(2)(image)
    scores = keras.layers.Conv2D(3, 1, name="scores")(x)
    model = keras.Model(image, keras.layers.Softmax()(scores))
    level = np.zeros((1, 1, 3, 3), np.float32)
    level[0, 0, 0] = [0, 1, 2]  # the first channel is grey - 123.68
    model.get_layer("scores").set_weights([level, np.float32([0, 50, -20])])
    return prediction.network_segmenter(model)


def test_network_input_by_hand():
    images = np.array([[[0, 200]]], np.uint8)
    expected = [[[[-123.68, -116.779, -103.939], [76.32, 83.221, 96.061]]]]
    for form in (images, np.repeat(images[..., None], 3, axis=-1)):
        found = np.array(prediction.network_input(form))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_label_maps_come_on_both_grids(segment):
    images = np.zeros((5, 16, 16), np.uint8)
    images[:, :, 4:8], images[:, :, 8:] = 120, 255
    expected = np.select([images == 255, images == 120], [2, 1], 0)
    label_maps, native = segment(images)
    assert (label_maps.shape, native.shape) == ((5, 16, 16), (5, 8, 8))
    assert label_maps.dtype == native.dtype == np.uint8
    np.testing.assert_array_equal(native, expected[:, ::2, ::2])
    inside = [0, 1, 5, 6, 10, 15]
    np.testing.assert_array_equal(label_maps[:, :, inside], expected[:, :, inside])


def test_batches_do_not_change_the_result(segment):
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 16), dtype=np.uint8)
    together = segment(images)
    for index, image in enumerate(images):
        for whole, single in zip(together, segment(image[None]), strict=True):
            np.testing.assert_array_equal(whole[index], single[0])


def test_the_baseline_finds_body_and_bone():
    labels = ellipses(64)
    images = np.choose(labels, [0, 60, 160]).astype(np.uint8)
    predicted, native = prediction.threshold_segmenter(SETTINGS)(images)
    assert native is predicted
    assert (metrics.iou(metrics.confusion_matrix(labels, predicted)) > 0.85).all()


def test_the_baseline_fills_marrow_and_drops_specks():
    image = np.full((64, 64), 60, np.uint8)
    image[20:30, 20:30] = 160
    image[24:26, 24:26] = 60  # marrow
    image[50, 50] = 255  # a speck of contrast
    predicted, _ = prediction.threshold_segmenter(SETTINGS)(image[None])
    assert (predicted[0, 20:30, 20:30] == 2).all()
    assert predicted[0, 50, 50] == 1
