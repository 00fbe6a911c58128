"""Names and numbers of a mask's structures -> those that are bone, and the bones' names."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bonelib.errors import InputError, warn
from bonelib.settings import BONE, CLASS_SCHEMES, IGNORE

IGNORE_NAME = "ignore"  # among bone names: voxels of which nobody knows the class

# Patterns are one or more whole words of a name, in small letters and without accents; * as in
# file names. The first class that fits counts. A bone of no class is IGNORE, and so is one whose
# name may mean several classes, such as "pelvis" or "spine".
CLASS_PATTERNS = {
    "bone": ("*",),
    "femur": (
        "femur*", "*femur", "femora", "femoral", "femoral head*", "femoral neck*",
        "femoralhead*", "femhead*", "fem head*", "caput femor*", "collum femor*",
        "trochanter*", "huftkopf*", "hueftkopf*", "oberschenkelkopf*", "schenkelhals*",
        "tete femorale", "col femoral", "udow*",
    ),
    "hip bone": (
        "hip", "hips", "lefthip", "righthip", "innominate*", "coxa", "coxae", "ilium",
        "iliac crest*", "iliac wing*", "ischium", "pubis", "pubic ramus", "pubic rami",
        "acetabul*", "hufte*", "huefte*", "huftbein*", "hueftbein*", "darmbein*", "sitzbein*",
        "schambein*", "hanche*", "iliaque", "biodr*",
    ),
    "sacrum": ("sacrum*", "vertebra* s[1-5]", "kreuzbein*", "krzyzow*"),
    "vertebra": (
        "vertebra*", "l[1-6]", "th[1-9]", "th1[0-2]", "t1[0-2]", "wirbel*", "vertebre*",
        "kregi", "kreg*", "krag",
    ),
}  # fmt: skip

BONE_PATTERNS = (
    *(pattern for name in CLASS_SCHEMES["bones"] for pattern in CLASS_PATTERNS[name]),
    "bone*", "*bone", "bony *", "skeleton*",
    "pelvis", "pelvic girdle", "pelvic ring", "os *", "ossa *", "coccyx*", "tailbone", "spine",
    "rib", "rib[0-9]*", "ribs", "ribcage", "costa", "costae", "sternum", "clavic*", "scapula*",
    "humerus*", "radius", "ulna", "tibia*", "fibula*", "patella*", "skull", "cranium", "mandib*",
    "calcane*",
    "knochen*", "*knochen", "skelett*", "becken", "steissbein*", "rippe*", "brustbein*",
    "bassin", "squelette*", "rachis", "cotes", "crane",
    "kosc*", "miednic*", "guziczn*", "ogonow*", "zebr*", "szkielet*",
)  # fmt: skip

# A name with one of these is not bone, whatever else it says.
NOT_BONE_PATTERNS = (
    "muscle*", "muscul*", "musc", "muskel*", "*muskel", "*muskulatur", "miesn*", "miesien*",
    "arter*", "tetnic*", "vein*", "vena*", "veine*", "vene", "venen", "zyl*", "vessel*", "gefass*",
    "vascul*", "aort*", "nerve*", "nerf*", "nerw*", "nervus", "plexus", "node*", "nodal*",
    "lymph*", "ln", "lnn",
    "marrow*", "bonemarrow*", "knochenmark*", "moelle*", "szpik*", "medull*", "cord", "canal*",
    "*kanal", "kanal*", "disc*", "disk*", "bandscheibe*", "cartilage*", "*knorpel", "chrzastk*",
    "ligament*", "tendon*", "joint*", "*gelenk", "staw*", "floor", "fat", "fascia*", "skin",
    "kidney*", "renal*", "niere*", "nerk*", "renis", "rein*", "soft tissue*", "cavity",
    "ptv*", "ctv*", "gtv*", "itv*", "prv*", "dose*", "tumor*", "tumour*", "metast*",
    "lesion*", "implant*", "prosthe*", "*prothese", "endoprot*", "screw*", "cement*", "metal*",
    "artefact*", "artifact*", "lens", "eye*", "optic*", "not *", "non *", "without *", "minus *",
)  # fmt: skip

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


def class_of(name: str, class_scheme: str) -> int:
    """Return the class of a bone by its name; `IGNORE` for one of no class and for "ignore"."""
    if name == IGNORE_NAME:
        return IGNORE
    for number, class_name in enumerate(CLASS_SCHEMES[class_scheme], BONE):
        if _has_words(name, CLASS_PATTERNS[class_name]):
            return number
    return IGNORE


def looks_like_bone(name: str) -> bool:
    """Tell by its words, in one of several languages, whether a name is a bone's."""
    return _has_words(name, BONE_PATTERNS) and not _has_words(name, NOT_BONE_PATTERNS)


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
        if bones and not any(_has_words(name, NOT_BONE_PATTERNS) for name in structure.names):
            found.append((bones[0], structure.source))
    if not found and len(structures) == 1:
        warn("the mask's only structure is taken for bone, whatever its name")
        return [(structures[0].names[0], structures[0].source)]
    if found and len(found) < len(structures):
        warn(f"{len(found)} of {len(structures)} structures are taken for bone, by their names")
    return found


def _has_words(name: str, patterns: Sequence[str]) -> bool:
    words = f" {_words(name)} "
    return any(fnmatch(words, f"* {pattern} *") for pattern in patterns)


def _words(name: str) -> str:
    """Return a name in small letters without accents, its words apart by single spaces."""
    plain = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return " ".join(re.findall(r"[a-z0-9]+", apart.casefold()))


def _one_line(name: str) -> str:
    return " ".join(name.split())
