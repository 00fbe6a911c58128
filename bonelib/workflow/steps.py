"""A run -> its steps: notebooks, the files that they read and write, their time, execution."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import nbformat
import pandas as pd
import papermill
import traitlets
from distributed import print as print_at_driver
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets.config import Config

from bonelib import paths, provenance
from bonelib.evaluation import scoring, variants
from bonelib.headless import Prefixed
from bonelib.paths import ResultFolder, SegmentationFolder
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

PREPARATION, TRAINING = "01_prepare_data", "03_train_model"
ALL_FIGURES = range(1, 8)
CURVES = range(3, 6)  # the figures that need neither slices nor label maps
PROGRESS_SECONDS = 10.0  # between two lines of a progress bar

# Times on two idle CPU cores, for slices of 512 x 512 pixels.
START_SECONDS = 9.0  # a kernel, TensorFlow and the first compilation
STEP_SECONDS = {  # training on a batch of two slices in bfloat16 (docs/speed.md)
    "fcn8": 2.0, "fcn32": 2.2, "pspnet": 0.9, "unet": 1.8, "segnet": 1.8, "vgg_unet": 4.5,
    "resnet50_unet": 3.0,
}  # fmt: skip
UPDATE_SECONDS = {"fcn8": 0.7, "fcn32": 0.7}  # of these, for 134 million weights at any size
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
    seconds: float = START_SECONDS  # estimate of a first run
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
        self.scores = [file for one in (*models, BASELINE) for file in scored(one, run.results)]
        self.histories = [run.results.history(model) for model in models]

    def steps(self, with_ablations: bool = False) -> list[Step]:
        """Return all steps, each after those whose files it reads; ablations if asked."""
        run, results = self.run, self.run.results
        per_slice = 0.15 + 0.25 * (run.settings.phantom_matrix / 512) ** 2  # generate, prepare
        slices, bone_model = [run.slices.description], [SegmentationFolder(results.meshes).record]
        trainings = variants.trainings(run.settings, self.models).values()
        others = [training for training in trainings if not training.is_own]
        compared = [training.results(results).scores(training.model) for training in others]
        if not with_ablations:
            others, compared = [], [file for file in compared if file.exists()]
        steps = [
            self._step(
                PREPARATION, outputs=[*slices, run.slices.table], state=run.slices.root,
                seconds=START_SECONDS + num_slices(run.settings, *SPLITS) * per_slice,
                data_version=data_version(run.data_dir),
            ),
            self._step("02_preview_augmentation", inputs=slices),
        ]  # fmt: skip
        if run.dataset == "phantom":
            steps.append(self._step("10_phantom_versus_reality", seconds=40.0))
        for training in (*map(variants.Training, (*self.models, BASELINE)), *others):
            steps += self._method(training)
        return [
            *steps,
            self._step("11_ablations", inputs=self.scores + compared),
            self._step(
                "07_bone_model", inputs=self.scores + self.histories, outputs=bone_model,
                models=self.models,
            ),
            *self._presentation(ALL_FIGURES, slices, compared, bone_model),
            self._step(
                "09_segment_your_scan", inputs=slices, outputs=[results.segmentation], seconds=60.0
            ),
        ]  # fmt: skip

    def rebuilding(self) -> list[Step]:
        """Return the steps that need scores and histories alone, no data and no networks."""
        return [self._step("11_ablations", inputs=self.scores), *self._presentation(CURVES)]

    def _step(
        self, notebook, name="", *, inputs=(), outputs=(), seconds=START_SECONDS, state=None,
        data_version="", **own,
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
            f"{notebook}-{name}".rstrip("-"), paths.NOTEBOOKS / f"{notebook}.ipynb",
            parameters | own, list(inputs), list(outputs), seconds, state, data_version,
        )  # fmt: skip

    def _method(self, training: variants.Training) -> list[Step]:
        """Return the steps that train and score a network; the baseline is only scored."""
        run, model = self.run, training.model
        results, changes = training.results(run.results), training.overrides(run.settings)
        settings, parameters = replaced(run.settings, changes), {"model": model}
        if changes:
            parameters |= {
                "results_dir": str(results.root),
                "overrides": self.overrides | changes,
                "slices_dir": str(run.slices.root),
            }
        steps, inputs, pace = [], [run.slices.description], self.paces.get(model, 1.0)
        if model != BASELINE:
            best = [results.best(model, epochs) for epochs in settings.horizons(model)]
            weights = [results.history(model), *best]
            seconds = training_seconds(model, results, settings, pace, self.force)
            steps = [
                self._step(
                    TRAINING, training.name, inputs=inputs, outputs=weights, seconds=seconds,
                    state=results.training(model), **parameters,
                )
            ]  # fmt: skip
            inputs = inputs + weights
        scoring_step = self._step(
            "04_evaluate_model", training.name, inputs=inputs, outputs=scored(model, results),
            seconds=evaluation_seconds(model, settings, pace),
            state=results.prediction(model, "", 0).parent, **parameters,
        )  # fmt: skip
        return [*steps, scoring_step]

    def _presentation(
        self, figures: range, slices: Sequence[Path] = (), compared: Sequence[Path] = (),
        bone_model: Sequence[Path] = (),
    ) -> list[Step]:  # fmt: skip
        """Return the steps that make tables, figures and report."""
        results, read = self.run.results, self.scores + self.histories
        tables = [results.tables / f"table{number}.csv" for number in range(1, 5)]
        pictures = [results.figures / f"figure{number}.png" for number in figures]
        return [
            self._step(notebook, inputs=inputs, outputs=outputs, seconds=20.0, models=self.models)
            for notebook, inputs, outputs in (
                ("05_tables", [*read, *compared], tables),
                ("06_figures", [*slices, *read], pictures),
                ("08_report", [*tables, *pictures, *bone_model], [results.report]),
            )
        ]


def scored(method: str, results: ResultFolder) -> list[Path]:
    """Return the files of an evaluation."""
    tables = [results.scores(method, kind) for kind in scoring.COLUMNS]
    return [*tables, results.score_record(method)]


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


def network_seconds(model: str, settings: Settings, predicted: float, trained: int = 0) -> float:
    """Return the time on two idle cores for these numbers of slices."""
    update = UPDATE_SECONDS.get(model, 0.0)
    per_slice = (STEP_SECONDS[model] - update) / 2 * (settings.image_size / 512) ** 2
    slices = FEEDING * trained + FORWARD * predicted
    return slices * per_slice + trained / settings.batch_size * update


def epoch_seconds(model: str, settings: Settings) -> float:
    """Return the time of an epoch, with its validation, on two idle cores."""
    trained = settings.steps_per_epoch * settings.batch_size
    return network_seconds(model, settings, num_slices(settings, "validation"), trained)


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
    epochs = {model: recorded_epochs(model, results, settings).median() for model in models}
    known = {
        model: seconds / epoch_seconds(model, settings)
        for model, seconds in epochs.items()
        if seconds > 0
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


def evaluation_seconds(method: str, settings: Settings, pace: float) -> float:
    """Estimate the time to predict and score the test slices after each of the horizons."""
    count = len(settings.horizons(method)) * num_slices(settings, "test")
    seconds = START_SECONDS + count * SCORING_SECONDS * (settings.image_size / 512) ** 2
    return seconds + (0 if method == BASELINE else pace * network_seconds(method, settings, count))


class Kernel(AsyncKernelManager):
    """A kernel in the Python that runs this, whatever kernels a user has installed.

    The file `messages` gets what is written to its standard error, such as TensorFlow's start.
    """

    messages = traitlets.Unicode(os.devnull, config=True)

    @traitlets.default("kernel_spec_manager")
    def _without_installed_kernels(self):
        return KernelSpecManager(kernel_dirs=[])

    async def start_kernel(self, **options):
        """Start the process."""
        with open(self.messages, "a") as file:
            await super().start_kernel(stderr=file, **options)


def code(notebook: Path) -> str:
    """Return the code cells of a notebook."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def execute_notebook(step: Step, executed: Path) -> None:
    """Execute a step's notebook and write it with its outputs to `executed`.

    Raises ValueError for a parameter that the notebook does not declare, and papermill's
    PapermillExecutionError for a cell that fails; `executed` then holds the traceback.
    """
    declared = papermill.inspect_notebook(step.notebook)
    if undeclared := sorted(set(step.parameters) - set(declared)):
        raise ValueError(
            f"{step.notebook.name} has no parameter '{undeclared[0]}': it declares "
            f"{', '.join(declared)}"
        )
    executed.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        step.notebook,
        executed,
        step.parameters,
        kernel_name="python3",
        kernel_manager_class=Kernel,
        config=Config(Kernel={"messages": str(executed.with_suffix(".log"))}),
        cwd=paths.NOTEBOOKS,
        progress_bar=False,
        store_widget_state=False,  # NiiVue alone would add 5 MB of code
        stdout_file=Prefixed(step.name, show=print_at_driver),
        stderr_file=Prefixed(step.name, PROGRESS_SECONDS, print_at_driver),
        extra_arguments=[
            "--IPKernelApp.log_level=40",  # a kernel on loopback warns about TCP
            kernel_mark(step.name),
        ],
    )


def kernel_mark(name: str) -> str:
    """Return an argument without effect on a kernel, by which `cluster` finds it."""
    return f"--user={name}"
