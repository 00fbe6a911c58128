"""Trainings that settle what the paper leaves open: variants, each some times, and their scores.

A variant replaces settings of the run. It is trained as often as the run's own settings are,
from other random numbers each time, so that a difference can be told from chance. The run's own
training counts as one of its replicates. Only the longer horizon is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.provenance import read_json
from bonelib.settings import TABLE3_MODELS, Settings, replaced

REPLICATES = 3  # the fewest that have a spread worth the name

WITHOUT_ENCODER = "unet"  # the network of Table 3 that starts from random weights in any case


@dataclass(frozen=True)
class Variant:
    """Settings to replace, which question that answers, and why the question is open."""

    name: str  # in the names of steps and folders
    title: str
    question: str
    reason: str
    overrides: dict = field(default_factory=dict)
    models: tuple[str, ...] = (WITHOUT_ENCODER,)


OWN = Variant(
    "own",
    "as in Table 3",
    "How far do trainings differ that differ in nothing but chance?",
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
        "Which learning rate can the paper have meant by Adadelta?",
        "the paper names none; the default was 1.0 in its Keras and is 0.001 in today's",
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
        "the paper says that backbones help, not whether their depth or their weights do",
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
        """Tell whether it is the run's own, which is not repeated."""
        return self.variant == OWN and self.replicate == 0

    def results(self, own: ResultFolder) -> ResultFolder:
        """Return the folder of its results in those of the run."""
        return own if self.is_own else ResultFolder(own.root / "ablations" / self.name)

    def overrides(self, settings: Settings) -> dict:
        """Return what it replaces of the run's `settings`."""
        return self.variant.overrides | {"replicate": settings.replicate + self.replicate}


def starts_from_imagenet(results: ResultFolder, model: str, settings: Settings) -> bool:
    """Tell whether the run's own training of `model` started, or is bound to, from ImageNet.

    Before it has started that is certain only where settings allow nothing else.
    """
    record = read_json(results.training_record(model))
    if "encoder_weights" in record:
        return record["encoder_weights"] == "imagenet"
    return settings.encoder_weights != "none" and not settings.allow_random_encoder


def trainings(results: ResultFolder, settings: Settings, models: Sequence[str]) -> list[Training]:
    """Return the trainings to compare, the run's own first among each network's.

    A variant that changes none of the run's settings is left out, and so is a network whose
    encoder did not start from ImageNet, since there is nothing to compare it with.
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
    """Return the training of `model` that replaces these settings of the run's.

    Raises ValueError, which lists the variants, where none does.
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
    """Return the scores of the run's own trainings and of the variants', a row each that has any.

    Columns: model, variant (name), replicate, resolution, epoch, and in % over all test pixels
    the IoU of all bone, "bone", and the mean over the classes, "mean". Without a variant's
    scores there is nothing to compare, and no row.
    """
    rows = [
        {
            "model": training.model,
            "variant": training.variant.name,
            "replicate": training.replicate,
            "resolution": resolution,
            "epoch": part["epoch"].iloc[0],
            **_scores(part),
        }
        for training in trainings(results, settings, TABLE3_MODELS)
        for resolution, part in _parts(training, results, settings).items()
    ]
    columns = ["model", "variant", "replicate", "resolution", "epoch", "bone", "mean"]
    frame = pd.DataFrame(rows, columns=columns)
    is_own = (frame["variant"] == OWN.name) & (frame["replicate"] == 0)
    return frame if (~is_own).any() else frame.head(0)


def _parts(training: Training, results: ResultFolder, settings: Settings) -> dict:
    """Return the score rows of the longer horizon by resolution."""
    scores = scoring.read_scores(training.results(results), [training.model])
    return dict(list(scores[scores["epochs"] == settings.epochs_long].groupby("resolution")))


def _scores(rows: pd.DataFrame) -> dict[str, float]:
    bone = round(scoring.pooled_bone_iou(rows), 2)
    return {"bone": bone, "mean": scoring.pooled(rows, "iou")[0]}
