"""What the header of a volume file says of its place, held against itself.

NIfTI states it up to three times. NRRD and MHA state it once, as text: that all of it is there
and reads as numbers is what can be checked; a digit that changed is not noticed.
"""

import gzip
import re
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import SimpleITK

from bonelib.errors import InputError

MAX_HEADER_BYTES = 2**20  # of a text header
LARGEST_VOXEL_SHIFT = 0.5  # voxels that two statements of one header may differ by
NIFTI_HEADER_BYTES = 348  # what the first four bytes say, in the file's byte order
PIXDIM = slice(76, 92)  # bytes of the header: handedness, spacing
NIFTI2_PIXDIM = slice(104, 136)

# The fields of a text header that place a volume, by the names that each may have.
PLACING_FIELDS = {
    "nrrd": (("sizes",), ("space",), ("space directions",), ("space origin",)),
    "mha": (
        ("DimSize",),
        ("ElementSpacing", "ElementSize"),
        ("Offset", "Position", "Origin"),
        ("TransformMatrix", "Rotation", "Orientation"),
    ),
}
_LINE = re.compile(r"[\x20-\x7e\t]+\r?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def is_nifti(path: Path) -> bool:
    """Tell by the name: other formats carry a NIfTI's fields along when they are converted."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_text_header(path: Path) -> None:
    """Raise InputError where NRRD or MHA do not say in full and in numbers where they lie."""
    with path.open("rb") as stream:
        content = stream.read(MAX_HEADER_BYTES)
    if path.suffix.lower() == ".nrrd":
        names, separator, text = PLACING_FIELDS["nrrd"], ":", re.split(rb"\r?\n\r?\n", content)[0]
    else:
        names, separator = PLACING_FIELDS["mha"], "="
        text = re.split(rb"ElementDataFile", content)[0]
    fields = {}
    for line in text.decode("latin-1").split("\n"):
        key, found, value = line.partition(separator)
        if not (found and _LINE.fullmatch(line)) and line and not line.startswith(("#", "NRRD")):
            raise InputError(f"{path}: the header is damaged; export it again")
        fields[key.strip()] = value.strip()
    for alternatives in names:
        found = [fields[name] for name in alternatives if name in fields]
        if not found:
            raise InputError(
                f"{path}: the header has no '{alternatives[0]}', so that it is open where the "
                "volume lies; export it with its orientation"
            )
        numbers = re.split(r"[ ,()]+", found[0].strip("() "))
        if alternatives != ("space",) and not all(map(_NUMBER.fullmatch, numbers)):
            raise InputError(
                f"{path}: '{alternatives[0]}' in the header is not made of numbers; the file is "
                "damaged, export it again"
            )


def check_nifti_header(path: Path, header: SimpleITK.ImageFileReader) -> np.ndarray:
    """Return the spacing in mm that the header states, and hold its statements together.

    Raises InputError where they differ or say nothing.
    """
    codes = [header.GetMetaData(f"{form}_code") for form in ("qform", "sform")]
    if codes == ["0", "0"]:
        raise InputError(
            f"{path}: the header does not say which side is left (qform and sform codes are 0); "
            "export it with its orientation"
        )
    size, spacing_mm = (_numbers(header, key, "123") for key in ("dim[{}]", "pixdim[{}]"))
    handedness, *raw_spacing_mm = _raw_pixdim(path)
    statements = []
    if codes[1] != "0":
        rows = [header.GetMetaData(f"srow_{axis}").split() for axis in "xyz"]
        matrix = np.array(rows, float)
        statements.append((matrix[:, :3], matrix[:, 3]))
        if not np.allclose(np.linalg.norm(matrix[:, :3], axis=0), spacing_mm, rtol=1e-2):
            raise InputError(f"{path}: the header states two spacings; export it again")
    if codes[0] != "0":
        axes = _rotation(*_numbers(header, "quatern_{}", "bcd")) * spacing_mm
        axes[:, 2] *= -1 if handedness < 0 else 1
        statements.append((axes, _numbers(header, "qoffset_{}", "xyz")))
    corners = np.array(np.meshgrid(*[(0, count - 1) for count in size])).reshape(3, -1)
    places_mm = [axes @ corners + origin[:, None] for axes, origin in statements]
    shift_mm = np.abs(places_mm[0] - places_mm[-1]).max()
    if not shift_mm <= LARGEST_VOXEL_SHIFT * spacing_mm.min():
        raise InputError(
            f"{path}: qform and sform of the header place the volume {shift_mm:.1f} mm apart; "
            "export it with one orientation"
        )
    return np.array(raw_spacing_mm)


def nifti_stream(path: Path) -> BinaryIO:
    """Open a NIfTI file, unpacking it where it is compressed, whatever its name."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def byte_order(start: bytes) -> Literal["little", "big"]:
    """Return the byte order of a NIfTI file by its first bytes."""
    return "little" if start[0] else "big"


def _numbers(header: SimpleITK.ImageFileReader, key: str, names: str) -> np.ndarray:
    return np.array([float(header.GetMetaData(key.format(name))) for name in names])


def _rotation(b: float, c: float, d: float) -> np.ndarray:
    """Return the matrix of a quaternion whose first part makes its length 1."""
    a = np.sqrt(max(1 - b * b - c * c - d * d, 0))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def _raw_pixdim(path: Path) -> np.ndarray:
    """Return handedness and spacing as the file has them: ITK drops the sign, and zeros."""
    with nifti_stream(path) as stream:
        start = stream.read(NIFTI2_PIXDIM.stop)
    order = byte_order(start)
    version = int.from_bytes(start[:4], order)
    kind, where = ("f4", PIXDIM) if version == NIFTI_HEADER_BYTES else ("f8", NIFTI2_PIXDIM)
    return np.frombuffer(start[where], ("<" if order == "little" else ">") + kind)
