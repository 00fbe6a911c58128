"""Annotated anatomy without a CT -> subjects, and the cases rendered from them."""

from pathlib import Path

from bonelib import paths, scans
from bonelib.datasets import folder
from bonelib.datasets.case import Case
from bonelib.datasets.listing import existing, read_columns, read_names, read_split_of_folders
from bonelib.errors import InputError
from bonelib.settings import Settings

TISSUES_FILE = "tissues.csv"
RANGE_FILE = "range.csv"
LABEL_STEMS = ("label", "labels")
BODY_STEMS = ("mask",)


def cases(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    """Return the cases rendered from the label maps; they are made where missing."""
    from bonelib import phantom  # only this data set pays for the import

    subjects, names = read_label_maps(directory, settings)
    rendered = paths.raw_label_maps(directory, settings.profile)
    phantom.render(rendered, subjects, names, settings, workers)
    return folder.cases(rendered)


def read_label_maps(directory: Path | None, settings: Settings) -> tuple[list, dict[int, str]]:
    """Return the subjects (`phantom.Subject`) and the tissues' names by id."""
    from bonelib import phantom

    directory = existing("label_maps", directory)
    if settings.renderings < 1:
        raise InputError(f"setting renderings is {settings.renderings}; give at least 1")
    names = read_names(directory / TISSUES_FILE, "tissue")
    try:
        bones = phantom.bones_of(names)
    except InputError as error:
        raise InputError(f"{directory / TISSUES_FILE}: {error}") from error
    if not bones:
        raise InputError(f"{directory / TISSUES_FILE}: names no bone; give at least one")
    rows = read_split_of_folders(directory)
    ranges = _read_ranges(directory / RANGE_FILE, [row.series_id for row in rows])
    subjects = []
    for row in rows:
        place = directory / row.series_id
        label, mask = (_volume_called(place, stems) for stems in (LABEL_STEMS, BODY_STEMS))
        if label is None:
            raise InputError(
                f"{place}: has no label map; add a volume called {' or '.join(LABEL_STEMS)} "
                f"({', '.join(scans.VOLUME_SUFFIXES)})"
            )
        subjects.append(
            phantom.Subject(row.series_id, row.split, label, mask, ranges.get(row.series_id))
        )
    return subjects, names


def _volume_called(place: Path, stems: tuple[str, ...]) -> Path | None:
    found = sorted(
        file for file in place.iterdir() if file.is_file() and scans.volume_stem(file) in stems
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{place}: has {names}; leave exactly one")
    return found[0] if found else None


def _read_ranges(file: Path, known: list[str]) -> dict[str, tuple[int, int]]:
    """Return the first and the last slice to use of each series in a file that may be absent."""
    if not file.exists():
        return {}
    ranges = {}
    table = read_columns(file, ("series", "first", "last"))
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
