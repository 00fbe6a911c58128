"""The origin of a result: versions, machine, commit, hashes of code and of inputs."""

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from bonelib.devices import machine
from bonelib.settings import Settings

PACKAGE = Path(__file__).resolve().parent
CODE_SUFFIXES = (".py", ".csv", ".toml", ".yaml")
PACKAGES_OF_NOTE = (
    "tensorflow", "jax", "keras", "imgaug", "numpy", "scipy", "scikit-image",
    "opencv-python-headless", "pydicom", "simpleitk", "pandas", "matplotlib", "trimesh",
    "papermill", "doit",
)  # fmt: skip


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path that replaces `path` in one step, or is removed on an error.

    Readers therefore see the old file or the complete new one, even if the process is killed.
    The scratch path keeps the suffix, by which many writers choose their format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, record: dict) -> None:
    """Write `record` as indented JSON, in one step."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(record, indent=1, default=str) + "\n")


def read_json(path: Path) -> dict:
    """Return the JSON record at `path`, or an empty one if there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def text_hash(*parts) -> str:
    """Return a short hash of the parts' JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def content_hash(files: Iterable[Path], root: Path) -> str:
    """Return the SHA-256 of the files' paths relative to `root` and of their contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(root)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@cache  # parsing all modules takes half a second, and the driver needs it for each step
def bonelib_imports(source: str) -> frozenset[str]:
    """Return the modules of bonelib that Python `source` imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bonelib":
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("bonelib.")}
    return frozenset(name for name in names - {"bonelib"} if _files(name))


def _files(module: str) -> list[Path]:
    """Return the files of a module or package, with the tables of numbers beside them."""
    path = PACKAGE.parent / Path(*module.split("."))
    found = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}.*")
    return sorted(file for file in found if file.suffix in CODE_SUFFIXES)


def code_files(source: str) -> list[Path]:
    """Return the files of bonelib that Python `source` imports, directly or indirectly."""
    files, waiting = set(), set(bonelib_imports(source))
    while waiting:
        for file in set(_files(waiting.pop())) - files:
            files.add(file)
            if file.suffix == ".py":
                waiting |= bonelib_imports(file.read_text())
    return sorted(files)


def code_hash(*modules: str) -> str:
    """Return the hash of the named bonelib modules and of everything they import."""
    return content_hash(code_files("\n".join(f"import {name}" for name in modules)), PACKAGE)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, if installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES_OF_NOTE:
        with suppress(metadata.PackageNotFoundError):  # one of TensorFlow and JAX is enough
            found[name] = metadata.version(name)
    return found


def git_commit() -> str:
    """Return the commit of this checkout, with `-dirty` if files differ from it."""
    if shutil.which("git") is None:
        return "unknown"
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=PACKAGE, capture_output=True, text=True,
    )  # fmt: skip
    return run.stdout.strip() or "unknown"


def manifest(settings: Settings, dataset: str, models: list[str]) -> dict:
    """Return the entries of a run's manifest that say what made its results."""
    return circumstances() | {
        "profile": settings.profile,
        "dataset": dataset,
        "models": models,
        "seed": settings.seed,
        "settings": asdict(settings),
    }


def circumstances() -> dict:
    """Return versions, commit, machine and time of a run."""
    return {
        "versions": versions(),
        "git_commit": git_commit(),
        "device": machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
