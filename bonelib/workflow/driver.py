"""Steps -> doit tasks: what is up to date, what runs, in which order, how long.

Each task executes one notebook through papermill, in a process of its own, here or on a worker
of a cluster. It depends on the notebook's cells, on the modules of bonelib that they import, on
its parameters and on the files of the tasks before it.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import papermill
from distributed import print as print_at_driver
from doit.control import TaskControl
from doit.dependency import Dependency, JsonDB
from doit.reporter import ConsoleReporter
from doit.runner import MThreadRunner
from doit.task import Stream, dict_to_task
from doit.tools import config_changed

from bonelib import datasets, paths, provenance
from bonelib.errors import InputError
from bonelib.settings import MODEL_NAMES
from bonelib.workflow import cluster, estimates
from bonelib.workflow.runs import Run
from bonelib.workflow.steps import Plan, Step

BAR_SECONDS = 10.0  # between two lines of a progress bar
NAME_WIDTH = 34  # characters for the name of a step, unless one is longer

# Without these, glibc returns the memory of every large tensor to the system and faults it in
# again a moment later: a fifth of the processor's time in FCN8's training.
KERNEL_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


@dataclass
class Driver:
    """One call of run_all.py: what to run, where, and what became of it."""

    run: Run
    models: list[str] = field(default_factory=lambda: list(MODEL_NAMES))
    overrides: dict = field(default_factory=dict)
    workers: int = 1  # notebooks at the same time; 0: as many as the cluster takes
    scheduler: str = ""
    force: bool = False
    with_ablations: bool = False
    is_rebuilding: bool = False  # tables, figures and report of a run, from its scores alone

    def __post_init__(self):
        self.steps = {step.name: step for step in self._steps()}
        self.lock = threading.Lock()
        self.manifest = provenance.read_json(self.run.results.manifest)
        self.waiting: set[str] = set()
        self.refused = False  # whether a notebook failed for bad input
        self.step_seconds: dict[str, float] = {}  # of a training step, by network

    def _steps(self) -> list[Step]:
        plan = Plan(self.run, self.models, self.overrides, self.force)
        return plan.rebuilding() if self.is_rebuilding else plan.steps(self.with_ablations)

    # What doit is given

    def tasks(self) -> TaskControl:
        """Return the steps as doit tasks, in order."""
        control = TaskControl(
            [
                dict_to_task(
                    {
                        "name": step.name,
                        "actions": [(self.execute, [step])],
                        "file_dep": [*step.inputs, *provenance.code_files(code(step.notebook))],
                        "targets": step.outputs,
                        "uptodate": [config_changed(self.configuration(step))],
                        "io": {"capture": False},
                    }
                )
                for step in self.steps.values()
            ]
        )
        control.process(None)
        return control

    def configuration(self, step: Step) -> str:
        """Return a hash of what a step depends on besides files."""
        return provenance.text_hash(
            step.parameters, asdict(self.run.settings), code(step.notebook), step.data_version
        )

    def state(self) -> Dependency:
        """Return doit's record of what was up to date with what."""
        return Dependency(StateFile, str(self.run.results.root / ".doit.json"))

    def stale(self) -> list[str]:
        """Return the names of the steps that will run, in order."""
        if self.force:
            return list(self.steps)
        state, tasks = self.state(), self.tasks().tasks
        stale, coming = [], set()
        for step in self.steps.values():
            status = state.get_status(tasks[step.name], tasks).status
            if status != "up-to-date" or coming & set(step.inputs):
                stale.append(step.name)
                coming |= set(step.outputs)
        return stale

    def start(self) -> bool:
        """Say what will run, run it, and return whether every notebook succeeded.

        Raises ValueError where no dask scheduler answers at the address.
        """
        stale = self.stale()
        self.waiting = set(stale)
        if not stale:
            print(self.plan(stale), flush=True)
            return True
        with cluster.connect(self.scheduler) if self.scheduler else nullcontext() as self.client:
            at_once = self.workers or len(stale)  # on a cluster, its scheduler lets them wait
            if self.client:
                self.workers = self.workers or cluster.num_threads(self.client)
                print(cluster.description(self.client))
            print(self.plan(stale), flush=True)
            self._record_environment()
            os.environ |= KERNEL_ENVIRONMENT | dict(os.environ)  # what a user has set, stays
            runner = MThreadRunner(
                self.state(), Progress(self), True, self.force, Stream(2), at_once
            )
            with kernel_messages(self.run.results.kernel_log):
                return runner.run_all(self.tasks().task_dispatcher()) == 0

    # What is said

    def plan(self, stale: list[str]) -> str:
        """Return the lines that say what will run, what is up to date, and how long it takes."""
        names = list(self.steps)
        self.time_networks(stale)
        width = max(NAME_WIDTH, *map(len, names))
        lines = [
            f"profile {self.run.settings.profile}, data set {self.run.dataset}, "
            f"results in {self.run.results.root}"
        ]
        for name in names:
            state = f"about {clock(self.expected(name))}" if name in stale else "up to date"
            lines.append(f"  {name:<{width}} {state}")
        if stale:
            total = sum(map(self.expected, stale)) / min(self.workers or 1, len(stale))
            lines.append(f"{len(stale)} of {len(names)} to run, roughly {clock(total)}")
        else:
            lines.append("Everything is up to date; --force runs it again.")
        return "\n".join(lines)

    def time_networks(self, stale: list[str]) -> None:
        """Time a training step of each network that will run."""
        counts: dict[str, float] = {}
        for step in map(self.steps.get, stale):
            if step.network_steps and not self._last_seconds(step):
                model = step.parameters["model"]
                counts[model] = counts.get(model, 0.0) + step.network_steps
        alone = estimates.step_seconds(counts, self.run.settings, KERNEL_ENVIRONMENT)
        sharing = 1 if self.scheduler else min(self.workers, len(stale))  # the same cores
        self.step_seconds = {model: sharing * seconds for model, seconds in alone.items()}

    def expected(self, name: str) -> float:
        """Return the seconds that a step took last time here, or an estimate."""
        step = self.steps[name]
        network = self.step_seconds.get(step.parameters.get("model"), 0.0)
        return self._last_seconds(step) or step.seconds + step.network_steps * network

    def _last_seconds(self, step: Step) -> float:
        """Return how long a step took last time; 0 for a training, which may have resumed."""
        last = self.manifest.get("notebooks", {}).get(step.name, {})
        is_known = last.get("status") == "done" and step.notebook.stem != "03_train_model"
        return last["seconds"] if is_known else 0.0

    def left(self) -> str:
        """Return roughly how long the rest takes."""
        return clock(sum(map(self.expected, self.waiting)) / self.workers)

    # What is done

    def execute(self, step: Step) -> None:
        """Execute one notebook and record what became of it."""
        if self.force and step.state:
            shutil.rmtree(step.state, ignore_errors=True)
        executed = self.run.results.notebook(step.name)
        for output in step.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
        started, clock_start = datetime.now(UTC), time.perf_counter()
        record = {"status": "failed", "started": started.isoformat(timespec="seconds")}
        self._record_notebook(step.name)
        try:
            measured = self._perform(step, executed)
            missing = [str(output) for output in step.outputs if not output.exists()]
            if missing:
                raise RuntimeError(f"{step.name} did not write {', '.join(missing)}")
            record |= {"status": "done"} | measured
        finally:
            record.setdefault("seconds", round(time.perf_counter() - clock_start, 1))
            record["notebook"] = str(executed.relative_to(self.run.results.root))
            self._record_notebook(step.name, record)

    def _perform(self, step: Step, executed: Path) -> dict:
        """Execute a notebook here, or on the cluster, where the record is of the worker."""
        if not self.client:
            execute_notebook(step, executed)
            return {}
        return cluster.perform(
            self.client, execute_notebook, (step, executed), name=step.name,
            inputs=step.inputs, outputs=step.outputs, on_gpu=step.on_gpu,
            proof=(self.run.results.manifest, self.manifest["created"]),
            environment=KERNEL_ENVIRONMENT,
        )  # fmt: skip

    def _record_environment(self) -> None:
        run = self.run
        self.manifest |= {
            "profile": run.settings.profile,
            "dataset": run.dataset,
            "data_note": datasets.note(run.data_dir),
            "models": self.models,
            "seed": run.settings.seed,
            "settings": asdict(run.settings),
            "workers": self.workers,
            **provenance.circumstances(),
        }
        provenance.write_json(self.run.results.manifest, self.manifest)

    def _record_notebook(self, name: str, record: dict | None = None) -> None:
        """Record what became of a notebook, or nothing as it starts."""
        with self.lock:
            notebooks = self.manifest.setdefault("notebooks", {})
            notebooks.pop(name, None)
            if record:
                notebooks[name] = record
            order = {step: position for position, step in enumerate(self.steps)}
            self.manifest["notebooks"] = dict(
                sorted(notebooks.items(), key=lambda item: (item[0][:2], order.get(item[0], 0)))
            )
            if not self.is_rebuilding:  # from scores of slices that are elsewhere
                described = provenance.read_json(self.run.slices.description)
                self.manifest["dataset_fingerprint"] = described.get("fingerprint")
            provenance.write_json(self.run.results.manifest, self.manifest)


def execute_notebook(step: Step, executed: Path) -> None:
    """Execute a step's notebook through papermill into `executed`.

    Raises ValueError for a parameter that the notebook does not declare, and
    papermill's PapermillExecutionError, the copy with its traceback left in place, for a
    cell that fails.
    """
    declared = papermill.inspect_notebook(step.notebook)
    unknown = sorted(set(step.parameters) - set(declared))
    if unknown:
        raise ValueError(
            f"{step.notebook.name} has no parameter '{unknown[0]}': it declares "
            f"{', '.join(declared)}"
        )
    executed.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        step.notebook,
        executed,
        step.parameters,
        kernel_name="python3",
        cwd=paths.NOTEBOOKS,
        progress_bar=False,
        stdout_file=Prefixed(step.name),
        stderr_file=Prefixed(step.name, every_seconds=BAR_SECONDS),
        extra_arguments=[
            "--IPKernelApp.log_level=40",  # a kernel on loopback warns of TCP
            *cluster.kernel_arguments(step.name),
        ],
    )


@contextmanager
def kernel_messages(log: Path) -> Iterator[None]:
    """Send what kernels write past their notebooks, such as TensorFlow's start, to a file.

    Kernels inherit the file descriptor; this process goes on writing where it did.
    """
    sys.stderr.flush()
    descriptor, stream = os.dup(2), sys.stderr
    with log.open("a") as file, os.fdopen(descriptor, "w", buffering=1) as sys.stderr:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(descriptor, 2)
            sys.stderr = stream


class Prefixed:
    """A text stream that prints lines, from a worker, too, behind the name of their step.

    With `every_seconds`, meant for progress bars, it prints the last one now and then.
    """

    def __init__(self, name: str, every_seconds: float = 0.0):
        self.name, self.every_seconds = name, every_seconds
        self.printed = time.monotonic()

    def write(self, text: str) -> None:
        """Print the lines of `text`."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if self.every_seconds:
            due = time.monotonic() - self.printed >= self.every_seconds
            lines = lines[-1:] if due else []
        for line in lines:
            self.printed = time.monotonic()
            print_at_driver(f"    {self.name} | {line}", flush=True)

    def flush(self) -> None:
        """Do nothing: every line is flushed as it is printed."""


class StateFile(JsonDB):
    """doit's JSON file, written in one step."""

    def dump(self):
        """Write the state."""
        with provenance.replacing(Path(self.name)) as scratch:
            scratch.write_text(self.codec.encode(self._db))

    def set(self, task_id, dependency, value):
        """Store a value; the last one of a task is doit's list of its dependencies."""
        super().set(task_id, dependency, value)
        if dependency == "deps:":
            self.dump()


class Progress(ConsoleReporter):
    """doit's reporter: one line as a step starts and one as it ends."""

    def __init__(self, driver: Driver):
        super().__init__(sys.stdout, {})
        self.driver = driver

    def _say(self, task, what: str) -> None:
        position = list(self.driver.steps).index(task.name) + 1
        line = f"[{position:2d}/{len(self.driver.steps)}] {task.name}: {what}\n"
        print(line, end="", flush=True)  # one write, since several threads say something

    def execute_task(self, task):
        """Say that a step starts, or is sent to the cluster, and how long the rest takes."""
        what = "sent to the cluster" if self.driver.client else "started"
        self._say(task, f"{what}, about {self.driver.left()} left")

    def skip_uptodate(self, task):
        """Say nothing: the plan has said it."""

    def add_success(self, task):
        """Say that a step is done."""
        self.driver.waiting.discard(task.name)
        seconds = self.driver.manifest["notebooks"][task.name]["seconds"]
        self._say(task, f"done in {clock(seconds)}")

    def add_failure(self, task, fail):
        """Say where the executed copy with its traceback is."""
        self.driver.waiting.discard(task.name)
        executed = self.driver.run.results.notebook(task.name)
        if not task.executed:
            self._say(task, "not run, since a notebook before it failed")
            return
        lines = [line for line in fail.get_msg().splitlines() if line.strip()]
        error, _, _ = lines[-1].strip().partition(":")
        self.driver.refused |= error.split(".")[-1] == InputError.__name__
        self._say(task, f"FAILED: {lines[-1].strip()}\n        see {executed}")

    def complete_run(self):
        """Say nothing more: each failure has been told."""


def code(notebook: Path) -> str:
    """Return the code cells of a notebook."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def clock(seconds: float) -> str:
    """Return a duration as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
