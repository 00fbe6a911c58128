"""Execute one notebook through papermill, in a kernel of its own."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from distributed import print as print_at_driver

from bonelib import paths
from bonelib.workflow import cluster
from bonelib.workflow.steps import Step

PROGRESS_SECONDS = 10.0  # between two lines of a progress bar

# Without these, glibc returns the memory of every large tensor to the system and faults it in
# again a moment later: a fifth of the processor's time in FCN8's training.
KERNEL_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


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
        store_widget_state=False,  # NiiVue alone would add 5 MB of code
        stdout_file=Prefixed(step.name),
        stderr_file=Prefixed(step.name, PROGRESS_SECONDS),
        extra_arguments=[
            "--IPKernelApp.log_level=40",  # a kernel on loopback warns about TCP
            *cluster.kernel_arguments(step.name),
        ],
    )


@contextmanager
def kernel_messages(log: Path) -> Iterator[None]:
    """Send to a file what kernels write to standard error, such as TensorFlow's start.

    Kernels inherit the file descriptor; this process still writes to the terminal.
    """
    sys.stderr.flush()
    descriptor, stream = os.dup(2), sys.stderr
    sys.stderr = os.fdopen(descriptor, "w", buffering=1)  # left open: threads may still print
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(descriptor, 2)
        sys.stderr = stream


class Prefixed:
    """A text stream that prints each line after the name of its step, from a worker too.

    With `seconds` it prints at most one line in that time, the last: for progress bars.
    """

    def __init__(self, name: str, seconds: float = 0.0):
        self.name, self.seconds = name, seconds
        self.printed = time.monotonic()

    def write(self, text: str) -> None:
        """Print the lines of `text`."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if self.seconds:
            is_due = time.monotonic() - self.printed >= self.seconds
            lines = lines[-1:] if is_due else []
        for line in lines:
            self.printed = time.monotonic()
            print_at_driver(f"    {self.name} | {line}", flush=True)

    def flush(self) -> None:
        """Do nothing: every line is flushed when it is printed."""
