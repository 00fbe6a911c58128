"""The name of a structure -> whether it is bone, and the class of the bone.

Machines without SimpleITK import this module, so that it is no part of `labels`.
"""

import csv
import re
import unicodedata
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

from bonelib.settings import BONE, CLASS_SCHEMES, IGNORE

IGNORE_NAME = "ignore"  # among bone names: voxels of which nobody knows the class
NOT_BONE, SEVERAL_BONES = "not bone", "several bones"

# Patterns by kind. A pattern is one or more whole words of a name, in small letters and without
# accents; * as in file names; ^ stands for the start of a name and of its side.
PATTERNS = defaultdict(list)
with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _table:
    for _row in csv.DictReader(_table):
        PATTERNS[_row["kind"]].append(_row["pattern"])


def class_of(name: str, class_scheme: str) -> int:
    """Return the class of a bone by its name; `IGNORE` for one of no class and for "ignore".

    A name that may mean several classes, such as "pelvis" or "spine", has no class.
    """
    if name == IGNORE_NAME:
        return IGNORE
    for number, class_name in enumerate(CLASS_SCHEMES[class_scheme], BONE):
        if class_name == "bone" or _is_kind(name, class_name):
            return number
    return IGNORE


def is_not_bone(name: str) -> bool:
    """Tell whether a name is that of a vessel, a muscle, a target or another structure."""
    return name.startswith("_") or _is_kind(name, NOT_BONE)


def is_single_bone(name: str) -> bool:
    """Tell whether a name is that of one bone, rather than of a region or the skeleton."""
    return any(_is_kind(name, kind) for kind in PATTERNS if kind not in (NOT_BONE, SEVERAL_BONES))


def looks_like_bone(name: str) -> bool:
    """Tell by its words, in one of several languages, whether a name is a bone's."""
    return not is_not_bone(name) and (is_single_bone(name) or _is_kind(name, SEVERAL_BONES))


def _is_kind(name: str, kind: str) -> bool:
    plain = _words(name)
    words = f" {plain} ^{re.sub('^([lr] |left |right )', '', plain)} "
    return any(fnmatch(words, f"* {pattern} *") for pattern in PATTERNS[kind])


def _words(name: str) -> str:
    """Return a name in small letters without accents, its words apart by single spaces."""
    plain = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", plain)
    return " ".join(re.findall(r"[a-z0-9]+", apart.casefold()))
