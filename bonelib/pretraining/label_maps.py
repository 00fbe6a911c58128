"""Annotated anatomy without a CT -> subjects, and CT series rendered from them.

`data/README.md` shows the layout of such a folder.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bonelib import scans
from bonelib.datasets.folder import read_columns, read_names, read_split, start_conversion
from bonelib.errors import InputError
from bonelib.phantom import PhantomSeries, series_seed, write_dataset
from bonelib.pretraining.annotated_patient import render_annotation
from bonelib.pretraining.annotation import bones_of, deform, read_annotation
from bonelib.provenance import code_hash
from bonelib.settings import Settings

TISSUES_FILE = "tissues.csv"
RANGE_FILE = "range.csv"
LABEL_STEMS = ("label", "labels")
BODY_STEMS = ("mask",)


@dataclass(frozen=True)
class Subject:
    """One annotated anatomy on disk."""

    name: str
    split: str
    label_path: Path
    mask_path: Path | None  # of the body
    slices: tuple[int, int] | None  # the first and the last to use, from the feet; None: all

    def states(self) -> list[tuple]:
        """Return name, size and modification time of each of its files."""
        files = [
            file
            for path in (self.label_path, self.mask_path)
            if path is not None
            for file in scans.source_files(path)
        ]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def convert(
    directory: Path, output: Path, settings: Settings, renderings: int = 1, workers: int = 1
) -> None:
    """Render the subjects in `directory` as a `folder` data set in `output`.

    Each training subject becomes `renderings` different series, every other one series.
    Raises InputError for tables or label maps that are not as they should be.
    """
    subjects, names = read_label_maps(directory)
    start_conversion(output, {"name": "label_maps"})
    render(output, subjects, names, settings, renderings, workers)


def read_label_maps(directory: Path) -> tuple[list[Subject], dict[int, str]]:
    """Return the subjects and the names of the tissues by id."""
    rows = read_split(directory)
    names = read_names(directory / TISSUES_FILE, ("id", "tissue"))
    try:
        bones = bones_of(names)
    except InputError as error:
        raise InputError(f"{directory / TISSUES_FILE}: {error}") from error
    if not bones:
        raise InputError(f"{directory / TISSUES_FILE}: names no bone; give at least one")
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
        subjects.append(Subject(row.series_id, row.split, label, mask, ranges.get(row.series_id)))
    return subjects, names


def render(
    directory: Path,
    subjects: list[Subject],
    names: dict[int, str],
    settings: Settings,
    renderings: int = 1,
    workers: int = 1,
) -> None:
    """Write CT series of `subjects` to `directory` as `phantom.write_dataset` does.

    `names` gives bones and tissues by id of the label maps. The first series of a subject,
    `<name>_1`, keeps the anatomy as drawn; the others are also rotated, stretched and
    mirrored at random.
    """
    if renderings < 1:
        raise InputError(f"--renderings is {renderings}; give at least 1")
    code = code_hash("bonelib.pretraining.annotated_patient")
    records = [
        {
            "series": f"{subject.name}_{number}",
            "split": subject.split,
            "seed": series_seed(f"{subject.name}_{number}", settings),
            "subject": subject.name,
            "deformed": number > 1,
            "names": {str(key): name for key, name in names.items()},
            "slices": subject.slices,
            "sources": subject.states(),
            "code": code,
        }
        for subject in subjects
        for number in range(1, 1 + (renderings if subject.split == "train" else 1))
    ]
    make = partial(
        _make_series, subjects={subject.name: subject for subject in subjects}, names=names
    )
    write_dataset(directory, records, make, bones_of(names), workers)


def _make_series(
    record: dict, subjects: dict[str, Subject], names: dict[int, str]
) -> PhantomSeries:
    subject = subjects[record["subject"]]
    annotation = read_annotation(subject.label_path, subject.mask_path, names, subject.slices)
    if record["deformed"]:
        annotation = deform(annotation, record["seed"])
    return render_annotation(annotation, record["seed"])


def _volume_called(place: Path, stems: tuple[str, ...]) -> Path | None:
    found = sorted(
        file for file in place.iterdir() if file.is_file() and scans.volume_stem(file) in stems
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{place}: has {names}; leave exactly one")
    return found[0] if found else None


def _read_ranges(file: Path, known: list[str]) -> dict[str, tuple[int, int]]:
    """Return the first and last slice to use of each series; the file is optional."""
    if not file.exists():
        return {}
    ranges = {}
    table = read_columns(file, ("series", "first", "last"))
    for series_id, first, last in table.itertuples(index=False, name=None):
        line = f"line '{series_id},{first},{last}'"
        if series_id not in known or series_id in ranges:
            raise InputError(f"{file}: {line} does not name one series of {known}; correct it")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise InputError(
                f"{file}: {line} needs a first and a higher last slice, counted from the feet, "
                "from 0; correct it"
            )
        ranges[series_id] = int(first), int(last)
    return ranges
