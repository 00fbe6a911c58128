"""Every number of the paper and of each profile, once, with its unit and its reason.

Section and table numbers are those of Krawczyk & Starzyński (2021).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

CLASS_NAMES = ("background", "patient", "bone")  # section 4: classes 0, 1, 2
BACKGROUND, PATIENT, BONE = range(3)  # in other schemes, classes of bone go on from BONE
NUM_CLASSES = len(CLASS_NAMES)
IGNORE = 255  # label of a pixel that neither trains a network nor counts in a score

# The classes of bone in each scheme, and which bones each takes in, by words of their names as
# `structures` reads them; the first class that fits wins. Bone of no class is IGNORE: called
# patient or another bone it would teach what is wrong. So is a bone whose name may mean several
# classes, such as "pelvis" or "spine".
CLASS_SCHEMES = {
    "bone": {"bone": ("*",)},
    "bones": {  # the next step that the paper names
        "femur": (
            "femur*", "*femur", "femora", "femoral", "femoral head*", "femoral neck*",
            "femoralhead*", "femhead*", "fem head*", "caput femor*", "collum femor*",
            "trochanter*", "huftkopf*", "hueftkopf*", "oberschenkelkopf*", "schenkelhals*",
            "tete femorale", "col femoral", "udow*",
        ),
        "hip bone": (
            "hip", "hips", "lefthip", "righthip", "innominate*", "coxa", "coxae", "ilium",
            "iliac crest*", "iliac wing*", "ischium", "pubis", "pubic ramus", "pubic rami",
            "acetabul*", "hufte*", "huefte*", "huftbein*", "hueftbein*", "darmbein*", "sitzbein*",
            "schambein*", "hanche*", "iliaque", "biodr*",
        ),
        "sacrum": ("sacrum*", "vertebra* s[1-5]", "kreuzbein*", "krzyzow*"),
        "vertebra": (
            "vertebra*", "l[1-6]", "th[1-9]", "th1[0-2]", "t1[0-2]", "wirbel*", "vertebre*",
            "kregi", "kreg*", "krag",
        ),
    },
}  # fmt: skip

AIR_HU = -1000.0  # fills what a scan does not cover

SPLITS = ("train", "validation", "test")

# Section 4: 987 slices of ten series to train on, of which one series of 97 validates,
# and 730 of five others to test. The sizes of the nine training series are not printed:
# these let them show what `phantom.department` plans.
TRAINING_SERIES_SLICES = (190, 120, 110, 100, 90, 80, 75, 65, 60)
PAPER_SERIES = (
    *(
        (f"train{number:02d}", "train", slices)
        for number, slices in enumerate(TRAINING_SERIES_SLICES, 1)
    ),
    ("validation01", "validation", 97),
    ("test01", "test", 85),
    ("test02", "test", 152),
    ("test03", "test", 124),
    ("test04", "test", 143),
    ("test05", "test", 226),
)
PAPER_SLICE_DISTANCE_MM = 2.5  # section 4

AUGMENTATIONS = ("imgaug", "none")

TABLE1_MODELS = ("fcn8", "fcn32", "pspnet", "unet", "segnet")
TABLE3_MODELS = ("unet", "vgg_unet", "resnet50_unet")
MODEL_NAMES = (*TABLE1_MODELS, "vgg_unet", "resnet50_unet")
BASELINE = "threshold"  # the classical segmentation that the paper lacks


@dataclass(frozen=True)
class Settings:
    """All settings of a run; the defaults are the paper's protocol.

    A profile is this with some fields replaced, and `DEVIATIONS` says why for each.
    """

    profile: str = "paper"
    seed: int = 2021
    replicate: int = 0  # of trainings that differ in their random numbers and in nothing else

    # Data (section 4)
    image_size: int = 512  # pixels
    field_of_view_mm: float = 800.0  # 512 pixels of 1.5625 mm
    window_low_hu: float = -200.0  # grey level 0; the paper names no window
    window_high_hu: float = 600.0  # grey level 255; keeps fat, muscle and spongy bone apart
    phantom_matrix: int = 512  # pixels of the phantom's own slices
    phantom_slice_distance_mm: float = PAPER_SLICE_DISTANCE_MM
    class_scheme: str = "bone"  # one of CLASS_SCHEMES
    renderings: int = 1  # pretraining: versions of each annotated subject

    # Augmentation (section 4)
    augment: str = "imgaug"  # one of AUGMENTATIONS

    # Training (sections 5.1 and 5.4)
    batch_size: int = 2  # the library's default; the paper names none
    steps_per_epoch: int = 512
    epochs: int = 10  # Table 1
    epochs_long: int = 30  # Table 3
    optimizer: str = "adadelta"  # or "adam", whose learning rate falls to 0 along a cosine
    learning_rate: float = 1.0  # what "adadelta" meant in Keras 2.3.1; Keras 3 defaults to 0.001
    rho: float = 0.95
    epsilon: float = 1e-7
    batch_norm_slices: int = 0  # training slices that set batch normalisation after an epoch
    weight_average: float = 0.0  # momentum of the running average that an epoch's weights end as
    decoder_activation: str = "linear"  # of U-net in the library of January 2020
    encoder_weights: str = "imagenet"  # "imagenet", "none" or a folder of Keras weight files
    allow_random_encoder: bool = False  # go on without ImageNet weights where there are none
    precision: str = "auto"  # 16-bit products where the hardware has them, or a Keras policy

    # This machine
    loader_workers: int = -1  # processes that augment; -1: one a core, less one for the network
    parallel_notebooks: int = 1  # a GPU serves one training at a time
    devices: int = 1  # devices that share each batch of a training; 0: all

    def __post_init__(self):
        for kind, value, known in (
            ("class scheme", self.class_scheme, CLASS_SCHEMES),
            ("augmentation", self.augment, AUGMENTATIONS),
        ):
            if value not in known:
                raise ValueError(f"unknown {kind} '{value}': choose one of {', '.join(known)}")
        if self.devices < 0 or self.batch_size % max(self.devices, 1):
            raise ValueError(
                f"setting devices={self.devices}: a batch of {self.batch_size} cannot be shared "
                "equally; choose a batch_size that is a multiple of devices"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes from 0 on: background, patient, those of bone."""
        return *CLASS_NAMES[:BONE], *CLASS_SCHEMES[self.class_scheme]

    @property
    def num_classes(self) -> int:
        """Return the number of classes that networks learn and scores count."""
        return len(self.class_names)

    @property
    def has_papers_classes(self) -> bool:
        """Tell whether the classes are those of section 4."""
        return self.class_names == CLASS_NAMES

    def methods(self, models: Sequence[str]) -> list[str]:
        """Return `models` and the baseline, where bone as a whole, all it knows, is a class."""
        return [*models, *([BASELINE] if self.has_papers_classes else [])]

    @property
    def pixel_spacing_mm(self) -> float:
        """Return the in-plane spacing of a prepared slice in millimetres."""
        return self.field_of_view_mm / self.image_size

    @property
    def training_seed(self) -> int:
        """Return the seed of weights, batches and augmentation; data knows `seed` alone."""
        return self.seed + self.replicate

    @property
    def window_hu(self) -> tuple[float, float]:
        """Return the HU of grey levels 0 and 255."""
        return self.window_low_hu, self.window_high_hu

    def horizons(self, model: str) -> tuple[int, ...]:
        """Return the epoch counts after which `model` is evaluated.

        One training serves both tables: U-net's first epochs are Table 1's training, all
        of them Table 3's, since neither the batches nor the optimizer know the end.
        """
        table1 = (self.epochs,) if model in TABLE1_MODELS else ()
        table3 = (self.epochs_long,) if model in TABLE3_MODELS else ()
        return tuple(dict.fromkeys(table1 + table3))  # equal epoch counts are one task


PROFILES = {
    "smoke": Settings(
        profile="smoke",
        image_size=64,
        field_of_view_mm=480.0,
        phantom_matrix=128,
        phantom_slice_distance_mm=25.0,
        batch_size=6,
        steps_per_epoch=6,
        epochs=2,
        epochs_long=4,
        batch_norm_slices=16,
        encoder_weights="none",
        allow_random_encoder=True,
        loader_workers=0,
        parallel_notebooks=2,
    ),
    "quick": Settings(
        profile="quick",
        image_size=160,
        field_of_view_mm=400.0,
        phantom_matrix=256,
        phantom_slice_distance_mm=10.0,
        augment="none",
        steps_per_epoch=48,
        epochs=5,
        epochs_long=10,
        optimizer="adam",
        learning_rate=0.001,
        batch_norm_slices=32,
        weight_average=0.9,
        allow_random_encoder=True,
        parallel_notebooks=2,
    ),
    "night": Settings(
        profile="night",
        image_size=256,
        field_of_view_mm=400.0,
        allow_random_encoder=True,
    ),
    "paper": Settings(),
}

# What the weights that the package ships are trained with, on phantoms of any appearance.
PRETRAINING = Settings(
    profile="pretraining",
    image_size=256,
    field_of_view_mm=400.0,  # pixels of 1.5625 mm, as the paper's
    phantom_matrix=384,
    phantom_slice_distance_mm=25.0,
    renderings=14,
    batch_size=4,
    steps_per_epoch=100,
    epochs=34,
    epochs_long=34,
    optimizer="adam",
    learning_rate=6e-4,
    batch_norm_slices=64,
    weight_average=0.98,
    decoder_activation="relu",
)

# Why a profile leaves the protocol, field by field; the report prints those that apply.
DEVIATIONS = {
    "image_size": "a CPU takes a quarter of the time, or less, for the pixels that show the body",
    "field_of_view_mm": "the body fills the slice; the air around it would cost most of the time",
    "phantom_matrix": "finer pixels than the network's would be averaged away",
    "phantom_slice_distance_mm": "the same anatomy in fewer slices",
    "augment": "in a few hundred steps augmentation costs more than it gains: 17 points of U-net's "
    "bone IoU after 320",
    "optimizer": "in a few hundred steps Adam finds bone with all networks, Adadelta with four",
    "learning_rate": "Adam's default",
    "batch_size": "smaller slices: a step still sees enough pixels for batch normalisation",
    "steps_per_epoch": "a CPU has minutes, not a GPU's hours",
    "epochs": "a CPU has minutes, not a GPU's hours",
    "epochs_long": "a CPU has minutes, not a GPU's hours",
    "batch_norm_slices": "Keras' running averages lag behind weights that learn in a few hundred "
    "steps; statistics measured anew do not (Wu & Johnson 2021)",
    "weight_average": "with a learning rate of 1 single steps swing widely; over thousands of "
    "steps that evens out, over a few hundred an average does it (Polyak & Juditsky 1992)",
    "encoder_weights": "from a folder, or random, where nothing can be downloaded",
    "loader_workers": "starting a process takes longer than loading the few slices",
    "parallel_notebooks": "one notebook alone leaves the cores idle while it starts",
    "allow_random_encoder": "goes on from random encoders, and the tables say so",
}


def get_settings(profile: str, overrides: dict | None = None) -> Settings:
    """Return the settings of `profile` with `overrides` (field name to value) applied.

    Raises ValueError, which lists the valid names, for an unknown profile or field, and
    for a value that is not of the field's type.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}': choose one of {', '.join(PROFILES)}")
    return replaced(PROFILES[profile], overrides or {})


def replaced(settings: Settings, overrides: dict) -> Settings:
    """Return `settings` with `overrides` (field name to value) applied.

    Raises ValueError, which lists the valid names, for an unknown field, and for a value
    that is not of the field's type.
    """
    types = {field.name: field.type for field in fields(Settings) if field.name != "profile"}
    for name in overrides:
        if name not in types:
            raise ValueError(f"unknown setting '{name}': choose one of {', '.join(types)}")
    cast = {name: _cast(name, value, types[name]) for name, value in overrides.items()}
    return replace(settings, **cast)


def _cast(name: str, value, kind: type):
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    try:
        if kind is not bool:
            return kind(value)
    except ValueError:
        pass
    raise ValueError(f"setting {name}={value!r} is not of type {kind.__name__}")


def parse_overrides(texts: Iterable[str]) -> dict[str, str]:
    """Return SETTING=VALUE texts as a dictionary; raises ValueError for any other text."""
    malformed = [text for text in texts if "=" not in text]
    if malformed:
        raise ValueError(f"'{malformed[0]}' is not SETTING=VALUE")
    return dict(text.split("=", 1) for text in texts)


def deviations(settings: Settings) -> list[dict]:
    """Return the fields in which `settings` leave the paper's protocol.

    Each is a dict of setting, ours, paper and reason.
    """
    paper = asdict(PROFILES["paper"])
    return [
        {
            "setting": name,
            "ours": value,
            "paper": paper[name],
            "reason": DEVIATIONS.get(name, "chosen for this run"),
        }
        for name, value in asdict(settings).items()
        if value != paper[name] and name != "profile"
    ]
