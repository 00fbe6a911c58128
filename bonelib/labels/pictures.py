"""PNG and the scan that they show -> ids in space.

A picture has no place of its own: it shows a slice of the scan as it is stored.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from bonelib import scans
from bonelib.errors import InputError
from bonelib.labels.classes import bone_of
from bonelib.labels.grids import image_like, merge, on_grid
from bonelib.labels.structures import Structure, choose, ids_of

LOWEST_BONE_HU = 100.0  # mean under a mask of bone; a mask in the wrong order lies in soft tissue
MOST_IDS = 128  # in one mask; with more values it is a picture in shades of grey

_STEPS = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of 2 and 4 bits over 0 to 255
_ID_MODES = ("1", "L", "P", "I;16", "I")


def read_pictures(
    path: Path,
    pictures: dict[str, Sequence[Path]],
    scan: SimpleITK.Image,
    stored: scans.StoredScan,
    bone_names: dict[int | str, str] | None,
) -> tuple[SimpleITK.Image, dict[int, str] | None]:
    """Read PNG as ids, or as one structure a folder, and place them on the scan's slices.

    `pictures` holds the files by the folder's name; ids are those of the one folder called
    "". Returns as `bonelib.labels.read_mask`. Raises InputError for pictures that do not fit
    the slices, and where the scan is not bright under the bones.
    """
    grid = stored.grid.empty()
    if list(pictures) == [""]:
        names = ids_of(path, bone_names)
        mask = image_like(_stack(path, pictures[""], stored, MOST_IDS), grid)
    else:
        structures = [Structure((name,), name) for name in pictures]
        chosen = choose(path, structures, bone_names)
        mask, names = merge(
            chosen, lambda name: _stack(path / name, pictures[name], stored, 2) > 0, grid
        )
    _check_bright(path, scan, on_grid(bone_of(mask, names), scan))
    return mask, names


def _stack(
    path: Path, files: Sequence[Path], stored: scans.StoredScan, most_ids: int
) -> np.ndarray:
    """Return ids of (slice, row, column) as stored; a slice made up takes the nearest picture."""
    ordered = _in_order(path, files, stored)
    columns, rows, count = stored.grid.size
    shown = np.stack([_ids(file, (columns, rows)) for file in ordered])
    if len(set().union(*(np.unique(part).tolist() for part in shown))) > most_ids:
        raise InputError(
            f"{path}: the pictures hold more than {most_ids} shades of grey, which are no ids; "
            "save the mask without smoothing"
        )
    nearest = np.abs(stored.places[:, None] - np.arange(count)).argmin(axis=0)
    return shown[nearest]


def _in_order(path: Path, files: Sequence[Path], stored: scans.StoredScan) -> list[Path]:
    """Return the files in the order of the stored slices: by name, or else by number."""
    by_name = {file.stem: file for file in files}
    names = [frame.file.stem for frame in stored.frames]
    if sorted(by_name) == sorted(names):
        return [by_name[name] for name in names]
    numbers = [frame.number for frame in stored.frames] or list(range(len(stored.places)))
    if len(files) != len(numbers):
        raise InputError(
            f"{path}: holds {len(files)} pictures, the scan {len(numbers)} slices; give one for "
            "each slice, or the mask as a volume"
        )
    if None in numbers or len(set(numbers)) < len(numbers):
        raise InputError(
            f"{path}: which picture is of which slice is not known, since the scan's slices are "
            "not numbered one by one; name each picture as its slice's file"
        )
    natural = sorted(files, key=_natural)
    rank = np.argsort(np.argsort(numbers))
    return [natural[place] for place in rank]


def _natural(file: Path) -> tuple:
    """Return a key that sorts page2 before page10; the text between numbers is in odd places."""
    parts = re.split(r"(\d+)", file.stem.lower())
    return tuple(int(part) if part.isdecimal() else part for part in parts), file.name


def _ids(file: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the ids of a picture of (column, row) `size`, which is checked before decoding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a picture too large, which is refused below
            with Image.open(file, formats=["PNG"]) as picture:
                _check_picture(file, picture, size)
                step = _STEPS.get(picture.tile[0][3], 1)
                wide = picture.mode.startswith("I")
                return np.asarray(picture).astype(np.int32 if wide else np.uint8) // step
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{file}: is far too large; give the mask's own pictures") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        EOFError,
        zlib.error,
        struct.error,
    ) as error:
        raise InputError(
            f"{file}: cannot be read as a PNG; the file is damaged, save it again"
        ) from error


def _check_picture(file: Path, picture: Image.Image, size: tuple[int, int]) -> None:
    if picture.size != size:
        raise InputError(
            f"{file}: has {picture.width} x {picture.height} pixels, the scan's slices "
            f"{size[0]} x {size[1]}; save the mask in the scan's size"
        )
    if picture.mode not in _ID_MODES:
        raise InputError(
            f"{file}: is in colour or see-through ({picture.mode}), and its ids are not known; "
            "save the mask in grey, or with a palette"
        )


def _check_bright(path: Path, scan: SimpleITK.Image, bone: SimpleITK.Image) -> None:
    """Raise InputError where the scan under the bones is as dark as soft tissue."""
    under_hu = SimpleITK.GetArrayViewFromImage(scan)[SimpleITK.GetArrayViewFromImage(bone) == 1]
    if len(under_hu) and under_hu.mean() < LOWEST_BONE_HU:
        raise InputError(
            f"{path}: the scan has {under_hu.mean():.0f} HU on average where the pictures show "
            "bone, so their order or direction is not the scan's; name each picture as its "
            "slice's file, or give the mask as a volume"
        )
