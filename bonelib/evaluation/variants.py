"""Trainings of a run: its own, and repeated ones with other settings for open questions.

Each variant of variants.toml is trained `REPLICATES` times from different random numbers, so
that a difference can be told from chance. The first, `OWN`, has the run's own settings, and its
first replicate is the run's own training. Only the longer horizon is compared.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json
from bonelib.settings import TABLE3_MODELS, Settings, replaced

REPLICATES = 3  # the fewest that give a useful standard deviation
WITHOUT_ENCODER = "unet"  # the network of Table 3 without a pretrained encoder
COLUMNS = ["model", "variant", "replicate", "epoch", "bone", "mean"]


@dataclass(frozen=True)
class Variant:
    """Settings to replace in trainings of `models`, the question they answer, why it is open."""

    name: str  # of steps and folders
    title: str
    question: str
    reason: str
    models: Sequence[str]
    overrides: dict = field(default_factory=dict)


TEXT = Path(__file__).with_suffix(".toml").read_text()
VARIANTS = [Variant(name, **row) for name, row in tomllib.loads(TEXT).items()]
OWN = VARIANTS[0]


@dataclass(frozen=True)
class Training:
    """One training of a network in a variant."""

    model: str
    variant: Variant = OWN
    replicate: int = 0

    @property
    def is_own(self) -> bool:
        """Tell whether this is the run's own training."""
        return self.variant == OWN and self.replicate == 0

    @property
    def name(self) -> str:
        """Return its name among those of a run, such as unet-no_augmentation-0."""
        return self.model if self.is_own else f"{self.model}-{self.variant.name}-{self.replicate}"

    def results(self, own: ResultFolder) -> ResultFolder:
        """Return its result folder, which lies in that of the run."""
        folder = f"{self.variant.name}-{self.replicate}"
        return own if self.is_own else ResultFolder(own.root / "ablations" / folder)

    def overrides(self, settings: Settings) -> dict:
        """Return the settings of the run that it replaces."""
        changes = self.variant.overrides | {"replicate": settings.replicate + self.replicate}
        return {} if self.is_own else changes


def starts_from_imagenet(results: ResultFolder, model: str, settings: Settings) -> bool:
    """Tell whether the run's own training of `model` starts from ImageNet weights.

    Before the training has started, this is certain only where the settings require it.
    """
    record = read_json(results.training_record(model))
    if "encoder_weights" in record:
        return record["encoder_weights"] == "imagenet"
    return settings.encoder_weights != "none" and not settings.allow_random_encoder


def ablations(results: ResultFolder, settings: Settings, models: Sequence[str]) -> list[Training]:
    """Return the trainings to compare; the run's own comes first for each network.

    Variants that change none of the run's settings are left out. So are networks with an
    encoder that did not start from ImageNet: there is nothing to compare it with.
    """
    return [
        Training(model, variant, replicate)
        for model in TABLE3_MODELS
        if model in models
        and (model == WITHOUT_ENCODER or starts_from_imagenet(results, model, settings))
        for variant in VARIANTS
        if model in variant.models
        and (variant == OWN or replaced(settings, variant.overrides) != settings)
        for replicate in range(REPLICATES)
    ]


def trainings(
    results: ResultFolder, settings: Settings, models: Sequence[str]
) -> dict[str, Training]:
    """Return all trainings of a run by name: the run's own, then the others of `ablations`."""
    every = [*map(Training, models), *ablations(results, settings, models)]
    return {training.name: training for training in every}


def read_ablations(results: ResultFolder, settings: Settings) -> pd.DataFrame:
    """Return the scores of the trainings that were evaluated, one row per training.

    `variant` is the variant's name, "bone" the pooled IoU of bone in %, "mean" that of the
    classes. Empty where only the run itself has scores.
    """
    rows = []
    for training in ablations(results, settings, TABLE3_MODELS):
        scores = scoring.read_scores(training.results(results), [training.model])
        scores = scoring.select(scores, training.model, settings.epochs_long)
        if not scores.empty:
            bone = round(scoring.pooled_bone_iou(scores), 2)
            scored = scores["epoch"].iloc[0], bone, scoring.pooled(scores, "iou")[0]
            rows.append((training.model, training.variant.name, training.replicate, *scored))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    is_own = (frame["variant"] == OWN.name) & (frame["replicate"] == 0)
    return frame.head(0) if is_own.all() else frame
