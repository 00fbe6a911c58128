"""Results of a run -> numbers with intervals, their verdicts and words, as claims ask for them."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bonelib.evaluation import scoring, statistics
from bonelib.paths import ResultFolder
from bonelib.published import METHOD_NAMES
from bonelib.settings import BONE, TABLE1_MODELS, TABLE3_MODELS, Settings

SHORT, LONG = "epochs", "epochs_long"  # the settings with the epochs of Tables 1 and 3

HOLDS = "holds"
UNCERTAIN = "holds within uncertainty"
FAILS = "does not hold"
UNTESTED = "not testable here"
VERDICTS = (HOLDS, UNCERTAIN, FAILS, UNTESTED)
LAST_DIGIT = 0.01  # of a printed score


class NotTestable(Exception):
    """The run lacks a number that a claim needs; the message names it."""


class Estimate(NamedTuple):
    """A number with its 95 % interval; all three are equal where there is no interval."""

    value: float
    low: float
    high: float

    def __sub__(self, other: "Estimate | float") -> "Estimate":
        """Return the difference, for two estimates with the widest interval that theirs allow."""
        value, low, high = other if isinstance(other, Estimate) else (other,) * 3
        return Estimate(self.value - value, self.low - high, self.high - low)

    def __str__(self) -> str:
        ends = "" if self.low == self.high else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{ends}".replace("-", "\N{MINUS SIGN}")


def exact(value: float) -> Estimate:
    """Return a number without an interval."""
    return Estimate(value, value, value)


def same(ours: Estimate, paper: float) -> Estimate:
    """Return a margin that says whether our number equals the paper's.

    Both are rounded, so their last digits may differ by one. Other numbers are uncertain
    as long as our interval contains the paper's.
    """
    if abs(ours.value - paper) < 1.5 * LAST_DIGIT:
        return exact(math.inf)
    contains = ours.low <= paper <= ours.high
    return Estimate(math.inf, -math.inf, math.inf) if contains else exact(-math.inf)


def judge(margins: Collection[Estimate]) -> str:
    """Return the verdict from margins: distances of our numbers on the claimed side of a limit.

    A claim holds if all intervals lie above 0, fails if one lies below, and holds within
    uncertainty otherwise. It is not testable without numbers.
    """
    if not margins or any(math.isnan(end) for margin in margins for end in margin):
        return UNTESTED
    if any(margin.high <= 0 for margin in margins):
        return FAILS
    return HOLDS if all(margin.low > 0 for margin in margins) else UNCERTAIN


def name_of(key: str) -> str:
    """Return the printed name of a method; other keys stay as they are."""
    return METHOD_NAMES.get(key, key)


def listed(values: Mapping[str, float | Estimate], unit: str = "") -> str:
    """Return named values in words."""
    form = {int: "{:,}", Estimate: "{}"}
    return ", ".join(
        f"{name_of(key)} {form.get(type(value), '{:.2f}').format(value)}{unit}"
        for key, value in values.items()
    )


def extreme(values: Mapping[str, float | Estimate], choose: Callable = min) -> tuple:
    """Return the name and value of the lowest of `values`, or of the highest by `max`."""
    name = choose(values, key=values.get)
    return name, values[name]


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
        for group in groups.values():
            encoder = self.records.get(group.model, {}).get("encoder_weights")
            if self.rows(group).empty:
                reasons["not trained"].append(name_of(group.model))
            elif group.encoder and encoder == "random":
                reasons["random encoder, not ImageNet's"].append(name_of(group.model))
        if found := [f"{why}: {', '.join(names)}" for why, names in reasons.items() if names]:
            raise NotTestable("; ".join(found))

    def untrained(self, groups: Groups) -> str:
        """Return why trainings fall short of the paper's, "" where none does.

        A training falls short if it has fewer steps, counted in the paper's batches, or if
        its network finds no bone.
        """
        reasons, blind = [], []
        slices = self.settings.batch_size * self.settings.steps_per_epoch
        for group in groups.values():
            if not group.horizon:
                continue
            epochs = self.epochs(group)
            epochs = len(self.histories.get(group.model, range(epochs))[:epochs])
            steps = epochs * slices // Settings.batch_size
            papers_steps = getattr(Settings, group.horizon) * Settings.steps_per_epoch
            if steps < papers_steps:
                reasons.append(f"{steps:,} of {papers_steps:,} steps")
            if not self.rows(group)[f"n{BONE}{BONE}"].any():
                blind.append(name_of(group.model))
        if blind:
            reasons.append(f"{', '.join(blind)} {'finds' if len(blind) == 1 else 'find'} no bone")
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
        values = scoring.named(scoring.pooled(rows, measure))
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
        """Return the mean distance in mm of the bone surface in each test series, by its state.

        A series whose bone was "missed" counts with its diagonal.
        """
        table = self._of(self.surfaces, group)
        return table[table["structure"] == "bone"].set_index("state")["assd_mm"].dropna()

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
        scoring.read_scores(results, methods, "false_bone"),
        scoring.read_scores(results, methods, "surfaces"),
    )
