"""A name and a folder -> cases: series id, split, scan, label map.

`data/README.md` shows the trees that data sets have.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bonelib import paths
from bonelib.datasets import folder, public
from bonelib.datasets.case import BONE_NAMES_FILE, Case
from bonelib.datasets.catalogue import CATALOGUE, note
from bonelib.datasets.ct_org import CT_ORG
from bonelib.datasets.ctpel import CTPEL
from bonelib.datasets.ctpelvic1k import CTPELVIC1K
from bonelib.datasets.folder import MASK_STEMS, SPLIT_FILE, read_bone_names
from bonelib.datasets.pengwin import PENGWIN
from bonelib.datasets.totalsegmentator import TOTALSEGMENTATOR
from bonelib.errors import InputError
from bonelib.settings import SPLITS, Settings

__all__ = [
    "BONE_NAMES_FILE", "CATALOGUE", "Case", "DATASETS", "MASK_STEMS", "PUBLIC_SETS", "SPLIT_FILE",
    "check", "find_cases", "note", "prepared_name", "read_bone_names",
]  # fmt: skip


def find_cases(
    dataset: str,
    directory: Path | None,
    settings: Settings,
    workers: int = 1,
    splits: tuple[str, ...] = SPLITS,
) -> list[Case]:
    """Return the cases of the data set named, in the order of its split file or of their names.

    Each of `splits` must have a case.

    `directory` is where the data lies; the phantom and what is rendered from label maps
    have places of their own and are made there, on `workers` processes, where they are
    missing. Raises InputError for an unknown name, which lists the valid ones, and for a
    folder that is not as it should be.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown data set '{dataset}': choose one of {', '.join(DATASETS)}")
    with _refusing_what_cannot_be_read(directory):
        found = DATASETS[dataset](directory, settings, workers)
    cases = [replace(case, class_scheme=settings.class_scheme) for case in found]
    _check_splits(dataset, directory, cases, splits)
    return cases


def check(dataset: str, directory: Path | None, settings: Settings) -> None:
    """Raise what `find_cases` would for names and tables, in no time: nothing is made."""
    if dataset in PUBLIC_SETS:
        with _refusing_what_cannot_be_read(directory):
            public.check(PUBLIC_SETS[dataset], directory)
    elif dataset != "phantom":
        find_cases(dataset, directory, settings)


def prepared_name(dataset: str, directory: Path | None) -> str:
    """Return the name of a data set's folder of prepared slices."""
    return dataset if directory is None else f"{dataset}-{directory.resolve().name}"


@contextmanager
def _refusing_what_cannot_be_read(directory: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or directory}: {error.strerror or 'cannot be read'}; check that you "
            "may read it and that the disk has room"
        ) from error


def _check_splits(dataset: str, directory: Path | None, rows: list, splits: Iterable[str]) -> None:
    """Raise InputError where no row, a case or a subject, is of one of the splits."""
    for split in splits:
        if split not in {row.split for row in rows}:
            where = directory / SPLIT_FILE if directory else f"data set '{dataset}'"
            if dataset in PUBLIC_SETS and not where.exists():
                raise InputError(
                    f"{directory}: no scan of the pelvis for {split}; add more of the data set, "
                    f"or choose by a {SPLIT_FILE}"
                )
            raise InputError(f"{where}: no series for {split}; give it at least one")


def _phantom(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    from bonelib import phantom  # only this data set pays for the import

    directory = directory or paths.raw_phantom(settings.profile)
    phantom.generate(directory, settings, workers)
    return folder.cases(directory)


def _folder(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    return folder.cases(directory)


def _public(dataset: str) -> Callable[[Path | None, Settings, int], list[Case]]:
    return lambda directory, settings, workers: public.cases(PUBLIC_SETS[dataset], directory)


PUBLIC_SETS = {item.name: item for item in (TOTALSEGMENTATOR, CTPELVIC1K, CT_ORG, PENGWIN, CTPEL)}

DATASETS: dict[str, Callable[[Path | None, Settings, int], list[Case]]] = {
    "phantom": _phantom,
    "folder": _folder,
    **{name: _public(name) for name in PUBLIC_SETS},
}
