"""A public data set as downloaded, packed or not -> cases of scans that hold the pelvis."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bonelib import paths
from bonelib.datasets import pelvis, splitting, unpacking
from bonelib.datasets.case import Case
from bonelib.datasets.listing import SPLIT_FILE, Row, existing, read_split
from bonelib.errors import InputError, InputWarning

# What lies below the knee is in no class, so a scan is used round the pelvis only, in the
# extent that the paper's series have: 85 to 226 slices of 2.5 mm are 212 to 565 mm, and a
# hip bone is about 210 mm high. The femur goes on for some 300 mm below it.
BELOW_MM = 100.0
ABOVE_MM = 100.0
# A grown-up's hip bone has 250 to 400 ml: with less than that, the scan ends within it.
SMALLEST_HIP_ML = 100.0


@dataclass(frozen=True)
class Found:
    """One series of a public data set, with what there is of it."""

    series_id: str
    patient: str
    scan_path: Path | None
    mask_path: Path | None
    split: str | None = None  # the owner's; None: by the patient's name


@dataclass(frozen=True)
class PublicSet:
    """How one public data set lies on disk and which of its scans are used."""

    name: str
    find: Callable[[list[Path]], list[Found]]  # folders -> what lies in them, at its usual depth
    needs: str  # in words, what `find` looks for
    wanted: Callable[[str], bool]  # of an archive's member, whether it is needed
    measure: Callable[[Found], pelvis.Landmark]
    bone_names: dict[int | str, str]
    complete: bool  # whether every bone in the slices used is drawn
    landmark: str = "both hip bones"  # in words, what `measure` measures
    smallest_ml: float = SMALLEST_HIP_ML
    below_mm: float = BELOW_MM  # of the scan used, below the landmark
    above_mm: float = ABOVE_MM
    other_ids: frozenset[int] = frozenset()
    # of an archive, whether the files it holds lie in the folder already
    is_unpacked: Callable[[Path, list[Found]], bool] = lambda archive, found: bool(found)


def cases(public: PublicSet, directory: Path | None) -> list[Case]:
    """Return the cases, in the order of their series ids or of a split file in `directory`.

    Archives are unpacked and masks are measured where that was not done before. Raises
    InputError for a folder without the data set, and warns of series that lack a file.
    """
    directory = existing(public.name, directory)
    found = _complete_pairs(public, directory)
    where = pelvis.measured(
        {series_id: item.mask_path for series_id, item in found.items()},
        lambda series_id: public.measure(found[series_id]),
        paths.pelvis_table(public.name, directory),
    )
    if (directory / SPLIT_FILE).exists():
        rows = _listed(directory, found)
    else:
        rows = [
            Row(series_id, item.split or splitting.split_of(public.name, item.patient))
            for series_id, item in found.items()
            if where[series_id].volume_ml >= public.smallest_ml
        ]
        if not rows:
            raise InputError(
                f"{directory}: none of {len(found)} scans holds {public.landmark}; "
                "this data set needs scans of the pelvis"
            )
    return [_case(public, found[row.series_id], row, where[row.series_id]) for row in rows]


def check(public: PublicSet, directory: Path | None) -> None:
    """Raise InputError for a folder that holds neither the data set nor archives."""
    directory = existing(public.name, directory)
    if not public.find([directory]) and not unpacking.archives_in(directory):
        raise _nothing(public, directory)


def _complete_pairs(public: PublicSet, directory: Path) -> dict[str, Found]:
    """Return by series id, sorted, what has both a scan and a mask."""
    found = public.find([directory])
    packed = [
        archive
        for archive in unpacking.archives_in(directory)
        if not public.is_unpacked(archive, found)
    ]
    if packed:
        root = unpacking.unpacked_root(public.name, directory, packed, public.wanted)
        found = public.find([directory, root])
    if not found:
        raise _nothing(public, directory)
    without_mask = sum(item.mask_path is None for item in found)
    without_scan = sum(item.scan_path is None for item in found)
    if without_mask or without_scan:
        warnings.warn(
            f"{without_mask} scans without a mask and {without_scan} masks without a scan are "
            f"left out of {len(found)} series",
            InputWarning,
            stacklevel=3,
        )
    pairs = {item.series_id: item for item in found if item.mask_path and item.scan_path}
    if not pairs:
        raise InputError(f"{directory}: no mask here has its scan beside it; add {public.needs}")
    return dict(sorted(pairs.items()))


def _nothing(public: PublicSet, directory: Path) -> InputError:
    return InputError(
        f"{directory}: no {public.name} here; give the folder that holds {public.needs}, or the "
        "archives as downloaded"
    )


def _listed(directory: Path, found: dict[str, Found]) -> list[Row]:
    file = directory / SPLIT_FILE
    rows = read_split(file)
    for row in rows:
        if row.series_id not in found:
            raise InputError(
                f"{file}: series {row.series_id} is not among the {len(found)} that are here, "
                f"such as {next(iter(found))}; correct the line"
            )
    return rows


def _case(public: PublicSet, item: Found, row: Row, where: pelvis.Landmark) -> Case:
    region_mm = (where.low_mm - public.below_mm, where.high_mm + public.above_mm)
    files = (item.scan_path, item.mask_path)
    return Case(
        row.series_id,
        row.split,
        *files,
        public.bone_names,
        _common_folder(*files),
        series=row.scan_series,
        complete=public.complete,
        region_mm=None if math.isnan(sum(region_mm)) else region_mm,
        other_ids=public.other_ids,
    )


def _common_folder(one: Path, other: Path) -> Path:
    return next(parent for parent in one.parents if other.is_relative_to(parent))
