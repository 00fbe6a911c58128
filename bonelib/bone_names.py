"""The name of a structure -> whether it is bone, and the class of the bone.

Machines without SimpleITK import this module, so that it is no part of `labels`.
"""

import re
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatch

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


def class_of(name: str, class_scheme: str) -> int:
    """Return the class of a bone by its name; `IGNORE` for one of no class and for "ignore"."""
    if name == IGNORE_NAME:
        return IGNORE
    for number, class_name in enumerate(CLASS_SCHEMES[class_scheme], BONE):
        if has_words(name, CLASS_PATTERNS[class_name]):
            return number
    return IGNORE


def looks_like_bone(name: str) -> bool:
    """Tell by its words, in one of several languages, whether a name is a bone's."""
    return has_words(name, BONE_PATTERNS) and not has_words(name, NOT_BONE_PATTERNS)


def has_words(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name has the words of one of the patterns."""
    words = f" {_words(name)} "
    return any(fnmatch(words, f"* {pattern} *") for pattern in patterns)


def _words(name: str) -> str:
    """Return a name in small letters without accents, its words apart by single spaces."""
    plain = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return " ".join(re.findall(r"[a-z0-9]+", apart.casefold()))
