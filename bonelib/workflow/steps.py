"""A run -> its steps: notebooks with parameters, the files that they read and write, their time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bonelib import provenance
from bonelib.evaluation import variants
from bonelib.paths import NOTEBOOKS, ResultFolder, SegmentationFolder
from bonelib.settings import BASELINE, MODEL_NAMES, replaced
from bonelib.workflow import durations
from bonelib.workflow.runs import Run

PREPARATION = "01_prepare_data"
ALL_FIGURES = range(1, 8)
CURVES = range(3, 6)  # the figures that need neither slices nor label maps


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
        self.paces = durations.paces(run.results, run.settings, models, at_once)
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
                seconds=durations.preparation_seconds(run.settings),
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
        self, notebook, name="", *, inputs=(), outputs=(), seconds=durations.START_SECONDS,
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
            seconds=durations.training_seconds(model, results, settings, pace, self.force),
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
            seconds=durations.evaluation_seconds(method, settings, len(horizons) or 1, pace),
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
