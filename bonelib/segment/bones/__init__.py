"""A mask of all bone -> single bones, each with an id and a name that says where it is.

::

    pieces   a mask -> a working grid, how deep its voxels lie, pieces cut at its narrows
    pelvis   a mask -> where a standard pelvis lies in it, and how far its bones are
    spine    a mask of vertebrae -> single ones, counted upwards
    naming   pieces without a pelvis, and what is left over -> names

Femurs, hip bones, the sacrum and the spine are told apart by a standard pelvis that is fitted
to the mask; where bones touch, they are cut at the narrowest place. Vertebrae are counted
upwards from the sacrum (`vertebra_1` is the one on top of it, mostly L5, which a mask cannot
prove), or from the lowest that is seen where the sacrum is not (`vertebra_from_lowest_1`).
A thigh alone is `femur`, since its shaft does not tell left from right.
What is none of these (ribs, arms, a coccyx apart) says only where it is: `bone_left_1`,
`bone_middle_1`, the largest first.
"""

import numpy as np
from skimage.measure import block_reduce
from skimage.segmentation import watershed

from bonelib.segment.bones import naming, standard_pelvis
from bonelib.segment.bones.pieces import Grid, cut_at_narrows, depth_of, nearest_of_each_piece
from bonelib.segment.bones.spine import count_vertebrae

LEAST_FIT = 0.6  # share of the standard's surface in the field that the mask has to show
FAR_MM = 12.0  # a piece farther from every bone of the standard is not known by its place
HALVING = 2  # of the working grid, to fit the standard on: fine enough, and an eighth of the time

__all__ = ["separate"]


def separate(
    bone: np.ndarray,
    spacing_mm: tuple[float, float, float],
    middle_mm: float | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the bones of a mask as ids, uint8 of the same shape, and the names by id.

    `bone` is bool (slice, row, column): slices from feet to head, rows from front to back,
    columns from the patient's right to left; `spacing_mm` has the same order. Every voxel of
    the mask has an id, 0 is no bone. Specks belong to the nearest bone. Where no pelvis tells
    the patient's middle, it is at `middle_mm` from the first column, or else that of all bone.
    """
    ids = np.zeros(bone.shape, np.uint8)
    if not bone.any():
        return ids, {}
    grid = Grid.around(bone, spacing_mm)
    coarse = grid.take(bone)
    width_mm = coarse.shape[2] * grid.step_mm
    middle_mm = width_mm / 2 if middle_mm is None else middle_mm + grid.field_mm[0, 2]
    labels, names = _name(coarse, grid, middle_mm)
    ids[grid.box] = grid.give_back(labels) * bone[grid.box]
    return ids, names


def _name(coarse: np.ndarray, grid: Grid, middle_mm: float) -> tuple[np.ndarray, dict[int, str]]:
    """Return ids on the working grid, 0 where a voxel has to follow its neighbours, and names.

    `middle_mm` is the patient's, unless a pelvis tells it.
    """
    depth_mm = depth_of(coarse, grid.step_mm)
    pieces = cut_at_narrows(coarse, depth_mm)
    halved = block_reduce(coarse, HALVING, np.max)
    pose, fit = standard_pelvis.locate(halved, HALVING * grid.step_mm, grid.field_mm)
    if fit >= LEAST_FIT:
        kinds = _kinds(coarse, depth_mm, pieces, pose, grid.step_mm)
    else:
        kinds = naming.kinds_without_pelvis(coarse, depth_mm, grid.step_mm, middle_mm)
    parts = {
        name: kinds == number
        for number, name in enumerate(standard_pelvis.NAMES, start=1)
        if name != standard_pelvis.SPINE
    }
    prefix = "vertebra_" if parts["sacrum"].any() else "vertebra_from_lowest_"
    parts = naming.without_unsure_side(parts, grid.step_mm)
    if fit >= LEAST_FIT and "femur_left" in parts:
        middle_mm = pose.values[2]
    spine = kinds == 1 + standard_pelvis.NAMES.index(standard_pelvis.SPINE)
    spine = count_vertebrae(spine, depth_mm, pieces, grid.step_mm)
    parts |= {f"{prefix}{number}": spine == number for number in range(1, spine.max() + 1)}
    parts |= naming.others(coarse & (kinds == 0), grid.step_mm, middle_mm)
    return naming.numbered(coarse, parts, grid.step_mm, middle_mm)


def _kinds(coarse, depth_mm, pieces, pose, step_mm) -> np.ndarray:
    """Return which of `pelvis.NAMES`, from 1, each voxel is; 0: none, or no bone.

    A piece is as a whole of the bone from which its voxels are the least far on average. One
    far from all, as the shaft of a bent leg, is of the bone that it hangs together with.
    """
    far_mm = standard_pelvis.distances(pose, np.argwhere(coarse) * step_mm)
    nearest, mean_mm = nearest_of_each_piece(pieces[coarse], far_mm)
    kinds = np.zeros(coarse.shape, np.uint8)
    kinds[coarse] = np.where(mean_mm <= FAR_MM, 1 + nearest, 0)
    return watershed(-depth_mm, kinds, mask=coarse).astype(np.uint8)
