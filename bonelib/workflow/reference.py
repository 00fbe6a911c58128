"""Keep the small files of a run in the repository; rebuild tables and report from them.

Scores, curves and records are kept; label maps, weights and figures are not.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from bonelib.errors import InputError
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json, replacing, write_json
from bonelib.settings import PROFILES
from bonelib.workflow.runs import Run, open_run

PATTERNS = ("scores/*.csv", "scores/*.json", "models/*/history.csv", "models/*/training.json")
DIGITS = "%.6g"  # of a number with decimals; counts of pixels are whole
MADE_WITH = ("created", "git_commit", "device", "versions")  # a rebuilt run has its own
# Entries of the manifest that name no folder and no user.
MANIFEST = ("profile", "dataset", "models", "seed", "settings", "dataset_fingerprint", *MADE_WITH)


def files(root: Path) -> list[Path]:
    """Return the small files of a run and of its ablations, below `root`."""
    runs = [root, *sorted(path for path in (root / "ablations").glob("*") if path.is_dir())]
    return [file for run in runs for pattern in PATTERNS for file in sorted(run.glob(pattern))]


def keep(results: ResultFolder, directory: Path) -> None:
    """Replace the small files in `directory` by those of `results`.

    Numbers are rounded to six digits, and paths are cut to their last part. Raises InputError
    where `results` has no scores.
    """
    if not any(results.root.glob("scores/*.csv")):
        raise InputError(f"{results.root}: no scores to keep; run the profile first")
    for old in files(directory):
        old.unlink()
    for source in files(results.root):
        target = directory / source.relative_to(results.root)
        if source.suffix == ".json":
            write_json(target, _read_without_folders(source))
        else:
            with replacing(target) as scratch:
                table = pd.read_csv(source, dtype={"series": str})
                table.to_csv(scratch, index=False, float_format=DIGITS)
    manifest = _read_without_folders(results.manifest) if results.manifest.exists() else {}
    kept = {name: manifest[name] for name in MANIFEST if name in manifest}
    kept["notebooks"] = {
        task: {name: run[name] for name in ("status", "seconds") if name in run}
        for task, run in manifest.get("notebooks", {}).items()
    }
    kept["reference"] = {name: kept[name] for name in MADE_WITH if name in kept}
    write_json(ResultFolder(directory).manifest, kept)


def restore(directory: Path, results: ResultFolder) -> None:
    """Replace the small files of `results` by those kept in `directory`.

    Raises InputError where `results` holds the weights of a run, whose scores would be lost.
    """
    if any(results.root.glob("models/*/*.keras")):
        raise InputError(f"{results.root} holds a run of its own; restore into another folder")
    for old in files(results.root):
        old.unlink()
    for file in (*files(directory), ResultFolder(directory).manifest):
        target = results.root / file.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def open_kept(directory: Path, results: ResultFolder) -> tuple[Run, list[str], dict]:
    """Return the run kept in `directory`, its networks and the settings that it replaced.

    The run is to be rebuilt in `results`. Raises InputError where no run is kept.
    """
    manifest = read_json(ResultFolder(directory).manifest)
    if not manifest or not files(directory):
        raise InputError(f"{directory}: no reference results here; `make reference` keeps some")
    profile = manifest["profile"]
    usual = asdict(PROFILES[profile])
    kept = manifest["settings"]  # an older run may have settings that are no more
    changes = {name: kept[name] for name in usual if kept.get(name, usual[name]) != usual[name]}
    run = open_run(profile, manifest["dataset"], "", str(results.root), changes)
    return run, manifest["models"], changes


def _read_without_folders(file: Path) -> dict:
    """Return a JSON record in which absolute paths are cut to their last part."""

    def cut(record: dict) -> dict:
        absolute = {
            name: Path(value).name
            for name, value in record.items()
            if isinstance(value, str) and value.startswith(("/", "~"))
        }
        return record | absolute

    return json.loads(file.read_text(), object_hook=cut)
