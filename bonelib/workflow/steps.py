"""A run -> its steps: notebooks with parameters, what they read and write, how long they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bonelib import paths, provenance
from bonelib.evaluation import variants
from bonelib.settings import MODEL_NAMES, Settings, replaced
from bonelib.workflow import estimates
from bonelib.workflow.runs import Run

PAPERS_FIGURES = range(1, 8)
CURVES = range(3, 6)  # the figures that need neither slices nor label maps


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters, as one task."""

    name: str
    notebook: Path
    parameters: dict
    inputs: list[Path]
    outputs: list[Path]
    seconds: float  # estimate of a first run, less that of its network's steps
    state: Path | None = None  # what --force removes, so that nothing is taken over
    data_version: str = ""  # changes when files of the user's own data change
    network_steps: float = 0.0  # training steps that take as long as what its network does

    @property
    def on_gpu(self) -> bool:
        """Tell whether it trains or evaluates a network."""
        return self.parameters.get("model") in MODEL_NAMES


@dataclass(frozen=True)
class Plan:
    """What the steps of a run follow from."""

    run: Run
    models: Sequence[str]
    overrides: dict
    force: bool = False  # trainings begin anew

    @property
    def methods(self) -> list[str]:
        """Return what is evaluated: the networks and the baseline."""
        return self.run.settings.methods(self.models)

    def steps(self, with_ablations: bool = False) -> list[Step]:
        """Return all steps in order; trainings for ablations and their evaluations if asked."""
        run, results = self.run, self.run.results
        dataset = [run.slices.description]
        judged = []
        if run.dataset == "phantom":
            judged = [self._step("10_phantom_versus_reality", seconds=50.0)]
        compared = self._compared() if with_ablations else []
        segmented = paths.SegmentationFolder(results.segmentation)
        bone_model = paths.SegmentationFolder(results.meshes).record
        return [
            self._step(
                "01_prepare_data",
                outputs=[*dataset, run.slices.table],
                seconds=estimates.preparation_seconds(run.settings),
                state=run.slices.root,
                data_version=data_version(run.data_dir),
            ),
            self._step("02_preview_augmentation", inputs=dataset),
            *judged,
            *(self._training(model, model, results, run.settings) for model in self.models),
            *(self._evaluation(method, method, results, run.settings) for method in self.methods),
            *(self._training(*one, **own) for *one, own in compared),
            *(
                self._evaluation(*one, **own, horizons=[run.settings.epochs_long])
                for *one, own in compared
            ),
            self._step("11_ablations", inputs=self._scores() + self._ablations(with_ablations)),
            self._tables(with_ablations),
            self._figures(dataset, PAPERS_FIGURES),
            self._step(
                "07_bone_model", inputs=self._scores() + self._histories(), outputs=[bone_model],
                models=self.models,
            ),
            self._report(PAPERS_FIGURES, [bone_model]),
            self._step(
                "09_segment_your_scan", inputs=dataset, seconds=60.0,
                outputs=[segmented.label_map, segmented.record],
            ),
        ]  # fmt: skip

    def rebuilding(self) -> list[Step]:
        """Return the steps for which scores and histories suffice, without data or networks."""
        return [self._tables(), self._figures([], CURVES), self._report(CURVES, [])]

    def _step(
        self, notebook, name="", *, inputs=(), outputs=(), seconds=estimates.START_SECONDS,
        state=None, data_version="", network_steps=0.0, **own,
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
            notebook + (f"-{name}" if name else ""), paths.NOTEBOOKS / f"{notebook}.ipynb",
            parameters | own, list(inputs), list(outputs), seconds, state, data_version,
            network_steps,
        )  # fmt: skip

    def _training(self, model, name, results, settings, **own) -> Step:
        seconds, network_steps = estimates.training_work(model, results, settings, self.force)
        return self._step(
            "03_train_model",
            name,
            inputs=[self.run.slices.description],
            outputs=trained(model, results, settings),
            seconds=seconds,
            network_steps=network_steps,
            state=results.training(model),
            model=model,
            **own,
        )

    def _evaluation(self, method, name, results, settings, horizons=(), **own) -> Step:
        weights = []
        if method in MODEL_NAMES:
            weights = trained(method, results, settings)
            horizons = horizons or settings.horizons(method)
        seconds, network_steps = estimates.evaluation_work(method, settings, len(horizons) or 1)
        return self._step(
            "04_evaluate_model",
            name,
            inputs=[self.run.slices.description, *weights],
            outputs=scored(method, results),
            seconds=seconds,
            network_steps=network_steps,
            state=results.prediction(method, "", 0).parent,
            model=method,
            horizons=list(horizons),
            **own,
        )

    def _tables(self, with_ablations: bool = False) -> Step:
        results = self.run.results
        return self._step(
            "05_tables",
            inputs=self._scores() + self._histories() + self._ablations(with_ablations),
            outputs=[results.tables / f"table{number}.csv" for number in range(1, 5)],
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
        results = self.run.results
        return self._step(
            "08_report",
            inputs=[*self._tables().outputs, *self._pictures(numbers), *bone_models],
            outputs=[results.report],
            models=self.models,
        )

    def _scores(self) -> list[Path]:
        return [file for method in self.methods for file in scored(method, self.run.results)]

    def _histories(self) -> list[Path]:
        return [self.run.results.history(model) for model in self.models]

    def _pictures(self, numbers: range) -> list[Path]:
        return [self.run.results.figures / f"figure{number}.png" for number in numbers]

    def _trainings(self) -> list[variants.Training]:
        """Return the trainings of the ablations that are not the run's own."""
        found = variants.trainings(self.run.results, self.run.settings, self.models)
        return [training for training in found if not training.is_own]

    def _compared(self) -> list[tuple]:
        """Return network, name, results and settings of each, and the notebooks' parameters."""
        run = self.run
        return [
            (
                training.model,
                f"{training.model}-{training.name}",
                training.results(run.results),
                replaced(run.settings, training.overrides(run.settings)),
                {
                    "results_dir": str(training.results(run.results).root),
                    "overrides": self.overrides | training.overrides(run.settings),
                    "slices_dir": str(run.slices.root),
                },
            )
            for training in self._trainings()
        ]

    def _ablations(self, planned: bool) -> list[Path]:
        """Return the scores of ablations: those that are planned, or those that are there."""
        files = [
            training.results(self.run.results).scores(training.model)
            for training in self._trainings()
        ]
        return [file for file in files if planned or file.exists()]


def trained(model: str, results: paths.ResultFolder, settings: Settings) -> list[Path]:
    """Return the files of a training that others read."""
    best = [results.best(model, epochs) for epochs in settings.horizons(model)]
    return [results.history(model), *best]


def scored(method: str, results: paths.ResultFolder) -> list[Path]:
    """Return the files of an evaluation."""
    return [
        results.scores(method),
        results.score_record(method),
        results.surfaces(method),
        results.reliability(method),
        results.false_bone(method),
    ]


def data_version(directory: Path | None) -> str:
    """Return a hash of the names, sizes and times of the files below a user's data folder."""
    if directory is None:
        return ""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return provenance.text_hash(
        [(str(path.relative_to(directory)), path.stat().st_size, path.stat().st_mtime_ns)
         for path in files]
    )  # fmt: skip
