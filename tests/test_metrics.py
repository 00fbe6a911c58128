import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score

from bonelib import metrics
from bonelib.settings import IGNORE

LABEL_MAPS = arrays(np.uint8, (6, 7), elements=st.integers(0, 2))


def test_hand_values():
    reference = np.array([[0, 0, 1, 1, IGNORE], [1, 1, 2, 2, IGNORE]])
    prediction = np.array([[0, 1, 1, 1, 0], [1, 2, 2, 1, 2]])
    counts = metrics.confusion_matrix(reference, prediction)
    assert counts.tolist() == [[1, 1, 0], [0, 3, 1], [0, 1, 1]]
    assert metrics.iou(counts) == pytest.approx([1 / 2, 3 / 6, 1 / 3])
    assert metrics.dice(counts) == pytest.approx([2 / 3, 6 / 9, 2 / 4])
    assert metrics.pixel_accuracy(counts) == pytest.approx([7 / 8, 5 / 8, 6 / 8])
    assert metrics.overall_accuracy(counts) == pytest.approx(5 / 8)


@settings(max_examples=50, deadline=None)
@given(LABEL_MAPS, LABEL_MAPS)
def test_agrees_with_scikit_learn(reference, prediction):
    counts = metrics.confusion_matrix(reference, prediction)
    labels = [0, 1, 2]
    assert (counts == sklearn_confusion(reference.ravel(), prediction.ravel(), labels=labels)).all()
    theirs = jaccard_score(
        reference.ravel(), prediction.ravel(), labels=labels, average=None, zero_division=0
    )
    absent = [label not in reference and label not in prediction for label in labels]
    assert metrics.iou(counts) == pytest.approx(np.where(absent, np.nan, theirs), nan_ok=True)


def test_absent_class_is_nan_and_missed_class_is_zero():
    empty = np.zeros((4, 4), int)
    bone = np.where(np.eye(4), 2, 0)
    for score in (metrics.iou, metrics.dice):
        assert np.isnan(score(metrics.confusion_matrix(empty, empty))[1:]).all()
        assert score(metrics.confusion_matrix(bone, empty))[2] == 0
        assert score(metrics.confusion_matrix(empty, bone))[2] == 0
    assert np.isnan(metrics.pixel_accuracy(metrics.confusion_matrix(empty, empty))[2])


@pytest.mark.parametrize(
    ("reference", "prediction", "message"),
    [
        ([0, 1], [0, 1, 1], "shapes differ"),
        ([0, 3], [0, 1], "reference has labels outside"),
        ([0, 1], [0, IGNORE], "prediction has labels outside"),
    ],
)
def test_bad_labels_are_refused(reference, prediction, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(reference, prediction)


def test_surface_scores_are_those_of_simpleitks_contours_and_distance_maps():
    smooth = np.random.default_rng(0).normal(size=(2, 12, 20, 24))
    smooth = ndimage.gaussian_filter(smooth, (0, 2, 2, 2))
    pair = [part > np.quantile(part, 0.8) for part in smooth]
    spacing_mm = (2.5, 0.8, 1.1)
    edges, maps = [], []
    for mask in pair:
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(spacing_mm[::-1])
        edge = SimpleITK.LabelContour(SimpleITK.ConstantPad(image, [1] * 3, [1] * 3))
        distances = SimpleITK.SignedMaurerDistanceMap(
            edge, squaredDistance=False, useImageSpacing=True
        )
        edges.append(SimpleITK.GetArrayFromImage(edge) == 1)
        maps.append(np.abs(SimpleITK.GetArrayFromImage(distances)))
    directed = maps[1][edges[0]], maps[0][edges[1]]
    both = np.concatenate(directed)
    hd95_mm = max(np.percentile(one, 95) for one in directed)
    expected = both.mean(), hd95_mm, (both <= 1).mean(), (both <= 2).mean()
    scores = metrics.surface_scores(*pair, spacing_mm)
    assert tuple(scores.values()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [  # of a plate of 5 x 5 voxels, which is all edge, where voxels are 2.5 x 1.5 x 3 mm
        ((0, 0, 0), (0, 0, 1, 1)),
        ((0, 1, 0), (1.5 / 5, 1.5, 0.8, 1)),
        ((0, 0, 2), ((3 + 6) / 5, 6, 0.6, 0.6)),
        ((1, 4, 0), ((np.hypot(2.5, 6) + np.hypot(2.5, 4.5) + np.hypot(2.5, 3)
                      + np.hypot(2.5, 1.5) + 2.5) / 5, 6.5, 0, 0)),
    ],
)  # fmt: skip
def test_surface_scores_of_shifted_plates_are_known_by_hand(shift, expected):
    reference = np.zeros((8, 12, 12), bool)
    reference[2, 2:7, 3:8] = True
    prediction = np.roll(reference, shift, (0, 1, 2))
    scores = metrics.surface_scores(reference, prediction, (2.5, 1.5, 3.0))
    assert tuple(scores.values()) == pytest.approx(expected)


def test_a_missed_or_invented_structure_is_as_far_off_as_the_grid_is_long():
    some, none = np.zeros((2, 10, 20, 30), bool)
    some[4, 5, 6] = True
    worst = np.sqrt((10 * 2.5) ** 2 + (20 * 0.5) ** 2 + (30 * 2) ** 2)
    for pair in ((some, none), (none, some)):
        scores = metrics.surface_scores(*pair, (2.5, 0.5, 2.0))
        assert tuple(scores.values()) == pytest.approx((worst, worst, 0, 0))
    absent = metrics.surface_scores(none, none, (2.5, 0.5, 2.0))
    assert list(absent) == list(scores) and np.isnan(list(absent.values())).all()
