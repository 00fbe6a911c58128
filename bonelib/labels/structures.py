"""Names and numbers of a mask's structures -> those that are bone, and the bones' names."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bonelib.bone_names import IGNORE_NAME, NOT_BONE_PATTERNS, has_words, looks_like_bone
from bonelib.errors import InputError, warn

LONGEST_LIST = 20  # of the names that a message lists


@dataclass(frozen=True)
class Structure:
    """One structure of a mask, not drawn yet."""

    names: tuple[str, ...]  # what the file calls it, the most telling first
    source: Any  # what its reader finds it by
    number: int | None = None  # an id, ROINumber or SegmentNumber


def choose(
    path: Path, structures: Sequence[Structure], bone_names: dict[int | str, str] | None
) -> list[tuple[str, Any]]:
    """Return bone name and source of the structures that count, those called "ignore" first.

    `bone_names` maps numbers, and patterns of whole names, to names of bones; the first that
    fits wins. Without it a name tells bone, or else a single structure is taken. Raises
    InputError where none counts.
    """
    if bone_names is None:
        named = _by_looks(structures)
    else:
        several = [(_by_table(structure, bone_names), structure.source) for structure in structures]
        named = [(bone, source) for bone, source in several if bone is not None]
    if not named:
        names = [_one_line("/".join(structure.names)) for structure in structures]
        more = f" and {len(names) - LONGEST_LIST} more" if len(names) > LONGEST_LIST else ""
        raise InputError(
            f"{path}: no structure counts as bone among those it holds "
            f"({', '.join(names[:LONGEST_LIST]) + more or 'none'}); name the bones, by pattern or "
            "by number"
        )
    chosen = [(_one_line(bone), source) for bone, source in named]
    return sorted(chosen, key=lambda choice: choice[0] != IGNORE_NAME)


def ids_of(path: Path, bone_names: dict[int | str, str] | None) -> dict[int, str] | None:
    """Return `bone_names` for a mask of ids without names; raise InputError for patterns."""
    patterns = [key for key in bone_names or () if isinstance(key, str)]
    if patterns:
        raise InputError(
            f"{path}: holds numbers without names, so the pattern '{patterns[0]}' finds nothing "
            "in it; name the bones by number"
        )
    return bone_names


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
        if bones and not any(has_words(name, NOT_BONE_PATTERNS) for name in structure.names):
            found.append((bones[0], structure.source))
    if not found and len(structures) == 1:
        warn("the mask's only structure is taken for bone, whatever its name")
        return [(structures[0].names[0], structures[0].source)]
    if found and len(found) < len(structures):
        warn(f"{len(found)} of {len(structures)} structures are taken for bone, by their names")
    return found


def _one_line(name: str) -> str:
    return " ".join(name.split())
