"""CT-ORG as downloaded: volume-N and labels-N, in which all bone is one class."""

import re
from pathlib import Path

from bonelib import scans
from bonelib.datasets import pelvis, splitting
from bonelib.datasets.public import Found, PublicSet
from bonelib.datasets.volumes import volumes_below

LAST_TEST_NUMBER = 20  # bone was drawn by hand in 0 to 20, by grey value and shape in the others
BLADDER_ID = 2
BONE_NAMES = {5: "bone"}
ORGAN_IDS = frozenset({1, 2, 3, 4, 6})  # liver, bladder, lungs, kidneys, brain

# No class is the pelvis alone, so the bladder tells of it: it lies behind the symphysis, some
# 50 mm above the hip bone's lowest point and 150 mm below its highest. With the bladder's own
# height this is what TotalSegmentator's scans are cut to.
SMALLEST_BLADDER_ML = 20.0  # emptied; a scan that ends within the bladder may have less
BELOW_MM = 150.0
ABOVE_MM = 200.0

_NAME = "ct_org"


def _find(roots: list[Path]) -> list[Found]:
    files = {"volume": {}, "labels": {}}
    for stem, file in volumes_below(roots):
        parts = re.fullmatch(r"(volume|labels)-(\d+)", stem)
        if parts:
            files[parts[1]].setdefault(int(parts[2]), file)
    return [
        Found(
            f"volume-{number}",
            str(number),
            files["volume"].get(number),
            files["labels"].get(number),
            _split(number),
        )
        for number in sorted({*files["volume"], *files["labels"]})
    ]


def _split(number: int) -> str:
    if number <= LAST_TEST_NUMBER:
        return "test"
    return "validation" if splitting.validates(_NAME, str(number)) else "train"


def _measure(item: Found) -> pelvis.Landmark:
    return pelvis.landmark(scans.read_volume(item.mask_path), [BLADDER_ID])


CT_ORG = PublicSet(
    name=_NAME,
    find=_find,
    needs="volume-0.nii.gz, labels-0.nii.gz and so on",
    wanted=lambda member: member.endswith((".nii", ".nii.gz")),
    measure=_measure,
    landmark="a bladder",
    smallest_ml=SMALLEST_BLADDER_ML,
    below_mm=BELOW_MM,
    above_mm=ABOVE_MM,
    bone_names=BONE_NAMES,
    complete=True,
    other_ids=ORGAN_IDS,
)
