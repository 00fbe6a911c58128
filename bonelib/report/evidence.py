"""The scores, records and curves of a run, as claims and sentences ask for them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bonelib.evaluation import scoring, statistics
from bonelib.paths import ResultFolder
from bonelib.report.verdicts import Estimate, NotTestable, name_of
from bonelib.settings import BONE, TABLE1_MODELS, TABLE3_MODELS, Settings

SHORT, LONG = "epochs", "epochs_long"  # the settings with the epochs of Tables 1 and 3


class Group(NamedTuple):
    """The test slices as segmented by a method after a training, or those of one series or level.

    `horizon` is SHORT, LONG or empty for a method without training. `encoder` is "imagenet"
    where the claim is about encoders trained on ImageNet.
    """

    model: str
    horizon: str = ""
    encoder: str = ""
    part: tuple[str, str] | None = None  # a column of the scores and its value


Groups = Mapping[str, Group]

FIVE = {model: Group(model, SHORT) for model in TABLE1_MODELS}
THREE = {model: Group(model, LONG) for model in TABLE3_MODELS}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The results of a run."""

    settings: Settings
    scores: pd.DataFrame
    records: dict[str, dict]
    histories: dict[str, pd.DataFrame]
    false_bone: pd.DataFrame
    surfaces: pd.DataFrame

    @property
    def best(self) -> Group:
        """Return the group of the model in Table 4."""
        model = scoring.best_model(self.scores, self.settings, self.histories)
        if model is None:
            raise NotTestable("no network was run")
        return (FIVE | THREE)[model]

    def require(self, groups: Groups) -> None:
        """Raise NotTestable unless all groups have scores and the encoders they need."""
        reasons = {"not trained": [], "random encoder, not ImageNet's": []}
        absent, random = reasons.values()
        for group in groups.values():
            encoder = self.records.get(group.model, {}).get("encoder_weights")
            if self.rows(group).empty:
                absent.append(name_of(group.model))
            elif group.encoder and encoder == "random":
                random.append(name_of(group.model))
        if absent or random:
            found = [f"{why}: {', '.join(names)}" for why, names in reasons.items() if names]
            raise NotTestable("; ".join(found))

    def untrained(self, groups: Groups) -> str:
        """Return why trainings fall short of the paper's, "" where none does.

        A training falls short if it has fewer steps, counted in the paper's batches, or if
        its network finds no bone.
        """
        trained = [group for group in groups.values() if group.horizon]
        reasons = []
        for group in trained:
            epochs = self.epochs(group)
            epochs = len(self.histories.get(group.model, range(epochs))[:epochs])
            slices = self.settings.batch_size * self.settings.steps_per_epoch
            steps = epochs * slices // Settings.batch_size
            papers_steps = getattr(Settings, group.horizon) * Settings.steps_per_epoch
            if steps < papers_steps:
                reasons.append(f"{steps:,} of {papers_steps:,} steps")
        blind = [group for group in trained if not self.rows(group)[f"n{BONE}{BONE}"].any()]
        if names := list(dict.fromkeys(name_of(group.model) for group in blind)):
            reasons.append(f"{', '.join(names)} {'finds' if len(names) == 1 else 'find'} no bone")
        return f"not trained: {'; '.join(dict.fromkeys(reasons))}" if reasons else ""

    def epochs(self, group: Group) -> int:
        """Return the epochs of a group's training, 0 without training."""
        return getattr(self.settings, group.horizon) if group.horizon else 0

    def rows(self, group: Group) -> pd.DataFrame:
        """Return the score rows of a group."""
        rows = scoring.select(self.scores, group.model, self.epochs(group))
        return rows[rows[group.part[0]] == group.part[1]] if group.part else rows

    def parts(self, group: Group, column: str, needed: str = "") -> dict[str, Group]:
        """Return the parts of a group by series or level that show bone.

        Raises NotTestable where there are fewer than two or `needed` is not among them.
        """
        parts = {
            value: group._replace(part=(column, value))
            for value, rows in self.rows(group).groupby(column, observed=True)
            if not np.isnan(scoring.pooled(rows, "iou")[-1])
        }
        if len(parts) < 2:
            raise NotTestable(f"test slices with bone come from fewer than two {column}s")
        if needed and needed not in parts:
            raise NotTestable(f"no test slice with bone is at the {column} '{needed}'")
        return parts

    @cache  # noqa: B019 - resampling takes long, an Evidence lives as long as its report
    def estimates(self, group: Group, measure: str = "iou") -> dict[str, Estimate]:
        """Return the score in % of each class, and the mean over classes, over all pixels."""
        rows = self.rows(group)
        values = scoring.named(scoring.pooled(rows, measure), self.settings)
        ends = statistics.intervals(rows, measure)
        return {name: Estimate(value, *ends[name]) for name, value in values.items()}

    @cache  # noqa: B019
    def leads(self, one: Group, other: Group, measure: str = "iou") -> dict[str, Estimate]:
        """Return the points by which `one` exceeds `other` on the same slices, as `estimates`."""
        found = statistics.difference(self.rows(one), self.rows(other), measure)
        return {name: Estimate(*ends) for name, ends in found.items()}

    def scores_of(
        self, groups: Groups, name: str = "mean", measure: str = "iou"
    ) -> dict[str, Estimate]:
        """Return one estimate of each group, from best to worst.

        Raises NotTestable where a group has none.
        """
        self.require(groups)
        scores = {key: self.estimates(group, measure)[name] for key, group in groups.items()}
        if any(np.isnan(score.value) for score in scores.values()):
            raise NotTestable("a number is missing")
        return dict(sorted(scores.items(), key=lambda item: item[1], reverse=True))

    def bone_iou(self, group: Group) -> pd.Series:
        """Return the bone IoU in % of each slice with bone, by series."""
        self.require({group.model: group})
        rows = self.rows(group)
        return pd.Series(scoring.bone_iou(rows), rows["series"]).dropna()

    def over_slices(self, group: Group, statistic: Callable) -> Estimate:
        """Return a statistic of bone IoU in % over slices; its interval resamples series."""
        values = self.bone_iou(group)
        series = [values[name].to_numpy() for name in self.parts(group, "series")]
        ends = stats.bootstrap(
            (np.arange(len(series)),),
            lambda drawn: statistic(np.concatenate([series[number] for number in drawn])),
            n_resamples=statistics.RESAMPLES, confidence_level=statistics.CONFIDENCE,
            vectorized=False, method="percentile", rng=np.random.default_rng(statistics.SEED),
        ).confidence_interval  # fmt: skip
        return Estimate(statistic(values), *ends)

    def false_bone_of(self, group: Group) -> pd.Series:
        """Return the pixels that a group wrongly calls bone, by cause."""
        pixels = self._of(self.false_bone, group).groupby("cause")["pixels"].sum()
        if pixels.empty:
            raise NotTestable("no pixel of false bone is recorded")
        return pixels

    def distances(self, group: Group) -> pd.Series:
        """Return the mean distance in mm of the bone surface in each test series."""
        table = self._of(self.surfaces, group)
        return table.loc[table["structure"] == "bone", "assd_mm"].dropna()

    def _of(self, table: pd.DataFrame, group: Group) -> pd.DataFrame:
        return table[(table["model"] == group.model) & (table["epochs"] == self.epochs(group))]

    def history(self) -> pd.DataFrame:
        """Return the curves of U-net's training, by epoch from 1."""
        if "unet" not in self.histories:
            raise NotTestable("no training of U-net is recorded")
        return self.histories["unet"].set_index("epoch")

    def costs(self, column: str, models: Iterable[str] = TABLE1_MODELS) -> dict[str, float]:
        """Return a value of the evaluation records by model."""
        costs = {model: self.records.get(model, {}).get(column) for model in models}
        if unknown := [name_of(model) for model, value in costs.items() if pd.isna(value)]:
            raise NotTestable(f"no {column.replace('_', ' ')} of {', '.join(unknown)}")
        return costs


def gather(results: ResultFolder, methods: Iterable[str], settings: Settings) -> Evidence:
    """Read the results of `methods` in a run."""
    levels = scoring.read_slices(results)[["series", "slice", "level"]]
    return Evidence(
        settings,
        scoring.read_scores(results, methods).merge(levels, "left", ["series", "slice"]),
        scoring.read_records(results, methods),
        scoring.read_histories(results, methods),
        scoring.read_false_bone(results, methods),
        scoring.read_surfaces(results, methods),
    )
