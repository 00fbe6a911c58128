"""Reference and prediction -> counts -> scores, one value per class."""

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from bonelib.settings import IGNORE, NUM_CLASSES

SURFACE_SCORES = ("assd_mm", "hd95_mm", "nsd_1mm", "nsd_2mm")


def confusion_matrix(reference, prediction, num_classes: int = NUM_CLASSES) -> np.ndarray:
    """Count pixels by reference class (row) and predicted class (column).

    `reference` and `prediction` are integer arrays of one shape. Pixels whose reference is
    `IGNORE` are left out. Returns int64 counts of shape (num_classes, num_classes); counts
    of several images add up. Raises ValueError for unequal shapes and for other labels.
    """
    reference, prediction = np.asarray(reference), np.asarray(prediction)
    if reference.shape != prediction.shape:
        raise ValueError(
            f"shapes differ: reference {reference.shape}, prediction {prediction.shape}"
        )
    known = reference != IGNORE
    reference, prediction = reference[known].astype(np.int64), prediction[known].astype(np.int64)
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
            raise ValueError(f"{name} has labels outside 0 to {num_classes - 1}")
    pairs = np.bincount(reference * num_classes + prediction, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def _ratio(numerator, denominator) -> np.ndarray:
    """Divide; 0 / 0 gives NaN."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(numerator, denominator)


def _parts(counts):
    counts = np.asarray(counts)
    true_positive = np.diagonal(counts, axis1=-2, axis2=-1)
    return true_positive, counts.sum(axis=-1), counts.sum(axis=-2)


def iou(counts) -> np.ndarray:
    """Return TP / (TP + FN + FP) of each class, NaN for a class absent from both (equation 2).

    `counts` has shape (..., classes, classes); the result has shape (..., classes).
    """
    true_positive, reference, predicted = _parts(counts)
    return _ratio(true_positive, reference + predicted - true_positive)


def dice(counts) -> np.ndarray:
    """Return 2 TP / (2 TP + FN + FP) of each class, NaN for one absent from both (equation 3)."""
    true_positive, reference, predicted = _parts(counts)
    return _ratio(2 * true_positive, reference + predicted)


def pixel_accuracy(counts) -> np.ndarray:
    """Return (TP + TN) / all of each class, NaN where there are no pixels or no such class.

    Equation 1 prints TP alone in the numerator; the paper's values only fit with TN.
    """
    true_positive, reference, predicted = _parts(counts)
    everything = reference.sum(axis=-1, keepdims=True)
    wrong = reference + predicted - 2 * true_positive
    is_present = reference + predicted > 0
    return np.where(is_present, _ratio(everything - wrong, everything), np.nan)


def overall_accuracy(counts) -> np.ndarray:
    """Return the share of correctly classified pixels (Figure 3)."""
    counts = np.asarray(counts)
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def surface_scores(reference, prediction, spacing_mm) -> dict[str, float]:
    """Return the distances between the surfaces of two masks (slice, row, column).

    `assd_mm` is the mean distance over both surfaces, `hd95_mm` the larger of both directions'
    95th percentiles, `nsd_1mm` and `nsd_2mm` the share of both surfaces within 1 and 2 mm of
    the other. `spacing_mm` has the order of the axes.

    A structure that only one mask contains gets the worst score: the diagonal of the grid for
    both distances, and shares of 0. If neither contains it, all scores are NaN.
    """
    reference, prediction = np.asarray(reference, bool), np.asarray(prediction, bool)
    if not (reference | prediction).any():
        return dict.fromkeys(SURFACE_SCORES, np.nan)
    if not (reference.any() and prediction.any()):
        diagonal_mm = np.linalg.norm(np.multiply(reference.shape, spacing_mm))
        return dict(zip(SURFACE_SCORES, (diagonal_mm, diagonal_mm, 0.0, 0.0), strict=True))
    directed = _directed_distances(reference, prediction, spacing_mm)
    distances_mm = np.concatenate(directed)
    return {
        "assd_mm": distances_mm.mean(),
        "hd95_mm": max(np.percentile(one, 95) for one in directed),
        "nsd_1mm": (distances_mm <= 1.0).mean(),
        "nsd_2mm": (distances_mm <= 2.0).mean(),
    }


def _directed_distances(reference, prediction, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances from the reference's edge to the prediction's, and the reverse.

    Each voxel at the edge of a mask has the distance to the nearest edge voxel of the other.
    """
    box = ndimage.find_objects((reference | prediction).astype(np.uint8))[0]
    # A tree of the few edge voxels is ten times as fast as a distance map of the volume.
    one, other = (
        np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(spacing_mm, float)
        for mask in (reference[box], prediction[box])
    )
    return KDTree(other).query(one, workers=-1)[0], KDTree(one).query(other, workers=-1)[0]
