"""The region is found by a network that takes bright pixels for bone, so it is known by hand."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from bonelib.segment import regions
from bonelib.segment.probabilities import predict_scan
from bonelib.settings import PRETRAINING

SETTINGS = replace(PRETRAINING, image_size=256, field_of_view_mm=400.0)


@pytest.fixture(scope="module")
def network():
    """Bone where the grey level is high, patient where not low, by the mean of 2 x 2 pixels."""
    image = keras.Input((256, 256, 3))
    grey = keras.layers.AveragePooling2D(2)(image[..., :1])
    scores = keras.ops.concatenate([-10 * (grey + 90), 0 * grey, 10 * (grey - 30)], axis=-1)
    return keras.Model(image, keras.layers.Softmax()(scores))


def scan_with(make_image, *boxes, spacing_mm=(2.5, 1.5625, 1.5625)):
    image_hu = np.full((60, 256, 256), -1000, np.int16)
    image_hu[:, 60:200, 40:220] = 40
    for box in boxes:
        image_hu[box] = 900
    return make_image(image_hu, spacing_mm)


def test_the_box_holds_the_bone_and_a_margin(network, make_image):
    scan = scan_with(make_image, np.s_[20:40, 100:120, 80:150])
    region, (rows, columns) = regions.find_region(network, scan, SETTINGS)
    assert region.slices.start <= 20 and region.slices.stop >= 40
    assert len(region.slices) < 36
    margin = 9  # pixels of 15 mm
    assert region.top <= 100 - margin and region.top + rows >= 120 + margin
    assert region.left <= 80 - margin and region.left + columns >= 150 + margin
    assert rows % 32 == columns % 32 == 0 and rows <= 96 and columns <= 128


def test_specks_are_no_bone_and_two_bones_share_a_box(network, make_image):
    speck = np.s_[0:4, 70:74, 200:204]
    scan = scan_with(make_image, speck, np.s_[8:30, 90:110, 50:70], np.s_[8:30, 90:110, 190:210])
    region, (_, columns) = regions.find_region(network, scan, SETTINGS)
    assert region.left + columns >= 210 and region.left <= 50
    assert region.slices.stop <= 44
    assert regions.find_region(network, scan_with(make_image, speck), SETTINGS) is None


def test_a_bone_at_the_edge_keeps_the_box_within_the_slice(network, make_image):
    scan = scan_with(make_image, np.s_[0:60, 220:256, 230:256])
    region, (rows, columns) = regions.find_region(network, scan, SETTINGS)
    assert region.slices == range(60)
    assert region.top + rows == 256 and region.left + columns == 256


def test_outside_the_region_there_is_patient_or_background(network, make_image):
    """The network sees no more than the box; the outline of the patient fills the rest."""
    scan = scan_with(make_image, np.s_[20:40, 100:120, 80:150])
    region, size = regions.find_region(network, scan, SETTINGS)
    small = keras.models.clone_model(network, keras.Input((*size, 3)))
    part = predict_scan(small, scan, SETTINGS, region).label_map()
    whole = predict_scan(network, scan, SETTINGS).label_map()
    np.testing.assert_array_equal(part == 2, whole == 2)
    assert ((part > 0) != (whole > 0)).mean() < 0.01
