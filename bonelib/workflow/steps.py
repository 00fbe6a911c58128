"""A run -> its steps: notebooks with parameters, the files that they read and write, their time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import pandas as pd

from bonelib import provenance
from bonelib.evaluation import variants
from bonelib.paths import NOTEBOOKS, ResultFolder, SegmentationFolder
from bonelib.settings import (
    BASELINE,
    MODEL_NAMES,
    PAPER_SERIES,
    PAPER_SLICE_DISTANCE_MM,
    SPLITS,
    Settings,
    replaced,
)
from bonelib.workflow.runs import Run

PREPARATION = "01_prepare_data"
ALL_FIGURES = range(1, 8)
CURVES = range(3, 6)  # the figures that need neither slices nor label maps

# Times on two idle CPU cores, for slices of 512 x 512 pixels.
START_SECONDS = 9.0  # a kernel, TensorFlow and the first compilation
STEP_SECONDS = {  # training on a batch of two slices in bfloat16 (docs/speed.md)
    "fcn8": 2.0, "fcn32": 2.2, "pspnet": 0.9, "unet": 1.8, "segnet": 1.8, "vgg_unet": 4.5,
    "resnet50_unet": 3.0,
}  # fmt: skip
FEEDING = 1.15  # a training step with its loader, relative to one without
FORWARD = 1 / 3  # a prediction, relative to a training step
SCORING_SECONDS = 0.05  # a slice: mostly distances between surfaces


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters, run as one task."""

    name: str
    notebook: Path
    parameters: dict
    inputs: list[Path]
    outputs: list[Path]
    seconds: float  # estimate of a first run
    state: Path | None = None  # folder that --force removes
    data_version: str = ""  # changes when the user's own data change

    @property
    def on_gpu(self) -> bool:
        """Tell whether the step trains or evaluates a network."""
        return self.parameters.get("model") in MODEL_NAMES


class Plan:
    """The steps of a run.

    `overrides` are the settings that the run replaces in its profile. With `force`, trainings
    start again. `at_once` notebooks share this machine.
    """

    def __init__(
        self, run: Run, models: Sequence[str], overrides: dict, force: bool = False,
        at_once: int = 1,
    ):  # fmt: skip
        self.run, self.models, self.overrides, self.force = run, models, overrides, force
        self.paces = paces(run.results, run.settings, models, at_once)
        methods = run.settings.methods(models)
        self.scores = [file for method in methods for file in scored(method, run.results)]
        self.histories = [run.results.history(model) for model in models]

    def steps(self, with_ablations: bool = False) -> list[Step]:
        """Return all steps, each after those whose files it reads; ablations if asked."""
        run, results = self.run, self.run.results
        slices = [run.slices.description]
        bone_model = SegmentationFolder(results.meshes).record
        trainings = variants.trainings(results, run.settings, self.models)
        ablations = [training for training in trainings if not training.is_own]
        ablation_scores = [one.results(results).scores(one.model) for one in ablations]
        if not with_ablations:
            ablations = []
            ablation_scores = [file for file in ablation_scores if file.exists()]
        steps = [
            self._step(
                PREPARATION,
                outputs=[*slices, run.slices.table],
                seconds=preparation_seconds(run.settings),
                state=run.slices.root,
                data_version=data_version(run.data_dir),
            ),
            self._step("02_preview_augmentation", inputs=slices),
        ]
        if run.dataset == "phantom":
            steps.append(self._step("10_phantom_versus_reality", seconds=50.0))
        for model in self.models:
            steps += self._network(variants.Training(variants.OWN, model, 0))
        if BASELINE in run.settings.methods(self.models):
            steps.append(self._scoring(BASELINE, results, run.settings))
        for training in ablations:
            steps += self._network(training)
        return [
            *steps,
            self._step("11_ablations", inputs=self.scores + ablation_scores),
            self._step(
                "07_bone_model",
                inputs=self.scores + self.histories,
                outputs=[bone_model],
                models=self.models,
            ),
            *self._presentation(ALL_FIGURES, slices, ablation_scores, [bone_model]),
            self._step(
                "09_segment_your_scan",
                inputs=slices,
                outputs=[results.segmentation],
                seconds=60.0,
            ),
        ]

    def rebuilding(self) -> list[Step]:
        """Return the steps that need scores and histories alone, no data and no networks."""
        return self._presentation(CURVES, [], [], [])

    def _step(
        self, notebook, name="", *, inputs=(), outputs=(), seconds=START_SECONDS,
        state=None, data_version="", **own,
    ) -> Step:  # fmt: skip
        run = self.run
        parameters = {
            "profile": run.settings.profile,
            "dataset": run.dataset,
            "data_dir": str(run.data_dir or ""),
            "results_dir": str(run.results.root),
            "overrides": self.overrides,
        }
        return Step(
            f"{notebook}-{name}".rstrip("-"), NOTEBOOKS / f"{notebook}.ipynb", parameters | own,
            list(inputs), list(outputs), seconds, state, data_version,
        )  # fmt: skip

    def _network(self, training: variants.Training) -> list[Step]:
        """Return the steps that train and score a network."""
        run, model = self.run, training.model
        results, parameters = training.results(run.results), {"model": model}
        name, settings, horizons = model, run.settings, run.settings.horizons(model)
        if not training.is_own:
            changes = training.overrides(run.settings)
            name, settings = f"{model}-{training.name}", replaced(run.settings, changes)
            horizons = [settings.epochs_long]
            parameters |= {
                "results_dir": str(results.root),
                "overrides": self.overrides | changes,
                "slices_dir": str(run.slices.root),
            }
        best = [results.best(model, epochs) for epochs in settings.horizons(model)]
        weights = [results.history(model), *best]
        pace = self.paces[model]
        train = self._step(
            "03_train_model",
            name,
            inputs=[run.slices.description],
            outputs=weights,
            seconds=training_seconds(model, results, settings, pace, self.force),
            state=results.training(model),
            **parameters,
        )
        return [train, self._scoring(model, results, settings, name, horizons, weights, parameters)]

    def _scoring(
        self, method, results, settings, name=BASELINE, horizons=(), weights=(), parameters=None
    ) -> Step:
        pace = self.paces.get(method, 1.0)
        return self._step(
            "04_evaluate_model",
            name,
            inputs=[self.run.slices.description, *weights],
            outputs=scored(method, results),
            seconds=evaluation_seconds(method, settings, len(horizons) or 1, pace),
            state=results.prediction(method, "", 0).parent,
            horizons=list(horizons),
            **(parameters or {"model": method}),
        )

    def _presentation(
        self,
        figures: range,
        slices: list[Path],
        ablation_scores: list[Path],
        bone_models: list[Path],
    ) -> list[Step]:
        """Return the steps that make tables, figures and report."""
        results, read = self.run.results, self.scores + self.histories
        tables = [results.tables / f"table{number}.csv" for number in range(1, 5)]
        pictures = [results.figures / f"figure{number}.png" for number in figures]
        made = tables + pictures + bone_models
        return [
            self._step(notebook, inputs=inputs, outputs=outputs, seconds=20.0, models=self.models)
            for notebook, inputs, outputs in (
                ("05_tables", read + ablation_scores, tables),
                ("06_figures", slices + read, pictures),
                ("08_report", made, [results.report]),
            )
        ]


def scored(method: str, results: ResultFolder) -> list[Path]:
    """Return the files of an evaluation."""
    files = (
        results.scores, results.score_record, results.surfaces, results.reliability,
        results.false_bone,
    )  # fmt: skip
    return [file(method) for file in files]


def data_version(directory: Path | None) -> str:
    """Return a hash of the names, sizes and times of the files in the user's data folder."""
    files = sorted(path for path in directory.rglob("*") if path.is_file()) if directory else []
    return provenance.text_hash(
        [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def num_slices(settings: Settings, *splits: str) -> float:
    """Return the number of slices of the phantom in these splits."""
    paper = sum(count for _, split, count in PAPER_SERIES if split in splits)
    return paper * PAPER_SLICE_DISTANCE_MM / settings.phantom_slice_distance_mm


def preparation_seconds(settings: Settings) -> float:
    """Estimate the time to generate the phantom and to prepare its slices."""
    per_slice = 0.15 + 0.25 * (settings.phantom_matrix / 512) ** 2
    return START_SECONDS + num_slices(settings, *SPLITS) * per_slice


def slice_seconds(model: str, settings: Settings) -> float:
    """Return the time that training takes for a slice on two idle cores."""
    return STEP_SECONDS[model] / 2 * (settings.image_size / 512) ** 2


def epoch_seconds(model: str, settings: Settings) -> float:
    """Return the time of an epoch, with its validation, on two idle cores."""
    trained = settings.steps_per_epoch * settings.batch_size
    validated = num_slices(settings, "validation")
    return (FEEDING * trained + FORWARD * validated) * slice_seconds(model, settings)


def recorded_epochs(model: str, results: ResultFolder, settings: Settings) -> pd.Series:
    """Return the time of each epoch that was trained with these settings."""
    record = provenance.read_json(results.training_record(model))
    if not results.history(model).exists() or record.get("settings") != asdict(settings):
        return pd.Series(dtype=float)
    return pd.read_csv(results.history(model))["seconds"]


def paces(
    results: ResultFolder, settings: Settings, models: Sequence[str], unknown: float
) -> dict[str, float]:
    """Return how much longer than on two idle cores each network takes here.

    A network without a recorded epoch takes the mean of the others, or `unknown`.
    """
    known = {
        model: seconds.median() / epoch_seconds(model, settings)
        for model in models
        if len(seconds := recorded_epochs(model, results, settings))
    }
    usual = mean(known.values()) if known else unknown
    return {model: known.get(model, usual) for model in models}


def training_seconds(
    model: str, results: ResultFolder, settings: Settings, pace: float, restarts: bool
) -> float:
    """Estimate the time of the epochs that a training still has to go."""
    epochs = max(settings.horizons(model))
    if results.state(model).exists() and not restarts:
        epochs -= len(recorded_epochs(model, results, settings))
    return START_SECONDS + epochs * pace * epoch_seconds(model, settings)


def evaluation_seconds(method: str, settings: Settings, horizons: int, pace: float) -> float:
    """Estimate the time to predict and score the test slices after each of the horizons."""
    per_slice = SCORING_SECONDS * (settings.image_size / 512) ** 2
    if method != BASELINE:
        per_slice += pace * FORWARD * slice_seconds(method, settings)
    return START_SECONDS + horizons * num_slices(settings, "test") * per_slice
