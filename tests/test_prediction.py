from dataclasses import replace

import keras
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from bonelib import metrics, prediction
from bonelib.segment.probabilities import fit_to_scan, segment_scan
from bonelib.settings import BASELINE, get_settings
from tests.synthetic_results import ellipses

SETTINGS = get_settings("smoke", {"precision": "float32"})


@pytest.fixture(scope="module")
def half_size_network():
    """A network that averages 2 x 2 pixels and calls dark 0, grey 1 and bright 2."""
    keras.config.set_dtype_policy("float32")
    image = keras.Input((16, 16, 3))
    x = keras.layers.AveragePooling2D(2)(image)
    scores = keras.layers.Conv2D(3, 1, name="scores")(x)
    model = keras.Model(image, keras.layers.Softmax()(scores))
    level = np.zeros((1, 1, 3, 3), np.float32)
    level[0, 0, 0] = [0, 1, 2]  # the first channel is grey - 123.68
    model.get_layer("scores").set_weights([level, np.float32([0, 50, -20])])
    return model


def test_label_maps_come_on_both_grids(half_size_network):
    images = np.zeros((5, 16, 16), np.uint8)
    images[:, :, 4:8] = 120
    images[:, :, 8:] = 255
    expected = np.select([images == 255, images == 120], [2, 1], 0)
    label_maps, native = prediction.network_segmenter(half_size_network)(images)
    assert (label_maps.shape, native.shape) == ((5, 16, 16), (5, 8, 8))
    assert label_maps.dtype == native.dtype == np.uint8
    np.testing.assert_array_equal(native, expected[:, ::2, ::2])
    np.testing.assert_array_equal(label_maps[:, :, [0, 1, 5, 6, 10, 15]],
                                  expected[:, :, [0, 1, 5, 6, 10, 15]])  # fmt: skip


def test_batches_do_not_change_the_result(half_size_network):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 16, 16), dtype=np.uint8)
    segment = prediction.network_segmenter(half_size_network)
    together = segment(images)
    for index, image in enumerate(images):
        for whole, single in zip(together, segment(image[None]), strict=True):
            np.testing.assert_array_equal(whole[index], single[0])


def test_upsampling_is_bilinear_between_pixel_centres(half_size_network):
    """An edge between native pixels lies half-way after upsampling, not shifted."""
    images = np.zeros((1, 16, 16), np.uint8)
    images[:, :, 8:] = 255
    label_maps, _ = prediction.network_segmenter(half_size_network)(images)
    assert label_maps[0, 0, 6] < 2 <= label_maps[0, 0, 9]


def test_the_baseline_finds_body_and_bone():
    labels = ellipses(64)
    images = np.choose(labels, [0, 60, 160]).astype(np.uint8)
    segment, model = prediction.load_segmenter(BASELINE, None, SETTINGS)
    predicted, native = segment(images)
    scores = metrics.iou(metrics.confusion_matrix(labels, predicted))
    assert model is None and native is predicted
    assert (scores > 0.85).all()


def test_the_baseline_fills_marrow_and_drops_specks():
    image = np.full((64, 64), 60, np.uint8)
    image[20:30, 20:30] = 160
    image[24:26, 24:26] = 60  # marrow
    image[50, 50] = 255  # a speck of contrast
    predicted, _ = prediction.threshold_segmenter(SETTINGS)(image[None])
    assert (predicted[0, 20:30, 20:30] == 2).all()
    assert predicted[0, 50, 50] == 1


@pytest.mark.parametrize("spacing_mm", [(3, 0.8, 0.8), (3, 1.1, 0.7), (1, 2.5, 2.5)])
def test_a_scan_of_any_grid_is_segmented_where_its_tissues_lie(
    half_size_network, make_image, spacing_mm
):
    """Grey left of a line, bright below another; spacing, shape and origin differ."""
    settings = replace(SETTINGS, image_size=32, field_of_view_mm=50.0)
    rows, columns = (round(80 / spacing) for spacing in spacing_mm[1:])
    truth = np.zeros((2, rows, columns - 7), np.uint8)
    truth[:, :, truth.shape[2] // 3 :] = 1
    truth[1, truth.shape[1] // 2 :] = 2
    image_hu = np.array([-1000, 180, 700], np.float32)[truth]
    scan = make_image(image_hu, spacing_mm)
    fitted = fit_to_scan(settings, scan)
    assert fitted.pixel_spacing_mm == settings.pixel_spacing_mm
    assert fitted.field_of_view_mm >= max(np.multiply(scan.GetSize()[:2], scan.GetSpacing()[:2]))
    size = fitted.image_size
    model = keras.models.clone_model(half_size_network, keras.Input((size, size, 3)))
    model.set_weights(half_size_network.get_weights())
    found = segment_scan(model, scan, fitted)
    assert found.GetSpacing() == scan.GetSpacing() and found.GetOrigin() == scan.GetOrigin()
    labels = SimpleITK.GetArrayFromImage(found)
    edge = ndimage.maximum_filter(truth, (1, 9, 9)) != ndimage.minimum_filter(truth, (1, 9, 9))
    inner = np.s_[:, 1:-1, 1:-1]  # beyond the scan there is air
    np.testing.assert_array_equal(labels[inner][~edge[inner]], truth[inner][~edge[inner]])
    assert (labels != truth).mean() < 0.04  # pixels on an edge


@pytest.mark.parametrize("start", [8, 9])
def test_an_edge_within_an_output_pixel_is_found(half_size_network, make_image, start):
    """The network sees blocks of 2 x 2 pixels; a square may begin in the middle of one."""
    settings = replace(SETTINGS, image_size=32, field_of_view_mm=32.0)
    truth = np.zeros((1, 32, 32), np.uint8)
    truth[:, start : start + 11, start : start + 12] = 2
    scan = make_image(np.array([-1000, 180, 700], np.float32)[truth], (1, 1, 1))
    model = keras.models.clone_model(half_size_network, keras.Input((32, 32, 3)))
    model.set_weights(half_size_network.get_weights())
    labels = SimpleITK.GetArrayFromImage(segment_scan(model, scan, settings))
    inner = ndimage.binary_erosion(truth[0] == 2)
    assert (labels[0][inner] == 2).all()
    outside = ~ndimage.binary_dilation(truth[0] == 2)
    assert (labels[0][outside] == 0).all()
