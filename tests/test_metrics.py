import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score

from bonelib import metrics
from bonelib.settings import IGNORE

LABEL_MAPS = arrays(np.uint8, (6, 7), elements=st.integers(0, 2))


def test_hand_values():
    reference = np.array([[0, 0, 1, 1], [1, 1, 2, 2]])
    prediction = np.array([[0, 1, 1, 1], [1, 2, 2, 1]])
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


@settings(max_examples=30, deadline=None)
@given(LABEL_MAPS, LABEL_MAPS)
def test_agrees_with_simpleitk(reference, prediction):
    counts = metrics.confusion_matrix(reference, prediction)
    referee = SimpleITK.LabelOverlapMeasuresImageFilter()
    referee.Execute(SimpleITK.GetImageFromArray(reference), SimpleITK.GetImageFromArray(prediction))
    for label in (1, 2):
        if label in reference:  # the filter only knows the labels of its first image
            assert metrics.dice(counts)[label] == pytest.approx(referee.GetDiceCoefficient(label))
            assert metrics.iou(counts)[label] == pytest.approx(referee.GetJaccardCoefficient(label))


@settings(max_examples=50, deadline=None)
@given(LABEL_MAPS, LABEL_MAPS)
def test_dice_follows_from_iou_and_swapping_changes_nothing(reference, prediction):
    counts = metrics.confusion_matrix(reference, prediction)
    iou = metrics.iou(counts)
    assert metrics.dice(counts) == pytest.approx(2 * iou / (1 + iou), nan_ok=True)
    swapped = metrics.confusion_matrix(prediction, reference)
    assert (swapped == counts.T).all()
    assert metrics.iou(swapped) == pytest.approx(iou, nan_ok=True)


def test_absent_class_is_nan_and_missed_class_is_zero():
    empty = np.zeros((4, 4), int)
    bone = np.where(np.eye(4), 2, 0)
    for score in (metrics.iou, metrics.dice):
        assert np.isnan(score(metrics.confusion_matrix(empty, empty))[1:]).all()
        assert score(metrics.confusion_matrix(bone, empty))[2] == 0
        assert score(metrics.confusion_matrix(empty, bone))[2] == 0
    assert np.isnan(metrics.pixel_accuracy(metrics.confusion_matrix(empty, empty))[2])


def test_counts_pool_over_images_and_stack():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 3, (2, 5, 8, 8))
    each = np.array([metrics.confusion_matrix(a, b) for a, b in zip(*pairs, strict=True)])
    assert (each.sum(axis=0) == metrics.confusion_matrix(*pairs)).all()
    assert metrics.iou(each).shape == (5, 3)
    assert metrics.iou(each)[3] == pytest.approx(metrics.iou(each[3]))


def test_ignored_pixels_count_nowhere():
    counts = metrics.confusion_matrix([0, 1, IGNORE, 2], [0, 1, 2, 2])
    assert counts.tolist() == np.eye(3, dtype=int).tolist()


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
