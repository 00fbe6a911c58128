"""PENGWIN's CT task as downloaded: 001.mha … as scans and again as labels of fragments."""

import re
from pathlib import Path

from bonelib import scans
from bonelib.datasets import pelvis
from bonelib.datasets.public import Found, PublicSet
from bonelib.datasets.volumes import volumes_below

FRAGMENTS = {"sacrum": range(1, 11), "hip_left": range(11, 21), "hip_right": range(21, 31)}
BONE_NAMES = {number: name for name, ids in FRAGMENTS.items() for number in ids}
LABELS_FOLDER = re.compile(r"label", re.IGNORECASE)  # part of the name of the folder of the masks


def _find(roots: list[Path]) -> list[Found]:
    images, masks = {}, {}
    for stem, file in volumes_below(roots):
        if re.fullmatch(r"\d{3}", stem):
            root = next(root for root in roots if file.is_relative_to(root))
            place = file.parent.relative_to(root).as_posix()
            (masks if LABELS_FOLDER.search(place) else images).setdefault(stem, file)
    return [
        Found(stem, stem, images.get(stem), masks.get(stem)) for stem in sorted({*images, *masks})
    ]


def _measure(item: Found) -> pelvis.Landmark:
    mask = scans.read_volume(item.mask_path)
    return pelvis.smallest_and_extent(
        [pelvis.landmark(mask, FRAGMENTS[name]) for name in ("hip_left", "hip_right")]
    )


PENGWIN = PublicSet(
    name="pengwin",
    find=_find,
    needs="001.mha … of the scans and, below a folder whose name has 'labels', of the masks",
    wanted=lambda member: member.endswith(".mha"),
    measure=_measure,
    bone_names=BONE_NAMES,
    complete=False,  # neither femur nor lumbar spine
)
