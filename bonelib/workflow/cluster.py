"""Work -> a worker of a dask.distributed cluster on the same disk: sent, watched, stopped there.

A worker that dies takes its kernels with it, since ipykernel looks for its parent every
second; the scheduler gives its work to another worker. A thread cannot be stopped from
outside, so that work which nobody waits for any more is stopped by ending its kernel.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
from distributed import Client, Future, KilledWorker, Status, get_worker, wait
from distributed import print as print_at_driver

from bonelib import provenance
from bonelib.errors import InputError

GPU = "GPU"  # the resource that a worker offers
DISK_SECONDS = 60.0  # NFS may take so long to show a file that another machine wrote
LOST_SECONDS = 60.0  # between two lines that say that there is no worker
WATCH_SECONDS = 0.5  # between two looks whether work is still wanted


def connect(address: str) -> Client:
    """Return a client of the scheduler. Raises ValueError where none answers."""
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler answers at '{address}': {error}") from None


def workers(client: Client) -> list[dict]:
    """Return what the scheduler knows of each worker: nthreads, resources and more."""
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def has_gpu(worker: dict) -> bool:
    """Tell whether a worker offers the resource."""
    return worker["resources"].get(GPU, 0) > 0


def description(client: Client) -> str:
    """Return one line on who is there."""
    found = workers(client)
    if not found:
        return "no worker has joined the cluster yet: waiting for one"
    return (
        f"{len(found)} workers on the cluster, {sum(map(has_gpu, found))} with a GPU, "
        f"{num_threads(client)} notebooks at the same time"
    )


def num_threads(client: Client) -> int:
    """Return how many notebooks the workers take at the same time, at least 1."""
    return max(1, sum(worker["nthreads"] for worker in workers(client)))


def perform(
    client: Client,
    work: Callable,
    arguments: tuple,
    *,
    name: str,
    inputs: list[Path],
    outputs: list[Path],
    proof: tuple[Path, str],
    environment: dict[str, str],
    on_gpu: bool,
) -> dict:
    """Call `work(*arguments)` on a worker; return the worker's name and the seconds it took.

    `proof` is a file and what it says, by which a worker knows the disk as this machine's. Work
    `on_gpu` goes to a worker that offers one, if any does. Raises what `work` raises, InputError
    where a worker has another disk or another version of bonelib, RuntimeError where worker after
    worker dies of it.
    """
    resources = {GPU: 1} if on_gpu and any(map(has_gpu, workers(client))) else None
    future = client.submit(
        _on_worker, work, arguments, name, inputs, proof, package_hash(), environment,
        key=f"{name}-{uuid4().hex[:8]}", resources=resources, pure=False,
    )  # fmt: skip
    _wait(client, future, name, resources)
    try:
        record = future.result()
    except KilledWorker as error:
        raise RuntimeError(
            f"{error.allowed_failures + 1} workers died while they ran or held it, the last at "
            f"{error.last_worker.address}: see its log"
        ) from None
    _seen(lambda: all(path.exists() for path in outputs))
    return record


def _wait(client: Client, future: Future, name: str, resources: dict | None) -> None:
    """Wait for work to end; say so now and then where no worker is left that could do it."""
    while not future.done():
        try:
            wait(future, timeout=LOST_SECONDS)
        except TimeoutError:
            if not any(has_gpu(worker) or not resources for worker in workers(client)):
                kind = " with a GPU" if resources else ""
                print(f"    {name} | waits: the cluster has no worker{kind}", flush=True)


def package_hash() -> str:
    """Return the hash of all modules of bonelib."""
    return provenance.content_hash(provenance.PACKAGE.rglob("*.py"), provenance.PACKAGE)


def _on_worker(work, arguments, name, inputs, proof, code, environment) -> dict:
    worker = get_worker()
    if package_hash() != code:
        raise InputError(
            f"worker {worker.name} has another version of bonelib, in {provenance.PACKAGE}: "
            "give every machine the same checkout"
        )
    file, text = proof
    if not _seen(lambda: file.exists() and text in file.read_text()):
        raise InputError(
            f"worker {worker.name} does not see {file.parent}: all machines need the same disk"
        )
    if not _seen(lambda: all(path.exists() for path in inputs)):
        raise InputError(f"worker {worker.name} does not see the files that {name} needs")
    os.environ |= environment | dict(os.environ)  # what the worker's owner has set, stays
    print_at_driver(f"    {name} | on worker {worker.name}", flush=True)
    started = time.perf_counter()
    with _stopped_when_unwanted(worker, name):
        work(*arguments)
    seconds = round(time.perf_counter() - started, 1)
    return {"worker": str(worker.name), "seconds": seconds}


def _seen(condition: Callable[[], bool]) -> bool:
    """Wait until a condition on files holds, as long as a shared disk may take; return it."""
    deadline = time.monotonic() + DISK_SECONDS
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return held


@contextmanager
def _stopped_when_unwanted(worker, name: str) -> Iterator[None]:
    """End the kernel of `name` when its driver has stopped, or the worker has lost the cluster."""
    key, done = worker.get_current_task(), threading.Event()

    def watch():
        while not done.wait(WATCH_SECONDS):
            task = worker.state.tasks.get(key)
            wanted = task is not None and task.state in ("executing", "long-running", "resumed")
            if not wanted or worker.status in (Status.closing, Status.closed, Status.failed):
                end_kernels(name)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def kernel_arguments(name: str) -> list[str]:
    """Return the argument, without effect on a kernel, by which `end_kernels` knows it."""
    return [f"--user={name}"]


def end_kernels(name: str) -> None:
    """End this process's kernels that were started with `kernel_arguments(name)`."""
    for child in psutil.Process().children():
        try:
            if set(kernel_arguments(name)) <= set(child.cmdline()):
                child.kill()
        except psutil.NoSuchProcess:
            pass
