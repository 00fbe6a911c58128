"""Records -> folders on disk, each written once, several at a time."""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from bonelib.provenance import read_json, text_hash, write_json

RECORD_NAME = "phantom.json"

Write = Callable[[Path, dict], None]


def write_folders(directory: Path, records: list[dict], write: Write, workers: int = 1) -> None:
    """Let `write(folder, record)` fill `directory`/<record's series> for each record.

    A folder that was already written with the same record stays as it is; one that is being
    written when the process is killed is begun again. The longest come first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    waiting = []
    for record in sorted(records, key=lambda record: -record.get("num_slices", 0)):
        record = record | {"fingerprint": text_hash(record)}
        written = read_json(directory / record["series"] / RECORD_NAME)
        if written.get("fingerprint") != record["fingerprint"]:
            waiting.append((directory, record, write))
    for _ in tqdm(
        _run(waiting, workers), "rendering", len(waiting), unit="series", disable=not waiting
    ):
        pass


def _run(jobs: list[tuple], workers: int) -> Iterator[None]:
    if workers == 1 or len(jobs) < 2:
        yield from (_write_folder(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        for future in as_completed([pool.submit(_write_folder, *job) for job in jobs]):
            yield future.result()


def _write_folder(directory: Path, record: dict, write: Write) -> None:
    """Write one folder, its record last, under a scratch name that then takes its place."""
    scratch, final = directory / f".{record['series']}.part", directory / record["series"]
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    write(scratch, record)
    write_json(scratch / RECORD_NAME, record)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(scratch, final)
