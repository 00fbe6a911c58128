"""NIfTI, NRRD, MHA and MHD files <-> images, and the grids that images lie on.

A file is read only where its header is complete and agrees with itself.
"""

import gzip
import os
import re
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import SimpleITK
from scipy.spatial.transform import Rotation

from bonelib.errors import InputError, refusing_damage, warn
from bonelib.provenance import replacing
from bonelib.scans.dicom import is_dicom

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")

LOWEST_HU = -1024  # air in 12-bit scans; lower values are padding
HIGHEST_HU = 32767  # metal on an extended scale reaches 30,000
SPACINGS_MM = (0.02, 200.0)  # from micro-CT to a phantom's farthest slices
MAX_EXTENT_MM = 3000.0  # a longer or wider scan has its spacing in another unit
BYTES_PER_VOXEL = 8  # of memory: the scan as it is read, as it is turned, and its masks
LARGEST_SHIFT = 0.5  # voxels between two statements of one header
GZIP = b"\x1f\x8b"  # the start of a compressed file
LONGEST_TAIL = 4096  # bytes after the voxels; more, and the header's size is wrong
CHUNK_BYTES = 2**24  # read at once, a multiple of a voxel's
MAX_HEADER_BYTES = 2**20  # of a text header
PART_SLICES = 16  # slices that `Grid.build` makes at once
MAX_SKEW_DEGREES = 0.1  # off right angles; rounding of direction cosines causes up to 0.05
NOTED_SKEW_DEGREES = 0.01
DAMAGED = "cannot be read as a volume; the file is damaged or incomplete, export it again"

# Fields that a text header needs, by all their names, and patterns that are refused: ITK passes
# over missing fields, unknown spaces and other units.
NUMBERS = r"[-+.\deE(), \t]+"
SPACES = r"left-posterior-superior|right-anterior-superior|left-anterior-superior|LPS|RAS|LAS"
NEEDED_FIELDS = {
    ".nrrd": {"sizes": NUMBERS, "space": SPACES, "space directions": NUMBERS,
              "space origin": NUMBERS},
    ".mha": {"DimSize": NUMBERS, "ElementSpacing|ElementSize": NUMBERS,
             "Offset|Position|Origin": NUMBERS,
             "TransformMatrix|Rotation|Orientation": NUMBERS},
}  # fmt: skip
REFUSED_FIELDS = {
    r"(?i)^encoding\s*:\s*bz": "its compression (bzip2) is not supported; save it with gzip",
    r'(?i)^(space units|DistanceUnits)\s*[:=](?!\s*("?(mm|millimet(er|re)s?)"?\s*)+$)':
        "the header's distances are not in mm; export it in mm",
}  # fmt: skip

# ITK refuses rounded direction cosines unless told not to; `straight_axes` checks them.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie; tuples in SimpleITK's order, x first."""

    size: tuple[int, int, int]  # columns, rows, slices
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: SimpleITK.Image) -> "Grid":
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def axes(self) -> np.ndarray:
        """Return unit vectors along columns, rows and slices, as columns of a matrix."""
        return np.reshape(self.direction, (3, 3))

    @property
    def is_skew(self) -> bool:
        """Tell whether the axes are not at right angles, as after a tilt of the gantry."""
        return bool(np.abs(self.axes.T @ self.axes - np.eye(3)).max() > 1e-6)

    def build(self, make: Callable[["Grid"], SimpleITK.Image]) -> SimpleITK.Image:
        """Return a uint8 image on this grid, made in parts of a few slices to save memory."""
        image = SimpleITK.Image(self.size, SimpleITK.sitkUInt8)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        columns, rows, depth = self.size
        for first in range(0, depth, PART_SLICES):
            size = columns, rows, min(PART_SLICES, depth - first)
            origin_mm = image.TransformIndexToPhysicalPoint((0, 0, first))
            part = Grid(size, self.spacing_mm, origin_mm, self.direction)
            image[:, :, first : first + PART_SLICES] = make(part)
        return image

    def resample(
        self, image: SimpleITK.Image, interpolator: int, outside: float
    ) -> SimpleITK.Image:
        """Return an image on this grid, of the same type, with `outside` around it."""
        return SimpleITK.Resample(
            image, self.size, SimpleITK.Transform(), interpolator, self.origin_mm,
            self.spacing_mm, self.direction, outside, image.GetPixelID(),
        )  # fmt: skip

    def image(self, values: np.ndarray) -> SimpleITK.Image:
        """Return values (slice, row, column) as an image on this grid."""
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image


def averaged(values: np.ndarray, grid: Grid, thickest_mm: float) -> SimpleITK.Image:
    """Return values on a grid as an image, with slices averaged to at most `thickest_mm`."""
    axis = int(np.abs(grid.axes[2]).argmax())  # the one nearest to feet to head
    count = min(int(thickest_mm / grid.spacing_mm[axis] + 1e-6), grid.size[axis] // 2)
    if count < 2:
        return grid.image(values)
    slices = np.moveaxis(values, 2 - axis, 0)
    thick = np.empty((-(-len(slices) // count), *slices.shape[1:]), values.dtype)
    for index in range(len(thick)):
        mean = slices[index * count : (index + 1) * count].mean(axis=0)
        thick[index] = np.rint(mean) if values.dtype.kind in "iu" else mean
    step_mm = grid.axes[:, axis] * grid.spacing_mm[axis]
    origin_mm, spacing_mm = grid.origin_mm + (count - 1) / 2 * step_mm, list(grid.spacing_mm)
    spacing_mm[axis] *= count
    coarse = replace(grid, origin_mm=origin_mm.tolist(), spacing_mm=spacing_mm)
    return coarse.image(np.moveaxis(thick, 0, 2 - axis))


def image_like(values: np.ndarray, image: SimpleITK.Image) -> SimpleITK.Image:
    """Return an array (slice, row, column) as an image that lies where `image` does."""
    return Grid.of(image).image(values)


def on_grid(
    mask: SimpleITK.Image, scan: SimpleITK.Image, path: Path | None = None
) -> SimpleITK.Image:
    """Resample a mask to the scan's grid by nearest neighbour; outside the mask is 0.

    Raises InputError, naming `path`, where the two do not overlap in space.
    """
    grid = Grid.of(scan)
    if grid == Grid.of(mask):
        return mask
    resampled = grid.resample(mask, SimpleITK.sitkNearestNeighbor, 0)
    drawn, found = map(SimpleITK.GetArrayViewFromImage, (mask, resampled))
    if drawn.any() and not found.any():
        named = "" if path is None else f"{path}: "
        raise InputError(
            f"{named}mask and scan lie apart in space; export both with the same origin"
        )
    return resampled


def volume_stem(path: Path) -> str | None:
    """Return the name of a volume file without its suffix, or None for any other file."""
    name = path.name.lower()
    fitting = [suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)]
    return path.name[: -len(max(fitting, key=len))] if fitting else None


def read_file(path: Path) -> SimpleITK.Image:
    """Read a 3-D volume file of one value a voxel, in its own order of axes.

    Raises InputError for any other file, and for one that is damaged or contradicts itself.
    """
    with _checked(path) as (alone, axes):
        image = SimpleITK.ReadImage(str(alone))
        image.SetDirection(straight_axes(path, axes).ravel().tolist())
        return image


@contextmanager
def _checked(path: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield the path from which ITK reads a volume file, and its axes; refuse a faulty file."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if is_dicom(path):
        raise InputError(f"{path}: this is one DICOM file; give the folder of the whole series")
    if volume_stem(path) is None:
        kinds = ", ".join(VOLUME_SUFFIXES)
        raise InputError(f"{path}: not a volume file; give DICOM slices or one of {kinds}")
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    with refusing_damage(path, DAMAGED), tempfile.TemporaryDirectory(prefix="bonelib-") as folder:
        with path.open("rb") as stream:
            start = stream.read(3)
        if start == BOM_UTF8:
            raise InputError(f"{path}: an editor put a mark before the header; export it again")
        alone = path
        if is_nifti:  # ITK goes by the name, and takes the voxels of ct.nii for ct.nii.gz beside it
            alone = Path(folder, "ct.nii.gz" if start[:2] == GZIP else "ct.nii")
            alone.symlink_to(path.resolve())
        header = read_header(alone)
        _check_size(path, header)
        yield alone, (_nifti_axes if is_nifti else _text_axes)(path, header)


def read_header(path: Path) -> SimpleITK.ImageFileReader:
    """Read the header of a volume file, unchecked."""
    header = SimpleITK.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header


def write_volume(image: SimpleITK.Image, path: Path) -> None:
    """Write a volume in one step, with its geometry and nothing else of the input's header.

    Raises InputError for a name that is not a volume's, and where nothing can be written.
    """
    if volume_stem(path) is None or path.suffix.lower() == ".mhd":
        raise InputError(f"{path}: cannot be written; end the name in .nii.gz, .nrrd or .mha")
    try:
        with replacing(path) as scratch:
            SimpleITK.WriteImage(image, str(scratch), useCompression=True)
            with _checked(scratch) as (alone, _):  # ITK does not report a full disk
                if ".nii" not in alone.suffixes:  # whose voxels were counted
                    SimpleITK.ReadImage(str(alone))
    except (RuntimeError, InputError) as error:
        raise InputError(f"{path}: cannot be written; check the disk's space and rights") from error


def straighten(image: SimpleITK.Image) -> SimpleITK.Image:
    """Resample a volume in LPS with skew or oblique axes to the patient's axes, with air around."""
    spacing_mm = np.array(image.GetSpacing())
    steps_mm = Grid.of(image).axes * spacing_mm
    points_mm = _corners_mm(image.GetSize(), steps_mm, image.GetOrigin())
    low_mm, high_mm = points_mm.min(axis=1), points_mm.max(axis=1)
    size = (np.rint((high_mm - low_mm) / spacing_mm).astype(int) + 1).tolist()
    grid = Grid(size, spacing_mm.tolist(), low_mm.tolist(), np.eye(3).ravel().tolist())
    return grid.resample(image, SimpleITK.sitkLinear, LOWEST_HU)


def check_spacing(source: Path, spacing_mm: np.ndarray) -> None:
    """Raise InputError for a spacing that no CT has, such as zero or one in metres."""
    low_mm, high_mm = SPACINGS_MM
    if not (np.min(spacing_mm) >= low_mm and np.max(spacing_mm) <= high_mm):
        text = " x ".join(f"{value:g}" for value in spacing_mm)
        raise InputError(f"{source}: a spacing of {text} mm makes no sense; export it again")


def straight_axes(source: Path, axes: np.ndarray) -> np.ndarray:
    """Return the axes at right angles, columns of a matrix, that are nearest to rounded ones.

    Raises InputError for axes that are farther off than rounding takes them.
    """
    axes = axes / np.linalg.norm(axes, axis=0)
    degrees = np.degrees(np.arcsin(min(np.abs(axes.T @ axes - np.eye(3)).max(), 1)))
    if not degrees <= MAX_SKEW_DEGREES:  # true for NaN as well
        raise InputError(
            f"{source}: the axes are not at right angles but {degrees:.2f} degrees off, as after a "
            "tilted gantry; export the scan as DICOM, or resampled to a straight grid"
        )
    if degrees > NOTED_SKEW_DEGREES:
        warn(f"the header's axes are {degrees:.2f} degrees off right angles and are straightened")
    left, _, right = np.linalg.svd(axes)
    return left @ right


def _corners_mm(size: tuple[int, ...], steps_mm: np.ndarray, origin_mm) -> np.ndarray:
    """Return the centres of the eight corner voxels, (axis, corner)."""
    corners = np.stack(np.meshgrid(*[(0, count - 1) for count in size])).reshape(3, -1)
    return steps_mm @ corners + np.reshape(origin_mm, (3, 1))


def _check_size(path: Path, header: SimpleITK.ImageFileReader) -> None:
    """Raise InputError for other than one 3-D volume, an absurd size, and more than the memory."""
    size, values = header.GetSize(), header.GetNumberOfComponents()
    if len(size) != 3 or values != 1:
        raise InputError(
            f"{path}: has {len(size)} dimensions and {values} values a voxel, not 3, 1"
        )
    check_spacing(path, np.array(header.GetSpacing()))
    extent_mm = np.multiply(size, header.GetSpacing())
    if extent_mm.max() > MAX_EXTENT_MM or not np.isfinite(header.GetOrigin()).all():
        text = " x ".join(f"{value:.0f}" for value in extent_mm)
        raise InputError(f"{path}: {text} mm make no sense; export it with a spacing in mm")
    needed = np.prod(size, dtype=float) * BYTES_PER_VOXEL
    if needed > psutil.virtual_memory().available:
        text = " x ".join(map(str, size))
        raise InputError(
            f"{path}: {text} voxels need {needed / 2**30:.0f} GiB of memory, more than is free; "
            "crop the scan"
        )


def _text_axes(path: Path, header: SimpleITK.ImageFileReader) -> np.ndarray:
    """Return the axes of NRRD or MHA; raise InputError unless all that places them is stated."""
    with path.open("rb") as stream:
        content = stream.read(MAX_HEADER_BYTES)
    text = re.split(rb"\r?\n\r?\n|ElementDataFile", content)[0].decode("latin-1")
    kind = ".nrrd" if path.suffix.lower() == ".nrrd" else ".mha"
    for names, known in NEEDED_FIELDS[kind].items():
        if not re.search(rf"^({names})\s*[:=]\s*({known})\s*$", text, re.MULTILINE):
            raise InputError(
                f"{path}: the header has no '{names.split('|')[0]}' in a known form, so it does "
                "not say where the volume lies; export it with its orientation"
            )
    for pattern, refusal in REFUSED_FIELDS.items():
        if re.search(pattern, text, re.MULTILINE):
            raise InputError(f"{path}: {refusal}")
    return Grid.of(header).axes


def _nifti_axes(path: Path, header: SimpleITK.ImageFileReader) -> np.ndarray:
    """Return the axes; raise InputError where the stated orientations differ, or are none.

    ITK picks one of two orientations, and turns axes off right angles in the wrong direction.
    """
    handedness, pixdim, unit_mm = _read_nifti(path, header)

    def get(*names: str) -> np.ndarray:
        return np.array(" ".join(map(header.GetMetaData, names)).split(), float)

    stated = []
    if header.GetMetaData("sform_code") != "0":
        stated.append(get("srow_x", "srow_y", "srow_z").reshape(3, 4))
    if header.GetMetaData("qform_code") != "0":
        b, c, d = get("quatern_b", "quatern_c", "quatern_d")
        turn = Rotation.from_quat((b, c, d, np.sqrt(max(1 - b * b - c * c - d * d, 0)))).as_matrix()
        turn[:, 2] *= -1 if handedness < 0 else 1
        stated.append(np.c_[turn * pixdim, get("qoffset_x", "qoffset_y", "qoffset_z")])
    if not stated:
        raise InputError(
            f"{path}: the header does not say which side is left (qform and sform codes are 0); "
            "export it with its orientation"
        )
    grid = Grid.of(header)
    stated = np.array(stated) * unit_mm * [[-1], [-1], [1]]  # RAS to LPS
    axes = stated[0, :, :3] / np.linalg.norm(stated[0, :, :3], axis=0)
    if np.allclose(axes, grid.axes, atol=1e-4):
        axes = grid.axes  # the same with more decimals
    read_mm = _corners_mm(grid.size, axes * grid.spacing_mm, grid.origin_mm)
    for matrix in stated:
        shift_mm = np.abs(_corners_mm(grid.size, matrix[:, :3], matrix[:, 3]) - read_mm).max()
        if not shift_mm <= LARGEST_SHIFT * min(grid.spacing_mm):
            raise InputError(
                f"{path}: the header places the volume in two ways, {shift_mm:.1f} mm apart; "
                "export it with one orientation"
            )
    return axes


def _read_nifti(path: Path, header: SimpleITK.ImageFileReader) -> tuple[float, np.ndarray, float]:
    """Return handedness, spacing and its unit as stored; raise an error for damage ITK accepts.

    ITK fills up a file cut short, turns values that are not numbers into zeros, and a spacing
    of 0 into 1.
    """
    with path.open("rb") as stream:
        compressed = stream.read(2) == GZIP
    start = int(float(header.GetMetaData("vox_offset")))
    voxel_bytes = int(header.GetMetaData("bitpix")) // 8
    count = int(np.prod(header.GetSize(), dtype=float))
    size, found = count * voxel_bytes, 0
    with gzip.open(path) if compressed else path.open("rb") as stream:
        head = stream.read(start)
        byte_order, name = ("<", "little") if head[0] else (">", "big")
        is_float = header.GetMetaData("datatype") in ("16", "64")  # their codes
        kind = f"{byte_order}f{voxel_bytes}"
        while part := stream.read(CHUNK_BYTES):  # gzip checks its checksum at the end
            here = part[: max(0, size - found)]
            if is_float and not np.isfinite(np.frombuffer(here, kind)).all():
                raise InputError(f"{path}: some values are not finite numbers; export it again")
            found += len(part)
            if found > size + LONGEST_TAIL:
                break
    if not size <= found <= size + LONGEST_TAIL:
        raise EOFError
    is_first_version = int.from_bytes(head[:4], name) == 348
    number, where = ("f4", slice(76, 92)) if is_first_version else ("f8", slice(104, 136))
    handedness, *pixdim = np.frombuffer(head[where], byte_order + number).tolist()
    units_mm = {1: 1000.0, 3: 0.001}  # metres, micrometres
    unit_mm = units_mm.get(int(header.GetMetaData("xyzt_units")) & 7, 1.0)
    check_spacing(path, np.array(pixdim) * unit_mm)
    return handedness, np.array(pixdim), unit_mm
