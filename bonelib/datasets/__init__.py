"""A name and a folder -> cases: series id, split, scan, label map.

`data/README.md` shows the layout. Public data sets are converted to it first.
"""

from pathlib import Path

from bonelib import paths, provenance
from bonelib.datasets.folder import SOURCE_FILE, SPLIT_FILE, Case, cases, read_bone_names
from bonelib.datasets.public_sets import PUBLIC_SETS
from bonelib.errors import InputError, unknown
from bonelib.settings import SPLITS, Settings

__all__ = [
    "CONVERTIBLE", "Case", "DATASETS", "check", "find_cases", "note", "prepared_name",
    "read_bone_names",
]  # fmt: skip

DATASETS = ("phantom", "folder")
CONVERTIBLE = (*PUBLIC_SETS, "label_maps")  # the last by `pretraining.annotated_patient`


def find_cases(
    dataset: str,
    directory: Path | None,
    settings: Settings,
    workers: int = 1,
    splits: tuple[str, ...] = SPLITS,
) -> list[Case]:
    """Return the cases of a data set in the order of its split file.

    `directory` is the folder of the data set. The phantom has a default one, and is generated
    there by `workers` processes where it is missing. Raises InputError for an unknown data
    set, a folder with mistakes, and where one of `splits` has no case.
    """
    _check_name(dataset)
    if dataset == "phantom":
        from bonelib.phantom import series  # slow to import

        directory = directory or paths.raw_phantom(settings.profile)
        series.generate(directory, settings, workers)
    try:
        found = cases(directory)
    except OSError as error:
        raise InputError(
            f"{error.filename or directory}: {error.strerror or 'cannot be read'}; check that you "
            "may read it"
        ) from error
    for split in splits:
        if split not in {case.split for case in found}:
            raise InputError(f"{directory / SPLIT_FILE}: no series for {split}; add at least one")
    return found


def check(dataset: str, directory: Path | None, settings: Settings) -> None:
    """Raise InputError as `find_cases` does, but generate nothing."""
    _check_name(dataset)
    if dataset != "phantom":
        find_cases(dataset, directory, settings)


def prepared_name(dataset: str, directory: Path | None) -> str:
    """Return the name of a data set's folder of prepared slices."""
    return dataset if directory is None else f"{dataset}-{directory.resolve().name}"


def note(directory: Path | None) -> str:
    """Return the note on a converted data set for captions of tables; "" for any other."""
    return provenance.read_json(directory / SOURCE_FILE).get("note", "") if directory else ""


def _check_name(dataset: str) -> None:
    if dataset in CONVERTIBLE:
        raise InputError(
            f"'{dataset}' has to be converted: run `python -m bonelib convert {dataset} DIR OUT`, "
            "then use --dataset folder --data OUT"
        )
    if dataset not in DATASETS:
        raise InputError(unknown("data set", dataset, DATASETS))
