"""Execute one notebook through papermill, in a kernel of its own."""

import os
import time
from pathlib import Path

import nbformat
import papermill
import traitlets
from distributed import print as print_at_driver
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets.config import Config

from bonelib import paths
from bonelib.workflow.steps import Step

PROGRESS_SECONDS = 10.0  # between two lines of a progress bar

# Without these, glibc returns the memory of every large tensor to the system and faults it in
# again a moment later: a fifth of the processor's time in FCN8's training.
KERNEL_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


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
            environment = KERNEL_ENVIRONMENT | dict(os.environ)  # the user's values win
            await super().start_kernel(stderr=file, env=environment, **options)


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
        stdout_file=Prefixed(step.name),
        stderr_file=Prefixed(step.name, PROGRESS_SECONDS),
        extra_arguments=[
            "--IPKernelApp.log_level=40",  # a kernel on loopback warns about TCP
            kernel_mark(step.name),
        ],
    )


def kernel_mark(name: str) -> str:
    """Return an argument without effect on a kernel, by which `cluster` finds it."""
    return f"--user={name}"


class Prefixed:
    """A text stream that prints each line after the name of its step, from a worker too.

    With `seconds` it prints progress bars alone, and at most one line in that time.
    """

    def __init__(self, name: str, seconds: float = 0.0):
        self.name, self.seconds = name, seconds
        self.printed = time.monotonic()

    def write(self, text: str) -> None:
        """Print the lines of `text`."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if self.seconds:
            is_due = time.monotonic() - self.printed >= self.seconds
            lines = [line for line in lines if "%|" in line][-1:] if is_due else []
        for line in lines:
            self.printed = time.monotonic()
            print_at_driver(f"    {self.name} | {line}", flush=True)

    def flush(self) -> None:
        """Do nothing: every line is flushed when it is printed."""
