"""Scores, records and curves of a run, as the claims ask for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bonelib.evaluation import scoring, statistics
from bonelib.paths import ResultFolder
from bonelib.replication.verdicts import NAMES, Estimate
from bonelib.settings import BASELINE, BONE, TABLE1_MODELS, TABLE3_MODELS, Settings


class NotTestable(Exception):
    """A claim lacks something that its test needs; the message names it."""


class Group(NamedTuple):
    """The test slices of a method after a training: all, or those of one series or level."""

    model: str
    epochs: int
    papers_epochs: int = 0  # of a method that needs no training
    series: str = ""
    level: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a run left behind. Each estimate is resampled once and kept."""

    settings: Settings
    scores: pd.DataFrame
    records: dict[str, dict]
    histories: dict[str, pd.DataFrame]
    slices: pd.DataFrame
    false_bone: pd.DataFrame
    surfaces: pd.DataFrame
    kept: dict = field(default_factory=dict)

    # Which methods

    def short(self, *models: str) -> dict[str, Group]:
        """Return the groups of `models`, or all, after Table 1's training."""
        return self._complete(self._table1(models or TABLE1_MODELS))

    def long(self, *models: str) -> dict[str, Group]:
        """Return the groups of `models`, or all, after Table 3's training."""
        return self._complete(self._table3(models or TABLE3_MODELS))

    def imagenet(self, *models: str) -> dict[str, Group]:
        """Return `long(*models)`; no encoder of theirs may be random."""
        random = [
            NAMES[model]
            for model in models or TABLE3_MODELS
            if self.records.get(model, {}).get("encoder_weights") == "random"
        ]
        if random:
            raise NotTestable(f"random encoder, not ImageNet's: {', '.join(random)}")
        return self.long(*models)

    def baseline(self) -> dict[str, Group]:
        """Return the group of the baseline."""
        return self._complete([Group(BASELINE, 0)])

    def networks(self) -> dict[str, Group]:
        """Return every network that was run, after each training, by its printed name."""
        groups = {
            f"{NAMES[group.model]}, {group.epochs} epochs": group
            for group in (*self._table1(TABLE1_MODELS), *self._table3(TABLE3_MODELS))
            if len(self.rows(group))
        }
        if not groups:
            raise NotTestable("no network was run")
        return groups

    def best(self) -> dict[str, Group]:
        """Return the group of the model that Table 4 shows."""
        try:
            model, _ = scoring.best_model(self.scores, self.settings, self.histories)
        except ValueError as error:
            raise NotTestable("no network was run") from error
        epochs = int(scoring.select(self.scores, model)["epochs"].iloc[0])
        return {model: Group(model, epochs, Settings.epochs_long)}

    def untrained(self, groups: Iterable[Group]) -> str:
        """Say how far training fell short of the paper's and who finds no bone; "" if neither.

        Steps are counted in the paper's batches.
        """
        reasons, without_bone = [], []
        for group in groups:
            slices = self.settings.batch_size * self.settings.steps_per_epoch
            steps = self._epochs_run(group) * slices // Settings.batch_size
            papers_steps = group.papers_epochs * Settings.steps_per_epoch
            if steps < papers_steps:
                reasons.append(f"{steps:,} of {papers_steps:,} steps")
            if group.model != BASELINE and not self.rows(group)[f"n{BONE}{BONE}"].any():
                without_bone.append(NAMES[group.model])
        if names := list(dict.fromkeys(without_bone)):
            reasons.append(f"{', '.join(names)} {'finds' if len(names) == 1 else 'find'} no bone")
        return f"not trained: {'; '.join(dict.fromkeys(reasons))}" if reasons else ""

    def of_each_series(self, group: Group) -> dict[str, Group]:
        """Return the group's part of each test series with bone."""
        series = sorted(set(self.rows(group)["series"]))
        parts = {name: group._replace(series=name) for name in series}
        return {
            name: part
            for name, part in parts.items()
            if not np.isnan(scoring.pooled(self.rows(part), "iou")[-1])
        }

    def of_each_level(self, group: Group) -> dict[str, Group]:
        """Return the group's part of each level that has bone, from feet to head."""
        if self.slices.empty:
            raise NotTestable("the levels of the test slices are not recorded")
        order = self.slices.groupby("level", observed=True)["position_mm"].median().sort_values()
        parts = {str(level): group._replace(level=str(level)) for level in order.index}
        return {
            level: part
            for level, part in parts.items()
            if len(self.rows(part)) and not np.isnan(scoring.pooled(self.rows(part), "iou")[-1])
        }

    def _table1(self, models: Iterable[str]) -> list[Group]:
        return [Group(model, self.settings.epochs, Settings.epochs) for model in models]

    def _table3(self, models: Iterable[str]) -> list[Group]:
        return [Group(model, self.settings.epochs_long, Settings.epochs_long) for model in models]

    def _complete(self, groups: list[Group]) -> dict[str, Group]:
        """Return `groups` by model; each must have a score of every class."""
        missing = [
            NAMES[group.model]
            for group in groups
            if np.isnan(scoring.pooled(self.rows(group), "iou")[0])
        ]
        if missing:
            raise NotTestable(f"no complete score: {', '.join(missing)}")
        return {group.model: group for group in groups}

    def _epochs_run(self, group: Group) -> int:
        history = self.histories.get(group.model)
        return group.epochs if history is None else len(history.head(group.epochs))

    # What they scored

    def rows(self, group: Group) -> pd.DataFrame:
        """Return the score rows of a group."""
        rows = scoring.select(self.scores, group.model, group.epochs)
        if group.series:
            rows = rows[rows["series"] == group.series]
        if group.level:
            level = self.slices[self.slices["level"] == group.level][["series", "slice"]]
            rows = rows.merge(level, on=["series", "slice"])
        return rows

    def false_bone_of(self, group: Group) -> pd.Series:
        """Return the pixels that a group wrongly calls bone, by cause."""
        pixels = _of(self.false_bone, group).groupby("cause")["pixels"].sum()
        if pixels.empty:
            raise NotTestable("no pixel of false bone is recorded")
        return pixels

    def distances(self, group: Group) -> pd.Series:
        """Return the mean distance in mm of each test series' surface of bone, where it has one."""
        table = _of(self.surfaces, group)
        return table.loc[table["structure"] == "bone", "assd_mm"].dropna()

    def score(self, group: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return a score in % over all pixels of a group: the mean's or a class's."""
        if ("score", group, measure) not in self.kept:
            rows = self.rows(group)
            values = scoring.named(scoring.pooled(rows, measure), self.settings)
            ends = statistics.intervals(rows, measure)
            self.kept["score", group, measure] = {
                key: Estimate(value, *ends[key]) for key, value in values.items()
            }
        return self.kept["score", group, measure][name]

    def lead(self, one: Group, other: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return by how many points `one` is above `other` on the same slices."""
        if ("lead", one, other, measure) not in self.kept:
            found = statistics.difference(self.rows(one), self.rows(other), measure)
            self.kept["lead", one, other, measure] = {
                key: Estimate(*ends) for key, ends in found.items()
            }
        return self.kept["lead", one, other, measure][name]

    def mean_of_slices(self, group: Group) -> Estimate:
        """Return the mean over slices of their IoU of bone in %; series are resampled."""
        rows = self.rows(group)
        values = pd.Series(scoring.bone_iou(rows)).groupby(rows["series"].to_numpy())
        totals = values.agg(["sum", "count"]).to_numpy()

        def mean(drawn: np.ndarray, axis: int) -> np.ndarray:
            total, count = (column[drawn].sum(axis=axis) for column in totals.T)
            return total / count

        series = np.arange(len(totals))
        if len(series) < 2:
            return Estimate(mean(series, 0), np.nan, np.nan)
        ends = stats.bootstrap(
            (series,),
            mean,
            n_resamples=statistics.RESAMPLES,
            confidence_level=statistics.CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(statistics.SEED),
        ).confidence_interval
        return Estimate(mean(series, 0), *ends)

    def history(self, model: str = "unet") -> pd.DataFrame:
        """Return the curves of a training, by epoch from 1."""
        if model not in self.histories:
            raise NotTestable(f"no training of {NAMES[model]} is recorded")
        return self.histories[model].set_index("epoch")

    def costs(self, name: str, models: Iterable[str] = TABLE1_MODELS) -> dict[str, float]:
        """Return a value of the evaluation records by model."""
        missing = [NAMES[model] for model in models if model not in self.records]
        if missing:
            raise NotTestable(f"not run: {', '.join(missing)}")
        return {model: self.records[model][name] for model in models}


def _of(table: pd.DataFrame, group: Group) -> pd.DataFrame:
    return table[(table["model"] == group.model) & (table["epochs"] == group.epochs)]


def gather(results: ResultFolder, methods: Iterable[str], settings: Settings) -> Evidence:
    """Read what a run left behind of `methods`."""
    return Evidence(
        settings,
        scoring.read_scores(results, methods),
        scoring.read_records(results, methods),
        scoring.read_histories(results, methods),
        scoring.read_slices(results),
        scoring.read_false_bone(results, methods),
        scoring.read_surfaces(results, methods),
    )
