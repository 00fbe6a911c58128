"""Repeated trainings with other settings: what the paper leaves open.

A variant replaces settings of the run. Each variant, and the run's own settings, are trained
`REPLICATES` times from different random numbers, so that a difference can be told from chance.
The run's own training is one of its replicates. Only the longer horizon is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json
from bonelib.settings import TABLE3_MODELS, Settings, replaced

REPLICATES = 3  # the fewest that give a useful standard deviation

WITHOUT_ENCODER = "unet"  # the network of Table 3 without a pretrained encoder


@dataclass(frozen=True)
class Variant:
    """Settings to replace, the question they answer, and why the question is open."""

    name: str  # of steps and folders
    title: str
    question: str
    reason: str
    overrides: dict = field(default_factory=dict)
    models: tuple[str, ...] = (WITHOUT_ENCODER,)


OWN = Variant(
    "own",
    "as in Table 3",
    "How much do trainings with the same settings differ?",
    "the paper trained each network once",
    models=TABLE3_MODELS,
)

VARIANTS = (
    OWN,
    Variant(
        "relu_decoder",
        "ReLU in the decoder",
        "Does it matter that the decoder's convolutions were linear?",
        "the library gained ReLU two months after the paper took its code from it",
        {"decoder_activation": "relu"},
    ),
    Variant(
        "no_augmentation",
        "no augmentation",
        "What does augmentation gain?",
        "the paper augments heavily and shows no training without",
        {"augment": "none"},
    ),
    Variant(
        "small_learning_rate",
        "learning rate 0.001",
        "Which learning rate did the paper mean by Adadelta?",
        "the paper names none; the default was 1.0 in its Keras and is 0.001 in Keras 3",
        {"learning_rate": 0.001},
    ),
    Variant(
        "batch_norm_statistics",
        "recomputed batch-norm statistics",
        "What do running averages of batch normalisation cost?",
        "the paper's Keras kept running averages, which lag behind the weights",
        {"batch_norm_slices": 64},
    ),
    Variant(
        "random_encoder",
        "random encoder",
        "What do weights from ImageNet gain?",
        "the paper says that backbones help, not whether by their depth or by their weights",
        {"encoder_weights": "none"},
        tuple(model for model in TABLE3_MODELS if model != WITHOUT_ENCODER),
    ),
)


@dataclass(frozen=True)
class Training:
    """One training of a network in a variant."""

    variant: Variant
    model: str
    replicate: int

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.variant.name}-{self.replicate}"

    @property
    def is_own(self) -> bool:
        """Tell whether this is the run's own training."""
        return self.variant == OWN and self.replicate == 0

    def results(self, own: ResultFolder) -> ResultFolder:
        """Return its result folder, which lies in that of the run."""
        return own if self.is_own else ResultFolder(own.root / "ablations" / self.name)

    def overrides(self, settings: Settings) -> dict:
        """Return the settings of the run that it replaces."""
        return self.variant.overrides | {"replicate": settings.replicate + self.replicate}


def starts_from_imagenet(results: ResultFolder, model: str, settings: Settings) -> bool:
    """Tell whether the run's own training of `model` starts from ImageNet weights.

    Before the training has started, this is certain only where the settings require it.
    """
    record = read_json(results.training_record(model))
    if "encoder_weights" in record:
        return record["encoder_weights"] == "imagenet"
    return settings.encoder_weights != "none" and not settings.allow_random_encoder


def trainings(results: ResultFolder, settings: Settings, models: Sequence[str]) -> list[Training]:
    """Return the trainings to compare; the run's own comes first for each network.

    Variants that change none of the run's settings are left out. So are networks with an
    encoder that did not start from ImageNet: there is nothing to compare it with.
    """
    compared = [
        model
        for model in TABLE3_MODELS
        if model in models
        and (model == WITHOUT_ENCODER or starts_from_imagenet(results, model, settings))
    ]
    return [
        Training(variant, model, replicate)
        for model in compared
        for variant in VARIANTS
        if model in variant.models
        and (variant == OWN or replaced(settings, variant.overrides) != settings)
        for replicate in range(REPLICATES)
    ]


def find(model: str, overrides: dict, settings: Settings) -> Training:
    """Return the training of `model` whose variant replaces these settings of the run.

    Raises ValueError, which lists the variants, where there is none.
    """
    replicate = replaced(settings, overrides).replicate - settings.replicate
    wanted = replaced(settings, overrides | {"replicate": settings.replicate})
    for variant in VARIANTS:
        if replaced(settings, variant.overrides) == wanted and replicate >= 0:
            return Training(variant, model, replicate)
    known = [f"{name}={value}" for one in VARIANTS for name, value in one.overrides.items()]
    raise ValueError(
        f"no variant replaces {overrides}: choose one of {', '.join(known)}, or replicate=1, 2, …"
    )


def read_ablations(results: ResultFolder, settings: Settings) -> pd.DataFrame:
    """Return the scores of all trainings that have any, one row per training and resolution.

    Columns: model, variant (name), replicate, resolution, epoch; "bone" is the pooled IoU of
    all bone in %, "mean" that of the classes. Empty where only the run itself has scores.
    """
    rows = []
    for training in trainings(results, settings, TABLE3_MODELS):
        scores = scoring.read_scores(training.results(results), [training.model])
        scores = scores[scores["epochs"] == settings.epochs_long]
        for resolution, part in scores.groupby("resolution"):
            rows.append(
                {
                    "model": training.model,
                    "variant": training.variant.name,
                    "replicate": training.replicate,
                    "resolution": resolution,
                    "epoch": part["epoch"].iloc[0],
                    "bone": round(scoring.pooled_bone_iou(part), 2),
                    "mean": scoring.pooled(part, "iou")[0],
                }
            )
    columns = ["model", "variant", "replicate", "resolution", "epoch", "bone", "mean"]
    frame = pd.DataFrame(rows, columns=columns)
    is_own = (frame["variant"] == OWN.name) & (frame["replicate"] == 0)
    return frame.head(0) if is_own.all() else frame
