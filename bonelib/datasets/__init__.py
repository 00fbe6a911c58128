"""A name and a folder -> cases: series id, split, scan, label map.

`data/README.md` shows the trees that `folder` and `label_maps` data sets have.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import SimpleITK

from bonelib import labels, paths, scans
from bonelib.errors import InputError
from bonelib.settings import SPLITS, Settings

SPLIT_FILE = "split.csv"
BONE_NAMES_FILE = "bone_names.csv"
MASK_STEMS = ("mask", "labels", "bone")
TISSUES_FILE = "tissues.csv"  # of a `label_maps` data set, as the three below
RANGE_FILE = "range.csv"
LABEL_STEMS = ("label", "labels")
BODY_STEMS = ("mask",)


@dataclass(frozen=True)
class Case:
    """One series of a data set, not read yet."""

    series_id: str
    split: str
    scan_path: Path  # a DICOM folder or a volume file
    mask_path: Path
    bone_names: dict[int, str] | None  # None: every id of the mask is bone
    directory: Path  # of the data set

    def scan(self) -> SimpleITK.Image:
        """Read the scan in HU."""
        return scans.read_scan(self.scan_path)

    def structures(self, scan: SimpleITK.Image | None = None) -> SimpleITK.Image:
        """Read the mask's ids on the scan's grid; pass `scan` where it is read already."""
        return self._checked(labels.on_grid, scan)

    def label_map(self, scan: SimpleITK.Image | None = None) -> SimpleITK.Image:
        """Return classes 0, 1, 2 and `IGNORE` on the scan's grid.

        Raises InputError for a mask that lies apart from the scan or holds no bone.
        """
        return self._checked(lambda mask, onto: labels.label_map(onto, mask, self.bone_names), scan)

    def _checked(self, bring: Callable, scan: SimpleITK.Image | None) -> SimpleITK.Image:
        scan = self.scan() if scan is None else scan
        mask = scans.read_volume(self.mask_path)
        bone = labels.bone_of(mask, self.bone_names)
        if not (SimpleITK.GetArrayViewFromImage(bone) == 1).any():
            ids = np.unique(SimpleITK.GetArrayViewFromImage(mask))
            wanted = "any" if self.bone_names is None else ", ".join(map(str, self.bone_names))
            raise InputError(
                f"{self.mask_path}: no bone in it: it holds ids {', '.join(map(str, ids[:20]))}, "
                f"bone is {wanted}; give the mask of the bones or correct {BONE_NAMES_FILE}"
            )
        try:
            return bring(mask, scan)
        except InputError as error:
            raise InputError(f"{self.mask_path}: {error}") from error


def find_cases(
    dataset: str,
    directory: Path | None,
    settings: Settings,
    workers: int = 1,
    splits: tuple[str, ...] = SPLITS,
) -> list[Case]:
    """Return the cases of the data set named, in the order of its split file.

    Each of `splits` must have a case.

    `directory` is where the data lies; the phantom and what is rendered from label maps
    have places of their own and are made there, on `workers` processes, where they are
    missing. Raises InputError for an unknown name, which lists the valid ones, and for a
    folder that is not as it should be.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown data set '{dataset}': choose one of {', '.join(DATASETS)}")
    cases = DATASETS[dataset](directory, settings, workers)
    _check_splits(dataset, directory, cases, splits)
    return cases


def _check_splits(dataset: str, directory: Path | None, rows: list, splits: Iterable[str]) -> None:
    """Raise InputError where no row, a case or a subject, is of one of the splits."""
    for split in splits:
        if split not in {row.split for row in rows}:
            where = directory / SPLIT_FILE if directory else f"data set '{dataset}'"
            raise InputError(f"{where}: no series for {split}; give it at least one")


def check(dataset: str, directory: Path | None, settings: Settings) -> None:
    """Raise what `find_cases` would for names and tables, in no time: nothing is rendered."""
    if dataset == "label_maps":
        subjects, _ = read_label_maps(directory, settings)
        _check_splits(dataset, directory, subjects, SPLITS)
    elif dataset != "phantom":
        find_cases(dataset, directory, settings)


def prepared_name(dataset: str, directory: Path | None) -> str:
    """Return the name of a data set's folder of prepared slices."""
    return dataset if directory is None else f"{dataset}-{directory.resolve().name}"


def _phantom(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    from bonelib import phantom  # only this data set pays for the import

    directory = directory or paths.raw_phantom(settings.profile)
    phantom.generate(directory, settings, workers)
    return _folder(directory, settings, workers)


def _folder(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    directory = _existing("folder", directory)
    bone_names = _read_bone_names(directory / BONE_NAMES_FILE)
    return [
        Case(series_id, split, *_scan_and_mask(directory / series_id), bone_names, directory)
        for series_id, split in _read_split(directory / SPLIT_FILE)
    ]


def _label_maps(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    from bonelib import phantom

    subjects, names = read_label_maps(directory, settings)
    rendered = paths.raw_label_maps(directory, settings.profile)
    phantom.render(rendered, subjects, names, settings, workers)
    return _folder(rendered, settings, workers)


def read_label_maps(directory: Path | None, settings: Settings) -> tuple[list, dict[int, str]]:
    """Return the subjects (`phantom.Subject`) and the tissues' names by id."""
    from bonelib import phantom

    directory = _existing("label_maps", directory)
    if settings.renderings < 1:
        raise InputError(f"setting renderings is {settings.renderings}; give at least 1")
    names = _read_names(directory / TISSUES_FILE, "tissue")
    try:
        bones = phantom.bones_of(names)
    except InputError as error:
        raise InputError(f"{directory / TISSUES_FILE}: {error}") from error
    if not bones:
        raise InputError(f"{directory / TISSUES_FILE}: names no bone; give at least one")
    rows = _read_split(directory / SPLIT_FILE)
    ranges = _read_ranges(directory / RANGE_FILE, [series_id for series_id, _ in rows])
    subjects = []
    for series_id, split in rows:
        folder = directory / series_id
        label, mask = (_volume_called(folder, stems) for stems in (LABEL_STEMS, BODY_STEMS))
        if label is None:
            raise InputError(
                f"{folder}: has no label map; add a volume called {' or '.join(LABEL_STEMS)} "
                f"({', '.join(scans.VOLUME_SUFFIXES)})"
            )
        subjects.append(phantom.Subject(series_id, split, label, mask, ranges.get(series_id)))
    return subjects, names


def _volume_called(folder: Path, stems: tuple[str, ...]) -> Path | None:
    found = sorted(
        file for file in folder.iterdir() if file.is_file() and scans.volume_stem(file) in stems
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{folder}: has {names}; leave exactly one")
    return found[0] if found else None


def _read_ranges(file: Path, known: list[str]) -> dict[str, tuple[int, int]]:
    """Return the first and the last slice to use of each series in a file that may be absent."""
    if not file.exists():
        return {}
    ranges = {}
    table = _read_columns(file, ("series", "first", "last"))
    for series_id, first, last in table.itertuples(index=False, name=None):
        line = f"line '{series_id},{first},{last}'"
        if series_id not in known or series_id in ranges:
            raise InputError(f"{file}: {line} is not for a series of its own; correct it")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise InputError(
                f"{file}: {line} does not give a first and a higher last slice, from the feet, "
                "from 0; correct it"
            )
        ranges[series_id] = int(first), int(last)
    return ranges


def _existing(dataset: str, directory: Path | None) -> Path:
    if directory is None:
        raise InputError(f"the data set '{dataset}' needs a directory: name it with --data DIR")
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    return directory


def _read_columns(file: Path, columns: tuple[str, ...]) -> pandas.DataFrame:
    try:
        table = pandas.read_csv(file, dtype=str, skipinitialspace=True, keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; write it with columns {','.join(columns)}") from error
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{file}: cannot be read as a CSV table; write it anew") from error
    if list(table.columns) != list(columns):
        raise InputError(
            f"{file}: has columns {','.join(table.columns)} instead of {','.join(columns)}; "
            "correct its first line"
        )
    return table.apply(lambda column: column.str.strip())


def _read_split(file: Path) -> list[tuple[str, str]]:
    table = _read_columns(file, ("series", "split"))
    rows = list(table.itertuples(index=False, name=None))
    for series_id, split in rows:
        if split not in SPLITS:
            raise InputError(
                f"{file}: series {series_id} has split '{split}'; write {', '.join(SPLITS)}"
            )
        if not re.fullmatch(r"\w[\w.-]*", series_id, re.ASCII):
            raise InputError(
                f"{file}: series '{series_id}' is no name for files; "
                "use letters, digits, '.', '-' and '_'"
            )
        if not (file.parent / series_id).is_dir():
            raise InputError(
                f"{file}: series {series_id} has no folder {file.parent / series_id}; "
                "add the folder or take out the line"
            )
    repeated = table.series[table.series.duplicated()]
    if len(repeated):
        raise InputError(f"{file}: lists series {repeated.iloc[0]} twice; keep one line")
    return rows


def _read_bone_names(file: Path) -> dict[int, str] | None:
    return _read_names(file, "name") if file.exists() else None


def _read_names(file: Path, column: str) -> dict[int, str]:
    names = {}
    for number, name in _read_columns(file, ("id", column)).itertuples(index=False, name=None):
        if not number.isdecimal() or int(number) == 0 or int(number) in names or not name:
            raise InputError(
                f"{file}: line '{number},{name}' is not a name for an id of its own above 0; "
                "correct it"
            )
        names[int(number)] = "_".join(name.split())
    return names


def _scan_and_mask(folder: Path) -> tuple[Path, Path]:
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    volumes = [file for file in visible if file.is_file() and scans.volume_stem(file)]
    masks = [file for file in volumes if scans.volume_stem(file) in MASK_STEMS]
    found = [file for file in volumes if file not in masks]
    found += [entry for entry in visible if entry.is_dir() and scans.holds_dicom(entry)]
    if any(scans.is_dicom(entry) for entry in visible):
        found.append(folder)
    what = f"files called {' or '.join(MASK_STEMS)} ({', '.join(scans.VOLUME_SUFFIXES)})"
    for candidates, expected in (
        (found, "scans (a folder of DICOM slices or a volume file)"),
        (masks, what),
    ):
        if len(candidates) != 1:
            names = ", ".join(path.name for path in candidates) or "none"
            raise InputError(f"{folder}: needs one of {expected}, has {names}; leave exactly one")
    return found[0], masks[0]


DATASETS: dict[str, Callable[[Path | None, Settings, int], list[Case]]] = {
    "phantom": _phantom,
    "folder": _folder,
    "label_maps": _label_maps,
}
