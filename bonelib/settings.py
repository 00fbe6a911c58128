"""Every number of the paper, once, with its unit and its reason; profiles.toml has the profiles.

Section and table numbers are those of Krawczyk & Starzyński (2021).
"""

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from bonelib.errors import unknown

CLASS_NAMES = ("background", "patient", "bone")  # section 4: classes 0, 1, 2
BACKGROUND, PATIENT, BONE = range(3)
NUM_CLASSES = len(CLASS_NAMES)
IGNORE = 255  # label of a pixel that neither trains a network nor counts in a score

AIR_HU = -1000.0  # fills what a scan does not cover

RESEARCH_ONLY = "for research, not for diagnosis or treatment"

SPLITS = ("train", "validation", "test")

# Section 4: 987 slices of ten series to train on, one series of 97 of these for validation, and
# 730 slices of five other series to test. The paper does not print the sizes of the nine
# training series; these follow from the body regions that `phantom/visits.yaml` plans.
PAPER_SPLIT_SLICES = {
    "train": (190, 120, 110, 100, 90, 80, 75, 65, 60),
    "validation": (97,),
    "test": (85, 152, 124, 143, 226),
}
PAPER_SERIES = tuple(
    (f"{split}{number:02d}", split, slices)
    for split, counts in PAPER_SPLIT_SLICES.items()
    for number, slices in enumerate(counts, 1)
)
PAPER_SLICE_DISTANCE_MM = 2.5  # section 4

TABLE1_MODELS = ("fcn8", "fcn32", "pspnet", "unet", "segnet")
TABLE3_MODELS = ("unet", "vgg_unet", "resnet50_unet")
MODEL_NAMES = (*TABLE1_MODELS, "vgg_unet", "resnet50_unet")
SHIPPED_MODEL = "unet25d"  # the network of the shipped weights; not one of the paper's
NOT_SHIPPED = f"no weights are shipped for '{{}}': '{SHIPPED_MODEL}' replaced those of 'unet'"
SIZE_STEP = 32  # an image's sides are multiples of it: five poolings halve them
BASELINE = "threshold"  # a classical segmentation, which the paper does not have

# Settings with a closed list of values.
CHOICES = {
    "augment": ("imgaug", "none"),
    "optimizer": ("adadelta", "adam"),
}
# Settings of how a run is carried out, which do not change its results.
NOT_IN_RESULT = {"profile", "loader_workers", "parallel_notebooks", "allow_random_encoder"}


@dataclass(frozen=True)
class Settings:
    """All settings of a run; the defaults are the paper's protocol."""

    profile: str = "paper"
    seed: int = 2021
    replicate: int = 0  # number of a training that differs from others in its random numbers only

    # Data (section 4)
    image_size: int = 512  # pixels
    field_of_view_mm: float = 800.0  # 512 pixels of 1.5625 mm
    window_low_hu: float = -200.0  # grey level 0; the paper names no window
    window_high_hu: float = 600.0  # grey level 255; keeps fat, muscle and spongy bone apart
    phantom_matrix: int = 512  # pixels of the phantom's own slices
    phantom_slice_distance_mm: float = PAPER_SLICE_DISTANCE_MM
    neighbour_mm: float = 0.0  # shipped network: distance of the planes in the outer channels

    # Augmentation (section 4)
    augment: str = "imgaug"  # or "none"

    # Training (sections 5.1 and 5.4)
    batch_size: int = 2  # the library's default; the paper names none
    steps_per_epoch: int = 512
    epochs: int = 10  # Table 1
    epochs_long: int = 30  # Table 3
    optimizer: str = "adadelta"  # or "adam", whose learning rate falls to 0 along a cosine
    learning_rate: float = 1.0  # what "adadelta" meant in Keras 2.3.1; Keras 3 defaults to 0.001
    rho: float = 0.95
    epsilon: float = 1e-7
    batch_norm_slices: int = 0  # training slices for batch-norm statistics; 0: running averages
    weight_average: float = 0.0  # momentum of an average of weights that ends each epoch; 0: none
    decoder_activation: str = "linear"  # of U-net in the library of January 2020
    encoder_weights: str = "imagenet"  # "imagenet", "none" or a folder of Keras weight files
    allow_random_encoder: bool = False  # if ImageNet weights are unavailable
    precision: str = "auto"  # "auto": the fastest; or a Keras dtype policy

    # This machine
    loader_workers: int = -1  # processes that augment; -1: all cores but one
    parallel_notebooks: int = 1  # a GPU serves one training at a time

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(unknown(name, getattr(self, name), known))

    @property
    def pixel_spacing_mm(self) -> float:
        """Return the in-plane spacing of a prepared slice in millimetres."""
        return self.field_of_view_mm / self.image_size

    @property
    def training_seed(self) -> int:
        """Return the seed of weights, batches and augmentation; the data depend on `seed`."""
        return self.seed + self.replicate

    @property
    def window_hu(self) -> tuple[float, float]:
        """Return the HU of grey levels 0 and 255."""
        return self.window_low_hu, self.window_high_hu

    @property
    def decisive(self) -> dict:
        """Return the settings that change the results of a run."""
        return {name: value for name, value in vars(self).items() if name not in NOT_IN_RESULT}

    def horizons(self, method: str) -> tuple[int, ...]:
        """Return the numbers of epochs after which a method is scored; the baseline has 0.

        One training serves both tables: U-net's first epochs are Table 1's training, all of
        them Table 3's, since neither batches nor optimizer depend on the last epoch.
        """
        if method == BASELINE:
            return (0,)
        is_long = method in TABLE3_MODELS or method not in TABLE1_MODELS  # or the shipped one
        counts = {self.epochs} if method in TABLE1_MODELS else set()
        return tuple(sorted(counts | ({self.epochs_long} if is_long else set())))


TABLES = tomllib.loads(Path(__file__).with_name("profiles.toml").read_text())
DEVIATIONS = TABLES.pop("reasons")  # the reason of each setting in which a profile deviates
PROFILES = {name: Settings(profile=name, **changes) for name, changes in TABLES.items()}
PRETRAINING = PROFILES.pop("pretraining")


def get_settings(profile: str, overrides: dict | None = None) -> Settings:
    """Return the settings of `profile` with `overrides` (field name to value) applied.

    Raises ValueError, which lists the valid names, for an unknown profile or field, and
    for a value that is not of the field's type.
    """
    if profile not in PROFILES:
        raise ValueError(unknown("profile", profile, PROFILES))
    return replaced(PROFILES[profile], overrides or {})


def replaced(settings: Settings, overrides: dict) -> Settings:
    """Return `settings` with `overrides` applied; raises ValueError as `get_settings` does."""
    types = {field.name: field.type for field in fields(Settings) if field.name != "profile"}
    for name in overrides:
        if name not in types:
            raise ValueError(unknown("setting", name, types))
    cast = {name: _cast(name, value, types[name]) for name, value in overrides.items()}
    return replace(settings, **cast)


def _cast(name: str, value, kind: type):
    try:
        return {"true": True, "false": False}[str(value).lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        message = f"setting {name}={value!r} is not of type {kind.__name__}"
        raise ValueError(message) from None


def parse_overrides(texts: Iterable[str]) -> dict[str, str]:
    """Return SETTING=VALUE texts as a dictionary; raises ValueError for any other text."""
    malformed = [text for text in texts if "=" not in text]
    if malformed:
        raise ValueError(f"'{malformed[0]}' is not SETTING=VALUE")
    return dict(text.split("=", 1) for text in texts)


def deviations(settings: Settings) -> list[dict]:
    """Return a dict of setting, ours, paper and reason for each deviation from the protocol."""
    paper = asdict(PROFILES["paper"])
    return [
        {"setting": name, "ours": value, "paper": paper[name],
         "reason": DEVIATIONS.get(name, "chosen for this run")}
        for name, value in asdict(settings).items()
        if value != paper[name] and name != "profile"
    ]  # fmt: skip
