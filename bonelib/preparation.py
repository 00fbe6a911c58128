"""Cases -> prepared 2-D slices on disk, split by series.

This module runs in worker processes: neither it nor what it imports loads Keras.
"""

import hashlib
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
import pandas
import SimpleITK
from PIL import Image
from tqdm import tqdm

from bonelib import labels, provenance
from bonelib.errors import InputError, InputWarning
from bonelib.paths import SliceFolder
from bonelib.settings import AIR_HU, BONE, IGNORE, Settings
from bonelib.slices import SLICES_AT_ONCE, read_table, window

PREPARATION_SETTINGS = ("image_size", "field_of_view_mm", "window_low_hu", "window_high_hu")
MOST_REFUSALS = 4  # of series, that one message tells
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian


def to_grid(image: SimpleITK.Image, settings: Settings, is_label: bool = False) -> SimpleITK.Image:
    """Resample in plane to the square grid of a prepared slice, centred on the scan's field.

    Slices keep their number and distance. HU are linear, float32, with air outside; where
    pixels grow, a Gaussian first widens each pixel to the new width, so that nothing
    aliases. A label map is nearest neighbour with background outside.
    """
    size, spacing_mm = settings.image_size, settings.pixel_spacing_mm
    columns, rows, count = image.GetSize()
    centre = ((columns - 1) / 2, (rows - 1) / 2, 0)
    direction = np.reshape(image.GetDirection(), (3, 3))
    half_mm = (size - 1) / 2 * spacing_mm
    origin = image.TransformContinuousIndexToPhysicalPoint(centre)
    origin = np.array(origin) - half_mm * (direction[:, 0] + direction[:, 1])
    source = image if is_label else _smooth(image, spacing_mm)
    return SimpleITK.Resample(
        source,
        (size, size, count),
        SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor if is_label else SimpleITK.sitkLinear,
        origin.tolist(),
        (spacing_mm, spacing_mm, image.GetSpacing()[2]),
        image.GetDirection(),
        0 if is_label else AIR_HU,
        image.GetPixelID() if is_label else SimpleITK.sitkFloat32,
    )


def _smooth(scan: SimpleITK.Image, spacing_mm: float) -> SimpleITK.Image:
    """Blur in plane from the scan's pixel width to `spacing_mm`, as full widths at half maximum.

    What lies below air, such as the padding round a scanner's circle, is air first.
    """
    image_hu = np.maximum(SimpleITK.GetArrayFromImage(scan).astype(np.float32), AIR_HU)
    widths_mm = scan.GetSpacing()[:2]
    sigma_x, sigma_y = (
        np.sqrt(max(spacing_mm**2 - width_mm**2, 0)) / FWHM_PER_SIGMA / width_mm
        for width_mm in widths_mm
    )
    if max(sigma_x, sigma_y) > 0:
        for part in image_hu:
            cv2.GaussianBlur(
                part, (0, 0), max(sigma_x, 1e-3), part, max(sigma_y, 1e-3), cv2.BORDER_REPLICATE
            )
    smooth = SimpleITK.GetImageFromArray(image_hu)
    smooth.CopyInformation(scan)
    return smooth


def prepare(
    cases: Sequence, directory: Path, settings: Settings, workers: int = 1
) -> pandas.DataFrame:
    """Write the slices of `cases` (`bonelib.datasets.Case`) and return their table.

    A series whose files, settings and code are those of last time is left as it is; one
    that is no longer among the cases is removed. The description is written last: a folder
    that has one is whole. Raises InputError for cases that cannot be used, in the end, when
    the others are prepared.
    """
    folder = SliceFolder(directory)
    code = provenance.code_hash("bonelib.preparation")
    tokens = {case.series_id: _token(case, settings, code) for case in cases}
    records = {series_id: provenance.read_json(folder.series(series_id)) for series_id in tokens}
    stale = [
        case
        for case in cases
        if records[case.series_id].get("token") != tokens[case.series_id]
        or not _is_whole(folder, records[case.series_id])
    ]
    foreign = _files_of_others(folder, set(tokens))
    if stale or foreign:
        folder.description.unlink(missing_ok=True)
    for file in foreign:
        file.unlink()
    for part in (folder.image("", 0), folder.labels("", 0), folder.series("")):
        part.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(case, directory, settings, tokens[case.series_id]) for case in stale]
    refusals = []
    results = _run(_prepare_or_refuse, jobs, workers)
    for result in tqdm(results, "preparing", len(jobs), unit="series", disable=not jobs):
        if isinstance(result, str):
            refusals.append(result)
        else:
            records[result["series"]] = result
    if refusals:
        others = f"{len(refusals)} of {len(cases)} series cannot be used, the others are prepared: "
        told = sorted(refusals)[:MOST_REFUSALS]
        told += [f"and {len(refusals) - len(told)} more"] if len(told) < len(refusals) else []
        raise InputError((others if len(cases) > 1 else "") + " | ".join(told))
    rows = [
        {"series": case.series_id, "slice": row["slice"], "split": case.split, **row}
        for case in cases
        for row in records[case.series_id]["rows"]
    ]
    table = pandas.DataFrame(rows)
    _write_text(folder.table, table.to_csv(index=False))
    _write_description(folder, cases, records, settings)
    return read_table(directory)


def _settings_used(settings: Settings) -> dict:
    return {name: getattr(settings, name) for name in PREPARATION_SETTINGS}


def _token(case, settings: Settings, code: str) -> str:
    """Return a hash that changes when the files of a case, the settings or the code do."""
    states = [
        (str(file.relative_to(case.directory)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in case.source_files()
    ]
    return provenance.text_hash(states, case.recipe, _settings_used(settings), code)


def _is_whole(folder: SliceFolder, record: dict) -> bool:
    """Tell whether the slices that a record lists are there."""
    return all(
        name(record["series"], row["slice"]).exists()
        for row in record["rows"]
        for name in (folder.image, folder.labels)
    )


def _files_of_others(folder: SliceFolder, series_ids: set[str]) -> list[Path]:
    """Return the files in a prepared folder that belong to none of the series."""
    return [
        file
        for pattern, series_of in (
            ("series/*", lambda stem: stem),
            ("images/*", lambda stem: stem.rpartition("_")[0]),
            ("labels/*", lambda stem: stem.rpartition("_")[0]),
        )
        for file in folder.root.glob(pattern)
        if series_of(file.stem) not in series_ids
    ]


def _run(function: Callable, jobs: list[tuple], workers: int) -> Iterator:
    """Yield the results of `function(*job)` as they come, from at most `workers` processes."""
    if min(workers, len(jobs)) <= 1:
        yield from (function(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # threads of the caller do not survive a fork
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _one_thread) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    """Keep a worker process to one core."""
    cv2.setNumThreads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _prepare_or_refuse(case, directory: Path, settings: Settings, token: str) -> dict | str:
    """Return the record of one case, or why it cannot be used; then nothing of it is left."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            record = _prepare_series(case, directory, settings, token)
        except (InputError, OSError, MemoryError) as error:
            for file in _slices_beyond(SliceFolder(directory), case.series_id, 0):
                file.unlink()
            return _refusal(error, case.series_id, directory)
    notes = []
    for item in caught:
        if issubclass(item.category, InputWarning):
            notes.append(str(item.message))
        else:
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
    record["notes"] = list(dict.fromkeys(notes))
    provenance.write_json(SliceFolder(directory).series(case.series_id), record)
    return record


def _refusal(error: Exception, series_id: str, directory: Path) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"series {series_id}: is too large for the memory; crop the scan, or --workers 1"
    return (
        f"{error.filename or directory}: {error.strerror or 'cannot be written'}; check the disk's "
        "free space and your rights, then start again"
    )


def _prepare_series(case, directory: Path, settings: Settings, token: str) -> dict:
    """Write the slices of one case and return its record."""
    folder = SliceFolder(directory)
    folder.series(case.series_id).unlink(missing_ok=True)
    scan = case.scan()
    annotation = case.annotation(scan)
    names = _structure_names(*annotation)
    label_map = case.label_map(scan, annotation)
    spacing_mm = (scan.GetSpacing()[2], settings.pixel_spacing_mm, settings.pixel_spacing_mm)
    columns, rows_count, _ = scan.GetSize()
    rows, content = [], hashlib.sha256()
    for index, (image, label) in enumerate(_on_grid(scan, label_map, settings)):
        Image.fromarray(image).save(folder.image(case.series_id, index))
        Image.fromarray(label).save(folder.labels(case.series_id, index))
        content.update(image.tobytes() + label.tobytes())
        centre = ((columns - 1) / 2, (rows_count - 1) / 2, index)
        rows.append(
            {
                "slice": index,
                "spacing": " ".join(f"{value:.6g}" for value in spacing_mm),
                "source": case.source,
                "position_mm": round(scan.TransformContinuousIndexToPhysicalPoint(centre)[2], 3),
                "bone_pixels": int(((label >= BONE) & (label != IGNORE)).sum()),
                "structures": names[index],
            }
        )
    for file in _slices_beyond(folder, case.series_id, len(rows)):
        file.unlink()
    return {
        "series": case.series_id,
        "token": token,
        "source_sha256": provenance.content_hash(case.source_files(), case.directory),
        "slices_sha256": content.hexdigest(),
        "settings": _settings_used(settings),
        "rows": rows,
    }


def _on_grid(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield picture and label map of each slice, resampled a few slices at a time."""
    for first in range(0, scan.GetSize()[2], SLICES_AT_ONCE):
        part = np.s_[:, :, first : first + SLICES_AT_ONCE]
        image_hu = SimpleITK.GetArrayFromImage(to_grid(scan[part], settings))
        classes = SimpleITK.GetArrayFromImage(to_grid(label_map[part], settings, is_label=True))
        yield from zip(window(image_hu, settings), classes, strict=True)


def _slices_beyond(folder: SliceFolder, series_id: str, count: int) -> list[Path]:
    """Return the slices that an earlier, longer version of a series has left."""
    files = [*folder.root.glob("images/*"), *folder.root.glob("labels/*")]
    return [
        file
        for file in files
        if file.stem.rpartition("_")[0] == series_id and int(file.stem.rpartition("_")[2]) >= count
    ]


def _structure_names(structures: SimpleITK.Image, names: dict[int, str] | None) -> list[str]:
    """Return for each slice the names of its bones, separated by spaces."""
    known = {number: name for number, name in (names or {}).items() if name != labels.IGNORE_NAME}
    return [
        " ".join(
            dict.fromkeys(known[number] for number in np.unique(part).tolist() if number in known)
        )
        for part in SimpleITK.GetArrayViewFromImage(structures)
    ]


def _write_text(path: Path, text: str) -> None:
    """Write in one step, and nothing where the file says that already."""
    if not path.exists() or path.read_text() != text:
        with provenance.replacing(path) as scratch:
            scratch.write_text(text)


def _write_description(
    folder: SliceFolder, cases: Sequence, records: dict, settings: Settings
) -> None:
    series = {
        case.series_id: {
            "split": case.split,
            "slices": len(records[case.series_id]["rows"]),
            "source_sha256": records[case.series_id]["source_sha256"],
            "slices_sha256": records[case.series_id]["slices_sha256"],
            "notes": records[case.series_id]["notes"],
        }
        for case in cases
    }
    used = _settings_used(settings)
    description = {
        "dataset": folder.root.name,
        "fingerprint": provenance.text_hash(series, used),
        "classes": list(settings.class_names),
        "ignore": IGNORE,
        "settings": used,
        "series": series,
    }
    if provenance.read_json(folder.description) != description:
        provenance.write_json(folder.description, description)
