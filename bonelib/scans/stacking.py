"""The frames of a series -> one regular axial volume; what is repaired is told in a warning.

Handled: slices given twice, single missing slices, uneven distances, a tilted gantry and
oblique slices. Refused: a gap of more than a slice, and whatever would need a guess.
"""

import warnings
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import optimize, stats
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from bonelib.errors import InputError, InputWarning
from bonelib.scans.frames import LOWEST_HU, Frame, pixels_hu
from bonelib.scans.series import MANY, Series

MAX_GAP_DEVIATION = 0.10  # of a gap from the median gap; more, and slices are interpolated
MAX_GAP = 2.1  # median gaps: one missing slice can be interpolated, two cannot
MAX_FILLED = 0.10  # share of slices that interpolation may make
MAX_SIDEWAYS = 0.5  # pixels that all slices together may shift before it is taken for tilt
MAX_GANTRY_DEGREES = 35.0  # gantries tilt up to 30
MIN_TILT_DEGREES = 1.0  # a gantry's tilt that matters
SPACINGS_MM = (0.02, 200.0)  # from micro-CT to a phantom's farthest slices; less than any in m


@dataclass(frozen=True)
class Stack:
    """Slices and the grid that they make up together."""

    frames: list[Frame]
    places: np.ndarray  # of the slices along the third axis, in slices; others are interpolated
    axes: np.ndarray  # steps in mm from voxel to voxel, as columns
    origin_mm: np.ndarray  # the first voxel's place

    @property
    def count(self) -> int:
        """Return the number of slices, with those to interpolate."""
        return round(self.places[-1]) + 1

    @property
    def spacing_mm(self) -> np.ndarray:
        """Return the lengths of the steps."""
        return np.linalg.norm(self.axes, axis=0)

    @property
    def is_skew(self) -> bool:
        """Tell whether the axes are not at right angles, as after a gantry's tilt."""
        direction = self.axes / self.spacing_mm
        return bool(np.abs(direction.T @ direction - np.eye(3)).max() > 1e-6)


def plan(source: Path, series: Series) -> Stack:
    """Work out the grid of a series; pixels are decoded only of slices given twice.

    `source` is what messages name. Raises InputError for what cannot be put right.
    """
    _check_geometry(source, series.frames)
    series = Series(series.label, _without_repetition(source, series))
    if len(series.frames) < 2:
        raise InputError(f"{source}: holds one CT slice; a scan has at least two")
    places = _places(source, series)
    return Stack(series.frames, places, *_affine(source, series, places))


def assemble(stack: Stack) -> SimpleITK.Image:
    """Return the volume in HU, int16 or float32; a skew one is resampled."""
    image_hu = _decoded(stack.frames)
    if stack.count != len(stack.places) or np.ptp(np.diff(stack.places)) > 0:
        image_hu = _interpolated(image_hu, stack.places)
    image = SimpleITK.GetImageFromArray(image_hu)
    if stack.is_skew:
        row, column, step = (stack.axes / stack.spacing_mm).T
        degrees = np.degrees(np.arccos(np.cross(row, column) @ step))
        text = f"the gantry's tilt of {degrees:.1f} degrees is corrected"
        warnings.warn(text, InputWarning, stacklevel=2)
        return straighten(image, stack.axes, stack.origin_mm)
    image.SetSpacing(stack.spacing_mm.tolist())
    image.SetOrigin(stack.origin_mm.tolist())
    image.SetDirection((stack.axes / stack.spacing_mm).ravel().tolist())
    return image


def straighten(image: SimpleITK.Image, axes: np.ndarray, origin: np.ndarray) -> SimpleITK.Image:
    """Resample a volume of skew or oblique axes onto the patient's, with air around.

    `axes` has the steps from voxel to voxel in mm as columns, `origin` is the first voxel.
    """
    size = np.array(image.GetSize())
    lengths_mm = np.linalg.norm(axes, axis=0)
    nearest, steps = optimize.linear_sum_assignment(-np.abs(axes) / lengths_mm)
    spacing_mm = np.empty(3)
    spacing_mm[nearest] = lengths_mm[steps]
    corners = np.array(np.meshgrid(*[(0, count - 1) for count in size])).reshape(3, -1)
    points_mm = axes @ corners + origin[:, None]
    low_mm, high_mm = points_mm.min(axis=1), points_mm.max(axis=1)
    indices = SimpleITK.Image(image)
    indices.SetOrigin((0.0, 0.0, 0.0))
    indices.SetSpacing((1.0, 1.0, 1.0))
    indices.SetDirection(np.eye(3).ravel().tolist())
    back = np.linalg.inv(axes)
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(back.ravel().tolist())
    transform.SetTranslation((-back @ origin).tolist())
    return SimpleITK.Resample(
        indices,
        (np.rint((high_mm - low_mm) / spacing_mm).astype(int) + 1).tolist(),
        transform,
        SimpleITK.sitkLinear,
        low_mm.tolist(),
        spacing_mm.tolist(),
        np.eye(3).ravel().tolist(),
        LOWEST_HU,
    )


def check_spacing(source: Path, spacing_mm: np.ndarray) -> None:
    """Raise InputError for a spacing that no CT has, such as zero or one in metres."""
    low_mm, high_mm = SPACINGS_MM
    if not (np.min(spacing_mm) >= low_mm and np.max(spacing_mm) <= high_mm):
        text = " x ".join(f"{value:g}" for value in spacing_mm)
        raise InputError(f"{source}: a spacing of {text} mm makes no sense; export it again")


def _places(source: Path, series: Series) -> np.ndarray:
    """Return the place of each slice along the third axis, in slices: 0, 1, 2, … if all is well.

    Raises InputError for a gap of more than one slice.
    """
    heights_mm, median_mm = series.heights_mm, series.distance_mm
    gaps_mm = np.diff(heights_mm)
    uneven = np.flatnonzero(np.abs(gaps_mm - median_mm) > MAX_GAP_DEVIATION * median_mm)
    if not len(uneven):
        return np.arange(len(heights_mm), dtype=float)
    count = max(round(np.ptp(heights_mm) / median_mm), 1)
    places = (heights_mm - heights_mm[0]) / np.ptp(heights_mm) * count
    missing = np.maximum(np.rint(gaps_mm / median_mm) - 1, 0).sum()
    worst = int(np.argmax(gaps_mm))
    where = (
        f"{gaps_mm[worst]:.2f} mm between {_name(series.frames[worst])} and "
        f"{_name(series.frames[worst + 1])}, {median_mm:.2f} mm elsewhere"
    )
    if gaps_mm[worst] > MAX_GAP * median_mm:
        lost = round(gaps_mm[worst] / median_mm) - 1
        raise InputError(f"{source}: {lost} slices are missing: {where}; export the whole series")
    if missing > max(MAX_FILLED * count, 1):
        raise InputError(
            f"{source}: {missing:.0f} slices of {count + 1} are missing, one at a time: {where}; "
            "export the whole series"
        )
    what = (
        f"slices that were missing and are interpolated: {missing:.0f}"
        if np.allclose(places, np.rint(places), atol=MAX_GAP_DEVIATION)
        else f"distances of slices from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm "
        f"are brought to {np.ptp(heights_mm) / count:.2f} mm"
    )
    warnings.warn(what, InputWarning, stacklevel=2)
    whole = np.rint(places)
    return np.where(np.abs(places - whole) < MAX_GAP_DEVIATION, whole, places)


def _name(frame: Frame) -> str:
    return frame.file.name if frame.index == 0 else f"frame {frame.index + 1} of {frame.file.name}"


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
                    f"{source}: {_name(frame)} has another {what} than {_name(first)}; "
                    "keep the slices of one series only"
                )
    lengths = np.linalg.norm(first.orientation, axis=1)
    normal = np.cross(*first.orientation)
    if not np.allclose([*lengths, np.linalg.norm(normal)], 1, atol=1e-2):
        raise InputError(f"{source}: the orientation in {_name(first)} makes no sense; "
                         "export the series again")  # fmt: skip
    check_spacing(source, first.spacing_mm)


def _without_repetition(source: Path, series: Series) -> list[Frame]:
    """Drop slices that are there twice; raise InputError where the two differ."""
    frames, same_mm = series.frames, 0.01 * series.distance_mm + 1e-2
    heights_mm = series.heights_mm
    kept, dropped = [0], 0
    for index in range(1, len(frames)):
        if heights_mm[index] - heights_mm[kept[-1]] > same_mm:
            kept.append(index)
            continue
        one, other = frames[kept[-1]], frames[index]
        if not np.array_equal(*(pixels_hu([frame])[0] for frame in (one, other))):
            raise InputError(
                f"{source}: {_name(one)} and {_name(other)} lie at the same position and differ; "
                "keep each slice once"
            )
        dropped += 1
    if dropped:
        text = f"slices that were there twice and are dropped: {dropped}"
        warnings.warn(text, InputWarning, stacklevel=2)
    return [frames[index] for index in kept]


def _affine(source: Path, series: Series, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps in mm from voxel to voxel, as columns, and the first voxel's place.

    Both are those that most slices agree on. Raises InputError where they do not.
    """
    positions_mm = np.array([frame.position_mm for frame in series.frames])
    fits = [stats.theilslopes(values, places)[:2] for values in positions_mm.T]
    step, origin = np.array(fits).T
    row, column = np.median([frame.orientation for frame in series.frames], axis=0)
    axes = np.stack([row, column, np.cross(row, column)])
    row, column, normal = Rotation.from_matrix(axes).as_matrix()  # rounded cosines are not exact
    between_rows_mm, between_columns_mm = np.median(
        [frame.spacing_mm for frame in series.frames], axis=0
    )
    largest_shift_mm = MAX_SIDEWAYS * max(between_rows_mm, between_columns_mm)
    errors_mm = positions_mm - (origin + np.outer(places, step))
    in_plane_mm = np.abs(errors_mm @ np.stack([row, column]).T).max()
    if in_plane_mm > largest_shift_mm:
        raise InputError(
            f"{source}: slices shift sideways by up to {in_plane_mm:.1f} mm, not as a tilted "
            "gantry shifts them; export the series again"
        )
    sideways_mm = np.linalg.norm(step - normal * (step @ normal)) * places[-1]
    told = np.array([frame.tilt_degrees for frame in series.frames])
    if sideways_mm > largest_shift_mm:
        degrees = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        if degrees > MAX_GANTRY_DEGREES:
            raise InputError(
                f"{source}: slices shift sideways by {sideways_mm:.1f} mm in all, {degrees:.0f} "
                "degrees, more than a gantry tilts; export a straight series"
            )
    else:
        if np.abs(told).max() >= MIN_TILT_DEGREES and np.abs(normal).max() > np.cos(
            np.radians(MIN_TILT_DEGREES)
        ):
            raise InputError(
                f"{source}: the gantry was tilted by {told[np.abs(told).argmax()]:.1f} degrees, "
                "and the slices' positions do not show it; export a series corrected for tilt"
            )
        step = normal * (step @ normal)
    check_spacing(source, np.array([np.linalg.norm(step)]))
    return np.stack([row * between_columns_mm, column * between_rows_mm, step], axis=1), origin


def _decoded(frames: list[Frame]) -> np.ndarray:
    """Return the frames' HU, of shape (slice, row, column); each file is decoded once."""
    kind = np.int16 if all(frame.whole_numbers for frame in frames) else np.float32
    image_hu = np.empty((len(frames), *frames[0].shape), kind)
    order = sorted(range(len(frames)), key=lambda index: str(frames[index].file))
    bar = tqdm(order, "decoding", unit="slice", disable=len(order) < MANY, leave=False)
    for _, group in groupby(bar, key=lambda index: frames[index].file):
        indices = list(group)
        for index, pixels in zip(
            indices, pixels_hu([frames[index] for index in indices]), strict=True
        ):
            image_hu[index] = pixels
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
