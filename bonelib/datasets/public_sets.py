"""Public data sets in their owners' layouts -> a `folder` data set of pelvic scans.

`public_sets.yaml` describes them. The scans are cut to the pelvis, in about the extent of the
paper's series: 85 to 226 slices of 2.5 mm are 212 to 565 mm, and a hip bone is about 210 mm
high. Bone that the owner did not label becomes `ignore`.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import SimpleITK
import yaml
from tqdm import tqdm

from bonelib import labels, scans
from bonelib.datasets.folder import BONE_NAMES_FILE, SPLIT_FILE, start_conversion
from bonelib.devices import in_order
from bonelib.errors import InputError, noting, warn
from bonelib.settings import IGNORE, SPLITS

PUBLIC_SETS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
TRAINING_SHARE, VALIDATION_SHARE = 0.7, 0.1  # of patients, near the paper's; the rest is test
SMALLEST_ML, MARGIN_MM = 100.0, 100.0  # of the landmark, where a data set does not state others


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
    splits = _splits(name, list(pairs))
    start_conversion(output, {"name": name, "note": public["note"]})
    jobs = [(name, output / series_id, *pairs[series_id]) for series_id in splits]
    results = in_order(_convert_series, iter(jobs), workers)
    outcomes = {}
    for series_id, (outcome, notes) in zip(
        splits, tqdm(results, "converting", len(jobs), unit="series"), strict=True
    ):
        outcomes[series_id] = outcome
        for note in notes:
            warn(f"{series_id}: {note}")
    rows = [(name, splits[name]) for name, outcome in outcomes.items() if outcome == "converted"]
    if not rows:
        raise InputError(
            f"{directory}: none of {len(jobs)} scans shows the whole pelvis; get more of the data"
        )
    names = [(number, bone) for bone, number in _ids(public).items()]
    for file, columns, lines in (
        (SPLIT_FILE, ("series", "split"), rows),
        (BONE_NAMES_FILE, ("id", "name"), names),
    ):
        pandas.DataFrame(lines, columns=columns).to_csv(output / file, index=False)
    return Counter(outcomes.values())


def _convert_series(job: tuple[str, Path, Path, Path]) -> tuple[str, list[str]]:
    """Convert one series and return the outcome, with notes on repairs and refusals."""
    name, folder, scan_path, mask_path = job
    if (folder / "ct.nii.gz").exists():
        return "converted", []
    try:
        with noting() as notes:
            outcome = _write_pelvis(PUBLIC_SETS[name], folder, scan_path, mask_path)
    except (InputError, MemoryError) as error:
        return "left out", [f"left out: {error or 'too large for the memory'}"]
    return outcome, notes


def _write_pelvis(public: dict, folder: Path, scan_path: Path, mask_path: Path) -> str:
    scan = scans.read_scan(scan_path)

    def read(part: str) -> tuple[np.ndarray, dict[int, str]]:
        wanted = {key: name for name, keys in public[part].items() for key in keys}
        mask, names = labels.read_mask(mask_path, scan, wanted, scan_path)
        return SimpleITK.GetArrayFromImage(mask), names

    region = _region(public, scan.GetSpacing(), *read("landmark"))
    if region is None:
        return "without the pelvis"
    found, names = read("bones")
    new_ids = np.zeros(max(found.max(), *names) + 1, np.uint8)
    for number, bone in names.items():
        new_ids[number] = _ids(public)[bone]
    scan, bones = scan[:, :, region], new_ids[found[region]]
    if not public["complete"]:
        drawn = labels.image_like((bones > 0).astype(np.uint8), scan)
        unlabelled = labels.unlabelled_bone(scan, drawn, labels.body_mask(scan))
        bones[SimpleITK.GetArrayViewFromImage(unlabelled) > 0] = IGNORE
    # A series is whole when its scan is there, so the scan comes last.
    scans.write_volume(labels.image_like(bones, scan), folder / "mask.nii.gz")
    scans.write_volume(scan, folder / "ct.nii.gz")
    return "converted"


def _region(
    public: dict, spacing_mm: tuple[float, ...], ids: np.ndarray, names: dict[int, str]
) -> slice | None:
    """Return the slices to use, or None where a structure of the landmark is not in view."""
    smallest = 1000 * public.get("smallest_ml", SMALLEST_ML) / np.prod(spacing_mm)
    for structure in public["landmark"]:
        numbers = [number for number, name in names.items() if name == structure]
        if np.isin(ids, numbers).sum() < smallest:
            return None
    used = np.flatnonzero(np.isin(ids, list(names)).any(axis=(1, 2)))
    below, above = (
        public.get(side, MARGIN_MM) / spacing_mm[2] for side in ("below_mm", "above_mm")
    )
    first, last = np.ceil(used[0] - 0.5 - below), np.floor(used[-1] + 0.5 + above)
    return slice(max(int(first), 0), int(last) + 1)


def _ids(public: dict) -> dict[str, int]:
    """Return the ids in the converted masks by name."""
    ids = {name: number for number, name in enumerate(public["bones"], start=1)}
    return ids if public["complete"] else ids | {labels.IGNORE_NAME: IGNORE}


def _pairs(public: dict, directory: Path) -> dict[str, tuple[Path, Path]]:
    """Return scan and mask by series id, for the series that have both."""
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    found = {"mask": {}, "scan": {}}
    for name, path in _volumes_and_folders(directory):
        for kind in found:
            if match := re.fullmatch(public[kind], name):
                series_id = public.get("prefix", "") + match["series"]
                known = found[kind].setdefault(series_id, path)
                if known != path:
                    raise InputError(f"{path}: is also at {known}; keep one of them")
                break
    everything = found["scan"].keys() | found["mask"].keys()
    everything -= set(public.get("duplicates", ()))
    both = sorted(everything & found["scan"].keys() & found["mask"].keys())
    if not both:
        raise InputError(
            f"{directory}: no scan here has its mask; unpack the archives as data/README.md says"
        )
    if incomplete := len(everything) - len(both):
        warn(f"{incomplete} series have only a scan or only a mask and are left out")
    return {series_id: (found["scan"][series_id], found["mask"][series_id]) for series_id in both}


def _volumes_and_folders(directory: Path) -> list[tuple[str, Path]]:
    """Return the volumes, without their suffixes, and the folders, with a final slash."""
    found = set()
    for file in scans.source_files(directory):
        inside = file.relative_to(directory)
        if "__MACOSX" not in inside.parts:
            found.add((f"{inside.parent.as_posix()}/", file.parent))
            if stem := scans.volume_stem(file):
                found.add((inside.with_name(stem).as_posix(), file))
    return sorted(found)


def _splits(name: str, series_ids: list[str]) -> dict[str, str]:
    """Return the split of each series, which does not depend on what other series there are.

    The owner's test series are test; the others, or all, are split by a hash of the patient.
    """
    public, splits = PUBLIC_SETS[name], {}
    limits = TRAINING_SHARE, TRAINING_SHARE + VALIDATION_SHARE
    for series_id in series_ids:
        match = re.fullmatch(public.get("patient", "(.*)"), series_id)
        patient = match[1] if match else series_id
        digest = hashlib.sha256(f"{name}:{patient}".encode()).digest()
        share = int.from_bytes(digest[:8]) / 2**64  # from 0 to 1, evenly spread
        if "test" not in public:
            splits[series_id] = SPLITS[np.searchsorted(limits, share, side="right")]
        elif re.fullmatch(public["test"], series_id):
            splits[series_id] = "test"
        else:
            splits[series_id] = "validation" if share < VALIDATION_SHARE / limits[1] else "train"
    return splits
