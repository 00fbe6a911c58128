"""The structures of a mask -> those that are bone, drawn as ids."""

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

LONGEST_LIST = 20  # of the names that a message lists
NOTED_OVERLAP = 0.01  # of a structure

BoneNames = dict[int | str, str] | None  # by number or by pattern
Mask = tuple[SimpleITK.Image, dict[int, str] | None]  # ids, and the names of those that count


@dataclass(frozen=True)
class Structure:
    """One structure of a mask, not drawn yet."""

    names: tuple[str, ...]  # as the file gives them, the most telling first
    source: Any  # what its reader finds it by
    number: int | None = None  # an id, ROINumber or SegmentNumber


def choose(
    path: Path, structures: Sequence[Structure], bone_names: BoneNames
) -> list[tuple[str, Any]]:
    """Return bone name and source of the structures that count.

    `bone_names` maps numbers, and patterns of whole names, to names of bones; the first that
    fits wins. Without it a name tells bone, or else a single structure is taken. Raises
    InputError where none counts.
    """
    if bone_names is None:
        chosen = _by_looks(structures)
    else:
        named = [(_by_table(structure, bone_names), structure.source) for structure in structures]
        chosen = [(bone, source) for bone, source in named if bone is not None]
    if not chosen:
        names = [_one_line("/".join(structure.names)) for structure in structures]
        more = f" and {len(names) - LONGEST_LIST} more" if len(names) > LONGEST_LIST else ""
        raise InputError(
            f"{path}: no structure counts as bone among those it holds "
            f"({', '.join(names[:LONGEST_LIST]) + more or 'none'}); name the bones, by pattern or "
            "by number"
        )
    return [(_one_line(bone), source) for bone, source in chosen]


def ids_of(path: Path, bone_names: BoneNames) -> dict[int, str] | None:
    """Return `bone_names` for a mask of ids without names; raise InputError for patterns."""
    patterns = [key for key in bone_names or () if isinstance(key, str)]
    if patterns:
        raise InputError(
            f"{path}: holds numbers without names, so the pattern '{patterns[0]}' finds nothing "
            "in it; name the bones by number"
        )
    return bone_names


def merge(chosen: Sequence[tuple[str, Any]], draw: Callable[[Any], np.ndarray], grid: Grid) -> Mask:
    """Draw the chosen structures as ids from 1 on `grid`, uint8 or int32, with their names.

    `chosen` holds a bone's name and what `draw` takes to return true where it is, (slice,
    row, column). Where structures overlap, a single bone wins over several, the smaller one
    over the larger, and every bone over "ignore".
    """
    names = {number: bone for number, (bone, _) in enumerate(chosen, start=1)}
    voxels = {
        number: np.flatnonzero(draw(source)) for number, (_, source) in enumerate(chosen, start=1)
    }

    def specificity(number: int) -> tuple:
        bone = names[number]
        return bone != IGNORE_NAME, is_single_bone(bone), -len(voxels[number])

    ids = np.zeros(np.prod(grid.size), np.uint8 if len(chosen) < 256 else np.int32)
    for number in sorted(names, key=specificity):
        ids[voxels[number]] = number
    for number, bone in names.items():
        lost = (ids[voxels[number]] != number).mean() if len(voxels[number]) else 0
        if lost > NOTED_OVERLAP and bone != IGNORE_NAME:
            warn(f"{100 * lost:.0f} % of '{bone}' lie under more specific bones and count as those")
    return grid.image(ids.reshape(grid.size[::-1])), names


def _by_table(structure: Structure, bone_names: dict[int | str, str]) -> str | None:
    for key, bone in bone_names.items():
        if key == structure.number:
            return bone
        if isinstance(key, str) and any(
            fnmatch(name.lower(), key.lower()) for name in structure.names
        ):
            return bone
    return None


def _by_looks(structures: Sequence[Structure]) -> list[tuple[str, Any]]:
    found = []
    for structure in structures:
        bones = [name for name in structure.names if looks_like_bone(name)]
        if bones and not any(map(is_not_bone, structure.names)):
            found.append((bones[0], structure.source))
    if not found and len(structures) == 1:
        warn("the mask's only structure is taken for bone, whatever its name")
        return [(structures[0].names[0], structures[0].source)]
    if found and len(found) < len(structures):
        warn(f"{len(found)} of {len(structures)} structures are taken for bone, by their names")
    return found


def _one_line(name: str) -> str:
    return " ".join(name.split())
