"""A run's results <-> its small files, kept in the repository to rebuild tables and report.

Scores, curves and records are kept; label maps, weights and pictures are not.
"""

import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from bonelib.errors import InputError
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json, replacing, write_json

PATTERNS = ("scores/*.csv", "scores/*.json", "models/*/history.csv", "models/*/training.json")
DIGITS = "%.6g"  # of a number with decimals; counts of pixels are whole

# What of the manifest says nothing of the machine's folders or users.
MANIFEST = (
    "profile", "dataset", "models", "seed", "settings", "versions", "git_commit", "device",
    "created", "dataset_fingerprint",
)  # fmt: skip
MADE_WITH = ("created", "git_commit", "device", "versions")  # what a later run's overwrite


def files(root: Path) -> list[Path]:
    """Return the small files of a run and of its ablations, below `root`."""
    runs = [root, *sorted(path for path in (root / "ablations").glob("*") if path.is_dir())]
    return [file for run in runs for pattern in PATTERNS for file in sorted(run.glob(pattern))]


def keep(results: ResultFolder, directory: Path) -> list[Path]:
    """Copy the small files of `results` to `directory`, instead of those there; return them.

    Numbers are cut to six digits, paths to their last part, and of the manifest stays what
    says with what the results were made. Raises InputError where there are no scores.
    """
    if not any(results.root.glob("scores/*.csv")):
        raise InputError(f"{results.root}: no scores to keep; run the profile first")
    for old in files(directory):
        old.unlink()
    kept = [directory / file.relative_to(results.root) for file in files(results.root)]
    for source, target in zip(files(results.root), kept, strict=True):
        if source.suffix == ".json":
            write_json(target, _without_folders(read_json(source)))
        else:
            with replacing(target) as scratch:
                table = pd.read_csv(source, dtype={"series": str})
                table.to_csv(scratch, index=False, float_format=DIGITS)
    manifest = ResultFolder(directory).manifest
    write_json(manifest, _kept_manifest(read_json(results.manifest)))
    return [*kept, manifest]


def restore(directory: Path, results: ResultFolder) -> None:
    """Copy what `keep` left in `directory` into `results`, instead of what it put there before.

    Raises InputError where `directory` holds no such files, and where `results` holds weights:
    those of a run of its own, whose scores would be lost.
    """
    kept = ResultFolder(directory).manifest
    if not kept.exists() or not files(directory):
        raise InputError(f"{directory}: no reference results here; `make reference` keeps some")
    if any(results.root.glob("models/*/*.keras")):
        raise InputError(f"{results.root} holds a run of its own; restore into another folder")
    for old in files(results.root):
        old.unlink()
    for file in (*files(directory), kept):
        target = results.root / file.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _kept_manifest(manifest: dict) -> dict:
    kept = {name: manifest[name] for name in MANIFEST if name in manifest}
    notebooks = {
        task: {name: run[name] for name in ("status", "seconds") if name in run}
        for task, run in manifest.get("notebooks", {}).items()
    }
    made_with = {name: kept[name] for name in MADE_WITH if name in kept}
    return _without_folders(kept | {"notebooks": notebooks, "reference": made_with})


def _without_folders(value):
    """Return a JSON value in which each absolute path is cut to its last part."""
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if value.startswith("~") or kind(value).is_absolute():
                return kind(value).name
    return value
