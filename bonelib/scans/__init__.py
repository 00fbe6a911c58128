"""DICOM, NIfTI, NRRD, MHA on disk -> scan: a SimpleITK image in HU.

Scans and masks come out in the order x right to left, y front to back, z feet to head
(DICOM's LPS), whatever the file's own order, with spacing, origin and direction kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from bonelib.errors import InputError, warn
from bonelib.scans.archive import is_archive, unpacked
from bonelib.scans.dicom import HIGHEST_HU, Frame, clip_hu, is_dicom, modality
from bonelib.scans.dicom_series import (
    Series,
    choose_series,
    files_below,
    files_of_dicomdir,
)
from bonelib.scans.dicom_volume import read_series
from bonelib.scans.volumes import (
    VOLUME_SUFFIXES,
    Grid,
    read_file,
    straighten,
    volume_stem,
    write_volume,
)

__all__ = [
    "VOLUME_SUFFIXES", "Frame", "Grid", "StoredScan", "is_dicom", "is_scan_file",
    "modality", "open_scan", "read_scan", "read_volume", "source_files", "volume_stem",
    "write_volume",
]  # fmt: skip

MAX_OBLIQUE_DEGREES = 15.0  # between a scan's axes and the patient's; beyond, it is resampled
HIGHEST_AIR_HU = -200.0  # a scan whose lowest value lies above is not in HU
ABSURD_HU = 100_000.0  # beyond any scale, even an extended one with metal
SQUARE = 0.01  # share by which the sides of a pixel may differ
DICOMDIR = "DICOMDIR"


@dataclass(frozen=True)
class StoredScan:
    """A scan, and how its slices lie on disk."""

    path: Path  # as it was given
    image: SimpleITK.Image  # HU in LPS, as `read_scan` returns it
    grid: Grid  # as stored, before turning; skew where the gantry was tilted
    frames: list[Frame]  # DICOM slices in the grid's order; empty for a volume file
    places: np.ndarray  # of each stored slice along the grid's third axis, in slices


def read_scan(path: Path | str, series: str | None = None) -> SimpleITK.Image:
    """Read a scan in HU, int16 or else float32, in LPS.

    `path` is a DICOM folder, a DICOMDIR, a multi-frame DICOM file, a volume file, or a zip or
    tar of any of these. `series` names one of several DICOM series by its number or UID.
    Raises InputError for anything but one whole CT volume; an InputWarning reports each
    choice and repair.
    """
    return open_scan(path, series).image


def open_scan(path: Path | str, series: str | None = None) -> StoredScan:
    """Read a scan as `read_scan` does, and keep how its slices lie on disk."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    with _unpacked(path) as source:
        if _is_volume(source):
            if series is not None:
                raise InputError(
                    f"{path}: is one volume, without a series '{series}'; leave it out"
                )
            image, frames = read_file(source), []
            places = np.arange(image.GetDepth(), dtype=float)
            _check_pixels(image)
        else:
            image, frames, places = read_series(source, _chosen_series(source, series))
        return StoredScan(path, _turned(source, image), Grid.of(image), frames, places)


def read_volume(path: Path | str) -> SimpleITK.Image:
    """Read a mask from a volume file as uint8, or int32 where its ids need it, in LPS.

    Values between two integers go to the nearer one, so 0.5 is 0. Raises InputError for
    anything but one 3-D volume of ids from 0.
    """
    path = Path(path)
    image = SimpleITK.DICOMOrient(read_file(path), "LPS")
    values = SimpleITK.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 2**31):
        raise InputError(f"{path}: a mask holds ids from 0, not values from {low:g} to {high:g}")
    ids = np.rint(values).astype(np.uint8 if high <= 255 else np.int32)
    mask = SimpleITK.GetImageFromArray(ids)
    mask.CopyInformation(image)
    return mask


def is_scan_file(path: Path) -> bool:
    """Tell whether `read_scan` takes a file by itself: a volume, an archive, a DICOMDIR."""
    named = volume_stem(path) is not None or path.name.upper() == DICOMDIR
    return path.is_file() and (named or is_archive(path))


def source_files(path: Path) -> list[Path]:
    """Return the files that a scan or mask at `path` consists of, sorted.

    A header such as .mhd comes with the other files of its stem; hidden files are left out.
    """
    if path.is_dir():
        return files_below(path)
    if path.name.upper() == DICOMDIR:
        return files_below(path.parent)
    if path.suffix.lower() == ".mhd":
        return sorted(file for file in path.parent.iterdir() if file.stem == path.stem)
    return [path]


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield `path`, or the content of an archive in a temporary folder."""
    if not is_archive(path):
        yield path
        return
    with unpacked(path) as folder:
        volumes = [file for file in files_below(folder) if volume_stem(file)]
        if len(volumes) > 1:
            names = ", ".join(file.name for file in volumes[:4])
            raise InputError(f"{path}: holds {len(volumes)} volumes ({names}); unpack it, give one")
        try:
            yield volumes[0] if volumes else folder
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(path))) from error


def _is_volume(path: Path) -> bool:
    return path.is_file() and path.name.upper() != DICOMDIR and not is_dicom(path)


def _chosen_series(path: Path, series: str | None) -> Series:
    if path.is_dir():
        return choose_series(path, files_below(path), series)
    if path.name.upper() == DICOMDIR:
        return choose_series(path, files_of_dicomdir(path), series)
    chosen = choose_series(path, [path], series)
    if len(chosen.frames) < 2:
        raise InputError(f"{path}: this is one DICOM slice; give the folder of the whole series")
    return chosen


def _check_pixels(image: SimpleITK.Image) -> None:
    """Warn where a volume's pixels are not square, as a CT's are."""
    slices = int(np.argmax(np.abs(Grid.of(image).axes[2])))
    one_mm, other_mm = np.delete(image.GetSpacing(), slices)
    if abs(one_mm - other_mm) > SQUARE * max(one_mm, other_mm):
        warn(f"pixels are not square but {one_mm:g} x {other_mm:g} mm; is that right?")


def _turned(path: Path, image: SimpleITK.Image) -> SimpleITK.Image:
    """Return a scan in LPS and in HU, int16 or float32; raise InputError where it is none."""
    if min(image.GetSize()) < 2:
        raise InputError(f"{path}: holds one CT slice; a scan has at least two")
    values = SimpleITK.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path}: some values are not finite numbers; export the scan again")
    if low > HIGHEST_AIR_HU or low < -ABSURD_HU or high > ABSURD_HU:
        raise InputError(
            f"{path}: values from {low:g} to {high:g} are not HU, where air is about -1000; "
            "export the CT with its rescale intercept applied"
        )
    if high > HIGHEST_HU:
        warn(f"values up to {high:g} HU are cut to {HIGHEST_HU}")
    hu = SimpleITK.GetImageFromArray(clip_hu(values, values.dtype.kind in "iu"))
    hu.CopyInformation(image)
    grid = Grid.of(hu)
    if grid.is_skew:
        row, column, step = grid.axes.T
        degrees = np.degrees(np.arccos(np.cross(row, column) @ step))
        warn(f"the gantry's tilt of {degrees:.1f} degrees is corrected")
        return straighten(hu)
    turned = SimpleITK.DICOMOrient(hu, "LPS")
    cosines = np.diagonal(Grid.of(turned).axes)
    degrees = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
    if degrees <= MAX_OBLIQUE_DEGREES:
        return turned
    warn(f"the slices are oblique by {degrees:.0f} degrees and are resampled to axial ones")
    return straighten(hu)
