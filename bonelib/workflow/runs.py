"""Settings, data set and folders of one run; a run's small files, kept in the repository."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from bonelib import datasets, paths
from bonelib.errors import InputError
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json, replacing, write_json
from bonelib.settings import PROFILES, Settings, get_settings

# Scores, curves and records are kept; label maps, weights and figures are not.
PATTERNS = ("scores/*.csv", "scores/*.json", "models/*/history.csv", "models/*/training.json")
NEWEST, REFERENCE = "newest", "reference"  # in place of a profile's name
DIGITS = "%.6g"  # of a number with decimals; counts of pixels are whole
MADE_WITH = ("created", "git_commit", "device", "versions")  # a rebuilt run has its own
# Entries of the manifest that name no folder and no user.
MANIFEST = ("profile", "dataset", "models", "seed", "settings", "dataset_fingerprint", *MADE_WITH)


@dataclass(frozen=True)
class Run:
    """The subject of a notebook."""

    settings: Settings
    dataset: str
    data_dir: Path | None
    slices: paths.SliceFolder
    results: ResultFolder

    def banner(self) -> str:
        """Return one line that says which run this is, and when and on what it was made."""
        manifest = read_json(self.results.manifest)
        if not manifest:
            return f"Profile {self.settings.profile}; nothing has run yet."
        made = manifest.get("reference", manifest)
        device = ", ".join(made["device"]["gpus"]) or made["device"]["processor"]
        kept = ", the kept reference run" if "reference" in manifest else ""
        return (
            f"Profile {self.settings.profile} in {self.results.root.name}/{kept}: "
            f"made on {made['created'][:10]} on {device}."
        )

    def cases(self, workers: int = 1) -> list[datasets.Case]:
        """Return the cases of the data set; generate the phantom where it is missing."""
        return datasets.find_cases(self.dataset, self.data_dir, self.settings, workers)


def open_run(
    profile: str, dataset: str = "phantom", data_dir: str = "", results_dir: str = "",
    overrides: dict | None = None, slices_dir: str = "",
) -> Run:  # fmt: skip
    """Return the run that a notebook's parameters name.

    Instead of a profile, `profile` may be "newest", the profile that ran last (smoke before any
    has), or "reference", the run kept in results/reference, whose other parameters are its own.
    `data_dir` is the folder of a data set on disk, `results_dir` replaces results/<profile>.
    `overrides` are settings that replace the profile's; the slices then lie in the results
    folder. `slices_dir` is a folder of slices that another run has prepared. Raises ValueError,
    which lists the valid names, for an unknown profile or setting.
    """
    if profile == REFERENCE:
        results = ResultFolder(paths.REBUILT)
        kept = read_json(ResultFolder(paths.REFERENCE).manifest).get("reference")
        if read_json(results.manifest).get("reference") != kept:
            restore(paths.REFERENCE, results)
        return open_kept(paths.REFERENCE, results)[0]
    settings = get_settings(_newest() if profile == NEWEST else profile, overrides)
    profile = settings.profile
    directory = Path(data_dir).resolve() if data_dir else None
    results = Path(results_dir).resolve() if results_dir else paths.RESULTS / profile
    name = datasets.prepared_name(dataset, directory)
    if slices_dir:
        slices = Path(slices_dir).resolve()
    else:  # other settings, other slices: leave the profile's own alone
        slices = results / "prepared" / name if overrides else paths.prepared(profile, name)
    return Run(settings, dataset, directory, paths.SliceFolder(slices), ResultFolder(results))


def _newest() -> str:
    """Return the profile whose manifest was written last."""
    ran = {name: ResultFolder(paths.RESULTS / name).manifest for name in PROFILES}
    times = {name: file.stat().st_mtime for name, file in ran.items() if file.exists()}
    return max(times, key=times.get, default="smoke")


def open_kept(directory: Path, results: ResultFolder) -> tuple[Run, list[str], dict]:
    """Return the run kept in `directory`, its networks and the settings that it replaced.

    The run is to be rebuilt in `results`. Raises InputError where no run is kept.
    """
    manifest = read_json(ResultFolder(directory).manifest)
    if not manifest or not small_files(directory):
        raise InputError(f"{directory}: no reference results here; `make reference` keeps some")
    profile = manifest["profile"]
    usual = asdict(PROFILES[profile])
    kept = manifest["settings"]  # an older run may have settings that are no more
    changes = {name: kept[name] for name in usual if kept.get(name, usual[name]) != usual[name]}
    run = open_run(profile, manifest["dataset"], "", str(results.root), changes)
    return run, manifest["models"], changes


def small_files(root: Path) -> list[Path]:
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
    for old in small_files(directory):
        old.unlink()
    for source in small_files(results.root):
        target = directory / source.relative_to(results.root)
        if source.suffix == ".json":
            write_json(target, _without_folders(read_json(source)))
        else:
            with replacing(target) as scratch:
                table = pd.read_csv(source, dtype={"series": str})
                table.to_csv(scratch, index=False, float_format=DIGITS)
    manifest = _without_folders(read_json(results.manifest))
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
    for old in small_files(results.root):
        old.unlink()
    for file in (*small_files(directory), ResultFolder(directory).manifest):
        target = results.root / file.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _without_folders(record: dict) -> dict:
    """Return a JSON record in which absolute paths are cut to their last part."""

    def cut(part: dict) -> dict:
        return {
            name: Path(value).name if str(value).startswith(("/", "~")) else value
            for name, value in part.items()
        }

    return json.loads(json.dumps(record), object_hook=cut)
