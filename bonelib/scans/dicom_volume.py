"""A DICOM series -> one regular volume in HU.

Repaired, with a warning: duplicate slices, single missing slices, uneven distances. Refused:
wider gaps, and whatever would need a guess. A tilted gantry gives a volume with skew axes.
"""

from itertools import groupby
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import stats
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from bonelib.errors import InputError, warn
from bonelib.scans.dicom import Frame, decode_hu
from bonelib.scans.dicom_series import MANY, Series
from bonelib.scans.volumes import check_spacing

MAX_GAP_DEVIATION = 0.10  # of a gap from the median gap; beyond, slices are interpolated
MAX_GAP = 2.1  # median gaps: one missing slice can be interpolated, two cannot
MAX_FILLED = 0.10  # share of slices that may be interpolated
MAX_SIDEWAYS = 0.5  # pixels that all slices together may shift before it counts as tilt
MAX_GANTRY_DEGREES = 35.0  # gantries tilt up to 30
MIN_TILT_DEGREES = 1.0  # a smaller tilt of the gantry does not matter


def read_series(source: Path, series: Series) -> tuple[SimpleITK.Image, list[Frame], np.ndarray]:
    """Return the volume, its distinct slices, and the place of each along the third axis.

    Places count in slices; those without a slice are interpolated. `source` is named in
    messages. Raises InputError for what cannot be repaired.
    """
    _check_geometry(source, series.frames)
    series = Series(series.label, _without_duplicates(source, series))
    if len(series.frames) < 2:
        raise InputError(f"{source}: holds one CT slice; a scan has at least two")
    places = _places(source, series)
    axes, origin_mm = _affine(source, series, places)
    image_hu = _decoded(series.frames)
    if not np.array_equal(places, np.arange(len(places))):
        image_hu = _interpolated(image_hu, places)
    image = SimpleITK.GetImageFromArray(image_hu)
    spacing_mm = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(origin_mm.tolist())
    image.SetDirection((axes / spacing_mm).ravel().tolist())
    return image, series.frames, places


def _check_geometry(source: Path, frames: list[Frame]) -> None:
    first = frames[0]
    for frame in frames:
        for what, same in (
            ("size", frame.shape == first.shape),
            ("pixel spacing", np.allclose(frame.spacing_mm, first.spacing_mm, atol=1e-3)),
            ("orientation", np.allclose(frame.orientation, first.orientation, atol=1e-3)),
        ):
            if not same:
                raise InputError(
                    f"{source}: {frame.name} has another {what} than {first.name}; "
                    "keep the slices of one series only"
                )
    lengths = np.linalg.norm([*first.orientation, np.cross(*first.orientation)], axis=1)
    if not np.allclose(lengths, 1, atol=1e-2):
        raise InputError(
            f"{source}: the orientation in {first.name} makes no sense; export the series again"
        )
    check_spacing(source, first.spacing_mm)


def _without_duplicates(source: Path, series: Series) -> list[Frame]:
    """Drop duplicate slices; raise InputError where the two differ."""
    frames, same_mm = series.frames, 0.01 * series.distance_mm + 1e-2
    heights_mm = series.heights_mm
    kept = [0]
    for index in range(1, len(frames)):
        if heights_mm[index] - heights_mm[kept[-1]] > same_mm:
            kept.append(index)
            continue
        one, other = frames[kept[-1]], frames[index]
        if not np.array_equal(decode_hu([one]), decode_hu([other])):
            raise InputError(
                f"{source}: {one.name} and {other.name} lie at the same position and differ; "
                "keep each slice once"
            )
    if len(kept) < len(frames):
        warn(f"duplicate slices dropped: {len(frames) - len(kept)}")
    return [frames[index] for index in kept]


def _places(source: Path, series: Series) -> np.ndarray:
    """Return the place of each slice along the third axis, in slices: 0, 1, 2, … if regular.

    Raises InputError for a gap of more than one slice.
    """
    heights_mm, median_mm = series.heights_mm, series.distance_mm
    gaps_mm = np.diff(heights_mm)
    if (np.abs(gaps_mm - median_mm) <= MAX_GAP_DEVIATION * median_mm).all():
        return np.arange(len(heights_mm), dtype=float)
    count = max(round(np.ptp(heights_mm) / median_mm), 1)
    places = (heights_mm - heights_mm[0]) / np.ptp(heights_mm) * count
    missing = np.maximum(np.rint(gaps_mm / median_mm) - 1, 0).sum()
    worst = int(np.argmax(gaps_mm))
    where = (
        f"{gaps_mm[worst]:.2f} mm between {series.frames[worst].name} and "
        f"{series.frames[worst + 1].name}, {median_mm:.2f} mm elsewhere; export the whole series"
    )
    if gaps_mm[worst] > MAX_GAP * median_mm:
        lost = round(gaps_mm[worst] / median_mm) - 1
        raise InputError(f"{source}: {lost} slices are missing: {where}")
    if missing > max(MAX_FILLED * count, 1):
        slices = f"{missing:.0f} slices of {count + 1}"
        raise InputError(f"{source}: {slices} are missing, one at a time: {where}")
    whole = np.rint(places)
    if np.allclose(places, whole, atol=MAX_GAP_DEVIATION):
        warn(f"missing slices interpolated: {missing:.0f}")
    else:
        warn(
            f"slice distances from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm are resampled to "
            f"{np.ptp(heights_mm) / count:.2f} mm"
        )
    return np.where(np.abs(places - whole) < MAX_GAP_DEVIATION, whole, places)


def _affine(source: Path, series: Series, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps in mm from voxel to voxel, as columns, and the first voxel's position.

    Both are those that most slices agree on. Raises InputError where they do not.
    """
    positions_mm = np.array([frame.position_mm for frame in series.frames])
    fits = [stats.theilslopes(values, places)[:2] for values in positions_mm.T]
    step, origin = np.array(fits).T
    row, column = np.median([frame.orientation for frame in series.frames], axis=0)
    axes = np.stack([row, column, np.cross(row, column)])
    row, column, normal = Rotation.from_matrix(axes).as_matrix()  # rounded cosines are not exact
    rows_mm, columns_mm = np.median([frame.spacing_mm for frame in series.frames], axis=0)
    largest_shift_mm = MAX_SIDEWAYS * max(rows_mm, columns_mm)
    errors_mm = positions_mm - (origin + np.outer(places, step))
    in_plane_mm = np.abs(errors_mm @ np.stack([row, column]).T).max()
    if in_plane_mm > largest_shift_mm:
        raise InputError(
            f"{source}: slices shift sideways by up to {in_plane_mm:.1f} mm, not as a tilted "
            "gantry shifts them; export the series again"
        )
    sideways_mm = np.linalg.norm(step - normal * (step @ normal)) * places[-1]
    if sideways_mm > largest_shift_mm:
        degrees = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        if degrees > MAX_GANTRY_DEGREES:
            raise InputError(
                f"{source}: slices shift sideways by {sideways_mm:.1f} mm in all, {degrees:.0f} "
                "degrees, more than a gantry tilts; export a straight series"
            )
    else:
        _check_tilt(source, series, normal)
        step = normal * (step @ normal)
    check_spacing(source, np.array([np.linalg.norm(step)]))
    return np.stack([row * columns_mm, column * rows_mm, step], axis=1), origin


def _check_tilt(source: Path, series: Series, normal: np.ndarray) -> None:
    """Raise InputError where upright slices state a tilt that their positions do not show."""
    degrees = max((frame.tilt_degrees for frame in series.frames), key=abs)
    upright = np.abs(normal).max() > np.cos(np.radians(MIN_TILT_DEGREES))
    if abs(degrees) >= MIN_TILT_DEGREES and upright:
        raise InputError(
            f"{source}: the gantry was tilted by {degrees:.1f} degrees, and the slices' positions "
            "do not show it; export a series corrected for tilt"
        )


def _decoded(frames: list[Frame]) -> np.ndarray:
    """Return the frames' HU, (slice, row, column); each file is decoded once."""
    kind = np.int16 if all(frame.whole_numbers for frame in frames) else np.float32
    image_hu = np.empty((len(frames), *frames[0].shape), kind)
    order = sorted(range(len(frames)), key=lambda index: str(frames[index].file))
    bar = tqdm(order, "decoding", unit="slice", disable=len(order) < MANY, leave=False)
    for _, group in groupby(bar, key=lambda index: frames[index].file):
        indices = list(group)
        image_hu[indices] = decode_hu([frames[index] for index in indices])
    return image_hu


def _interpolated(image_hu: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return slices at 0, 1, 2, …, linear between those at `places`."""
    wanted = np.arange(round(places[-1]) + 1)
    after = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    share = (wanted - places[after - 1]) / (places[after] - places[after - 1])
    regular = np.empty((len(wanted), *image_hu.shape[1:]), image_hu.dtype)
    for index, (upper, weight) in enumerate(zip(after, share, strict=True)):
        mixed = (1 - weight) * image_hu[upper - 1] + weight * image_hu[upper]
        regular[index] = np.rint(mixed) if image_hu.dtype == np.int16 else mixed
    return regular
