"""Settings, data set and folders of one run, as notebooks and run_all.py name them."""

from dataclasses import dataclass
from pathlib import Path

from bonelib import datasets, paths
from bonelib.settings import Settings, get_settings


@dataclass(frozen=True)
class Run:
    """The subject of a notebook."""

    settings: Settings
    dataset: str
    data_dir: Path | None
    slices: paths.SliceFolder
    results: paths.ResultFolder

    def cases(self, workers: int = 1) -> list[datasets.Case]:
        """Return the cases of the data set; generate the phantom where it is missing."""
        return datasets.find_cases(self.dataset, self.data_dir, self.settings, workers)


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
    which lists the valid names, for an unknown profile or setting.
    """
    settings = get_settings(profile, overrides)
    directory = Path(data_dir).resolve() if data_dir else None
    results = Path(results_dir).resolve() if results_dir else paths.RESULTS / profile
    name = datasets.prepared_name(dataset, directory)
    if slices_dir:
        slices = Path(slices_dir).resolve()
    else:  # other settings, other slices: leave the profile's own alone
        slices = results / "prepared" / name if overrides else paths.prepared(profile, name)
    return Run(settings, dataset, directory, paths.SliceFolder(slices), paths.ResultFolder(results))
