"""Run work on a worker of a dask.distributed cluster whose machines share a disk.

A worker that dies takes its kernels with it, since ipykernel checks its parent every second; the
scheduler gives its work to another worker. A thread cannot be stopped from outside, so work that
is no longer wanted is stopped by ending its kernel.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
from distributed import Client, KilledWorker, Status, get_worker
from distributed import print as print_at_driver

from bonelib import provenance
from bonelib.errors import InputError
from bonelib.workflow.steps import kernel_mark

GPU = "GPU"  # the dask resource that a worker with a card offers
DISK_SECONDS = 60.0  # NFS may take this long to show a file that another machine wrote
WATCH_SECONDS = 0.5  # between two checks whether work is still wanted


def connect(address: str) -> Client:
    """Return a client of the scheduler. Raises ValueError where none answers."""
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler answers at '{address}': {error}") from None


def capacity(client: Client) -> tuple[int, int, int]:
    """Return the number of workers, of those with a GPU, and of notebooks at the same time."""
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    gpus = sum(worker["resources"].get(GPU, 0) > 0 for worker in found)
    return len(found), gpus, max(1, sum(worker["nthreads"] for worker in found))


def perform(
    client: Client, work: Callable[[], None], name: str, inputs: list[Path], outputs: list[Path],
    on_gpu: bool,
) -> dict:  # fmt: skip
    """Call `work()` on a worker; return the worker's name and the seconds it took.

    Work `on_gpu` goes to a worker with a GPU if there is one. Raises what `work` raises;
    InputError where a worker does not see `inputs` or has another version of bonelib;
    RuntimeError where several workers die of the work.
    """
    resources = {GPU: 1} if on_gpu and capacity(client)[1] else None
    future = client.submit(
        _on_worker, work, name, inputs, package_hash(),
        key=f"{name}-{uuid4().hex[:8]}", resources=resources, pure=False,
    )  # fmt: skip
    try:
        record = future.result()
    except KilledWorker as error:
        raise RuntimeError(
            f"{error.allowed_failures + 1} workers died while they ran or held it, the last at "
            f"{error.last_worker.address}: see its log"
        ) from None
    _first_unseen(outputs)
    return record


def package_hash() -> str:
    """Return the hash of all modules of bonelib and of their data."""
    files = provenance.PACKAGE.rglob("*.*")
    code = [file for file in files if file.suffix in provenance.CODE_SUFFIXES]
    return provenance.content_hash(code, provenance.PACKAGE)


def _on_worker(work: Callable[[], None], name: str, inputs: list[Path], code: str) -> dict:
    worker = get_worker()
    if package_hash() != code:
        raise InputError(
            f"worker {worker.name} has another version of bonelib, in {provenance.PACKAGE}: "
            "give every machine the same checkout"
        )
    if unseen := _first_unseen(inputs):
        raise InputError(
            f"worker {worker.name} does not see {unseen}: all machines need the same disk"
        )
    print_at_driver(f"    {name} | on worker {worker.name}", flush=True)
    started = time.perf_counter()
    with _stopped_when_unwanted(worker, name):
        work()
    return {"worker": str(worker.name), "seconds": round(time.perf_counter() - started, 1)}


def _first_unseen(files: list[Path]) -> Path | None:
    """Wait for files as long as a shared disk may take; return the first that is still missing."""
    deadline = time.monotonic() + DISK_SECONDS
    while unseen := next((file for file in files if not file.exists()), None):
        if time.monotonic() >= deadline:
            return unseen
        time.sleep(0.5)
    return None


@contextmanager
def _stopped_when_unwanted(worker, name: str) -> Iterator[None]:
    """End the kernel of `name` if its driver stops or the worker loses the cluster."""
    key, done = worker.get_current_task(), threading.Event()

    def watch():
        while not done.wait(WATCH_SECONDS):
            task = worker.state.tasks.get(key)
            is_wanted = task and task.state in ("executing", "long-running", "resumed")
            if not is_wanted or worker.status in (Status.closing, Status.closed, Status.failed):
                for child in psutil.Process().children():
                    with suppress(psutil.NoSuchProcess):
                        if kernel_mark(name) in child.cmdline():
                            child.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
