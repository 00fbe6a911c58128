"""Cases -> prepared 2-D slices on disk, split by series.

Worker processes import this module, so that it stays free of Keras.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas
import SimpleITK
from PIL import Image
from tqdm import tqdm

from bonelib import labels, provenance
from bonelib.devices import in_order
from bonelib.errors import InputError, noting
from bonelib.paths import SliceFolder
from bonelib.scans import Grid
from bonelib.settings import AIR_HU, BONE, CLASS_NAMES, IGNORE, Settings
from bonelib.slices import SLICES_AT_ONCE, read_table, window

PREPARATION_SETTINGS = ("image_size", "field_of_view_mm", "window_low_hu", "window_high_hu")
DESCRIBED = ("source_sha256", "slices_sha256", "notes")  # parts of a record in dataset.json
PARTS = ("images", "labels", "series")  # of the prepared folder
MAX_REFUSALS = 4  # refused series that one message lists
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian


def to_grid(image: SimpleITK.Image, settings: Settings, is_label: bool = False) -> SimpleITK.Image:
    """Resample in plane to the square grid of a prepared slice, centred on the scan's field.

    Slices keep their number and distance. HU are interpolated linearly, as float32, with air
    outside; where pixels grow, a Gaussian first blurs to the new pixel size against aliasing.
    A label map is resampled by nearest neighbour, with background outside.
    """
    size, spacing_mm = settings.image_size, settings.pixel_spacing_mm
    columns, rows, count = image.GetSize()
    centre = ((columns - 1) / 2, (rows - 1) / 2, 0)
    direction = np.reshape(image.GetDirection(), (3, 3))
    half_mm = (size - 1) / 2 * spacing_mm
    middle_mm = np.array(image.TransformContinuousIndexToPhysicalPoint(centre))
    origin_mm = middle_mm - half_mm * (direction[:, 0] + direction[:, 1])
    grid = Grid(
        (size, size, count), (spacing_mm, spacing_mm, image.GetSpacing()[2]),
        origin_mm.tolist(), image.GetDirection(),
    )  # fmt: skip
    if is_label:
        return grid.resample(image, SimpleITK.sitkNearestNeighbor, 0)
    return grid.resample(_smooth(image, spacing_mm), SimpleITK.sitkLinear, AIR_HU)


def _smooth(scan: SimpleITK.Image, spacing_mm: float) -> SimpleITK.Image:
    """Blur in plane from the scan's pixel size to `spacing_mm`, as full widths at half maximum.

    Values below air, such as the padding around a scanner's circular field, become air first.
    """
    image_hu = np.maximum(SimpleITK.GetArrayFromImage(scan).astype(np.float32), AIR_HU)
    sigma_x, sigma_y = (
        np.sqrt(max(spacing_mm**2 - width_mm**2, 0)) / FWHM_PER_SIGMA / width_mm
        for width_mm in scan.GetSpacing()[:2]
    )
    if max(sigma_x, sigma_y) > 0:
        for part in image_hu:
            cv2.GaussianBlur(
                part, (0, 0), max(sigma_x, 1e-3), part, max(sigma_y, 1e-3), cv2.BORDER_REPLICATE
            )
    return labels.image_like(image_hu, scan)


def prepare(
    cases: Sequence, directory: Path, settings: Settings, workers: int = 1
) -> pandas.DataFrame:
    """Write the slices of `cases` (`bonelib.datasets.Case`) and return their table.

    A series whose files, settings and code have not changed is kept; one that is no longer
    among the cases is removed. The description is written last, so that a folder with a
    description is complete. Raises InputError for unusable cases after the others are prepared.
    """
    folder = SliceFolder(directory)
    for file in (folder.image("", 0), folder.labels("", 0), folder.series("")):
        file.parent.mkdir(parents=True, exist_ok=True)
    code = provenance.code_hash("bonelib.preparation")
    job = partial(_prepare_or_refuse, folder=folder, settings=settings, code=code)
    results = in_order(job, iter(cases), min(workers, len(cases)) if workers > 1 else 0)
    results = list(tqdm(results, "preparing", len(cases), unit="series"))
    refusals = [result for result in results if isinstance(result, str)]
    records = {result["series"]: result for result in results if isinstance(result, dict)}
    listed = {file for record in records.values() for file in _files(folder, record)}
    for file in {file for part in PARTS for file in folder.root.glob(f"{part}/*")} - listed:
        folder.description.unlink(missing_ok=True)
        file.unlink()
    if refusals:
        folder.description.unlink(missing_ok=True)
        raise InputError(_summary(refusals, len(cases)))
    rows = [
        {"series": case.series_id, "slice": row["slice"], "split": case.split, **row}
        for case in cases
        for row in records[case.series_id]["rows"]
    ]
    table = pandas.DataFrame(rows).to_csv(index=False)
    if not folder.table.exists() or folder.table.read_text() != table:
        with provenance.replacing(folder.table) as scratch:
            scratch.write_text(table)
    description = _describe(folder, cases, records, settings)
    if provenance.read_json(folder.description) != description:
        provenance.write_json(folder.description, description)
    return read_table(directory)


def _settings_used(settings: Settings) -> dict:
    return {name: getattr(settings, name) for name in PREPARATION_SETTINGS}


def _token(case, settings: Settings, code: str) -> str:
    """Return a hash that changes when the files of a case, the settings or the code do."""
    states = [
        (str(file.relative_to(case.directory)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in case.source_files()
    ]
    named = {"bone_names": case.bone_names, "series": case.series}
    return provenance.text_hash(states, named, _settings_used(settings), code)


def _files(folder: SliceFolder, record: dict) -> list[Path]:
    """Return the files of a prepared series."""
    names = (folder.image, folder.labels)
    slices = [name(record["series"], row["slice"]) for row in record["rows"] for name in names]
    return [folder.series(record["series"]), *slices]


def _prepare_or_refuse(case, folder: SliceFolder, settings: Settings, code: str) -> dict | str:
    """Return the record of a case, prepared unless it is current, or the reason against it."""
    try:
        token = _token(case, settings, code)
        record = provenance.read_json(folder.series(case.series_id))
        if record.get("token") == token and all(map(Path.exists, _files(folder, record))):
            return record
        for file in (folder.description, folder.series(case.series_id)):
            file.unlink(missing_ok=True)  # until the slices are complete
        with noting() as notes:
            record = _prepare_series(case, folder, settings, token)
        provenance.write_json(folder.series(case.series_id), record | {"notes": notes})
    except (InputError, OSError, MemoryError) as error:
        return _refusal(error, case.series_id, folder.root)
    return record | {"notes": notes}


def _refusal(error: Exception, series_id: str, directory: Path) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"series {series_id}: too large for the memory; crop the scan, or use --workers 1"
    return (
        f"{error.filename or directory}: {error.strerror or 'cannot be written'}; check the file, "
        "free disk space and permissions, then start again"
    )


def _summary(refusals: list[str], num_cases: int) -> str:
    told = sorted(refusals)[:MAX_REFUSALS]
    if len(told) < len(refusals):
        told.append(f"and {len(refusals) - len(told)} more")
    others = (
        f"{len(refusals)} of {num_cases} series cannot be used, the others are prepared; mend "
        "them, or go on without by deleting their lines in split.csv: "
    )
    return (others if num_cases > 1 else "") + " | ".join(told)


def _prepare_series(case, folder: SliceFolder, settings: Settings, token: str) -> dict:
    """Write the slices of one case and return its record."""
    scan = case.scan()
    annotation = case.annotation(scan)
    structures = _structure_names(*annotation)
    label_map = case.label_map(scan, annotation)
    spacing_mm = (scan.GetSpacing()[2], settings.pixel_spacing_mm, settings.pixel_spacing_mm)
    middle = [(size - 1) / 2 for size in scan.GetSize()[:2]]
    rows, content = [], hashlib.sha256()
    for index, (image, label) in enumerate(_on_grid(scan, label_map, settings)):
        Image.fromarray(image).save(folder.image(case.series_id, index))
        Image.fromarray(label).save(folder.labels(case.series_id, index))
        content.update(image.tobytes() + label.tobytes())
        position_mm = scan.TransformContinuousIndexToPhysicalPoint((*middle, index))
        rows.append(
            {
                "slice": index,
                "spacing": " ".join(f"{value:.6g}" for value in spacing_mm),
                "source": case.source,
                "position_mm": round(position_mm[2], 3),
                "bone_pixels": int(((label >= BONE) & (label != IGNORE)).sum()),
                "structures": structures[index],
            }
        )
    return {
        "series": case.series_id,
        "token": token,
        "source_sha256": provenance.content_hash(case.source_files(), case.directory),
        "slices_sha256": content.hexdigest(),
        "rows": rows,
    }


def _on_grid(
    scan: SimpleITK.Image, label_map: SimpleITK.Image, settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and label map of each slice, resampling a few slices at a time."""
    for first in range(0, scan.GetSize()[2], SLICES_AT_ONCE):
        part = np.s_[:, :, first : first + SLICES_AT_ONCE]
        image_hu = SimpleITK.GetArrayFromImage(to_grid(scan[part], settings))
        classes = SimpleITK.GetArrayFromImage(to_grid(label_map[part], settings, is_label=True))
        yield from zip(window(image_hu, settings), classes, strict=True)


def _structure_names(structures: SimpleITK.Image, names: dict[int, str] | None) -> list[str]:
    """Return for each slice the names of its bones, separated by spaces."""
    found = []
    for part in SimpleITK.GetArrayViewFromImage(structures):
        called = dict.fromkeys((names or {}).get(number) for number in np.unique(part).tolist())
        found.append(" ".join(name for name in called if name not in (None, labels.IGNORE_NAME)))
    return found


def _describe(
    folder: SliceFolder, cases: Sequence, records: dict[str, dict], settings: Settings
) -> dict:
    series = {
        case.series_id: {"split": case.split, "slices": len(records[case.series_id]["rows"])}
        | {name: records[case.series_id][name] for name in DESCRIBED}
        for case in cases
    }
    used = _settings_used(settings)
    return {
        "dataset": folder.root.name,
        "fingerprint": provenance.text_hash(series, used),
        "classes": list(CLASS_NAMES),
        "ignore": IGNORE,
        "settings": used,
        "series": series,
    }
