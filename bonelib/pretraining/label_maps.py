"""A folder of annotated subjects without CT -> CT series rendered from them.

`data/README.md` shows the layout of the folder.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bonelib import scans
from bonelib.datasets.folder import read_columns, read_names, read_split, start_conversion
from bonelib.errors import InputError
from bonelib.phantom.series import PhantomSeries, series_seed, write_dataset
from bonelib.pretraining.annotated_patient import render_annotation
from bonelib.pretraining.annotation import Annotation, bones_of, deform, read_annotation
from bonelib.provenance import code_hash
from bonelib.settings import Settings

TISSUES_FILE = "tissues.csv"
RANGE_FILE = "range.csv"
LABEL_STEMS = ("label", "labels")
BODY_STEMS = ("mask",)


@dataclass(frozen=True)
class Subject:
    """One annotated person on disk."""

    name: str
    split: str
    label_path: Path
    mask_path: Path | None  # of the body
    slices: tuple[int, int] | None  # the first and the last to use, from the feet; None: all
    names: dict[int, str]  # bones and tissues by id

    def record(self) -> dict:
        """Return everything that its annotation depends on."""
        paths = [path for path in (self.label_path, self.mask_path) if path is not None]
        files = [file for path in paths for file in scans.source_files(path)]
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return {
            "subject": self.name,
            "slices": self.slices,
            "names": self.names,
            "sources": states,
        }

    def read(self, deformed_by: int | None = None) -> Annotation:
        """Read the annotation; a seed deforms it."""
        annotation = read_annotation(self.label_path, self.mask_path, self.names, self.slices)
        return annotation if deformed_by is None else deform(annotation, deformed_by)


def convert(
    directory: Path, output: Path, settings: Settings, renderings: int = 1, workers: int = 1
) -> None:
    """Render the subjects in `directory` as a `folder` data set in `output`.

    Each training subject becomes `renderings` different series, every other one series.
    Raises InputError for incorrect tables or label maps.
    """
    if renderings < 1:
        raise InputError(f"--renderings is {renderings}; give at least 1")
    subjects = read_label_maps(directory)
    start_conversion(output, {"name": "label_maps"})
    render(output, subjects, settings, renderings, workers)


def read_label_maps(directory: Path) -> list[Subject]:
    """Return the subjects in a folder, in the order of its split file."""
    split = read_split(directory)
    names = read_names(directory / TISSUES_FILE, ("id", "tissue"))
    try:
        bones = bones_of(names)
    except InputError as error:
        raise InputError(f"{directory / TISSUES_FILE}: {error}") from error
    if not bones:
        raise InputError(f"{directory / TISSUES_FILE}: names no bone; give at least one")
    ranges = _read_ranges(directory / RANGE_FILE, list(split.series))
    subjects = []
    for row in split.itertuples():
        folder = directory / row.series
        label, mask = (_volume_called(folder, stems) for stems in (LABEL_STEMS, BODY_STEMS))
        if label is None:
            raise InputError(
                f"{folder}: has no label map; add a volume called {' or '.join(LABEL_STEMS)} "
                f"({', '.join(scans.VOLUME_SUFFIXES)})"
            )
        slices = ranges.get(row.series)
        subjects.append(Subject(row.series, row.split, label, mask, slices, names))
    return subjects


def render(
    directory: Path,
    subjects: list[Subject],
    settings: Settings,
    renderings: int = 1,
    workers: int = 1,
) -> None:
    """Write CT series of `subjects` to `directory`, as `series.write_dataset` does.

    The first series of a subject, `<name>_1`, keeps the anatomy as drawn; the others are also
    rotated and stretched at random.
    """
    code = code_hash(__name__)
    records = [
        {
            "series": f"{subject.name}_{number}",
            "split": subject.split,
            "seed": series_seed(f"{subject.name}_{number}", settings),
            "deformed": number > 1,
            "code": code,
            **subject.record(),
        }
        for subject in subjects
        for number in range(1, 1 + (renderings if subject.split == "train" else 1))
    ]
    bones = bones_of(subjects[0].names) if subjects else {}
    make = partial(_make_series, subjects={subject.name: subject for subject in subjects})
    write_dataset(directory, records, make, bones, workers)


def _make_series(record: dict, subjects: dict[str, Subject]) -> PhantomSeries:
    seed, subject = record["seed"], subjects[record["subject"]]
    annotation = subject.read(deformed_by=seed if record["deformed"] else None)
    return render_annotation(annotation, seed)


def _volume_called(folder: Path, stems: tuple[str, ...]) -> Path | None:
    found = sorted(
        file for file in folder.iterdir() if file.is_file() and scans.volume_stem(file) in stems
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{folder}: has {names}; leave exactly one")
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
