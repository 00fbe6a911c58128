"""A mask of a spine, or of a part of one -> its vertebrae, counted upwards."""

import numpy as np
from scipy import ndimage
from scipy.signal import find_peaks

from bonelib.segment.bones.pieces import nearest_of_each_piece
from bonelib.segment.bones.standard_pelvis import standard_bones

BODY_DEPTH_MM = 8.0  # a body is deeper than that, an arch and its processes are not
LEAST_HEIGHT_MM = 20.0  # between the middles of two bodies
LEAST_DIP_MM = 1.0  # by which the spine is less deep at a disc than in the bodies beside it
SMOOTHING_MM = 2.0
USUAL_HEIGHT_MM = 37.0  # between the middles of the standard's vertebrae
SIZES = (0.6, 1.3)  # of a vertebra, relative to the standard's
SHALLOWER = 0.7  # what is at least so deep, relative to the deepest, is the middle of a body


def count_vertebrae(
    spine: np.ndarray, depth_mm: np.ndarray, pieces: np.ndarray, step_mm: float
) -> np.ndarray:
    """Return the number of the vertebra, from 1 upwards, of each voxel of a mask; 0 elsewhere.

    Discs are no bone, so that bodies are deep places on top of each other. A standard
    vertebra is put on each body, and each of the `pieces` belongs to the one it is least far
    from on average. Without any body all is one vertebra.
    """
    centres_mm = _bodies(spine, depth_mm, step_mm)
    counted = spine.astype(np.uint8)
    if len(centres_mm) > 1:
        points_mm = np.argwhere(spine) * step_mm
        far_mm = np.stack(list(_distances(centres_mm, points_mm)), axis=1)
        nearest, _ = nearest_of_each_piece(pieces[spine], far_mm)
        counted[spine] = 1 + nearest
    return counted


def _bodies(spine, depth_mm, step_mm) -> np.ndarray:
    """Return the middle of each body in mm, (z, y, x), from the lowest up."""
    depth = np.where(spine, depth_mm, 0)
    profile = ndimage.gaussian_filter1d(depth.max(axis=(1, 2)), SMOOTHING_MM / step_mm)
    peaks, _ = find_peaks(
        np.pad(profile, 1),  # so that a body which the field cuts is a peak, too
        height=BODY_DEPTH_MM,
        distance=LEAST_HEIGHT_MM / step_mm,
        prominence=LEAST_DIP_MM,
    )
    middles = []
    for level in _without_gaps(peaks - 1, step_mm):
        plane = depth[level]
        middles.append([level, *np.argwhere(plane >= SHALLOWER * plane.max()).mean(axis=0)])
    return step_mm * np.reshape(middles, (-1, 3))


def _without_gaps(levels, step_mm) -> np.ndarray:
    """Return the levels of bodies with those between which no disc was seen, evenly spaced."""
    gaps_mm = step_mm * np.diff(levels)
    single = gaps_mm[gaps_mm < 1.5 * USUAL_HEIGHT_MM]
    height_mm = np.median(single) if len(single) else USUAL_HEIGHT_MM
    counts = np.maximum(np.round(gaps_mm / height_mm), 1).astype(int)
    between = [
        np.linspace(low, high, count, endpoint=False)
        for low, high, count in zip(levels, levels[1:], counts, strict=False)
    ]
    return np.round(np.concatenate([*between, levels[-1:]])).astype(int)


def _distances(centres_mm, points_mm):
    """Yield how far the points are from a standard vertebra on each of the bodies, in mm."""
    vertebra = standard_bones()["vertebra_L4"]
    axes = np.gradient(centres_mm, axis=0)
    for centre, axis in zip(centres_mm, axes, strict=True):
        size = np.clip(np.linalg.norm(axis) / USUAL_HEIGHT_MM, *SIZES)
        up = axis / np.linalg.norm(axis)
        left = np.array([0.0, 0.0, 1.0]) - up[2] * up
        left /= np.linalg.norm(left)
        back = np.cross(left, up)
        z, y, x = np.stack([up, back, left]) @ (points_mm - centre).T / size
        yield size * vertebra.distance(tuple(part.astype(np.float32) for part in (x, y, z)))
