"""A run -> its steps: notebooks with parameters, the files that they read and write, their time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bonelib import provenance
from bonelib.evaluation import variants
from bonelib.paths import NOTEBOOKS, ResultFolder, SegmentationFolder
from bonelib.settings import BASELINE, MODEL_NAMES, Settings, replaced
from bonelib.workflow import durations
from bonelib.workflow.runs import Run

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


@dataclass(frozen=True)
class Plan:
    """Make the steps of a run.

    `overrides` are the settings that the run replaces in its profile. With `force`, trainings
    start again. `at_once` notebooks share this machine.
    """

    run: Run
    models: Sequence[str]
    overrides: dict
    force: bool = False
    at_once: int = 1
    paces: dict[str, float] = field(init=False)  # of this machine, by network

    def __post_init__(self):
        found = durations.paces(
            self.run.results, self.run.settings, self.models, float(self.at_once)
        )
        object.__setattr__(self, "paces", found)

    def steps(self, with_ablations: bool = False) -> list[Step]:
        """Return all steps in order, those of the ablations if asked."""
        run, results = self.run, self.run.results
        dataset = [run.slices.description]
        own = [variants.Training(variants.OWN, model, 0) for model in self.models]
        ablations = self._ablations() if with_ablations else []
        realism = [self._step("10_phantom_versus_reality", seconds=50.0)]
        bone_model = [SegmentationFolder(results.meshes).record]
        return [
            self._step(
                "01_prepare_data",
                outputs=[*dataset, run.slices.table],
                seconds=durations.preparation_seconds(run.settings),
                state=run.slices.root,
                data_version=data_version(run.data_dir),
            ),
            self._step("02_preview_augmentation", inputs=dataset),
            *(realism if run.dataset == "phantom" else []),
            *(self._training(training) for training in own),
            *(self._evaluation(training) for training in own),
            *([self._baseline()] if BASELINE in self._methods() else []),
            *(self._training(training) for training in ablations),
            *(self._evaluation(training) for training in ablations),
            self._step(
                "11_ablations", inputs=self._scores() + self._ablation_scores(with_ablations)
            ),
            self._tables(self._ablation_scores(with_ablations)),
            self._figures(dataset, ALL_FIGURES),
            self._step(
                "07_bone_model",
                inputs=self._scores() + self._histories(),
                outputs=bone_model,
                models=self.models,
            ),
            self._report(ALL_FIGURES, bone_model),
            self._step(
                "09_segment_your_scan",
                inputs=dataset,
                outputs=[results.segmentation],
                seconds=60.0,
            ),
        ]

    def rebuilding(self) -> list[Step]:
        """Return the steps that need scores and histories alone, no data and no networks."""
        return [self._tables([]), self._figures([], CURVES), self._report(CURVES, [])]

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
            notebook + (f"-{name}" if name else ""), NOTEBOOKS / f"{notebook}.ipynb",
            parameters | own, list(inputs), list(outputs), seconds, state, data_version,
        )  # fmt: skip

    def _ablations(self) -> list[variants.Training]:
        """Return the trainings of the ablations that are not the run's own."""
        found = variants.trainings(self.run.results, self.run.settings, self.models)
        return [training for training in found if not training.is_own]

    def _of(self, training: variants.Training) -> tuple[str, ResultFolder, Settings, dict]:
        """Return a training's name, results, settings and the parameters of its notebooks."""
        run, name = self.run, training.model
        if training.is_own:
            return name, run.results, run.settings, {"model": name}
        results, changes = training.results(run.results), training.overrides(run.settings)
        parameters = {
            "model": training.model,
            "results_dir": str(results.root),
            "overrides": self.overrides | changes,
            "slices_dir": str(run.slices.root),
        }
        return f"{name}-{training.name}", results, replaced(run.settings, changes), parameters

    def _training(self, training: variants.Training) -> Step:
        model = training.model
        name, results, settings, parameters = self._of(training)
        return self._step(
            "03_train_model",
            name,
            inputs=[self.run.slices.description],
            outputs=trained(model, results, settings),
            seconds=durations.training_seconds(
                model, results, settings, self.paces[model], self.force
            ),
            state=results.training(model),
            **parameters,
        )

    def _evaluation(self, training: variants.Training) -> Step:
        model = training.model
        name, results, settings, parameters = self._of(training)
        horizons = settings.horizons(model) if training.is_own else [settings.epochs_long]
        return self._scoring(
            model, name, results, settings, horizons,
            inputs=trained(model, results, settings), **parameters,
        )  # fmt: skip

    def _baseline(self) -> Step:
        run = self.run
        return self._scoring(BASELINE, BASELINE, run.results, run.settings, [], model=BASELINE)

    def _scoring(self, method, name, results, settings, horizons, inputs=(), **parameters) -> Step:
        return self._step(
            "04_evaluate_model",
            name,
            inputs=[self.run.slices.description, *inputs],
            outputs=scored(method, results),
            seconds=durations.evaluation_seconds(
                method, settings, len(horizons) or 1, self.paces.get(method, 1.0)
            ),
            state=results.prediction(method, "", 0).parent,
            horizons=list(horizons),
            **parameters,
        )

    def _tables(self, ablations: list[Path]) -> Step:
        folder = self.run.results.tables
        return self._step(
            "05_tables",
            inputs=self._scores() + self._histories() + ablations,
            outputs=[folder / f"table{number}.csv" for number in range(1, 5)],
            models=self.models,
        )

    def _figures(self, dataset: list[Path], numbers: range) -> Step:
        return self._step(
            "06_figures",
            inputs=dataset + self._scores() + self._histories(),
            outputs=self._pictures(numbers),
            seconds=20.0,
            models=self.models,
        )

    def _report(self, numbers: range, bone_models: list[Path]) -> Step:
        return self._step(
            "08_report",
            inputs=[*self._tables([]).outputs, *self._pictures(numbers), *bone_models],
            outputs=[self.run.results.report],
            models=self.models,
        )

    def _methods(self) -> list[str]:
        return self.run.settings.methods(self.models)

    def _scores(self) -> list[Path]:
        return [file for method in self._methods() for file in scored(method, self.run.results)]

    def _histories(self) -> list[Path]:
        return [self.run.results.history(model) for model in self.models]

    def _pictures(self, numbers: range) -> list[Path]:
        return [self.run.results.figures / f"figure{number}.png" for number in numbers]

    def _ablation_scores(self, planned: bool) -> list[Path]:
        """Return the scores of ablations: all that are planned, or those that exist."""
        files = [
            training.results(self.run.results).scores(training.model)
            for training in self._ablations()
        ]
        return [file for file in files if planned or file.exists()]


def trained(model: str, results: ResultFolder, settings: Settings) -> list[Path]:
    """Return the files of a training that other steps read."""
    best = [results.best(model, epochs) for epochs in settings.horizons(model)]
    return [results.history(model), *best]


def scored(method: str, results: ResultFolder) -> list[Path]:
    """Return the files of an evaluation."""
    return [
        results.scores(method),
        results.score_record(method),
        results.surfaces(method),
        results.reliability(method),
        results.false_bone(method),
    ]


def data_version(directory: Path | None) -> str:
    """Return a hash of the names, sizes and times of the files in the user's data folder."""
    if directory is None:
        return ""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return provenance.text_hash(
        [
            (str(path.relative_to(directory)), path.stat().st_size, path.stat().st_mtime_ns)
            for path in files
        ]
    )
