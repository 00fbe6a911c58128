"""Pieces of bone without a pelvis around, and what is left over -> what they are called."""

import numpy as np
from scipy import ndimage

from bonelib.segment.bones.pieces import NEIGHBOURS
from bonelib.segment.bones.standard_pelvis import NAMES, SPINE

LEAST_MM3 = 1000.0  # anything smaller is a speck
MOST_OTHERS = 100  # ids have 8 bits
MIDDLE_MM = 25.0  # half of what is called the middle
SHAFT_DEPTH_MM = 10.0  # a thigh's shaft has at least this radius, a forearm's bones have less
SHAFT_HEIGHT_MM = 30.0
SIDED_HIP_MM3 = 40_000.0  # a hip bone of which so much is seen tells left from right
ROUNDNESS = 0.6  # share of a shaft's section that the largest disk in it covers
COLUMN_OFFSET_MM = 30.0  # of a spine from the middle
COLUMN_DEPTH_MM = 9.0
COLUMN_HALF_WIDTH_MM = 50.0  # with its processes; ribs reach farther


def kinds_without_pelvis(
    bone: np.ndarray, depth_mm: np.ndarray, step_mm: float, middle_mm: float
) -> np.ndarray:
    """Return which of `pelvis.NAMES`, from 1, each voxel is where no pelvis is in the field.

    The largest part decides: a round shaft is a thigh's, and so are all shafts with it; a deep
    one in the middle is a spine, and shafts beside it may be arms.
    """
    kinds = np.zeros(bone.shape, np.uint8)
    for part, place in _components(bone, step_mm):
        columns_mm = step_mm * (place[2].start + np.arange(part.shape[2]))
        deep = np.nonzero(part & (depth_mm[place] >= COLUMN_DEPTH_MM))[2]
        axis_mm = np.median(columns_mm[deep]) if len(deep) else np.inf
        if _is_shaft(part, depth_mm[place], step_mm):
            side = "left" if _middle_mm(part, place, step_mm) > middle_mm else "right"
            kind, name = part, f"femur_{side}"
        elif abs(axis_mm - middle_mm) <= COLUMN_OFFSET_MM:
            kind, name = part & (np.abs(columns_mm - axis_mm) <= COLUMN_HALF_WIDTH_MM), SPINE
        else:
            continue
        number = 1 + NAMES.index(name)
        spine_seen = (kinds == 1 + NAMES.index(SPINE)).any()
        if not kinds.any() or spine_seen == (name == SPINE):
            kinds[place][kind] = number
    return kinds


def without_unsure_side(parts: dict[str, np.ndarray], step_mm: float) -> dict[str, np.ndarray]:
    """Return the parts, without a side in their names where they do not tell left from right.

    One thigh alone does not; two do, and so do a sacrum and most of a hip bone.
    """
    seen_mm3 = {name: part.sum() * step_mm**3 for name, part in parts.items()}
    thighs = min(seen_mm3["femur_left"], seen_mm3["femur_right"])
    hip = max(seen_mm3["hip_left"], seen_mm3["hip_right"])
    if max(thighs, seen_mm3["sacrum"]) >= LEAST_MM3 or hip >= SIDED_HIP_MM3:
        return parts
    return {
        "femur": parts["femur_left"] | parts["femur_right"],
        "hip": parts["hip_left"] | parts["hip_right"],
    }


def others(bone: np.ndarray, step_mm: float, middle_mm: float) -> dict[str, np.ndarray]:
    """Return the masks of what has no name yet, named by its side and numbered by size."""
    counts = {"left": 0, "middle": 0, "right": 0}
    found = {}
    for part, place in _components(bone, step_mm)[:MOST_OTHERS]:
        side = _side(_middle_mm(part, place, step_mm) - middle_mm)
        counts[side] += 1
        found[f"bone_{side}_{counts[side]}"] = _whole(part, place, bone.shape)
    return found


def numbered(
    bone: np.ndarray, parts: dict[str, np.ndarray], step_mm: float, middle_mm: float
) -> tuple[np.ndarray, dict[int, str]]:
    """Return ids, and names by id, of those `parts` that are no specks; of all, if all are."""
    kept = {name: part for name, part in parts.items() if part.sum() * step_mm**3 >= LEAST_MM3}
    if not kept:
        side = _side(step_mm * np.nonzero(bone)[2].mean() - middle_mm)
        kept = {f"bone_{side}_1": bone}
    ids = np.zeros(bone.shape, np.uint8)
    for number, part in enumerate(kept.values(), start=1):
        ids[part] = number
    return ids, dict(enumerate(kept, start=1))


def _components(bone, step_mm) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """Return mask and place of each connected part that is no speck, the largest first."""
    labels, _ = ndimage.label(bone, NEIGHBOURS)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    places = ndimage.find_objects(labels)
    numbers = [number for number in np.argsort(-sizes, kind="stable") if number]
    return [
        (labels[places[number - 1]] == number, places[number - 1])
        for number in numbers
        if sizes[number] * step_mm**3 >= LEAST_MM3
    ]


def _is_shaft(part, depth_mm, step_mm) -> bool:
    if len(part) * step_mm < SHAFT_HEIGHT_MM:
        return False
    radius_mm = np.where(part, depth_mm, 0).max(axis=(1, 2))
    area_mm2 = part.sum(axis=(1, 2)) * step_mm**2
    roundness = np.median(np.pi * radius_mm**2 / area_mm2)
    return np.median(radius_mm) >= SHAFT_DEPTH_MM and roundness >= ROUNDNESS


def _middle_mm(part, place, step_mm) -> float:
    return step_mm * (place[2].start + np.nonzero(part)[2].mean())


def _side(offset_mm: float) -> str:
    if abs(offset_mm) < MIDDLE_MM:
        return "middle"
    return "left" if offset_mm > 0 else "right"


def _whole(part, place, shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[place] = part
    return mask
