"""DICOM, NIfTI, NRRD, MHA on disk -> scan: a SimpleITK image in HU.

Scans and masks come out in the order x right to left, y front to back, z feet to head
(DICOM's LPS), whatever the file's own order, with spacing, origin and direction kept.
"""

import gzip
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK

from bonelib.errors import InputError

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")

MAX_TILT_DEGREES = 15.0  # of a scan's axes against the patient's; beyond, slices are not axial
MAX_GAP_DEVIATION = 0.10  # of a gap between two slices from the median gap
HIGHEST_AIR_HU = -200.0  # a scan whose smallest value lies above is not in HU

_TAGS = (
    "Modality", "ImageType", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip


@dataclass(frozen=True)
class _SliceHeader:
    """What the geometry and the grey values of one DICOM slice need."""

    file: Path
    series: tuple[str, str]
    description: str
    shape: tuple[int, int]  # rows, columns
    spacing_mm: np.ndarray  # between rows, between columns
    orientation: np.ndarray  # unit vectors along a row and along a column
    position_mm: np.ndarray
    slope: float
    intercept: float


def read_scan(path: Path | str) -> SimpleITK.Image:
    """Read a DICOM folder or a volume file as a scan in HU, int16 or else float32, in LPS.

    Raises InputError for what is not one whole axial CT volume.
    """
    path = Path(path)
    image = _read_series(path) if path.is_dir() else _read_file(path)
    values = SimpleITK.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path}: some values are not finite numbers; export the scan again")
    if low > HIGHEST_AIR_HU:
        raise InputError(
            f"{path}: values from {low:g} to {high:g} are not HU, where air is about -1000; "
            "export the CT with its rescale intercept applied"
        )
    limits = np.iinfo(np.int16)
    whole = values.dtype.kind in "iu" and limits.min <= low and high <= limits.max
    return SimpleITK.Cast(image, SimpleITK.sitkInt16 if whole else SimpleITK.sitkFloat32)


def read_volume(path: Path | str) -> SimpleITK.Image:
    """Read a mask from a volume file as uint8, or int32 where its ids need it, in LPS.

    Values between two integers go to the nearer one, so 0.5 is 0. Raises InputError for
    what is not one 3-D volume of ids from 0.
    """
    path = Path(path)
    image = _read_file(path)
    values = SimpleITK.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 2**31):
        raise InputError(f"{path}: a mask holds ids from 0, not values from {low:g} to {high:g}")
    ids = np.rint(values).astype(np.uint8 if high <= 255 else np.int32)
    mask = SimpleITK.GetImageFromArray(ids)
    mask.CopyInformation(image)
    return mask


def volume_stem(path: Path) -> str | None:
    """Return the name of a volume file without its suffix, or None for any other file."""
    name = path.name.lower()
    fitting = [suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)]
    return path.name[: -len(max(fitting, key=len))] if fitting else None


def holds_dicom(directory: Path) -> bool:
    """Tell whether a folder or a folder below it holds a DICOM file."""
    return any(is_dicom(file) for file in source_files(directory))


def source_files(path: Path) -> list[Path]:
    """Return the files that a scan or mask at `path` is made of, sorted.

    A header such as .mhd brings the files of its stem along; hidden files are left out.
    """
    if path.is_dir():
        files = [
            file for file in path.rglob("*")
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]  # fmt: skip
    elif path.suffix.lower() == ".mhd":
        files = [file for file in path.parent.iterdir() if file.stem == path.stem]
    else:
        files = [path]
    return sorted(file for file in files if file.is_file())


def _to_lps(image: SimpleITK.Image, path: Path) -> SimpleITK.Image:
    image = SimpleITK.DICOMOrient(image, "LPS")
    cosines = np.diagonal(np.reshape(image.GetDirection(), (3, 3)))
    tilt = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
    if tilt > MAX_TILT_DEGREES:
        raise InputError(
            f"{path}: the slices are oblique, {tilt:.0f} degrees off the patient's axes; "
            "export the axial series"
        )
    return image


def _read_file(path: Path) -> SimpleITK.Image:
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if is_dicom(path):
        raise InputError(f"{path}: this is one DICOM file; give the folder of the whole series")
    if volume_stem(path) is None:
        raise InputError(
            f"{path}: not a volume file; give a folder of DICOM slices or one of "
            f"{', '.join(VOLUME_SUFFIXES)}"
        )
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # the InputError says it in one line
    try:
        image = SimpleITK.ReadImage(str(path))
        _check_length(path, image)
    except (RuntimeError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as a volume; the file is damaged or incomplete, "
            "export it again"
        ) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path}: has {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} values a voxel; give one 3-D volume of one"
        )
    keys = [f"{form}_code" for form in ("qform", "sform")]
    if all(image.HasMetaDataKey(key) and image.GetMetaData(key) == "0" for key in keys):
        raise InputError(
            f"{path}: the header does not say which side is left (qform and sform codes are 0); "
            "export it with its orientation"
        )
    return _to_lps(image, path)


def _check_length(path: Path, image: SimpleITK.Image) -> None:
    """Raise EOFError for a NIfTI file cut short, which ITK fills up with zeros in silence."""
    if not image.HasMetaDataKey("vox_offset"):
        return
    length = path.stat().st_size
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as stream:
            length = sum(len(part) for part in iter(lambda: stream.read(2**24), b""))
    voxel_bytes = int(image.GetMetaData("bitpix")) // 8
    if length < float(image.GetMetaData("vox_offset")) + image.GetNumberOfPixels() * voxel_bytes:
        raise EOFError


def is_dicom(file: Path) -> bool:
    """Tell DICOM by its preamble or, in old exports without one, by its first group."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00")


def _read_series(directory: Path) -> SimpleITK.Image:
    slices = _one_series(directory)
    normal = _check_geometry(directory, slices)
    slices = sorted(slices, key=lambda item: item.position_mm @ normal)
    distance_mm = _check_positions(directory, slices, normal)
    image_hu = np.stack([_pixels_hu(item) for item in slices])
    if all(item.slope.is_integer() and item.intercept.is_integer() for item in slices):
        image_hu = image_hu.astype(np.int32)
    scan = SimpleITK.GetImageFromArray(image_hu)
    row, column = slices[0].orientation
    between_rows_mm, between_columns_mm = slices[0].spacing_mm
    scan.SetSpacing((float(between_columns_mm), float(between_rows_mm), distance_mm))
    scan.SetOrigin(slices[0].position_mm.tolist())
    axes = np.stack([row, np.cross(normal, row), normal], axis=1)
    scan.SetDirection(axes.ravel().tolist())
    return _to_lps(scan, directory)


def _one_series(directory: Path) -> list[_SliceHeader]:
    """Return the CT slices of a folder; where one series is far the longest, that one."""
    skipped, groups = Counter(), {}
    for file in source_files(directory):
        header = _read_header(file)
        if isinstance(header, str):
            skipped[header] += 1
        else:
            groups.setdefault(header.series, []).append(header)
    if not groups:
        found = ", ".join(f"{count} {what}" for what, count in skipped.items()) or "no files"
        raise InputError(f"{directory}: no CT slices here ({found}); give a folder of a CT series")
    first, *others = sorted(groups.values(), key=len, reverse=True)
    if others:
        names = "; ".join(
            f"{len(group)} slices '{group[0].description}' from {group[0].file.name}"
            for group in [first, *others]
        )
        if 2 * len(others[0]) > len(first):
            raise InputError(
                f"{directory}: holds {len(groups)} CT series ({names}); "
                "put the one wanted in a folder of its own"
            )
        warnings.warn(f"{directory}: the longest of {len(groups)} series is read ({names})",
                      stacklevel=4)  # fmt: skip
    return first


def _read_header(file: Path) -> _SliceHeader | str:
    """Return the header of a CT slice, or in words what else the file is."""
    if not is_dicom(file):
        return "not DICOM"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break the standard but mean no harm
            header = pydicom.dcmread(
                file, force=True, stop_before_pixels=True, specific_tags=list(_TAGS)
            )
            if header.get("Modality") != "CT":
                return f"of modality {header.get('Modality') or 'unknown'}"
            if int(header.get("NumberOfFrames") or 1) > 1:
                return "multi-frame CT, to be converted to NIfTI first"
            if "LOCALIZER" in (header.get("ImageType") or ()):
                return "CT localizer"
            geometry = [header.get(tag) for tag in _TAGS if tag.endswith(("Patient", "Spacing"))]
            if header.get("SamplesPerPixel", 1) != 1 or not all(geometry):
                return "CT picture without position"
            return _SliceHeader(
                file=file,
                series=(str(header.get("SeriesInstanceUID")), str(header.get("SeriesNumber"))),
                description=str(header.get("SeriesDescription") or "no description"),
                shape=(int(header.Rows), int(header.Columns)),
                spacing_mm=np.array(header.PixelSpacing, float),
                orientation=np.array(header.ImageOrientationPatient, float).reshape(2, 3),
                position_mm=np.array(header.ImagePositionPatient, float).reshape(3),
                slope=float(header.get("RescaleSlope", 1)),
                intercept=float(header.get("RescaleIntercept", 0)),
            )
    except Exception as error:  # pydicom's are of many types
        raise InputError(f"{file}: the DICOM header is damaged; export the series again") from error


def _check_geometry(directory: Path, slices: list[_SliceHeader]) -> np.ndarray:
    """Return the slices' common normal, a unit vector."""
    first = slices[0]
    for item in slices:
        for what, same in (
            ("size", item.shape == first.shape),
            ("pixel spacing", np.allclose(item.spacing_mm, first.spacing_mm, atol=1e-3)),
            ("orientation", np.allclose(item.orientation, first.orientation, atol=1e-3)),
        ):
            if not same:
                raise InputError(
                    f"{directory}: {item.file.name} has another {what} than {first.file.name}; "
                    "keep the slices of one series only"
                )
    row, column = first.orientation
    normal = np.cross(row, column)
    if not np.isclose(np.linalg.norm(normal), 1, atol=1e-2) or first.spacing_mm.min() <= 0:
        raise InputError(
            f"{first.file}: orientation or pixel spacing make no sense; export the series again"
        )
    return normal / np.linalg.norm(normal)


def _check_positions(directory: Path, slices: list[_SliceHeader], normal: np.ndarray) -> float:
    """Return the distance in mm of slices sorted along `normal`."""
    if len(slices) < 2:
        raise InputError(f"{directory}: holds one CT slice; a scan has at least two")
    positions_mm = np.array([item.position_mm for item in slices])
    gaps_mm = np.diff(positions_mm @ normal)
    median_mm = float(np.median(gaps_mm[gaps_mm > 1e-2])) if (gaps_mm > 1e-2).any() else 0.0
    same = np.flatnonzero(gaps_mm <= 0.01 * median_mm + 1e-2)
    if len(same):
        one, other = slices[same[0]], slices[same[0] + 1]
        raise InputError(
            f"{directory}: {one.file.name} and {other.file.name} lie at the same position "
            f"({len(same)} such pairs); keep each slice once"
        )
    uneven = np.flatnonzero(np.abs(gaps_mm - median_mm) > MAX_GAP_DEVIATION * median_mm)
    if len(uneven):
        missing = int(np.maximum(np.rint(gaps_mm[uneven] / median_mm) - 1, 0).sum())
        what = f"{missing} slices are missing" if missing else "distances are uneven"
        one, other = slices[uneven[0]], slices[uneven[0] + 1]
        raise InputError(
            f"{directory}: {what}: {gaps_mm[uneven[0]]:.2f} mm between {one.file.name} and "
            f"{other.file.name}, {median_mm:.2f} mm elsewhere; export the whole series"
        )
    offsets_mm = positions_mm - positions_mm[0]
    sideways_mm = np.linalg.norm(offsets_mm - np.outer(offsets_mm @ normal, normal), axis=1).max()
    if sideways_mm > slices[0].spacing_mm.max():
        raise InputError(
            f"{directory}: slices shift sideways by {sideways_mm:.1f} mm in all, as with a tilted "
            "gantry; export a straight series"
        )
    return float(gaps_mm.mean())


def _pixels_hu(item: _SliceHeader) -> np.ndarray:
    """Return one slice in HU, float32 of shape (row, column)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pydicom.dcmread(item.file, force=True).pixel_array
    except Exception as error:  # each of the decoders has its own
        raise InputError(
            f"{item.file}: the pixels cannot be decoded; export the series again, uncompressed"
        ) from error
    return pixels.astype(np.float32) * np.float32(item.slope) + np.float32(item.intercept)
