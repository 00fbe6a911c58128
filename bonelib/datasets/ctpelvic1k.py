"""CTPelvic1K as downloaded: scans of subsets 6 and 7, masks of all; 1 to 5 need owners' scans."""

import re
from pathlib import Path

from bonelib import scans
from bonelib.datasets import pelvis
from bonelib.datasets.public import Found, PublicSet
from bonelib.datasets.volumes import volumes_below
from bonelib.errors import InputError

MASK_ENDING = "_mask_4label"
SCAN_ENDING = "_data"
HIP_IDS = (2, 3)
# Sources disagree on which hip is the left one, so neither has a side.
BONE_NAMES = {1: "sacrum", 2: "hip", 3: "hip", 4: "lumbar_vertebrae"}

# Reported to be scans of CLINIC_0070, CLINIC_0048 and CLINIC_metal_0059 once more.
DUPLICATES = ("CLINIC_metal_0064", "CLINIC_metal_0036", "CLINIC_metal_0071")

_SERIES_IDS = {
    "1": "img", "2": r"1\.3\.6\.1\.4\.1\.9328", "3": "colon_", "4": "case_", "5": r"\d+_Image",
    "6": r"CLINIC_\d", "7": "CLINIC_metal_",
}  # fmt: skip  # of each subset
_SUBSET = re.compile(r"^dataset\d+_")
_COLONOGRAPHY = re.compile(r"^(1\.3\.6\.1\.4\.1\.9328\.50\.4\.\d+)_")  # patient, series, number


def _find(roots: list[Path]) -> list[Found]:
    masks, images, own = {}, {}, set()
    for stem, file in volumes_below(roots):
        series_id = _SUBSET.sub("", stem)
        if series_id.endswith(MASK_ENDING):
            _add(masks, series_id.removesuffix(MASK_ENDING), file)
        elif not file.parent.name.startswith("labels"):  # the owners' masks have their scans' names
            if series_id.endswith(SCAN_ENDING):
                series_id = series_id.removesuffix(SCAN_ENDING)
                own.add(series_id)
            images.setdefault(series_id, []).append(file)
    return [
        Found(series_id, _patient(series_id), _one(images.get(series_id)), masks.get(series_id))
        for series_id in sorted({*masks, *own} - set(DUPLICATES))
    ]


def _add(masks: dict[str, Path], series_id: str, file: Path) -> None:
    _one([file, *([masks[series_id]] if series_id in masks else [])])
    masks[series_id] = file


def _one(files: list[Path] | None) -> Path | None:
    if files and len(files) > 1:
        raise InputError(f"{files[0]}: lies at {files[1]} too; keep one of them")
    return files[0] if files else None


def _patient(series_id: str) -> str:
    found = _COLONOGRAPHY.match(series_id)
    return found[1] if found else series_id


def _is_unpacked(archive: Path, found: list[Found]) -> bool:
    """Tell by the subset, for one may be unpacked and another not; so for scans and masks."""
    subset = re.search(r"dataset(\d)_", archive.name)
    if not subset or subset[1] not in _SERIES_IDS:
        return True  # holds nothing that is needed, such as the owners' networks
    return any(
        re.match(_SERIES_IDS[subset[1]], item.series_id)
        and (item.mask_path if "mask" in archive.name else item.scan_path)
        for item in found
    )


def _measure(item: Found) -> pelvis.Landmark:
    mask = scans.read_volume(item.mask_path)
    return pelvis.smallest_and_extent([pelvis.landmark(mask, [number]) for number in HIP_IDS])


CTPELVIC1K = PublicSet(
    name="ctpelvic1k",
    find=_find,
    needs="…_mask_4label.nii.gz and …_data.nii.gz, or the owners' scans under the masks' names",
    wanted=lambda member: member.endswith((".nii", ".nii.gz")),
    measure=_measure,
    bone_names=BONE_NAMES,
    complete=False,  # no femur
    is_unpacked=_is_unpacked,
)
