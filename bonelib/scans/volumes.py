"""NIfTI, NRRD, MHA, MHD -> an image, read only where its header holds together."""

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import SimpleITK

from bonelib.errors import InputError
from bonelib.scans.frames import is_dicom
from bonelib.scans.stacking import check_spacing
from bonelib.scans.statements import (
    byte_order,
    check_nifti_header,
    check_text_header,
    is_nifti,
    nifti_stream,
)

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")

MAX_EXTENT_MM = 3000.0  # a longer or wider scan has its spacing in another unit
MAX_ORIGIN_MM = 30_000.0  # of coordinates; a table moves by two metres
BYTES_A_VOXEL = 8  # a scan as it is read, as it is turned, and its masks
LONGEST_TAIL = 4096  # bytes beyond the voxels; more, and the header's size is wrong
CHUNK_BYTES = 2**24
NIFTI_FLOATS = ("16", "64")  # codes of data types


def volume_stem(path: Path) -> str | None:
    """Return the name of a volume file without its suffix, or None for any other file."""
    name = path.name.lower()
    fitting = [suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)]
    return path.name[: -len(max(fitting, key=len))] if fitting else None


def read_file(path: Path) -> SimpleITK.Image:
    """Read a 3-D volume file of one value a voxel, in its own order of axes.

    Raises InputError for every other file, and for one that is damaged or contradicts itself.
    """
    header = read_header(path)
    with _damage_in_one_line(path), _without_twins(path) as alone:
        _check_voxels(path, header)
        return SimpleITK.ReadImage(str(alone))


def read_header(path: Path) -> SimpleITK.ImageFileReader:
    """Read what a volume says of itself: size, spacing, origin and direction.

    Raises InputError as `read_file` does, but for what only the voxels show.
    """
    _check_kind(path)
    header = SimpleITK.ImageFileReader()
    with _damage_in_one_line(path), _without_twins(path) as alone:
        header.SetFileName(str(alone))
        header.ReadImageInformation()
        _check_geometry(path, header)
        if is_nifti(path):
            check_spacing(path, check_nifti_header(path, header))
        else:
            check_text_header(path)
    return header


@contextmanager
def _without_twins(path: Path) -> Iterator[Path]:
    """Yield a NIfTI file by a way on which ITK finds no other.

    Beside `ct.nii`, it takes that one's voxels for those of `ct.nii.gz`, without a word.
    """
    if not is_nifti(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bonelib-") as folder:
        alone = Path(folder) / path.name
        alone.symlink_to(path.resolve())
        yield alone


@contextmanager
def _damage_in_one_line(path: Path) -> Iterator[None]:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # the InputError says it in one line
    try:
        yield
    except (RuntimeError, EOFError, OSError, zlib.error, OverflowError) as error:
        what = "cannot be read as a volume; the file is damaged or incomplete, export it again"
        if isinstance(error, PermissionError):
            what = "may not be read; check its rights"
        elif "rthonormal" in str(error):
            what = (
                "the header's axes are not at right angles, as after a tilted gantry; export the "
                "scan as DICOM, or resampled to a straight grid"
            )
        raise InputError(f"{path}: {what}") from error


def _check_kind(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if is_dicom(path):
        raise InputError(f"{path}: this is one DICOM file; give the folder of the whole series")
    if volume_stem(path) is None:
        raise InputError(
            f"{path}: not a volume file; give a folder of DICOM slices or one of "
            f"{', '.join(VOLUME_SUFFIXES)}"
        )


def _check_geometry(path: Path, header: SimpleITK.ImageFileReader) -> None:
    if header.GetDimension() != 3 or header.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path}: has {header.GetDimension()} dimensions and "
            f"{header.GetNumberOfComponents()} values a voxel; give one 3-D volume of one"
        )
    check_spacing(path, np.array(header.GetSpacing()))
    extent_mm = np.multiply(header.GetSize(), header.GetSpacing())
    if extent_mm.max() > MAX_EXTENT_MM or not np.abs(header.GetOrigin()).max() < MAX_ORIGIN_MM:
        raise InputError(
            f"{path}: {' x '.join(f'{value:.0f}' for value in extent_mm)} mm make no sense; is the "
            "spacing in millimetres? Export it again"
        )
    direction = np.reshape(header.GetDirection(), (3, 3))
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-2):
        raise RuntimeError("axes that are not orthonormal")
    needed = np.prod(header.GetSize(), dtype=float) * BYTES_A_VOXEL
    if needed > psutil.virtual_memory().available:
        raise InputError(
            f"{path}: {' x '.join(map(str, header.GetSize()))} voxels need "
            f"{needed / 2**30:.0f} GiB of memory, more than is free; crop the scan"
        )


def _check_voxels(path: Path, header: SimpleITK.ImageFileReader) -> None:
    """Go through the voxels of a NIfTI file for what ITK passes over in silence.

    It fills up a file cut short and turns what is no number into zeros. Going through a
    compressed file to its end checks its checksum, too. Raises EOFError or InputError.
    """
    if not is_nifti(path):
        return
    start = int(float(header.GetMetaData("vox_offset")))
    voxel_bytes = int(header.GetMetaData("bitpix")) // 8
    needed = int(np.prod(header.GetSize(), dtype=float)) * voxel_bytes
    is_float = header.GetMetaData("datatype") in NIFTI_FLOATS
    with nifti_stream(path) as stream:
        kind = ("<" if byte_order(stream.read(4)) == "little" else ">") + f"f{voxel_bytes}"
        stream.seek(start)
        while needed > 0:
            part = stream.read(min(needed, CHUNK_BYTES))
            if not part:
                raise EOFError
            needed -= len(part)
            if is_float and not np.isfinite(np.frombuffer(part, kind)).all():
                raise InputError(f"{path}: some values are not finite numbers; export it again")
        if len(stream.read(LONGEST_TAIL + 1)) > LONGEST_TAIL:
            raise EOFError
