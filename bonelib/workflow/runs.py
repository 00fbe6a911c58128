"""Profile, data set and folders of one run, as notebooks and command lines name them."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from bonelib import datasets, paths
from bonelib.settings import PROFILES, Settings, get_settings, parse_overrides


@dataclass(frozen=True)
class Run:
    """What a notebook works on."""

    settings: Settings
    dataset: str
    data_dir: Path | None
    slices: paths.SliceFolder
    results: paths.ResultFolder

    def cases(self, workers: int = 1) -> list[datasets.Case]:
        """Return the cases of the data set; generate the phantom where it is missing."""
        return datasets.find_cases(self.dataset, self.data_dir, self.settings, workers)

    def check(self) -> None:
        """Raise InputError where the data set is not as it should be; write nothing."""
        datasets.check(self.dataset, self.data_dir, self.settings)


def open_run(
    profile: str,
    dataset: str = "phantom",
    data_dir: str = "",
    results_dir: str = "",
    overrides: dict | None = None,
    slices_dir: str = "",
) -> Run:
    """Return the run that a notebook's parameters name.

    `data_dir` is the folder of a data set on disk, `results_dir` replaces results/<profile>.
    `overrides` are settings that replace the profile's; the slices then lie in the results
    folder. `slices_dir` is a folder of slices that another run has prepared. Raises ValueError,
    which lists the valid names, for an unknown profile, data set or setting.
    """
    settings = get_settings(profile, overrides)
    directory = Path(data_dir).resolve() if data_dir else None
    results = Path(results_dir) if results_dir else paths.RESULTS / profile
    name = datasets.prepared_name(dataset, directory)
    slices_root = paths.prepared(profile, name)
    if overrides:  # other settings, other slices: leave the profile's own alone
        slices_root = results / "prepared" / name
    if slices_dir:
        slices_root = Path(slices_dir)
    return Run(
        settings,
        dataset,
        directory,
        paths.SliceFolder(slices_root.resolve()),
        paths.ResultFolder(results.resolve()),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a run to a command's parser."""
    parser.add_argument(
        "--profile", default="paper", choices=list(PROFILES), help="how much to compute"
    )
    parser.add_argument("--dataset", default="phantom", help=", ".join(datasets.DATASETS))
    parser.add_argument("--data", default="", metavar="DIR", help="the data set's folder")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings"
    )
    parser.add_argument("--results", default="", metavar="DIR", help="default: results/<profile>")


def run_of(options: argparse.Namespace) -> Run:
    """Return the run that a command's options name; raises ValueError as `open_run` does."""
    results = str(Path(options.results).resolve()) if options.results else ""
    replaced = parse_overrides(options.set)
    return open_run(options.profile, options.dataset, options.data, results, replaced)
