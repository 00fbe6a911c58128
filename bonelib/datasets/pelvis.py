"""Masks of public sets -> which scans hold the pelvis, and at what height; measured once.

Reading a thousand masks takes minutes, so what was measured is kept in a CSV file beside the
prepared slices, by the sizes and times of the masks' files.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pandas
import SimpleITK
from tqdm import tqdm

from bonelib import provenance, scans
from bonelib.errors import InputError

SAVE_EVERY = 50  # masks; what a killed run has measured is not lost


@dataclass(frozen=True)
class Landmark:
    """A structure that tells where the pelvis is."""

    volume_ml: float
    low_mm: float  # z in LPS: of its lowest slice's lower face; nan where there is none
    high_mm: float


ABSENT = Landmark(0.0, float("nan"), float("nan"))


def landmark(mask: SimpleITK.Image, ids: Iterable[int]) -> Landmark:
    """Measure the structure that has any of the ids, in a mask whose slices go feet to head."""
    inside = np.isin(SimpleITK.GetArrayViewFromImage(mask), list(ids))
    used = np.flatnonzero(inside.any(axis=(1, 2)))
    if not len(used):
        return ABSENT
    columns, rows, _ = mask.GetSize()
    low_mm, high_mm = (
        mask.TransformContinuousIndexToPhysicalPoint((columns / 2, rows / 2, index))[2]
        for index in (used[0] - 0.5, used[-1] + 0.5)
    )
    volume_ml = inside.sum() * np.prod(mask.GetSpacing()) / 1000
    return Landmark(float(volume_ml), low_mm, high_mm)


def smallest_and_extent(landmarks: Sequence[Landmark]) -> Landmark:
    """Return the volume of the smallest and the heights of all, as one."""
    return Landmark(
        min(item.volume_ml for item in landmarks),
        float(np.min([item.low_mm for item in landmarks])),
        float(np.max([item.high_mm for item in landmarks])),
    )


def measured(
    masks: dict[str, Path], measure: Callable[[str], Landmark], table: Path
) -> dict[str, Landmark]:
    """Return what `measure(series id)` says of each series, from `table` where it is known.

    `masks` are the series' mask files or folders. The table is written anew, in one step,
    where it changes.
    """
    tokens = {series_id: _token(path) for series_id, path in masks.items()}
    known = _read(table)
    found = {
        series_id: known[series_id][1]
        for series_id, token in tokens.items()
        if series_id in known and known[series_id][0] == token
    }
    waiting = [series_id for series_id in masks if series_id not in found]
    for count, series_id in enumerate(
        tqdm(waiting, "looking for the pelvis", unit="mask", disable=not waiting), 1
    ):
        found[series_id] = measure(series_id)
        if count % SAVE_EVERY == 0 or count == len(waiting):
            _write(table, tokens, found)
    return {series_id: found[series_id] for series_id in masks}


def _token(path: Path) -> str:
    states = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in scans.source_files(path)
    ]
    return provenance.text_hash(states)


def _read(table: Path) -> dict[str, tuple[str, Landmark]]:
    if not table.exists():
        return {}
    try:
        rows = pandas.read_csv(table, dtype={"series": str, "token": str})
        return {
            row.series: (row.token, Landmark(row.volume_ml, row.low_mm, row.high_mm))
            for row in rows.itertuples(index=False)
        }
    except (ValueError, AttributeError, OSError) as error:
        raise InputError(f"{table}: cannot be read; remove it, it is made again") from error


def _write(table: Path, tokens: dict[str, str], found: dict[str, Landmark]) -> None:
    rows = [(series_id, tokens[series_id], *astuple(item)) for series_id, item in found.items()]
    columns = ["series", "token", "volume_ml", "low_mm", "high_mm"]
    with provenance.replacing(table) as scratch:
        pandas.DataFrame(rows, columns=columns).to_csv(scratch, index=False)
