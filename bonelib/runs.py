"""Profile, data set and folders of one run, as notebooks and the driver name them."""

from dataclasses import dataclass
from pathlib import Path

from bonelib import datasets, paths
from bonelib.settings import Settings, get_settings


@dataclass(frozen=True)
class Run:
    """What a notebook works on."""

    settings: Settings
    dataset: str
    data_dir: Path | None
    slices: paths.SliceFolder
    results: paths.ResultFolder

    def cases(self, workers: int = 1) -> list[datasets.Case]:
        """Return the cases of the data set; what is rendered is made where missing."""
        return datasets.find_cases(self.dataset, self.data_dir, self.settings, workers)

    def check(self) -> None:
        """Read what the data set says of itself and make nothing of it."""
        datasets.check(self.dataset, self.data_dir, self.settings)


def open_run(
    profile: str,
    dataset: str = "phantom",
    data_dir: str = "",
    results_dir: str = "",
    overrides: dict | None = None,
) -> Run:
    """Return the run that a notebook's parameters name.

    `data_dir` is the folder of a data set on disk, `results_dir` replaces
    results/<profile>, `overrides` replaces settings of the profile. Raises ValueError,
    with the valid names, for an unknown profile, data set or setting.
    """
    settings = get_settings(profile, overrides)
    directory = Path(data_dir).resolve() if data_dir else None
    results = Path(results_dir) if results_dir else paths.RESULTS / profile
    name = datasets.prepared_name(dataset, directory)
    slices_root = paths.prepared(profile, name)
    if overrides and results_dir:  # other settings, other slices: leave the profile's own alone
        slices_root = results / "prepared" / name
    return Run(
        settings,
        dataset,
        directory,
        paths.SliceFolder(slices_root.resolve()),
        paths.ResultFolder(results.resolve()),
    )
