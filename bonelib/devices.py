"""The machine's processors and graphics cards, and how work is distributed over them.

Keras is imported only inside the functions that need it, because worker processes without
Keras import this module, too.
"""

import ctypes
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from bonelib.settings import Settings

CPU_INFO = Path("/proc/cpuinfo")  # on Linux
MALLOC_OPTIONS = {-4: 0, -1: -1}  # of glibc: M_MMAP_MAX none, M_TRIM_THRESHOLD never
JOBS_AHEAD = 2  # jobs that wait for each worker process


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count()


def machine() -> dict:
    """Return the machine's processor, cores, memory in GiB and GPUs, without its name."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return {
        "system": platform.system(),
        "processor": next(iter(models), platform.processor() or platform.machine()),
        "cores": num_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _query_gpus("name"),
    }


def _query_gpus(field: str) -> list[str]:
    """Return a field of `nvidia-smi` for each GPU."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.splitlines()


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Yield worker processes, which start with the first job and end with the block."""
    # A fork of a process in which TensorFlow has threads can hang, hence "spawn".
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, spawn, initializer=_start_worker)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def in_order(function: Callable, jobs: Iterator, workers: int) -> Iterator:
    """Yield `function(job)` for each job in turn, computed by worker processes; 0: by this one.

    `function` and jobs have to be picklable. The processes end with the generator.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    with processes(workers) as executor:
        yield from computed(executor, function, jobs, JOBS_AHEAD * workers)


def computed(executor: Executor, function: Callable, jobs: Iterator, ahead: int) -> Iterator:
    """Yield `function(job)` for each job in turn; at most `ahead` jobs wait for the executor."""
    waiting = deque()
    for job in jobs:
        waiting.append(executor.submit(function, job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker() -> None:
    """Leave interrupts to the parent, use one thread, and end when the parent is killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # for SimpleITK

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors in this process for the next ones.

    glibc else returns that of each large tensor to the system, which gives it out again, emptied,
    a moment later: a third of the processor's time in the shipped network's training.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in MALLOC_OPTIONS.items():
            library.mallopt(option, value)


def fastest_precision(backend: str = "tensorflow") -> str:
    """Return the Keras dtype policy with the fastest matrix products on this machine.

    bfloat16 on GPUs from compute capability 8, float16 on older ones. On processors, with
    TensorFlow, bfloat16 where there are AMX instructions or AMD's AVX-512 ones (2.4 times as
    fast as float32 for U-net; with JAX, or with Intel's AVX-512 ones, slower), else float32.
    """
    if capabilities := _query_gpus("compute_cap"):
        modern = min(float(capability) for capability in capabilities) >= 8.0
        return "mixed_bfloat16" if modern else "mixed_float16"
    flags = CPU_INFO.read_text().split() if CPU_INFO.exists() else []
    has_bfloat16 = "amx_bf16" in flags or {"avx512_bf16", "AuthenticAMD"}.issubset(flags)
    return "mixed_bfloat16" if has_bfloat16 and backend == "tensorflow" else "float32"


def prepare_keras(settings: Settings) -> str:
    """Keep freed memory, set Keras' dtype policy to `settings.precision` and return its name.

    "auto" is the fastest one. Weights and softmax stay float32 in every case.
    """
    import keras

    keep_freed_memory()
    policy = settings.precision
    if policy == "auto":
        policy = fastest_precision(keras.backend.backend())
    keras.config.set_dtype_policy(policy)
    return policy
