"""TotalSegmentator's CT data set, versions 2 and 3, full or small, as downloaded."""

from pathlib import Path

import pandas

from bonelib import scans
from bonelib.datasets import pelvis, splitting
from bonelib.datasets.public import Found, PublicSet
from bonelib.errors import InputError
from bonelib.settings import SPLITS

META_FILE = "meta.csv"
SCAN_FILE = "ct.nii.gz"
MASK_FOLDER = "segmentations"
HIPS = ("hip_left", "hip_right")

SIDES = ("left", "right")
BONES = (
    "sacrum",
    *(f"vertebrae_{kind}{number}" for kind, last in (("L", 6), ("T", 12), ("C", 7))
      for number in range(1, last + 1)),
    *(f"{bone}_{side}" for bone in ("humerus", "scapula", "clavicula", "femur", "hip")
      for side in SIDES),
    "skull",
    *(f"rib_{side}_{number}" for side in SIDES for number in range(1, 13)),
    "sternum",
)  # fmt: skip
# Version 2 draws the first sacral vertebra apart from the sacrum, version 3 within it.
BONE_NAMES = {name: name for name in BONES} | {"vertebrae_S1": "sacrum"}

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_NAME = "totalsegmentator"


def _find(roots: list[Path]) -> list[Found]:
    tables = [
        table
        for root in roots
        for depth in ("", "*/", "*/*/")
        for table in sorted(root.glob(f"{depth}{META_FILE}"))
    ]
    if len(tables) > 1:
        raise InputError(
            f"{roots[0]}: holds {len(tables)} releases ({META_FILE} in "
            f"{', '.join(table.parent.name for table in tables)}); give the folder of one"
        )
    return _series_beside(tables[0]) if tables else []


def _series_beside(table: Path) -> list[Found]:
    splits = _read_splits(table)
    return [
        Found(
            folder.name,
            folder.name,
            scan if (scan := folder / SCAN_FILE).is_file() else None,
            masks if _hips(masks := folder / MASK_FOLDER) else None,
            splits[folder.name],
        )
        for folder in sorted(table.parent.glob("s[0-9]*/"))
        if folder.name in splits
    ]


def _hips(masks: Path) -> list[Path]:
    files = [masks / f"{name}.nii.gz" for name in HIPS]
    return files if all(file.is_file() for file in files) else []


def _read_splits(file: Path) -> dict[str, str]:
    """Return each series' split; where the owner gives no validation, a share of train is."""
    try:
        table = pandas.read_csv(
            file, sep=";", encoding="utf-8-sig", dtype=str, keep_default_na=False
        )
        owner = dict(zip(table["image_id"], table["split"], strict=True))
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{file}: is not the data set's table with columns image_id and split; "
            "get the data set again"
        ) from error
    unknown = set(owner.values()) - set(_SPLITS)
    if unknown:
        raise InputError(
            f"{file}: has split {ascii(sorted(unknown)[0])}; get the data set again, "
            f"version 2 or later"
        )
    splits = {name: _SPLITS[split] for name, split in owner.items()}
    if SPLITS[1] not in splits.values():
        for name, split in splits.items():
            if split == SPLITS[0] and splitting.validates(_NAME, name):
                splits[name] = SPLITS[1]
    return splits


def _wanted(member: str) -> bool:
    folder, _, name = member.rpartition("/")
    if name in (META_FILE, SCAN_FILE):
        return True
    return folder.endswith(MASK_FOLDER) and name.removesuffix(".nii.gz") in BONE_NAMES


def _measure(item: Found) -> pelvis.Landmark:
    return pelvis.smallest_and_extent(
        [pelvis.landmark(scans.read_volume(file), [1]) for file in _hips(item.mask_path)]
    )


TOTALSEGMENTATOR = PublicSet(
    name=_NAME,
    find=_find,
    needs=f"{META_FILE} and the folders s0000, s0001 … with {SCAN_FILE} and {MASK_FOLDER}/",
    wanted=_wanted,
    measure=_measure,
    bone_names=BONE_NAMES,
    complete=True,
)
