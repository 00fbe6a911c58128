"""The scores, records and curves of a run, as claims and sentences ask for them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
Estimates = dict[str, Estimate]

FIVE = {model: Group(model, SHORT) for model in TABLE1_MODELS}
THREE = {model: Group(model, LONG) for model in TABLE3_MODELS}


@dataclass(frozen=True)
class Evidence:
    """The results of a run. Each estimate is resampled once and kept."""

    settings: Settings
    scores: pd.DataFrame
    records: dict[str, dict]
    histories: dict[str, pd.DataFrame]
    false_bone: pd.DataFrame
    surfaces: pd.DataFrame
    kept: dict = field(default_factory=dict)

    @property
    def best(self) -> Group:
        """Return the group of the model in Table 4."""
        model = scoring.best_model(self.scores, self.settings, self.histories)
        if model is None:
            raise NotTestable("no network was run")
        return (FIVE | THREE)[model]

    def require(self, groups: Groups) -> None:
        """Raise NotTestable unless all groups have scores and the encoders they need."""
        absent, random = [], []
        for group in groups.values():
            encoder = self.records.get(group.model, {}).get("encoder_weights")
            if self.rows(group).empty:
                absent.append(name_of(group.model))
            elif group.encoder and encoder == "random":
                random.append(name_of(group.model))
        reasons = {"not trained": absent, "random encoder, not ImageNet's": random}
        if absent or random:
            raise NotTestable("; ".join(
                f"{reason}: {', '.join(names)}" for reason, names in reasons.items() if names
            ))  # fmt: skip

    def untrained(self, groups: Groups) -> str:
        """Return why trainings fall short of the paper's, "" where none does.

        A training falls short if it has fewer steps, counted in the paper's batches, or if
        its network finds no bone.
        """
        reasons, without_bone = [], []
        for group in groups.values():
            if not group.horizon:
                continue
            epochs = self.epochs(group)
            if group.model in self.histories:
                epochs = len(self.histories[group.model].head(epochs))
            slices = self.settings.batch_size * self.settings.steps_per_epoch
            steps = epochs * slices // Settings.batch_size
            papers_steps = getattr(Settings, group.horizon) * Settings.steps_per_epoch
            if steps < papers_steps:
                reasons.append(f"{steps:,} of {papers_steps:,} steps")
            if not self.rows(group)[f"n{BONE}{BONE}"].any():
                without_bone.append(name_of(group.model))
        if names := list(dict.fromkeys(without_bone)):
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

    def score(self, group: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return the score in % of a class, or the mean over classes, over all pixels."""
        if ("score", group, measure) not in self.kept:
            rows = self.rows(group)
            values = scoring.named(scoring.pooled(rows, measure), self.settings)
            self.kept["score", group, measure] = {
                key: Estimate(values[key], *ends)
                for key, ends in statistics.intervals(rows, measure).items()
            }
        return self.kept["score", group, measure][name]

    def scores_of(self, groups: Groups, name: str = "mean", measure: str = "iou") -> Estimates:
        """Return `score` of each group; raise NotTestable where one has none."""
        self.require(groups)
        scores = {key: self.score(group, name, measure) for key, group in groups.items()}
        if any(np.isnan(score.value) for score in scores.values()):
            raise NotTestable("a number is missing")
        return scores

    def lead(self, one: Group, other: Group, name: str = "mean", measure: str = "iou") -> Estimate:
        """Return the points by which `one` exceeds `other` on the same slices."""
        if ("lead", one, other, measure) not in self.kept:
            found = statistics.difference(self.rows(one), self.rows(other), measure)
            self.kept["lead", one, other, measure] = {
                key: Estimate(*ends) for key, ends in found.items()
            }
        return self.kept["lead", one, other, measure][name]

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
            n_resamples=statistics.RESAMPLES,
            vectorized=False,
            confidence_level=statistics.CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(statistics.SEED),
        ).confidence_interval
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
        missing = [name_of(model) for model in models if model not in self.records]
        if missing:
            raise NotTestable(f"not run: {', '.join(missing)}")
        costs = {model: self.records[model][column] for model in models}
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
