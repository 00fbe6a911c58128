"""DICOM, NIfTI, NRRD, MHA on disk -> scan: a SimpleITK image in HU.

Scans and masks come out in the order x right to left, y front to back, z feet to head
(DICOM's LPS), whatever the file's own order, with spacing, origin and direction kept.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from bonelib import archives
from bonelib.errors import InputError, InputWarning
from bonelib.scans.frames import HIGHEST_HU, Frame, clip_hu, is_dicom, modality
from bonelib.scans.series import Series, choose, files_below, files_of_directory_record
from bonelib.scans.stacking import assemble, plan, straighten
from bonelib.scans.volumes import VOLUME_SUFFIXES, read_file, read_header, volume_stem

__all__ = [
    "VOLUME_SUFFIXES", "SliceSource", "Stored", "holds_dicom", "is_dicom", "is_scan_file",
    "modality", "read_scan", "read_volume", "source_files", "source_frames", "stored_slices",
    "volume_stem",
]  # fmt: skip

MAX_TILT_DEGREES = 15.0  # of a scan's axes against the patient's; beyond, it is resampled
HIGHEST_AIR_HU = -200.0  # a scan whose smallest value lies above is not in HU
ABSURD_HU = 100_000.0  # no scale reaches it, not even an extended one with metal
SQUARE = 0.01  # share by which the sides of a pixel may differ
DIRECTORY_RECORD = "DICOMDIR"


@dataclass(frozen=True)
class SliceSource:
    """Where one stored slice comes from."""

    name: str  # stem of its DICOM file, "" in a volume file
    number: int | None  # InstanceNumber, or the index within a file of many slices
    position: float  # along the volume's third axis, in slices


@dataclass(frozen=True)
class Stored:
    """The grid of a scan as it lies on disk, before it is turned; tuples as SimpleITK's."""

    size: tuple[int, int, int]  # columns, rows, slices
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    slices: tuple[SliceSource, ...]


def read_scan(path: Path | str, series: str | None = None) -> SimpleITK.Image:
    """Read a scan in HU, int16 or else float32, in LPS.

    `path` is a DICOM folder, a DICOMDIR, an enhanced multi-frame DICOM file, a volume file,
    or a zip or tar of any of these. `series` names one of several DICOM series by its number
    or UID. Raises InputError for what is not one whole CT volume; an InputWarning says what
    was chosen or repaired.
    """
    with _opened(Path(path)) as source:
        return _turned(source, _stored_image(source, series))


def stored_slices(path: Path | str, series: str | None = None) -> Stored:
    """Tell how the slices of a scan lie on disk, before they are turned and after repairs.

    Raises InputError as `read_scan` does, and for a series whose tilt was corrected.
    """
    with _opened(Path(path)) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # `read_scan` says them
        if _is_volume(source):
            header = read_header(source)
            slices = [SliceSource("", index, index) for index in range(header.GetSize()[2])]
            places = header.GetSpacing(), header.GetOrigin(), header.GetDirection()
            return Stored(header.GetSize(), *places, tuple(slices))
        stack = plan(source, _chosen_series(source, series))
        if stack.is_skew:
            raise InputError(
                f"{source}: its tilt was corrected, so single pictures have no place in it; "
                "give the mask as a volume"
            )
        rows, columns = stack.frames[0].shape
        slices = [
            SliceSource(frame.file.stem, frame.number, float(place))
            for frame, place in zip(stack.frames, stack.places, strict=True)
        ]
        return Stored(
            (columns, rows, stack.count),
            tuple(stack.spacing_mm.tolist()),
            tuple(stack.origin_mm.tolist()),
            tuple((stack.axes / stack.spacing_mm).ravel().tolist()),
            tuple(slices),
        )


@contextmanager
def source_frames(path: Path | str, series: str | None = None) -> Iterator[list[Frame]]:
    """Yield the CT slices of a DICOM scan as they lie in its files, from one end to the other.

    The files of an archive are there for as long as the context lasts. Raises InputError as
    `read_scan` does, and for a volume file.
    """
    with _opened(Path(path)) as source:
        if _is_volume(source):
            raise InputError(f"{path}: is not DICOM; give the scan as a DICOM series")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # `read_scan` says them
            frames = plan(source, _chosen_series(source, series)).frames
        yield frames


def read_volume(path: Path | str) -> SimpleITK.Image:
    """Read a mask from a volume file as uint8, or int32 where its ids need it, in LPS.

    Values between two integers go to the nearer one, so 0.5 is 0. Raises InputError for
    what is not one 3-D volume of ids from 0.
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
    """Tell a file that `read_scan` takes by itself: a volume, an archive, a DICOMDIR."""
    named = volume_stem(path) is not None or path.name.upper() == DIRECTORY_RECORD
    return path.is_file() and (named or archives.is_archive(path))


def holds_dicom(directory: Path) -> bool:
    """Tell whether a folder or a folder below it holds a DICOM file."""
    return any(is_dicom(file) for file in source_files(directory))


def source_files(path: Path) -> list[Path]:
    """Return the files that a scan or mask at `path` is made of, sorted.

    A header such as .mhd brings the files of its stem along; hidden files are left out.
    """
    if path.is_dir():
        return files_below(path)
    if path.name.upper() == DIRECTORY_RECORD:
        return files_below(path.parent)
    if path.suffix.lower() == ".mhd":
        return sorted(file for file in path.parent.iterdir() if file.stem == path.stem)
    return [path]


@contextmanager
def _opened(path: Path) -> Iterator[Path]:
    """Yield `path`, or what an archive holds, unpacked for as long as it takes."""
    if not (path.is_file() and archives.is_archive(path)):
        yield path
        return
    with archives.unpacked(path) as folder:
        volumes = [file for file in files_below(folder) if volume_stem(file)]
        if len(volumes) > 1:
            names = ", ".join(file.name for file in volumes[:4])
            raise InputError(f"{path}: holds {len(volumes)} volumes ({names}); unpack it, give one")
        try:
            yield volumes[0] if volumes else folder
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(path))) from error


def _is_volume(path: Path) -> bool:
    return path.is_file() and path.name.upper() != DIRECTORY_RECORD and not is_dicom(path)


def _stored_image(path: Path, series: str | None) -> SimpleITK.Image:
    """Read a scan in its own order of axes."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if not _is_volume(path):
        return assemble(plan(path, _chosen_series(path, series)))
    if series is not None:
        raise InputError(f"{path}: has no series '{series}', being one volume; leave it out")
    image = read_file(path)
    _check_pixels(image)
    return image


def _chosen_series(path: Path, series: str | None) -> Series:
    if path.is_dir():
        return choose(path, files_below(path), series)
    if path.name.upper() == DIRECTORY_RECORD:
        return choose(path, files_of_directory_record(path), series)
    chosen = choose(path, [path], series)
    if len(chosen.frames) < 2:
        raise InputError(f"{path}: this is one DICOM slice; give the folder of the whole series")
    return chosen


def _check_pixels(image: SimpleITK.Image) -> None:
    """Warn where a volume's pixels are not square: a CT's are, and nothing else checks them."""
    axes = np.abs(np.reshape(image.GetDirection(), (3, 3)))
    across = [axis for axis in range(3) if axis != int(np.argmax(axes[2]))]
    one_mm, other_mm = (image.GetSpacing()[axis] for axis in across)
    if abs(one_mm - other_mm) > SQUARE * max(one_mm, other_mm):
        text = f"pixels are not square but {one_mm:g} x {other_mm:g} mm; is that right?"
        warnings.warn(text, InputWarning, stacklevel=2)


def _turned(path: Path, image: SimpleITK.Image) -> SimpleITK.Image:
    """Return a scan in LPS and in whole or float HU; raise InputError where it is none."""
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
        warnings.warn(f"values up to {high:g} HU are cut to {HIGHEST_HU}", InputWarning,
                      stacklevel=2)  # fmt: skip
    hu = SimpleITK.GetImageFromArray(clip_hu(values, values.dtype.kind in "iu"))
    hu.CopyInformation(image)
    turned = SimpleITK.DICOMOrient(hu, "LPS")
    cosines = np.diagonal(np.reshape(turned.GetDirection(), (3, 3)))
    tilt = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
    if tilt <= MAX_TILT_DEGREES:
        return turned
    text = f"the slices are oblique by {tilt:.0f} degrees and are resampled to axial ones"
    warnings.warn(text, InputWarning, stacklevel=2)
    axes = np.reshape(hu.GetDirection(), (3, 3)) * hu.GetSpacing()
    return straighten(hu, axes, np.array(hu.GetOrigin()))
