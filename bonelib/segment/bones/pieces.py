"""A mask of bone -> a working grid, how deep each voxel lies in it, pieces cut at its narrows."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

STEP_MM = 1.5  # of the working grid, about the networks' pixels
EDGE = 10  # voxels by which a bone goes on where the field cuts it
SMOOTHING = 0.5  # voxels; takes the grid's steps off the depth
NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Grid:
    """A cube-shaped grid over the box of a mask; positions are mm from the box's corner."""

    box: tuple[slice, slice, slice]  # the mask's, with a voxel around it where the field has one
    indices: tuple[np.ndarray, ...]  # of the box's voxels that the grid takes, for each axis
    field_mm: np.ndarray  # the lowest and the highest corner of the field, (2, 3)
    spacing_mm: np.ndarray
    step_mm: float = STEP_MM

    @classmethod
    def around(cls, bone: np.ndarray, spacing_mm: tuple[float, float, float]) -> "Grid":
        """Return the grid over the bone of a mask, (slice, row, column)."""
        spacing_mm = np.array(spacing_mm, float)
        (box,) = ndimage.find_objects(bone.view(np.uint8))
        box = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, size))
            for part, size in zip(box, bone.shape, strict=True)
        )
        sizes = np.array([part.stop - part.start for part in box])
        counts = np.maximum(np.round(sizes * spacing_mm / STEP_MM).astype(int), 1)
        indices = tuple(
            ((np.arange(count) + 0.5) * size / count).astype(int)
            for count, size in zip(counts, sizes, strict=True)
        )
        corner_mm = np.array([part.start for part in box]) * spacing_mm
        field_mm = np.stack([-corner_mm, bone.shape * spacing_mm - corner_mm])
        return cls(box, indices, field_mm, spacing_mm)

    def take(self, bone: np.ndarray) -> np.ndarray:
        """Return the mask on the grid; of specks that fall between its points, all is bone."""
        taken = bone[self.box][np.ix_(*self.indices)]
        return taken if taken.any() else np.ones_like(taken)

    def give_back(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels of the grid on the box's voxels; 0 takes the nearest label."""
        filled = fill(labels, self.step_mm)
        sizes = (part.stop - part.start for part in self.box)
        nearest = (
            np.minimum(((np.arange(size) + 0.5) * count / size).astype(int), count - 1)
            for size, count in zip(sizes, labels.shape, strict=True)
        )
        return filled[np.ix_(*nearest)]


def fill(labels: np.ndarray, step_mm: float) -> np.ndarray:
    """Return labels in which every 0 is the nearest other label."""
    nearest = ndimage.distance_transform_edt(
        labels == 0, sampling=step_mm, return_distances=False, return_indices=True
    )
    return labels[tuple(nearest)]


def depth_of(bone: np.ndarray, step_mm: float) -> np.ndarray:
    """Return the distance in mm to the nearest place without bone, as if cut bones went on."""
    inside = np.pad(bone, EDGE, mode="edge")
    depth_mm = (step_mm * ndimage.distance_transform_edt(inside)).astype(np.float32)
    core = (slice(EDGE, -EDGE),) * 3
    return np.where(bone, ndimage.gaussian_filter(depth_mm, SMOOTHING)[core], 0)


def cut_at_narrows(bone: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Return the bone in pieces, one around every place that is deeper than all next to it."""
    tops = bone & (depth_mm == ndimage.maximum_filter(depth_mm, footprint=NEIGHBOURS))
    return watershed(-depth_mm, ndimage.label(tops, NEIGHBOURS)[0], mask=bone)


def nearest_of_each_piece(
    pieces: np.ndarray, distances_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the column in which a voxel's piece has the least mean distance, and that mean.

    `pieces` is the number of each voxel's piece, (voxel,), `distances_mm` is (voxel, column).
    """
    counts = np.maximum(np.bincount(pieces), 1)
    mean_mm = np.stack([np.bincount(pieces, column) / counts for column in distances_mm.T], axis=1)
    return mean_mm.argmin(axis=1)[pieces], mean_mm.min(axis=1)[pieces]
