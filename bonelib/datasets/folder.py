"""A folder of CT series with masks, split.csv and bone_names.csv -> cases.

This is the one layout that is read: the phantom is written in it, other data sets are
converted to it. `data/README.md` shows the tree.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas
import SimpleITK

from bonelib import labels, provenance, scans
from bonelib.errors import InputError, warn
from bonelib.labels.masks import MASK_MODALITIES
from bonelib.settings import SPLITS

SPLIT_FILE = "split.csv"
BONE_NAMES_FILE = "bone_names.csv"
SOURCE_FILE = "dataset.json"  # written by a conversion: data set, licence, note for captions
MASK_STEMS = ("mask", "labels", "bone")

LONGEST_LIST = 100  # characters of the ids that a message lists

Names = dict[int, str] | None  # by id of the mask; None: every id is bone


@dataclass(frozen=True)
class Case:
    """One series of a data set, not read yet."""

    series_id: str
    split: str
    scan_path: Path  # a DICOM folder, a volume file or an archive of either
    mask_path: Path  # a file or a folder
    bone_names: dict[int | str, str] | None  # by id or pattern; see `labels.read_mask`
    directory: Path  # of the data set
    series: str | None = None  # which DICOM series of the scan's folder
    fault: str = ""  # of the series' folder, which is told when the series is read

    def scan(self) -> SimpleITK.Image:
        """Read the scan in HU."""
        self._check()
        return scans.read_scan(self.scan_path, self.series)

    def annotation(self, scan: SimpleITK.Image | None = None) -> tuple[SimpleITK.Image, Names]:
        """Read the ids of the mask on the scan's grid, and the names of the ids that count.

        Pass `scan` if it is read already. Raises InputError for a mask that holds no bone
        or does not overlap the scan; warns of ids without a name.
        """
        scan = self.scan() if scan is None else scan
        mask, names = labels.read_mask(
            self.mask_path, scan, self.bone_names, self.scan_path, self.series
        )
        ids = set(np.unique(SimpleITK.GetArrayViewFromImage(mask)).tolist()) - {0}
        counted = ids if names is None else ids & {*names}
        bones = {number for number in counted if (names or {}).get(number) != labels.IGNORE_NAME}
        if not bones:
            wanted = "any" if self.bone_names is None else ", ".join(map(str, self.bone_names))
            raise InputError(
                f"{self.mask_path}: no bone in it: it holds ids {_listed({0, *ids})}, bone is "
                f"{wanted}; give the mask of the bones or correct {BONE_NAMES_FILE}"
            )
        if unnamed := ids - counted:
            warn(
                f"ids {_listed(unnamed)} of a mask are not among the bone names; they count as "
                "patient"
            )
        return mask, names

    def label_map(
        self,
        scan: SimpleITK.Image | None = None,
        annotation: tuple[SimpleITK.Image, Names] | None = None,
    ) -> SimpleITK.Image:
        """Return background, patient, bone and `IGNORE` on the scan's grid.

        Pass `scan` and `annotation` if they are read already.
        """
        scan = self.scan() if scan is None else scan
        return labels.label_map(scan, *(annotation or self.annotation(scan)))

    def source_files(self) -> list[Path]:
        """Return the files that the case is read from, sorted."""
        self._check()
        return sorted({*scans.source_files(self.scan_path), *scans.source_files(self.mask_path)})

    def _check(self) -> None:
        if self.fault:
            raise InputError(self.fault)

    @property
    def source(self) -> str:
        """Return the scan's path inside the data set, for results; the rest stays private."""
        return self.scan_path.relative_to(self.directory).as_posix()


def _listed(ids: set[int]) -> str:
    return textwrap.shorten(", ".join(map(str, sorted(ids))), LONGEST_LIST)


def cases(directory: Path | None) -> list[Case]:
    """Return the cases of a `folder` data set, in the order of its split file."""
    if directory is None:
        raise InputError("the data set 'folder' needs a directory: name it with --data DIR")
    bone_names = read_bone_names(directory / BONE_NAMES_FILE)
    found = []
    for row in read_split(directory).itertuples():
        paths, fault = [directory / row.series] * 2, ""
        try:
            paths = scan_and_mask(directory / row.series)
        except InputError as error:  # the other series can be prepared
            fault = str(error)
        series = getattr(row, "scan_series", "") or None
        found.append(Case(row.series, row.split, *paths, bone_names, directory, series, fault))
    return found


def scan_and_mask(folder: Path) -> tuple[Path, Path]:
    """Return the one scan and the one mask in the folder of a series.

    The mask is recognised by its name; without one, it is the only RTSTRUCT or SEG file. A
    damaged scan counts as one, so that it is refused when it is read.
    """
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    masks = [entry for entry in visible if _is_named_mask(entry)]
    others = [entry for entry in visible if entry not in masks]
    masks = masks or [file for entry in others for file in _dicom_files(entry, of_masks=True)]
    found = [entry for entry in others if scans.is_scan_file(entry)]
    if not any(scans.is_dicom(file) for file in found):  # a DICOMDIR lists the folders beside it
        with_slices = [entry for entry in others if any(_dicom_files(entry, of_masks=False))]
        found += [entry for entry in with_slices if entry.is_dir()]
        found += [folder] * any(entry.is_file() for entry in with_slices)
    kinds = (
        f"files called {' or '.join(MASK_STEMS)} ({', '.join(scans.VOLUME_SUFFIXES)}), folders "
        f"of that name or DICOM files of modality {' or '.join(MASK_MODALITIES)}"
    )
    return (
        _only(folder, found or others, "scans (a folder of DICOM slices or a volume file)"),
        _only(folder, masks, kinds),
    )


def _is_named_mask(entry: Path) -> bool:
    stem = entry.name if entry.is_dir() else scans.volume_stem(entry)
    is_segmentation = entry.name.lower().endswith(".seg.nrrd")  # as 3D Slicer calls them
    return is_segmentation or (stem or "").lower() in MASK_STEMS


def _dicom_files(entry: Path, of_masks: bool) -> Iterator[Path]:
    for file in filter(scans.is_dicom, scans.source_files(entry)):
        if (scans.modality(file) in MASK_MODALITIES) == of_masks:
            yield file


def _only(folder: Path, candidates: list[Path], expected: str) -> Path:
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise InputError(f"{folder}: needs one of {expected}, has {names}; leave exactly one")
    return candidates[0]


def read_split(directory: Path) -> pandas.DataFrame:
    """Read the split file of a data set in which each series has a folder.

    Raises InputError for an unknown split, a name that is unsafe in file names, a repeated
    series and a series without a folder.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such folder; check the path")
    file = directory / SPLIT_FILE
    table = read_columns(file, ("series", "split"), ("series", "split", "scan_series"))
    for row in table.itertuples():
        if row.split not in SPLITS:
            raise InputError(
                f"{file}: series {row.series} has split '{row.split}'; write {', '.join(SPLITS)}"
            )
        if not re.fullmatch(r"\w[\w.-]*", row.series, re.ASCII):
            raise InputError(
                f"{file}: series '{row.series}' is not a valid file name; "
                "use letters, digits, '.', '-' and '_'"
            )
        if not (directory / row.series).is_dir():
            raise InputError(
                f"{file}: series {row.series} has no folder {directory / row.series}; "
                "add the folder or delete the line"
            )
    repeated = table.series[table.series.duplicated()]
    if len(repeated):
        raise InputError(f"{file}: lists series {repeated.iloc[0]} twice; keep one line")
    return table


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
    """Read a CSV file whose columns are those of one of the layouts, as text.

    Spreadsheets may have written it with semicolons or in Windows' encoding.
    """
    expected = " or ".join(",".join(columns) for columns in layouts)
    try:
        content = file.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            warn(f"{file.name} is not in UTF-8 and is read in Windows' encoding 1252")
            text = content.decode("cp1252", "replace")
        table = pandas.read_csv(
            StringIO(text),
            sep=";" if ";" in text.partition("\n")[0] else ",",
            dtype=str,
            skipinitialspace=True,
            keep_default_na=False,
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
