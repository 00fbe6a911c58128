"""Volume files -> ids in space: one file of ids, one with named segments, one file a bone."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import SimpleITK

from bonelib import scans
from bonelib.errors import InputError
from bonelib.labels.grids import merge, on_grid
from bonelib.labels.structures import Structure, choose, ids_of

Mask = tuple[SimpleITK.Image, dict[int, str] | None]


def read_volume_mask(path: Path, bone_names: dict[int | str, str] | None) -> Mask:
    """Read one file, whose voxels are ids or, where it says so, layers of named segments.

    `bone_names` and what is returned as for `bonelib.labels.read_mask`. Raises InputError.
    """
    segments = _segments(path)
    if not segments:
        mask = scans.read_volume(path)
        return mask, ids_of(path, bone_names)
    chosen = choose(path, segments, bone_names)
    image = _layered(path)
    layers = SimpleITK.GetArrayViewFromImage(image)
    layers = layers.reshape(*image.GetSize()[::-1], -1)
    if max(choice.source[0] for choice in chosen) >= layers.shape[-1]:
        raise InputError(
            f"{path}: a segment lies in a layer that is not there; the file is damaged, save the "
            "segmentation again"
        )

    def draw(source: tuple[int, int]) -> np.ndarray:
        layer, value = source
        return layers[..., layer] == value

    return merge(chosen, draw, image)


def read_volume_files(
    path: Path,
    files: Sequence[Path],
    scan: SimpleITK.Image,
    bone_names: dict[int | str, str] | None,
) -> Mask:
    """Read a folder of binary volumes, each a structure named by its file, onto the scan's grid.

    The files may lie on different grids. Raises InputError, too, for a file of several ids.
    """
    structures = [Structure((scans.volume_stem(file),), file) for file in files]

    def draw(file: Path) -> np.ndarray:
        mask = scans.read_volume(file)
        ids = np.unique(SimpleITK.GetArrayViewFromImage(mask))
        if len(ids[ids > 0]) > 1:
            raise InputError(
                f"{file}: holds several ids, where each file of a folder is one structure; give "
                "the file itself, or one of each structure"
            )
        try:
            return SimpleITK.GetArrayFromImage(on_grid(mask, scan)) > 0
        except InputError as error:
            raise InputError(f"{file}: {error}") from error

    return merge(choose(path, structures, bone_names), draw, scan)


def _layered(path: Path) -> SimpleITK.Image:
    """Read ids of one layer, or of several as the components of a voxel."""
    header = _header(path)
    if header.GetNumberOfComponents() == 1:
        return scans.read_volume(path)
    needed = np.prod(header.GetSize(), dtype=float) * header.GetNumberOfComponents()
    if header.GetDimension() != 3 or needed > psutil.virtual_memory().available:
        raise InputError(
            f"{path}: {' x '.join(map(str, header.GetSize()))} voxels in layers are no volume, or "
            "more than the memory holds; save the segmentation cropped"
        )
    try:
        return SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path}: cannot be read as a volume; the file is damaged or incomplete, "
            "export it again"
        ) from error


def _segments(path: Path) -> list[Structure]:
    """Return the segments that the header of a 3D Slicer segmentation lists, or none."""
    try:
        header = _header(path)
    except RuntimeError:
        return []  # `scans.read_volume` says what is wrong with the file

    def entry(segment: str, what: str, default: str) -> str:
        key = f"{segment}_{what}"
        return header.GetMetaData(key) if header.HasMetaDataKey(key) else default

    keys = map(re.compile(r"Segment\d+(?=_)").match, header.GetMetaDataKeys())
    structures = []
    for segment in sorted({key[0] for key in keys if key}):
        value, layer = entry(segment, "LabelValue", "1"), entry(segment, "Layer", "0")
        if not (value.isdecimal() and layer.isdecimal()):
            raise InputError(
                f"{path}: the header's label value or layer of a segment is no number; save the "
                "segmentation again"
            )
        names = (entry(segment, "Name", segment),)
        structures.append(Structure(names, (int(layer), int(value)), int(value)))
    return structures


def _header(path: Path) -> SimpleITK.ImageFileReader:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # the InputError says it in one line
    header = SimpleITK.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header
