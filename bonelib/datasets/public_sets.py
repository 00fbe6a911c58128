"""Public data sets in their owners' layouts -> a `folder` data set of pelvic scans.

`data/README.md` says how to get each data set. The scans are cut to the pelvis, in about the
extent of the paper's series: 85 to 226 slices of 2.5 mm are 212 to 565 mm, and a hip bone is
about 210 mm high. Bone that the owner did not label becomes `ignore`.
"""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas
import SimpleITK
from tqdm import tqdm

from bonelib import labels, scans
from bonelib.datasets.case import BONE_NAMES_FILE
from bonelib.datasets.folder import SPLIT_FILE, start_conversion
from bonelib.devices import in_order
from bonelib.errors import InputError, InputWarning
from bonelib.labels.grids import image_like
from bonelib.settings import IGNORE, SPLITS

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of patients, near the paper's
LAST_CT_ORG_TEST = 20  # scans 0 to 20 were labelled by hand, the others by thresholds
# Reported as repeated scans of CLINIC_0070, CLINIC_0048 and CLINIC_metal_0059.
CTPELVIC1K_DUPLICATES = ("CLINIC_metal_0064", "CLINIC_metal_0036", "CLINIC_metal_0071")
COLONOGRAPHY = re.compile(r"(1\.3\.6\.1\.4\.1\.9328\.50\.4\.\d+)_")  # patient, series, number
FRAGMENTS = {"sacrum": range(1, 11), "hip_left": range(11, 21), "hip_right": range(21, 31)}

Files = Iterator[tuple[str, str, Path]]  # series id, "scan" or "mask", path
Names = dict[int | str, str]  # of structures, by id in the mask or by pattern of their names there


class PublicSet(NamedTuple):
    """How one data set lies on disk, and how it is used."""

    find: Callable[[Path], Files]
    bone_names: Names
    landmark: Names  # structures that must be in view; the scan is cut at a distance from them
    complete: bool  # whether every bone near the landmark is labelled
    note: str  # with the licence, for the captions of tables
    smallest_ml: float = 100.0  # of a structure in view: an adult hip bone has 250 to 400 ml
    below_mm: float = 100.0  # that are kept below the landmark
    above_mm: float = 100.0


def convert(name: str, directory: Path, output: Path, workers: int = 0) -> Counter:
    """Write the pelvic scans of data set `name` in `directory` as a `folder` data set.

    Series that `output` already holds are kept, so a conversion that was stopped continues.
    A series that cannot be used is left out with a warning. Returns how many series were
    converted, lack the pelvis or were left out. Raises InputError where none can be used.
    """
    public = PUBLIC_SETS[name]
    if output.resolve().is_relative_to(directory.resolve()):
        raise InputError(f"{output}: is inside the source; name a folder elsewhere")
    pairs = _pairs(public, directory)
    splits = _splits(name, list(pairs), _owners_splits(name, directory, list(pairs)))
    start_conversion(output, {"name": name, "note": public.note})
    counts, rows = Counter(), ["series,split"]
    jobs = [(name, output / series_id, *pairs[series_id]) for series_id in splits]
    results = tqdm(
        in_order(_convert_series, iter(jobs), workers), "converting", len(jobs), unit="series"
    )
    for series_id, (outcome, notes) in zip(splits, results, strict=True):
        counts[outcome] += 1
        for note in notes:
            warnings.warn(f"{series_id}: {note}", InputWarning, stacklevel=2)
        if outcome == "converted":
            rows.append(f"{series_id},{splits[series_id]}")
    if not counts["converted"]:
        raise InputError(
            f"{directory}: none of {len(jobs)} scans shows the whole pelvis; get more of the data"
        )
    (output / SPLIT_FILE).write_text("\n".join(rows) + "\n")
    names = ["id,name", *(f"{number},{bone}" for bone, number in _ids(public).items())]
    (output / BONE_NAMES_FILE).write_text("\n".join(names) + "\n")
    return counts


def _convert_series(job: tuple[str, Path, Path, Path]) -> tuple[str, list[str]]:
    """Convert one series and return the outcome, with notes on repairs and refusals."""
    name, folder, scan_path, mask_path = job
    if (folder / "ct.nii.gz").exists():
        return "converted", []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            outcome = _write_pelvis(PUBLIC_SETS[name], folder, scan_path, mask_path)
        except InputError as error:
            return "left out", [f"left out: {error}"]
    return outcome, list(dict.fromkeys(str(item.message) for item in caught))


def _write_pelvis(public: PublicSet, folder: Path, scan_path: Path, mask_path: Path) -> str:
    scan = scans.read_scan(scan_path)
    region = _region(public, scan, *_read_ids(public.landmark, scan, scan_path, mask_path))
    if region is None:
        return "without the pelvis"
    found, names = _read_ids(public.bone_names, scan, scan_path, mask_path)
    new_ids = np.zeros(max(found.max(), *names) + 1, np.uint8)
    for number, bone in names.items():
        new_ids[number] = _ids(public)[bone]
    scan, bones = scan[:, :, region], new_ids[found[region]]
    if not public.complete:
        drawn = image_like((bones > 0).astype(np.uint8), scan)
        unlabelled = labels.unlabelled_bone(scan, drawn, labels.body_mask(scan))
        bones[SimpleITK.GetArrayViewFromImage(unlabelled) > 0] = IGNORE
    # A series is whole when its scan is there, so the scan comes last.
    scans.write_volume(image_like(bones, scan), folder / "mask.nii.gz")
    scans.write_volume(scan, folder / "ct.nii.gz")
    return "converted"


def _read_ids(
    names: Names, scan: SimpleITK.Image, scan_path: Path, mask_path: Path
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the ids of a mask on the scan's grid, and the names of those that count."""
    mask, found = labels.read_mask(mask_path, scan, names, scan_path)
    try:
        return SimpleITK.GetArrayFromImage(labels.on_grid(mask, scan)), found
    except InputError as error:
        raise InputError(f"{mask_path}: {error}") from error


def _region(
    public: PublicSet, scan: SimpleITK.Image, ids: np.ndarray, names: dict[int, str]
) -> slice | None:
    """Return the slices to use, or None where a structure of the landmark is not in view."""
    smallest_voxels = 1000 * public.smallest_ml / np.prod(scan.GetSpacing())
    for structure in set(public.landmark.values()):
        numbers = [number for number, name in names.items() if name == structure]
        if np.isin(ids, numbers).sum() < smallest_voxels:
            return None
    used = np.flatnonzero(np.isin(ids, list(names)).any(axis=(1, 2)))
    distance_mm = scan.GetSpacing()[2]
    first = int(np.ceil(used[0] - 0.5 - public.below_mm / distance_mm))
    last = int(np.floor(used[-1] + 0.5 + public.above_mm / distance_mm))
    return slice(max(first, 0), last + 1)


def _ids(public: PublicSet) -> dict[str, int]:
    """Return the ids in the converted masks by name."""
    names = dict.fromkeys(public.bone_names.values())
    ids = {name: number for number, name in enumerate(names, start=1)}
    return ids if public.complete else ids | {labels.IGNORE_NAME: IGNORE}


def _pairs(public: PublicSet, directory: Path) -> dict[str, tuple[Path, Path]]:
    """Return scan and mask by series id, for the series that have both."""
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    found = {"scan": {}, "mask": {}}
    for series_id, kind, path in public.find(directory):
        known = found[kind].setdefault(series_id, path)
        if known != path:
            raise InputError(f"{path}: is also at {known}; keep one of them")
    both = sorted(found["scan"].keys() & found["mask"].keys())
    if not both:
        raise InputError(
            f"{directory}: no scan here has its mask; unpack the archives as data/README.md says"
        )
    incomplete = len(found["scan"].keys() | found["mask"].keys()) - len(both)
    if incomplete:
        text = f"{incomplete} series have only a scan or only a mask and are left out"
        warnings.warn(text, InputWarning, stacklevel=3)
    return {series_id: (found["scan"][series_id], found["mask"][series_id]) for series_id in both}


def _volumes(directory: Path) -> Iterator[tuple[str, Path]]:
    for file in scans.source_files(directory):  # without hidden files such as ._001.mha of macOS
        stem = scans.volume_stem(file)
        if stem is not None and "__MACOSX" not in file.parts:
            yield stem, file


def _find_totalsegmentator(directory: Path) -> Files:
    for scan in directory.rglob("ct.nii.gz"):
        yield scan.parent.name, "scan", scan
        yield scan.parent.name, "mask", scan.with_name("segmentations")


def _find_ctpelvic1k(directory: Path) -> Files:
    for stem, file in _volumes(directory):
        name = re.sub(r"^dataset\d+_", "", stem)
        series_id = re.sub(r"(_mask_4label|_data)$", "", name)
        if series_id in CTPELVIC1K_DUPLICATES:
            continue
        if name.endswith("_mask_4label"):
            yield series_id, "mask", file
        elif not file.parent.name.startswith("labels"):  # masks by the owners of subsets 1 to 5
            yield series_id, "scan", file


def _find_ct_org(directory: Path) -> Files:
    for stem, file in _volumes(directory):
        if match := re.fullmatch(r"(volume|labels)-(\d+)", stem):
            yield f"volume-{match[2]}", "scan" if match[1] == "volume" else "mask", file


def _find_pengwin(directory: Path) -> Files:
    for stem, file in _volumes(directory):
        if re.fullmatch(r"\d{3}", stem):
            folder = file.parent.relative_to(directory).as_posix().lower()
            yield stem, "mask" if "label" in folder else "scan", file


def _find_ctpel(directory: Path) -> Files:
    for scan in directory.rglob("im_1"):
        yield scan.parent.name, "scan", scan
        yield scan.parent.name, "mask", scan.with_name("im_3")


def _owners_splits(name: str, directory: Path, series_ids: list[str]) -> dict[str, str]:
    """Return the split that the owner gives to each series; none for most data sets."""
    if name == "ct_org":
        numbers = {series_id: int(series_id.removeprefix("volume-")) for series_id in series_ids}
        return {
            series_id: "test" if number <= LAST_CT_ORG_TEST else "train"
            for series_id, number in numbers.items()
        }
    if name != "totalsegmentator":
        return {}
    files = sorted(directory.rglob("meta.csv"))
    if len(files) != 1:
        raise InputError(f"{directory}: holds {len(files)} files meta.csv; give one release")
    try:
        table = pandas.read_csv(files[0], sep=";", encoding="utf-8-sig", dtype=str)
        names = {"train": "train", "val": "validation", "test": "test"}
        return {row.image_id: names[row.split] for row in table.itertuples()}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{files[0]}: needs columns image_id and split (train, val, test); get the data set "
            "again"
        ) from error


def _splits(name: str, series_ids: list[str], owner: dict[str, str]) -> dict[str, str]:
    """Return the split of each series, which does not depend on what other series there are.

    The owner's counts; where that has no validation, an eighth of train is taken. Otherwise
    patients are split by a hash of their id.
    """
    splits = {}
    for series_id in series_ids:
        match = COLONOGRAPHY.match(series_id)
        patient = match[1] if match else series_id
        digest = hashlib.sha256(f"{name}:{patient}".encode()).digest()
        share = int.from_bytes(digest[:8]) / 2**64  # from 0 to 1, evenly spread
        splits[series_id] = owner.get(series_id)
        if not owner:
            limits = np.cumsum(list(SHARES.values()))[:-1]
            splits[series_id] = SPLITS[np.searchsorted(limits, share, side="right")]
        elif splits[series_id] == "train" and "validation" not in owner.values():
            validates = share < SHARES["validation"] / (1 - SHARES["test"])
            splits[series_id] = "validation" if validates else "train"
    return {series_id: split for series_id, split in splits.items() if split is not None}


PUBLIC_SETS = {
    "totalsegmentator": PublicSet(
        find=_find_totalsegmentator,
        bone_names={
            # Version 2 labels the first sacral vertebra apart from the sacrum, version 3 with it.
            "sacrum": "sacrum", "vertebrae_S1": "sacrum", "vertebrae_*": "vertebra",
            "hip_left": "hip_left", "hip_right": "hip_right",
            "femur_left": "femur_left", "femur_right": "femur_right",
            "rib_*": "rib", "sternum": "sternum", "skull": "skull",
            "humerus_*": "humerus", "scapula_*": "scapula", "clavicula_*": "clavicula",
        },
        landmark={"hip_left": "hip_left", "hip_right": "hip_right"},
        complete=True,
        note="TotalSegmentator CT data set (CC BY 4.0, doi 10.5281/zenodo.6802613): scans that "
        "show both hip bones, from 100 mm below to 100 mm above them, in the owner's split. Every "
        "bone is labelled.",
    ),
    "ctpelvic1k": PublicSet(
        find=_find_ctpelvic1k,
        # The sources disagree on which hip bone is the left one.
        bone_names={1: "sacrum", 2: "hip", 3: "hip", 4: "lumbar_vertebrae"},
        landmark={2: "one hip bone", 3: "the other hip bone"},
        complete=False,
        note="CTPelvic1K (masks CC BY 4.0, doi 10.5281/zenodo.4588402): scans that show both hip "
        "bones, from 100 mm below to 100 mm above them, without three duplicates. The femur is "
        "not labelled, so bright voxels outside the masks are ignored.",
    ),
    "ct_org": PublicSet(
        find=_find_ct_org,
        bone_names={5: "bone"},
        # The pelvis is no class of its own. The bladder lies behind the symphysis, 50 mm above
        # the lowest point of the hip bones and 150 mm below their highest.
        landmark={2: "bladder"},
        smallest_ml=20.0,
        below_mm=150.0,
        above_mm=200.0,
        complete=True,
        note="CT-ORG (CC BY 3.0, doi 10.7937/TCIA.2019.TT7F4V7O): scans that show the bladder, "
        "from 150 mm below to 200 mm above it. Bone was labelled by hand in the test scans 0 to "
        "20, by thresholds in the others.",
    ),
    "pengwin": PublicSet(
        find=_find_pengwin,
        bone_names={number: bone for bone, ids in FRAGMENTS.items() for number in ids},
        landmark={number: bone for bone in ("hip_left", "hip_right") for number in FRAGMENTS[bone]},
        complete=False,
        note="PENGWIN 2024, CT task (CC BY 4.0, doi 10.5281/zenodo.10927452): fractured pelves, "
        "from 100 mm below to 100 mm above the hip bones. Femur and lumbar spine are not "
        "labelled, so bright voxels outside the masks are ignored.",
    ),
    "ctpel": PublicSet(
        find=_find_ctpel,
        bone_names={
            "right femur": "femur_right", "left femur": "femur_left",
            "right hip": "hip_right", "left hip": "hip_left", "sacrum": "sacrum",
        },
        landmark={"right hip": "hip_right", "left hip": "hip_left"},
        complete=False,
        note="CTPEL (licence of the AIDA data hub, doi 10.23698/aida/ctpel): from 100 mm below to "
        "100 mm above the hip bones. Lumbar spine and lower femur are not labelled, so bright "
        "voxels outside the masks are ignored.",
    ),
}  # fmt: skip
