"""Steps -> doit tasks, run in order or in parallel; those that are up to date are skipped.

A task depends on its notebook's code, on the modules of bonelib that the notebook imports, on
its parameters and on the files that earlier tasks write.
"""

import os
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from doit.api import run_tasks
from doit.cmd_base import TaskLoader2
from doit.control import TaskControl
from doit.dependency import Dependency, JsonDB
from doit.reporter import ConsoleReporter
from doit.task import dict_to_task
from doit.tools import config_changed

from bonelib import datasets, provenance
from bonelib.errors import InputError
from bonelib.settings import MODEL_NAMES
from bonelib.workflow import cluster
from bonelib.workflow.execution import (
    KERNEL_ENVIRONMENT,
    code,
    execute_notebook,
    kernel_messages,
)
from bonelib.workflow.runs import Run
from bonelib.workflow.steps import Plan, Step

NAME_WIDTH = 34  # characters for the name of a step


@dataclass
class Driver:
    """One call of run_all.py."""

    run: Run
    models: list[str] = field(default_factory=lambda: list(MODEL_NAMES))
    overrides: dict = field(default_factory=dict)
    workers: int = 1  # notebooks at the same time; 0: as many as the cluster takes
    scheduler: str = ""  # address of a dask scheduler
    force: bool = False
    with_ablations: bool = False
    is_rebuilding: bool = False  # only tables, figures and report, from scores

    def __post_init__(self):
        sharing = 1 if self.scheduler else self.workers
        plan = Plan(self.run, self.models, self.overrides, self.force, sharing)
        steps = plan.rebuilding() if self.is_rebuilding else plan.steps(self.with_ablations)
        self.steps = {step.name: step for step in steps}
        self.lock = threading.Lock()
        self.manifest = provenance.read_json(self.run.results.manifest)
        self.waiting: set[str] = set()
        self.refused = False  # whether a notebook failed because of bad input
        self.client = None

    def tasks(self) -> list:
        """Return the steps as doit tasks."""
        return [
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

    def configuration(self, step: Step) -> str:
        """Return a hash of what a step depends on besides files."""
        return provenance.text_hash(
            step.parameters, asdict(self.run.settings), code(step.notebook), step.data_version
        )

    @property
    def state_file(self) -> str:
        """Return the file in which doit records what is up to date."""
        return str(self.run.results.root / ".doit.json")

    def stale(self) -> list[str]:
        """Return the names of the steps that will run, in order."""
        if self.force:
            return list(self.steps)
        control = TaskControl(self.tasks())
        control.process(None)
        state = Dependency(StateFile, self.state_file)
        stale, coming = [], set()
        for step in self.steps.values():
            status = state.get_status(control.tasks[step.name], control.tasks).status
            if status != "up-to-date" or coming & set(step.inputs):
                stale.append(step.name)
                coming |= set(step.outputs)
        return stale

    def start(self) -> bool:
        """Run what is not up to date and return whether every notebook succeeded.

        Raises ValueError where no dask scheduler answers at the address.
        """
        stale = self.stale()
        self.waiting = set(stale)
        if not stale:
            print(self.plan(stale), flush=True)
            return True
        with cluster.connect(self.scheduler) if self.scheduler else nullcontext() as self.client:
            at_once = self.workers or len(stale)  # on a cluster, its scheduler queues them
            if self.client:
                self.workers = self.workers or cluster.num_threads(self.client)
                print(cluster.description(self.client))
            print(self.plan(stale), flush=True)
            self._record_environment()
            os.environ |= KERNEL_ENVIRONMENT | dict(os.environ)  # the user's values win
            with kernel_messages(self.run.results.kernel_log):
                return self._run(at_once) == 0

    def _run(self, at_once: int) -> int:
        options = {
            "backend": "bonelib",
            "dep_file": self.state_file,
            "reporter": Progress(self),
            "num_process": at_once,
            "par_type": "thread",
            "continue": True,
            "always": self.force,
            "verbosity": 2,
        }
        plugin = {"bonelib": f"{StateFile.__module__}:{StateFile.__qualname__}"}
        return run_tasks(
            Loader(self), dict.fromkeys(self.steps, {}), {"GLOBAL": options, "BACKEND": plugin}
        )

    def plan(self, stale: list[str]) -> str:
        """Return the lines that say what will run, what is up to date, and how long it takes."""
        names = list(self.steps)
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

    def expected(self, name: str) -> float:
        """Return the seconds that a step took last time, or an estimate."""
        step = self.steps[name]
        last = self.manifest.get("notebooks", {}).get(name, {})
        if step.notebook.stem == "03_train_model":  # the last time may have been a part of it
            return step.seconds
        return last["seconds"] if last.get("status") == "done" else step.seconds

    def left(self) -> str:
        """Return roughly how long the rest takes."""
        return clock(sum(map(self.expected, self.waiting)) / self.workers)

    def execute(self, step: Step) -> None:
        """Execute one notebook and record how it ended."""
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
        """Execute a notebook here or on the cluster; return the record of the worker."""
        if not self.client:
            execute_notebook(step, executed)
            return {}
        return cluster.perform(
            self.client, execute_notebook, (step, executed), name=step.name,
            inputs=[self.run.results.manifest, *step.inputs], outputs=step.outputs,
            on_gpu=step.on_gpu, environment=KERNEL_ENVIRONMENT,
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
        """Record how a notebook ended; without `record`, remove what was recorded before."""
        with self.lock:
            notebooks = self.manifest.setdefault("notebooks", {})
            notebooks.pop(name, None)
            if record:
                notebooks[name] = record
            order = {step: position for position, step in enumerate(self.steps)}
            self.manifest["notebooks"] = dict(
                sorted(notebooks.items(), key=lambda item: (item[0][:2], order.get(item[0], 0)))
            )
            if not self.is_rebuilding:  # else the slices are elsewhere
                described = provenance.read_json(self.run.slices.description)
                self.manifest["dataset_fingerprint"] = described.get("fingerprint")
            provenance.write_json(self.run.results.manifest, self.manifest)


class Loader(TaskLoader2):
    """Give doit the tasks of a driver."""

    def __init__(self, driver: Driver):
        super().__init__()
        self.driver = driver

    def load_doit_config(self) -> dict:
        """Return no configuration besides that of the driver."""
        return {}

    def load_tasks(self, cmd, pos_args) -> list:
        """Return the tasks."""
        return self.driver.tasks()


class StateFile(JsonDB):
    """doit's JSON file, written after each task and in one step, so that a kill loses nothing."""

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
    """doit's reporter: one line when a step starts and one when it ends."""

    def __init__(self, driver: Driver):
        super().__init__(sys.stdout, {})
        self.driver = driver

    def _say(self, task, what: str) -> None:
        position = list(self.driver.steps).index(task.name) + 1
        line = f"[{position:2d}/{len(self.driver.steps)}] {task.name}: {what}\n"
        print(line, end="", flush=True)  # one write, since several threads print

    def execute_task(self, task):
        """Say that a step starts, and how long the rest takes."""
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
        """Say where the executed notebook with its traceback is."""
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
        """Say nothing: each failure has been told."""


def clock(seconds: float) -> str:
    """Return a duration as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
