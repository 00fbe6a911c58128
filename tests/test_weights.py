"""The weights that the package ships, on series that they were not trained on."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import SimpleITK

from bonelib import metrics
from bonelib.models import WEIGHTS, load_pretrained
from bonelib.phantom.series import make_series
from bonelib.segment import find_network, segment_image
from bonelib.settings import BONE, PRETRAINING, SHIPPED_MODEL

values = SimpleITK.GetArrayFromImage


@pytest.fixture(scope="module")
def segment():
    return partial(segment_image, network=find_network())


def test_the_shipped_weights_are_small_and_have_a_card():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 20e6
    card = (WEIGHTS / f"{SHIPPED_MODEL}.md").read_text()
    assert "not for diagnosis" in card and "| seed |" in card and "commit " in card
    assert load_pretrained(SHIPPED_MODEL, 64).output_shape == (None, 64, 64, 3)
    with pytest.raises(ValueError, match=f"'unet': '{SHIPPED_MODEL}' replaced those of 'unet'"):
        load_pretrained("unet")


@pytest.mark.parametrize(
    ("seed", "matrix", "distance_mm"), [(123_456_789, 200, 45.0), (987_654_321, 384, 30.0)]
)
def test_an_unseen_phantom_is_segmented_from_knee_to_spine(segment, seed, matrix, distance_mm):
    fine = replace(PRETRAINING, phantom_matrix=matrix, phantom_slice_distance_mm=distance_mm)
    series = make_series(seed, round(360 / distance_mm), fine)
    reference = np.where(values(series.bones) > 0, BONE, series.body.astype(np.uint8))
    found = values(segment(series.scan))
    scores = metrics.dice(metrics.confusion_matrix(reference, found))
    assert scores[BONE] > 0.9 and scores[0] > 0.99


def test_left_and_right_stay_where_they_are(segment):
    """A series mirrored in plane gives the mirrored label map, nearly."""
    fine = replace(PRETRAINING, phantom_matrix=256, phantom_slice_distance_mm=60.0)
    scan = make_series(5, 4, fine).scan
    mirrored = SimpleITK.GetImageFromArray(values(scan)[:, :, ::-1])
    mirrored.CopyInformation(scan)
    straight, back = values(segment(scan)), values(segment(mirrored))[:, :, ::-1]
    assert metrics.dice(metrics.confusion_matrix(straight, back))[BONE] > 0.95
