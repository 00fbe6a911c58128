"""Trainings of a run: its own, and repeated ones of U-net with other settings.

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
from bonelib.settings import Settings, replaced

REPLICATES = 3  # the fewest that give a useful standard deviation
MODEL = "unet"  # of Table 3 without a pretrained encoder: its trainings differ in nothing else
COLUMNS = ["variant", "replicate", "epoch", "bone", "mean"]


@dataclass(frozen=True)
class Variant:
    """Settings to replace in a training, the question they answer, why it is open."""

    name: str  # of steps and folders
    title: str
    question: str
    reason: str
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


def ablations(settings: Settings) -> list[Training]:
    """Return the trainings to compare; the run's own comes first.

    Variants that change none of the run's settings are left out.
    """
    return [
        Training(MODEL, variant, replicate)
        for variant in VARIANTS
        if variant == OWN or replaced(settings, variant.overrides) != settings
        for replicate in range(REPLICATES)
    ]


def trainings(settings: Settings, models: Sequence[str]) -> dict[str, Training]:
    """Return all trainings of a run by name: the run's own, then the others of `ablations`."""
    others = ablations(settings) if MODEL in models else []
    return {training.name: training for training in (*map(Training, models), *others)}


def read_ablations(results: ResultFolder, settings: Settings) -> pd.DataFrame:
    """Return the scores of the trainings that were evaluated, one row per training.

    `variant` is the variant's name, "bone" the pooled IoU of bone in %, "mean" that of the
    classes. Empty where only the run itself has scores.
    """
    rows = []
    for training in ablations(settings):
        scores = scoring.read_scores(training.results(results), [MODEL])
        scores = scoring.select(scores, MODEL, settings.epochs_long)
        if not scores.empty:
            bone = round(scoring.pooled_bone_iou(scores), 2)
            scored = scores["epoch"].iloc[0], bone, scoring.pooled(scores, "iou")[0]
            rows.append((training.variant.name, training.replicate, *scored))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.head(0) if set(frame["variant"]) <= {OWN.name} and len(frame) < 2 else frame
