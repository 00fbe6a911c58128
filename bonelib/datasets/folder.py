"""A folder of CT series with masks, split.csv and bone_names.csv -> cases.

This is the one layout that is read: the phantom is written in it, other data sets are
converted to it. `data/README.md` shows the tree.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pandas

from bonelib import provenance, scans
from bonelib.datasets.case import BONE_NAMES_FILE, Case
from bonelib.errors import InputError
from bonelib.settings import SPLITS

SPLIT_FILE = "split.csv"
SOURCE_FILE = "dataset.json"  # written by a conversion: data set, licence, note for captions
MASK_STEMS = ("mask", "labels", "bone")
MASK_MODALITIES = ("RTSTRUCT", "SEG")


class Row(NamedTuple):
    """One line of a split file."""

    series_id: str
    split: str
    scan_series: str | None = None  # which DICOM series of a folder with several


def cases(directory: Path | None) -> list[Case]:
    """Return the cases of a `folder` data set, in the order of its split file."""
    if directory is None:
        raise InputError("the data set 'folder' needs a directory: name it with --data DIR")
    bone_names = read_bone_names(directory / BONE_NAMES_FILE)
    return [
        Case(
            row.series_id,
            row.split,
            *scan_and_mask(directory / row.series_id),
            bone_names,
            directory,
            series=row.scan_series,
        )
        for row in read_split(directory)
    ]


def scan_and_mask(folder: Path) -> tuple[Path, Path]:
    """Return the one scan and the one mask in the folder of a series.

    The mask is recognised by its name; without one, it is the only RTSTRUCT or SEG file.
    """
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    masks = [entry for entry in visible if _is_named_mask(entry)]
    others = [entry for entry in visible if entry not in masks]
    masks = masks or [file for entry in others for file in _dicom_masks(entry)]
    scan = _only(
        folder,
        _scans(folder, others, masks),
        "scans (a folder of DICOM slices or a volume file)",
    )
    kinds = (
        f"files called {' or '.join(MASK_STEMS)} ({', '.join(scans.VOLUME_SUFFIXES)}), folders "
        f"of that name or DICOM files of modality {' or '.join(MASK_MODALITIES)}"
    )
    return scan, _only(folder, masks, kinds)


def read_split(directory: Path) -> list[Row]:
    """Read the split file of a data set in which each series has a folder.

    Raises InputError for an unknown split, a name that is unsafe in file names, a repeated
    series and a series without a folder.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    file = directory / SPLIT_FILE
    table = read_columns(file, ("series", "split"), ("series", "split", "scan_series"))
    rows = [
        Row(series_id, split, *(text or None for text in rest))
        for series_id, split, *rest in table.itertuples(index=False, name=None)
    ]
    for row in rows:
        if row.split not in SPLITS:
            raise InputError(
                f"{file}: series {row.series_id} has split '{row.split}'; write {', '.join(SPLITS)}"
            )
        if not re.fullmatch(r"\w[\w.-]*", row.series_id, re.ASCII):
            raise InputError(
                f"{file}: series '{row.series_id}' is not a valid file name; "
                "use letters, digits, '.', '-' and '_'"
            )
        if not (directory / row.series_id).is_dir():
            raise InputError(
                f"{file}: series {row.series_id} has no folder {directory / row.series_id}; "
                "add the folder or delete the line"
            )
    repeated = table.series[table.series.duplicated()]
    if len(repeated):
        raise InputError(f"{file}: lists series {repeated.iloc[0]} twice; keep one line")
    return rows


def read_bone_names(file: Path) -> dict[int | str, str] | None:
    """Read the names of bones by id or by pattern; return None where there is no file."""
    return read_names(file, ("id", "name"), ("pattern", "name")) if file.exists() else None


def read_names(file: Path, *layouts: tuple[str, str]) -> dict[int | str, str]:
    """Read a CSV file of two columns as names by id or, as its first column says, by pattern."""
    table = read_columns(file, *layouts)
    by_id = table.columns[0] == "id"
    names = {}
    for text, name in table.itertuples(index=False, name=None):
        key = int(text) if by_id and text.isdecimal() else text
        if not key or key in names or not name or (by_id and isinstance(key, str)):
            raise InputError(
                f"{file}: line '{text},{name}' needs {'an id above 0' if by_id else 'a pattern'}, "
                "used once, and a name; correct it"
            )
        names[key] = "_".join(name.split())
    return names


def read_columns(file: Path, *layouts: tuple[str, ...]) -> pandas.DataFrame:
    """Read a CSV file whose columns are those of one of the layouts, as text."""
    expected = " or ".join(",".join(columns) for columns in layouts)
    try:
        table = pandas.read_csv(
            file, dtype=str, skipinitialspace=True, keep_default_na=False, encoding="utf-8-sig"
        )
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; write it with columns {expected}") from error
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{file}: cannot be read as a CSV table; write it again") from error
    if tuple(table.columns) not in layouts:
        found = ascii(",".join(table.columns)[:80]).strip("'")
        raise InputError(
            f"{file}: has columns {found} instead of {expected}; correct its first line"
        )
    return table.apply(lambda column: column.str.strip())


def start_conversion(output: Path, source: dict) -> None:
    """Create the folder of a converted data set and write what it comes from.

    A folder of the same source is continued. Raises InputError for one with other files.
    """
    written = provenance.read_json(output / SOURCE_FILE)
    if output.exists() and any(output.iterdir()) and written.get("name") != source["name"]:
        raise InputError(f"{output}: holds other files; name a new or empty folder")
    output.mkdir(parents=True, exist_ok=True)
    provenance.write_json(output / SOURCE_FILE, source)


def _is_named_mask(entry: Path) -> bool:
    return (entry.name if entry.is_dir() else scans.volume_stem(entry)) in MASK_STEMS


def _scans(folder: Path, entries: list[Path], masks: list[Path]) -> list[Path]:
    found = [entry for entry in entries if scans.is_scan_file(entry)]
    if any(scans.is_dicom(file) for file in found):
        return found  # a DICOMDIR, which lists the folders beside it
    found += [entry for entry in entries if entry.is_dir() and _holds_slices(entry, masks)]
    if any(scans.is_dicom(entry) and entry not in masks for entry in entries):
        found.append(folder)
    return found


def _holds_slices(entry: Path, masks: list[Path]) -> bool:
    return any(scans.is_dicom(file) for file in scans.source_files(entry) if file not in masks)


def _dicom_masks(entry: Path) -> list[Path]:
    return [
        file
        for file in scans.source_files(entry)
        if scans.is_dicom(file) and scans.modality(file) in MASK_MODALITIES
    ]


def _only(folder: Path, candidates: list[Path], expected: str) -> Path:
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise InputError(f"{folder}: needs one of {expected}, has {names}; leave exactly one")
    return candidates[0]
