"""The name of a structure -> whether it is bone, and the kind of bone.

Machines without SimpleITK import this module, so that it is no part of `labels`.
"""

import csv
import re
import unicodedata
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

IGNORE_NAME = "ignore"  # among bone names: voxels of which nobody knows the class
KINDS = ("femur", "hip bone", "sacrum", "vertebra")  # of the pelvis' bones
NOT_BONE, SEVERAL_BONES = "not bone", "several bones"

# Patterns by kind. A pattern is one or more whole words of a name, in small letters and without
# accents; * as in file names; ^ stands for the start of a name and of its side.
PATTERNS = defaultdict(list)
with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _table:
    for _row in csv.DictReader(_table):
        PATTERNS[_row["kind"]].append(_row["pattern"])


def kind_of(name: str) -> str | None:
    """Return one of `KINDS`; None for another bone, and for a name that may mean several."""
    return next((kind for kind in KINDS if _is_kind(name, kind)), None)


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
