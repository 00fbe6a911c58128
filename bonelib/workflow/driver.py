"""Steps -> doit tasks, run in order or in parallel; those that are up to date are skipped.

A task depends on its notebook's code, on the modules of bonelib that the notebook imports, on
its parameters and on the files that earlier tasks write.
"""

import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path

from doit.api import run_tasks
from doit.cmd_base import ModuleTaskLoader
from doit.control import TaskControl
from doit.dependency import Dependency, JsonDB
from doit.task import dict_to_task
from doit.tools import config_changed

from bonelib import datasets, provenance
from bonelib.errors import InputError
from bonelib.settings import PROFILES
from bonelib.workflow import cluster
from bonelib.workflow.runs import Run
from bonelib.workflow.steps import PREPARATION, TRAINING, Step, code, execute_notebook

NAME_WIDTH = 34  # characters for the name of a step
LONG_SECONDS = 2 * 3600.0  # more work than this is asked for at a terminal


class Driver:
    """Runs steps: `workers` notebooks at the same time, 0 for as many as the cluster takes.

    `scheduler` is the address of a dask scheduler; with `force`, steps run that are up to date.
    """

    def __init__(
        self, run: Run, models: list[str], steps: list[Step], workers: int = 1,
        scheduler: str = "", force: bool = False,
    ):  # fmt: skip
        self.run, self.models, self.workers, self.force = run, models, workers, force
        self.steps = {step.name: step for step in steps}
        self.scheduler, self.client = scheduler, None
        self.lock = threading.Lock()
        self.manifest = provenance.read_json(run.results.manifest)
        self.state_file = str(run.results.root / ".doit.json")  # what is up to date
        self.waiting: list[str] = []
        self.refused = False  # whether a notebook failed because of bad input

    def tasks(self) -> Iterator:
        """Yield the steps as doit tasks."""
        for step in self.steps.values():
            source = code(step.notebook)
            depends_on = {
                "parameters": step.parameters,
                "settings": asdict(self.run.settings),
                "code": source,
                "data": step.data_version,
            }
            yield dict_to_task(
                {
                    "name": step.name,
                    "actions": [(self.execute, [step])],
                    "file_dep": [*step.inputs, *provenance.code_files(source)],
                    "targets": step.outputs,
                    "uptodate": [config_changed(depends_on)],
                    "io": {"capture": False},
                }
            )

    def stale(self) -> list[str]:
        """Return the names of the steps that will run, in order."""
        if self.force:
            return list(self.steps)
        control = TaskControl(list(self.tasks()))
        control.process(None)
        state = Dependency(StateFile, self.state_file)
        stale, coming = [], set()
        for step in self.steps.values():
            status = state.get_status(control.tasks[step.name], control.tasks).status
            if status != "up-to-date" or coming & set(step.inputs):
                stale.append(step.name)
                coming |= set(step.outputs)
        return stale

    def start(self, ask: bool = False) -> bool:
        """Run what is not up to date and return whether every notebook succeeded.

        With `ask`, more than two hours of work have to be confirmed. Raises ValueError where
        they are not, and where no dask scheduler answers at the address.
        """
        run, self.waiting = self.run, self.stale()
        with cluster.connect(self.scheduler) if self.scheduler else nullcontext() as self.client:
            at_once = self.workers or len(self.waiting)  # on a cluster, its scheduler queues them
            if self.client:
                count, gpus, threads = cluster.capacity(self.client)
                self.workers = self.workers or threads
                print(f"{count} workers on the cluster, {gpus} with a GPU, {threads} at a time")
            print(self.plan(self.waiting), flush=True)
            if not self.waiting:
                run.results.manifest.touch()  # the newest run is the last one asked for
                return True
            if ask and self.seconds(self.waiting) > LONG_SECONDS:
                self._confirm()
            self.manifest |= provenance.manifest(run.settings, run.dataset, self.models)
            self.manifest["data_note"] = datasets.note(run.data_dir)
            provenance.write_json(run.results.manifest, self.manifest)
            options = {
                "backend": "bonelib", "dep_file": self.state_file, "reporter": "zero",
                "num_process": at_once, "par_type": "thread", "continue": True,
                "always": self.force,
            }  # fmt: skip
            backend = {"bonelib": f"{StateFile.__module__}:{StateFile.__qualname__}"}
            failed = run_tasks(
                ModuleTaskLoader({"task_notebooks": self.tasks}),
                dict.fromkeys(self.steps, {}),
                {"GLOBAL": options, "BACKEND": backend},
            )
        for name in self.waiting:
            self._say(name, "not run, since a notebook before it failed")
        return not failed

    def _confirm(self) -> None:
        names = list(PROFILES)
        shorter = ", ".join(names[: names.index(self.run.settings.profile)])
        answer = input(f"More than two hours; shorter profiles: {shorter}. Start? [y/N] ")
        if not answer.lower().startswith("y"):
            raise ValueError("not started")

    def plan(self, stale: list[str]) -> str:
        """Return the lines that say what will run, what is up to date, and how long it takes."""
        width = max(NAME_WIDTH, *map(len, self.steps))
        lines = [
            f"profile {self.run.settings.profile}, data set {self.run.dataset}, "
            f"results in {self.run.results.root}"
        ]
        for name in self.steps:
            state = f"about {clock(self.expected(name))}" if name in stale else "up to date"
            lines.append(f"  {name:<{width}} {state}")
        if not stale:
            return "\n".join([*lines, "Everything is up to date; --force runs it again."])
        total = clock(self.seconds(stale))
        return "\n".join([*lines, f"{len(stale)} of {len(self.steps)} to run, roughly {total}"])

    def expected(self, name: str) -> float:
        """Return the seconds that a step took last time, or an estimate."""
        step, last = self.steps[name], self.manifest.get("notebooks", {}).get(name, {})
        # The last time of a training may have been a part of it.
        is_known = last.get("status") == "done" and step.notebook.stem != TRAINING
        return last["seconds"] if is_known else step.seconds

    def seconds(self, names: Collection[str]) -> float:
        """Return roughly the seconds that these steps take, several at the same time."""
        at_once = min(self.workers or 1, len(names) or 1)
        return sum(map(self.expected, names)) / at_once

    def execute(self, step: Step) -> bool:
        """Execute one notebook, here or on the cluster; record and say how it ended."""
        start = "sent to the cluster" if self.client else "started"
        self._say(step.name, f"{start}, about {clock(self.seconds(self.waiting))} left")
        if self.force and step.state:
            shutil.rmtree(step.state, ignore_errors=True)
        results = self.run.results
        executed = results.notebook(step.name)
        for output in step.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
        record = {"status": "failed", "notebook": str(executed.relative_to(results.root))}
        started = time.perf_counter()
        self._record_notebook(step.name)
        work = partial(execute_notebook, step, executed)
        try:
            if self.client:
                inputs = [results.manifest, *step.inputs]
                record |= cluster.perform(
                    self.client, work, step.name, inputs, step.outputs, step.on_gpu
                )
            else:
                work()
            if missing := [str(output) for output in step.outputs if not output.exists()]:
                raise RuntimeError(f"{step.name} did not write {', '.join(missing)}")
            record["status"] = "done"
        except Exception as error:
            # Papermill's error has the name and the text of the notebook's.
            name = getattr(error, "ename", type(error).__name__).rpartition(".")[2]
            message = str(getattr(error, "evalue", error)).strip().rpartition("\n")[2]
            self.refused |= name == InputError.__name__
            self._say(step.name, f"FAILED: {name}: {message}\n        see {executed}")
        record.setdefault("seconds", round(time.perf_counter() - started, 1))
        self._record_notebook(step.name, record)
        self.waiting.remove(step.name)
        is_done = record["status"] == "done"
        if is_done:
            self._say(step.name, f"done in {clock(record['seconds'])}")
        return is_done

    def _say(self, name: str, message: str) -> None:
        position = list(self.steps).index(name) + 1
        line = f"[{position:2d}/{len(self.steps)}] {name}: {message}\n"
        print(line, end="", flush=True)  # one write, since several threads print

    def _record_notebook(self, name: str, record: dict | None = None) -> None:
        """Record how a notebook ended; without `record`, remove what was recorded before."""
        with self.lock:
            notebooks = self.manifest.get("notebooks", {}) | {name: record}
            self.manifest["notebooks"] = {
                step: one for step, one in sorted(notebooks.items()) if one
            }
            if PREPARATION in self.steps:  # results rebuilt from scores keep their fingerprint
                described = provenance.read_json(self.run.slices.description)
                self.manifest["dataset_fingerprint"] = described.get("fingerprint")
            provenance.write_json(self.run.results.manifest, self.manifest)


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


def clock(seconds: float) -> str:
    """Return a duration as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
