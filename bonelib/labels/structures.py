"""The structures of a mask -> those that are bone, drawn as ids."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from bonelib.bone_names import IGNORE_NAME, is_not_bone, is_single_bone, looks_like_bone
from bonelib.errors import InputError, warn
from bonelib.scans import Grid

LONGEST_LIST = 400  # characters of the names that a message lists
NOTED_OVERLAP = 0.01  # of a structure

BoneNames = dict[int | str, str] | None  # by number or by pattern
Mask = tuple[SimpleITK.Image, dict[int, str] | None]  # ids, and the names of those that count


@dataclass(frozen=True)
class Structure:
    """One structure of a mask, not drawn yet."""

    names: tuple[str, ...]  # as the file gives them, the most telling first
    source: Any  # what its reader finds it by
    number: int | None = None  # an id, ROINumber or SegmentNumber


def draw_bones(
    path: Path,
    structures: Sequence[Structure],
    bone_names: BoneNames,
    draw: Callable[[Any], np.ndarray],
    grid: Grid,
) -> Mask:
    """Draw the structures that count as ids from 1 on `grid`, uint8 or int32, with their names.

    `bone_names` maps numbers, and patterns of whole names, to names of bones; the first that
    fits wins. Without it a name tells bone, or else a single structure is taken. `draw` takes
    a source and returns true where the structure is, (slice, row, column). Where structures
    overlap, a single bone wins over several, the smaller one over the larger, and every bone
    over "ignore". Raises InputError where no structure counts.
    """
    chosen = dict(enumerate(_choose(path, structures, bone_names), start=1))
    names = {number: bone for number, (bone, _) in chosen.items()}
    voxels = {number: np.flatnonzero(draw(source)) for number, (_, source) in chosen.items()}

    def specificity(number: int) -> tuple:
        bone = names[number]
        return bone != IGNORE_NAME, is_single_bone(bone), -len(voxels[number])

    ids = np.zeros(np.prod(grid.size), np.uint8 if len(chosen) < 256 else np.int32)
    for number in sorted(names, key=specificity):
        ids[voxels[number]] = number
    for number, bone in names.items():
        own = [other for other, name in names.items() if name == bone]
        lost = 1 - np.isin(ids[voxels[number]], own).mean() if len(voxels[number]) else 0
        if lost > NOTED_OVERLAP and bone != IGNORE_NAME:
            warn(f"{100 * lost:.0f} % of '{bone}' lie under more specific bones and count as those")
    return grid.image(ids.reshape(grid.size[::-1])), names


def _choose(
    path: Path, structures: Sequence[Structure], bone_names: BoneNames
) -> list[tuple[str, Any]]:
    """Return bone name and source of the structures that count."""
    named = [(_bone(structure, bone_names), structure.source) for structure in structures]
    chosen = [(" ".join(bone.split()), source) for bone, source in named if bone is not None]
    is_alone = len(structures) == 1 and not any(map(is_not_bone, structures[0].names))
    if bone_names is None and not chosen and is_alone:
        warn("the mask's only structure is taken for bone, whatever its name")
        return [(structures[0].names[0], structures[0].source)]
    if not chosen:
        names = ", ".join("/".join(structure.names) for structure in structures) or "none"
        raise InputError(
            f"{path}: no structure counts as bone among those it holds "
            f"({textwrap.shorten(names, LONGEST_LIST)}); name the bones, by pattern or by number"
        )
    if bone_names is None and len(chosen) < len(structures):
        warn(f"{len(chosen)} of {len(structures)} structures are taken for bone, by their names")
    return chosen


def _bone(structure: Structure, bone_names: BoneNames) -> str | None:
    """Return the name of a structure that is bone, by the table or else its first telling name."""
    if bone_names is None:
        telling = (name for name in structure.names if is_not_bone(name) or looks_like_bone(name))
        first = next(telling, "")
        return first if looks_like_bone(first) else None
    for key, bone in bone_names.items():
        if key == structure.number:
            return bone
        if isinstance(key, str) and any(
            fnmatch(name.lower(), key.lower()) for name in structure.names
        ):
            return bone
    return None
