"""A DICOM series -> one regular volume in HU.

Repaired, with a warning: duplicate slices, single missing slices, uneven distances, a slice
that lies elsewhere. Refused: wider gaps, and whatever would need a guess. A tilted gantry gives
a volume with skew axes.
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy import ndimage, stats
from tqdm import tqdm

from bonelib.errors import InputError, refusing_damage, warn
from bonelib.scans.dicom import MANY, Frame, Series, slice_heights_mm
from bonelib.scans.volumes import HIGHEST_HU, LOWEST_HU, Grid, check_spacing, straight_axes

MAX_GAP_DEVIATION = 0.10  # of a gap from the median gap; beyond, slices are interpolated
MAX_GAP = 2.1  # median gaps: one missing slice can be interpolated, two cannot
GAPS_AROUND = 5  # of which the median is the usual gap; a series may have two distances
MAX_FILLED = 0.10  # share of slices that may be interpolated
MAX_ODD = 0.10  # share of slices that may be left out since they lie elsewhere
MAX_SIDEWAYS = 0.5  # pixels that all slices together may shift before it counts as tilt
MAX_GANTRY_DEGREES = 35.0  # gantries tilt up to 30
MIN_TILT_DEGREES = 1.0  # a smaller tilt of the gantry does not matter


@dataclass(frozen=True)
class Layout:
    """A scan, and how its slices lie on disk."""

    grid: Grid  # as stored, before turning; skew where the gantry was tilted
    frames: list[Frame]  # DICOM slices in the grid's order; empty for a volume file
    places: np.ndarray  # of each stored slice along the grid's third axis, in slices
    image: SimpleITK.Image | None = None  # where it was read; HU in LPS from `open_scan`

    def spread(self, slices: np.ndarray) -> np.ndarray:
        """Return a slice for each of the grid's: that of the nearest stored slice."""
        wanted = np.arange(self.grid.size[2])
        return slices[np.abs(self.places[:, None] - wanted).argmin(axis=0)]


def lay_out(source: Path, series: Series) -> Layout:
    """Return the grid of a series, its distinct slices and their places, from headers.

    Raises InputError, naming `source`, for what cannot be repaired.
    """
    for repair in (_without_duplicates, _without_odd):
        series = Series(series.label, repair(source, series))
        if len(series.frames) < 2:
            raise InputError(f"{source}: holds one CT slice; a scan has at least two")
    numbers = [frame.number for frame in series.frames]
    if 1 < len(set(numbers)) <= len(numbers) / 2:
        warn("slices share their numbers; check that this is one series")
    places = _places(source, series)
    axes, origin_mm = _affine(source, series, places)
    rows, columns = series.frames[0].shape
    spacing_mm = np.linalg.norm(axes, axis=0)
    check_spacing(source, spacing_mm)
    grid = Grid(
        (columns, rows, round(places[-1]) + 1),
        tuple(spacing_mm.tolist()),
        tuple(origin_mm.tolist()),
        tuple((axes / spacing_mm).ravel().tolist()),
    )
    return Layout(grid, series.frames, places)


def read_values(layout: Layout) -> np.ndarray:
    """Return the slices of a series in HU on its grid; empty places are interpolated."""
    frames, places = layout.frames, layout.places
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames)
    kind = np.int16 if whole else np.float32
    image_hu = np.empty((len(frames), *frames[0].shape), kind)
    order = sorted(range(len(frames)), key=lambda index: str(frames[index].file))
    bar = tqdm(order, "decoding", unit="slice", disable=len(order) < MANY, leave=False)
    for _, group in groupby(bar, key=lambda index: frames[index].file):  # decode a file once
        indices = list(group)
        image_hu[indices] = decode_hu([frames[index] for index in indices])
    if np.array_equal(places, np.arange(len(places))):
        return image_hu
    wanted = np.arange(layout.grid.size[2])
    after = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    weights = (wanted - places[after - 1]) / (places[after] - places[after - 1])
    regular = np.empty((len(wanted), *image_hu.shape[1:]), kind)
    for index, (upper, weight) in enumerate(zip(after, weights, strict=True)):
        mixed = (1 - weight) * image_hu[upper - 1] + weight * image_hu[upper]
        regular[index] = np.rint(mixed) if whole else mixed
    return regular


def decode_hu(frames: list[Frame]) -> list[np.ndarray]:
    """Return slices of one file in HU, each (row, column), int16 or else float32.

    Raises InputError for pixels that cannot be decoded.
    """
    file = frames[0].file
    with refusing_damage(file, "the pixels cannot be decoded; export the series uncompressed"):
        dataset = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little_endian = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        stored = dataset.pixel_array.reshape(-1, *frames[0].shape)
        slices = []
        for frame in frames:
            image_hu = stored[frame.index] * frame.slope + frame.intercept
            whole = frame.slope.is_integer() and frame.intercept.is_integer()
            clipped = np.clip(image_hu, LOWEST_HU, HIGHEST_HU)
            slices.append(clipped.astype(np.int16 if whole else np.float32))
        return slices


def _without_duplicates(source: Path, series: Series) -> list[Frame]:
    """Drop duplicate slices; raise InputError where the two differ."""
    frames, heights_mm = series.frames, slice_heights_mm(series.frames)
    kept = [0]
    for index in range(1, len(frames)):
        if heights_mm[index] - heights_mm[kept[-1]] > 0.01 * series.distance_mm + 0.01:
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


def _without_odd(source: Path, series: Series) -> list[Frame]:
    """Leave out a few slices that lie beside the others, or far beyond them."""
    heights_mm, gaps_mm = slice_heights_mm(series.frames), np.diff(slice_heights_mm(series.frames))
    _, _, errors_mm = _fit(series, heights_mm)
    odd = np.linalg.norm(errors_mm, axis=1) > MAX_SIDEWAYS * series.frames[0].spacing_mm.max()
    if len(gaps_mm) > 1:
        odd[0] |= gaps_mm[0] > MAX_GAP * max(gaps_mm[1], series.distance_mm)
        odd[-1] |= gaps_mm[-1] > MAX_GAP * max(gaps_mm[-2], series.distance_mm)
    if not 0 < odd.sum() <= MAX_ODD * len(odd):
        return series.frames
    names = ", ".join(frame.name for frame, out in zip(series.frames, odd, strict=True) if out)
    warn(f"slices that do not lie in line with the others are left out: {names}")
    return [frame for frame, out in zip(series.frames, odd, strict=True) if not out]


def _fit(series: Series, along: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return step and start of the line that most slices lie on, and each one's distance to it."""
    positions_mm = np.array([frame.position_mm for frame in series.frames])
    fits = [stats.theilslopes(values, along)[:2] for values in positions_mm.T]
    step, start = np.array(fits).T
    return step, start, positions_mm - start - np.outer(along, step)


def _places(source: Path, series: Series) -> np.ndarray:
    """Return the place of each slice along the third axis, in slices: 0, 1, 2, … if regular.

    Raises InputError for a gap of more than one slice.
    """
    heights_mm, gaps_mm = slice_heights_mm(series.frames), np.diff(slice_heights_mm(series.frames))
    if np.isclose(gaps_mm, series.distance_mm, rtol=MAX_GAP_DEVIATION).all():
        return np.arange(len(heights_mm), dtype=float)
    usual_mm = ndimage.median_filter(gaps_mm, GAPS_AROUND, mode="mirror")
    missing = np.maximum(np.rint(gaps_mm / usual_mm) - 1, 0)
    worst = int(np.argmax(gaps_mm / usual_mm))
    lost = ""
    if gaps_mm[worst] > MAX_GAP * usual_mm[worst]:
        lost = f"{missing[worst]:.0f} slices are missing"
    elif missing.sum() > max(MAX_FILLED * len(gaps_mm), 1):
        lost = f"{missing.sum():.0f} slices are missing, one at a time"
    if lost:
        raise InputError(
            f"{source}: {lost}: {gaps_mm[worst]:.2f} mm between {series.frames[worst].name} and "
            f"{series.frames[worst + 1].name}, {usual_mm[worst]:.2f} mm elsewhere; export all "
            "slices"
        )
    count = np.ptp(heights_mm) / usual_mm.min()
    has_one_distance = np.ptp(usual_mm) <= MAX_GAP_DEVIATION * usual_mm.min()
    count = max(round(count) if has_one_distance else np.ceil(count - MAX_GAP_DEVIATION), 1)
    places = (heights_mm - heights_mm[0]) / np.ptp(heights_mm) * count
    whole = np.rint(places)
    if has_one_distance and np.allclose(places, whole, atol=MAX_GAP_DEVIATION):
        warn(f"missing slices interpolated: {missing.sum():.0f}")
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
    rows_mm, columns_mm = series.frames[0].spacing_mm
    row, column = series.frames[0].orientation
    axes = straight_axes(source, np.stack([row, column, np.cross(row, column)], axis=1))
    step, origin, errors_mm = _fit(series, places)
    in_plane_mm = np.abs(errors_mm @ axes[:, :2]).max()
    largest_shift_mm = MAX_SIDEWAYS * max(rows_mm, columns_mm)
    upright = axes[:, 2] * (step @ axes[:, 2])
    sideways_mm = np.linalg.norm(step - upright) * places[-1]
    degrees = np.degrees(np.arccos(min(np.linalg.norm(upright) / np.linalg.norm(step), 1)))
    shifted = sideways_mm > largest_shift_mm
    if in_plane_mm > largest_shift_mm or (shifted and degrees > MAX_GANTRY_DEGREES):
        raise InputError(
            f"{source}: slices shift sideways by up to {max(in_plane_mm, sideways_mm):.1f} mm, not "
            "as a tilted gantry shifts them; export a straight series"
        )
    tilt = max((frame.tilt_degrees for frame in series.frames), key=abs)
    is_axial = np.abs(axes[:, 2]).max() > np.cos(np.radians(MIN_TILT_DEGREES))
    # A reformat may be straight and carry the tilt of the slices that it was made from.
    if not shifted and is_axial and abs(tilt) >= MIN_TILT_DEGREES and not series.is_derived:
        raise InputError(
            f"{source}: the gantry was tilted by {tilt:.1f} degrees, and the slices' positions do "
            "not show it; export a series corrected for tilt"
        )
    step = step if shifted else upright
    return np.column_stack([axes[:, 0] * columns_mm, axes[:, 1] * rows_mm, step]), origin
