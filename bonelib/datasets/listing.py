"""CSV files that describe a data set -> rows, checked line by line."""

import re
from pathlib import Path
from typing import NamedTuple

import pandas

from bonelib.errors import InputError
from bonelib.settings import SPLITS

SPLIT_FILE = "split.csv"


class Row(NamedTuple):
    """One line of a split file."""

    series_id: str
    split: str
    scan_series: str | None = None  # which DICOM series of a folder with several


def existing(dataset: str, directory: Path | None) -> Path:
    """Return the folder of a data set, or raise InputError where there is none."""
    if directory is None:
        raise InputError(f"the data set '{dataset}' needs a directory: name it with --data DIR")
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    return directory


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
        raise InputError(f"{file}: cannot be read as a CSV table; write it anew") from error
    if tuple(table.columns) not in layouts:
        found = ascii(",".join(table.columns)[:80]).strip("'")
        raise InputError(
            f"{file}: has columns {found} instead of {expected}; correct its first line"
        )
    return table.apply(lambda column: column.str.strip())


def read_split(file: Path) -> list[Row]:
    """Read which series are in which split, each once."""
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
                f"{file}: series '{row.series_id}' is no name for files; "
                "use letters, digits, '.', '-' and '_'"
            )
    repeated = table.series[table.series.duplicated()]
    if len(repeated):
        raise InputError(f"{file}: lists series {repeated.iloc[0]} twice; keep one line")
    return rows


def read_split_of_folders(directory: Path) -> list[Row]:
    """Read the split file of a folder in which each series has a folder of its own."""
    file = directory / SPLIT_FILE
    rows = read_split(file)
    for row in rows:
        if not (directory / row.series_id).is_dir():
            raise InputError(
                f"{file}: series {row.series_id} has no folder {directory / row.series_id}; "
                "add the folder or take out the line"
            )
    return rows


def read_bone_names(file: Path) -> dict[int | str, str] | None:
    """Read the bones' names by id or by pattern of a name; None where there is no file."""
    if not file.exists():
        return None
    table = read_columns(file, ("id", "name"), ("pattern", "name"))
    if table.columns[0] == "id":
        return read_names(file, "name")
    names = {}
    for pattern, name in table.itertuples(index=False, name=None):
        if not pattern or pattern in names or not name:
            raise InputError(
                f"{file}: line '{pattern},{name}' is not a name for a pattern of its own; "
                "correct it"
            )
        names[pattern] = "_".join(name.split())
    return names


def read_names(file: Path, column: str) -> dict[int, str]:
    """Read the names, in `column`, of ids above 0."""
    names = {}
    for number, name in read_columns(file, ("id", column)).itertuples(index=False, name=None):
        if not number.isdecimal() or int(number) == 0 or int(number) in names or not name:
            raise InputError(
                f"{file}: line '{number},{name}' is not a name for an id of its own above 0; "
                "correct it"
            )
        names[int(number)] = "_".join(name.split())
    return names
