"""DICOM, NIfTI, NRRD, MHA on disk, or an archive -> scan: a SimpleITK image in HU.

Scans and masks come out in the order x right to left, y front to back, z feet to head
(DICOM's LPS), whatever the file's own order, with spacing, origin and direction kept.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK
from backports import tarfile  # Python's own has the filter "data" from 3.11.4 on

from bonelib.errors import InputError, warn
from bonelib.scans.dicom import Frame, choose_series, files_below, is_dicom, modality
from bonelib.scans.dicom_volume import Layout, lay_out, read_values
from bonelib.scans.volumes import (
    HIGHEST_HU,
    LOWEST_HU,
    VOLUME_SUFFIXES,
    Grid,
    averaged,
    read_file,
    straighten,
    volume_stem,
    write_volume,
)

__all__ = [
    "VOLUME_SUFFIXES", "Frame", "Grid", "Layout", "averaged", "is_dicom", "is_scan_file",
    "modality", "open_scan", "read_layout", "read_scan", "read_volume", "source_files",
    "volume_stem", "write_volume",
]  # fmt: skip

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_RATIO = 800  # unpacked to packed bytes; label maps reach 390, a decompression bomb 1000
HARMLESS_BYTES = KEEP_FREE_BYTES = 2**30  # of a short bomb; of the disk, for everything else
MAX_OBLIQUE_DEGREES = 15.0  # between a scan's axes and the patient's; beyond, it is resampled
HIGHEST_AIR_HU = -200.0  # a scan whose lowest value lies above is not in HU
ABSURD_HU = 100_000.0  # beyond any scale, even an extended one with metal
DICOMDIR = "DICOMDIR"


def read_scan(path: Path | str, series: str | None = None) -> SimpleITK.Image:
    """Read a scan in HU, int16 or else float32, in LPS.

    `path` is a DICOM folder, a DICOMDIR, a multi-frame DICOM file, a volume file, or a zip or
    tar of any of these. `series` names one of several DICOM series by its number or UID.
    Raises InputError for anything but one whole CT volume; an InputWarning reports each
    choice and repair.
    """
    return open_scan(path, series).image


def open_scan(path: Path | str, series: str | None = None, thickest_mm: float = 0.0) -> Layout:
    """Read a scan as `read_scan` does, and keep how its slices lie on disk.

    Thin slices are averaged to at most `thickest_mm`, to save time and memory.
    """
    with _source(Path(path)) as source:
        layout = _stored(source, series, thickest_mm=thickest_mm)
        layout = replace(layout, image=_in_hu(source, layout.image))
        return replace(layout, image=_turned(layout.image))


def read_layout(path: Path | str, series: str | None = None) -> Layout:
    """Read how the slices of a scan lie on disk, without decoding those of DICOM."""
    with _source(Path(path)) as source:
        return _stored(source, series, pixels=False)


def read_volume(path: Path | str) -> SimpleITK.Image:
    """Read a mask from a volume file as uint8, or int32 where its ids need it, in LPS.

    Values between two integers go to the nearer one, so 0.5 is 0. Raises InputError for
    anything but one 3-D volume of ids from 0.
    """
    image = SimpleITK.DICOMOrient(read_file(Path(path)), "LPS")
    values = SimpleITK.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not (low >= -0.5 and high < 2**31):
        raise InputError(f"{path}: a mask holds ids from 0, not values from {low:g} to {high:g}")
    return Grid.of(image).image(np.rint(values).astype(np.uint8 if high <= 255 else np.int32))


def is_scan_file(path: Path) -> bool:
    """Tell whether `read_scan` takes a file by itself: a volume, an archive, a DICOMDIR."""
    named = volume_stem(path) is not None or path.name.upper() == DICOMDIR
    return path.is_file() and (named or _is_archive(path))


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


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


@contextmanager
def _source(path: Path) -> Iterator[Path]:
    """Yield `path`, the one scan file of a folder, or the volume or folder in an archive."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if path.is_dir():
        files = files_below(path)
        path = files[0] if len(files) == 1 and is_scan_file(files[0]) else path
    if not _is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bonelib-") as folder:
        _unpack(path, folder)
        volumes = [file for file in files_below(Path(folder)) if volume_stem(file)]
        if len(volumes) > 1:
            names = ", ".join(file.name for file in volumes[:4])
            raise InputError(f"{path}: holds {len(volumes)} volumes ({names}); unpack it, give one")
        try:
            yield volumes[0] if volumes else Path(folder)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(path))) from error


def _unpack(archive: Path, folder: str) -> None:
    """Unpack an archive: nothing outside the folder, nothing larger than the disk."""
    is_zip = archive.suffix.lower() == ".zip"
    try:
        with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as packed:
            size = _unpacked_bytes(packed)
            if size > max(HARMLESS_BYTES, MAX_RATIO * archive.stat().st_size):
                raise ValueError(f"more than {MAX_RATIO} times its size, as a decompression bomb")
            if size > shutil.disk_usage(folder).free - KEEP_FREE_BYTES:
                raise ValueError(f"{size / 2**30:.1f} GiB, more than the disk has to spare")
            packed.extractall(folder, **({} if is_zip else {"filter": "data"}))
    except Exception as error:  # zipfile, tarfile and the decompressors have many types
        reason = " ".join(str(error).split()) or "damaged"
        raise InputError(
            f"{archive}: cannot be unpacked ({reason}); get it again, or unpack it yourself "
            "and give the folder"
        ) from error


def _unpacked_bytes(packed: zipfile.ZipFile | tarfile.TarFile) -> int:
    if isinstance(packed, zipfile.ZipFile):
        return sum(member.file_size for member in packed.infolist())
    size = sum(member.size for member in packed.getmembers())
    if packed.offset + tarfile.BLOCKSIZE > packed.fileobj.seek(0, 2):
        raise tarfile.ReadError("unexpected end of data")  # tarfile takes it for the end
    return size


def _stored(
    source: Path, series: str | None, pixels: bool = True, thickest_mm: float = 0.0
) -> Layout:
    """Return how a scan is stored, with the scan as it is stored or as averaged."""
    is_folder = source.is_dir() or source.name.upper() == DICOMDIR
    if is_folder or is_dicom(source):
        chosen = choose_series(source, source_files(source), series)
        if not is_folder and len(chosen.frames) < 2:
            raise InputError(f"{source}: this is one DICOM slice; give the folder of the series")
        layout = lay_out(source, chosen)
        if not pixels:
            return layout
        return replace(layout, image=averaged(read_values(layout), layout.grid, thickest_mm))
    if series is not None:
        raise InputError(f"{source}: is one volume, without a series '{series}'; leave it out")
    image = read_file(source)
    grid, values = Grid.of(image), SimpleITK.GetArrayViewFromImage(image)
    return Layout(
        grid, [], np.arange(grid.size[2], dtype=float), averaged(values, grid, thickest_mm)
    )


def _in_hu(path: Path, image: SimpleITK.Image) -> SimpleITK.Image:
    """Return a scan in HU, int16 or float32; raise InputError where it is none."""
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
    kind = SimpleITK.sitkInt16 if values.dtype.kind in "iu" else SimpleITK.sitkFloat32
    return SimpleITK.Clamp(image, kind, LOWEST_HU, HIGHEST_HU)


def _turned(image: SimpleITK.Image) -> SimpleITK.Image:
    """Return a scan in LPS, with straight axes close to the patient's."""
    turned = SimpleITK.DICOMOrient(image, "LPS")
    grid = Grid.of(turned)
    if grid.is_skew:
        row, column, step = grid.axes.T
        degrees = np.degrees(np.arccos(np.cross(row, column) @ step))
        warn(f"the gantry's tilt of {degrees:.1f} degrees is corrected")
        return straighten(turned)
    degrees = np.degrees(np.arccos(np.clip(np.diagonal(grid.axes).min(), -1, 1)))
    if degrees <= MAX_OBLIQUE_DEGREES:
        return turned
    warn(f"the slices are oblique by {degrees:.0f} degrees and are resampled to axial ones")
    return straighten(turned)
