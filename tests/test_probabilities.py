"""Scan -> network input -> margin of bone, with a network that calls bright pixels bone."""

from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
import SimpleITK

from bonelib.labels import body_mask
from bonelib.pretrained import predictor
from bonelib.segment import segment_image
from bonelib.segment.probabilities import find_region, input_slices, predict_bone
from bonelib.settings import BONE, PRETRAINING, SHIPPED_MODEL, Settings
from bonelib.slices import window

BRIGHT_HU = 300.0


@pytest.fixture
def ramp(make_image):
    """Twelve slices of 2 mm whose HU are 20 times their number."""
    values = np.broadcast_to(20.0 * np.arange(12)[:, None, None], (12, 40, 40))
    return make_image(values.astype(np.float32), (2.0, 1.5, 1.5))


def heights(images):
    return images[:, 32, 32].astype(float)


@pytest.mark.parametrize("neighbour_mm", [0.0, 3.0])
def test_channels_are_planes_at_the_same_distance_in_any_scan(ramp, neighbour_mm):
    settings = replace(PRETRAINING, image_size=64, field_of_view_mm=100.0)
    settings = replace(settings, neighbour_mm=neighbour_mm)
    images = input_slices(ramp, settings, [0, 5, 11])
    assert images.shape == (3, 64, 64, 3) and images.dtype == np.uint8
    reach = neighbour_mm / 2
    wanted = np.clip([[z - reach, z, z + reach] for z in (0, 5, 11)], 0, 11)
    np.testing.assert_array_equal(heights(images), window(20 * wanted, settings))


@dataclass(frozen=True)
class Threshold:
    """A network that calls pixels bone whose middle channel is above a grey level."""

    settings: Settings
    name: str = SHIPPED_MODEL

    def sized(self, rows: int, columns: int) -> keras.Model:
        image = keras.Input((rows, columns, 3))
        grey = image[..., 1:2]
        level = float(window(np.array(BRIGHT_HU), self.settings)) - 116.779  # its channel's mean
        bone = keras.ops.sigmoid((grey - level) / 4)
        output = keras.ops.concatenate([0 * bone, 1 - bone, bone], axis=-1)
        return keras.Model(image, output)


@pytest.mark.parametrize("distance_mm", [0.3, 1.0, 4.0])
def test_bone_lies_where_the_scan_shows_it_whatever_the_slices(make_image, distance_mm):
    """Two rods, one above the other; the scan's first and last slices show neither."""
    depth = round(90 / distance_mm)
    z = (np.arange(depth) * distance_mm)[:, None, None]
    y, x = np.mgrid[:60, :70] * 1.6
    first = (np.hypot(y - 40, x - 50) < 13) & (z > 20) & (z < 45)
    second = (np.hypot(y - 60, x - 70) < 13) & (z >= 45) & (z < 72)
    scan_hu = np.where(first | second, 700.0, 40.0).astype(np.float32)
    scan = make_image(scan_hu, (distance_mm, 1.6, 1.6))
    found = SimpleITK.GetArrayFromImage(segment_image(scan, Threshold(PRETRAINING))) == BONE
    wanted = scan_hu > BRIGHT_HU
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.95


def test_a_network_in_a_process_of_its_own_predicts_the_same(ramp):
    network = Threshold(PRETRAINING)
    region = find_region(network, ramp, body_mask(ramp))
    with predictor(network) as here, predictor(network, apart=True) as apart:
        (margin, computed), other = (predict_bone(one, ramp, region) for one in (here, apart))
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayViewFromImage, (margin, other[0])))
    assert computed == other[1] and set(computed) == {"precision", "backend"}
