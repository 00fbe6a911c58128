"""Scores, records and curves of a run, as the claims ask for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bonelib import published, scoring, uncertainty
from bonelib.paths import ResultFolder
from bonelib.replication.verdicts import Estimate
from bonelib.settings import BASELINE, TABLE1_MODELS, TABLE3_MODELS, Settings

NAMES = published.METHOD_NAMES


class NotTestable(Exception):
    """What a claim needs is not there; the message says what."""


class Group(NamedTuple):
    """Which test slices of which method: all, or those of one series or level."""

    model: str
    epochs: int
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

    def short(self, models: Iterable[str] = TABLE1_MODELS) -> dict[str, Group]:
        """Return the groups of `models` after Table 1's training; all must have every class."""
        return self._complete({model: self.settings.epochs for model in models})

    def long(self, models: Iterable[str] = TABLE3_MODELS) -> dict[str, Group]:
        """Return the groups of `models` after Table 3's training; all must have every class."""
        return self._complete({model: self.settings.epochs_long for model in models})

    def imagenet(self, models: Iterable[str]) -> dict[str, Group]:
        """Return `long(models)`, whose encoders, where they can, must come from ImageNet."""
        random = [
            NAMES[model]
            for model in models
            if self.records.get(model, {}).get("encoder_weights") == "random"
        ]
        if random:
            raise NotTestable(f"random encoder, not ImageNet's: {', '.join(random)}")
        return self.long(models)

    def baseline(self) -> Group:
        """Return the group of the baseline."""
        return self._complete({BASELINE: 0})[BASELINE]

    def networks(self) -> dict[str, Group]:
        """Return every network that was run, at each horizon, by its printed name."""
        horizons = (
            (TABLE1_MODELS, self.settings.epochs),
            (TABLE3_MODELS, self.settings.epochs_long),
        )
        groups = {
            f"{NAMES[model]}, {epochs} epochs": Group(model, epochs)
            for models, epochs in horizons
            for model in models
            if len(self.rows(Group(model, epochs)))
        }
        if not groups:
            raise NotTestable("no network was run")
        return groups

    def best(self) -> Group:
        """Return the group of the model that Table 4 shows."""
        try:
            model, _ = scoring.best_model(self.scores, self.settings, self.histories)
        except ValueError as error:
            raise NotTestable("no network was run") from error
        return Group(model, int(scoring.select(self.scores, model)["epochs"].iloc[0]))

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

    def _complete(self, epochs: dict[str, int]) -> dict[str, Group]:
        groups = {model: Group(model, horizon) for model, horizon in epochs.items()}
        missing = [
            NAMES[model]
            for model, group in groups.items()
            if np.isnan(scoring.pooled(self.rows(group), "iou")[0])
        ]
        if missing:
            raise NotTestable(f"no complete score: {', '.join(missing)}")
        return groups

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

    def score(self, group: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return a score in % over all pixels of a group: the mean's or a class's."""
        if ("score", group, measure) not in self.kept:
            rows = self.rows(group)
            values = scoring.named(scoring.pooled(rows, measure), self.settings)
            ends = uncertainty.intervals(rows, measure)
            self.kept["score", group, measure] = {
                key: Estimate(value, *ends[key]) for key, value in values.items()
            }
        return self.kept["score", group, measure][name]

    def lead(self, one: Group, other: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return by how many points `one` is above `other` on the same slices."""
        if ("lead", one, other, measure) not in self.kept:
            found = uncertainty.difference(self.rows(one), self.rows(other), measure)
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
            n_resamples=uncertainty.RESAMPLES,
            confidence_level=uncertainty.CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(uncertainty.SEED),
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
