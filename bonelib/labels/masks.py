"""A mask of any format and its scan -> ids in space, and the names of those that are bone."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from bonelib import scans
from bonelib.errors import InputError, refusing_damage
from bonelib.labels.dicom_masks import read_segmentation, read_structure_set
from bonelib.labels.grids import merge, on_grid
from bonelib.labels.label_map import bone_of
from bonelib.labels.structures import Structure, choose, ids_of
from bonelib.scans.volumes import DAMAGED, read_header

FORMS = (
    f"a volume file ({', '.join(scans.VOLUME_SUFFIXES)}), a folder of such, a folder of PNG, "
    "an RTSTRUCT or a DICOM SEG"
)
DICOM_MODALITIES = ("RTSTRUCT", "SEG")
LOWEST_BONE_HU = 100.0  # mean under a mask of bone; a mask in the wrong order lies elsewhere
MOST_IDS = 128  # in one mask; with more values it is a picture in shades of grey
STEPS = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of 2 and 4 bits over 0 to 255
ID_MODES = ("1", "L", "P", "I;16", "I")  # of pictures in grey or with a palette

BoneNames = dict[int | str, str] | None
Mask = tuple[SimpleITK.Image, dict[int, str] | None]


def read_mask(
    path: Path | str,
    scan: SimpleITK.Image,
    bone_names: BoneNames = None,
    scan_path: Path | str | None = None,
    series: str | None = None,
) -> Mask:
    """Read a mask of any format as ids, on any grid in the scan's space.

    `path` is a volume file, a folder of binary volumes, of PNG, or of folders of PNG, or a
    DICOM RTSTRUCT or SEG, or a folder that holds one. PNG need `scan_path` and `series`,
    from which `scan` was read.

    `bone_names` maps ids (of voxels, ROIs, segments, shades of grey), or patterns of
    structures' names, to names of bones; the first that fits wins, and "ignore" marks voxels
    of unknown class. Without it the structures whose names look like bone count, or a single
    structure; where there are no names, every id does.

    Returns the ids, uint8 or int32, and the names of those that count, or None for every
    id. Raises InputError for anything else, in one line that names the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    if path.is_dir():
        return _read_folder(path, scan, bone_names, scan_path, series)
    if scans.is_dicom(path):
        return _read_dicom(path, scan, bone_names)
    if scans.volume_stem(path) is None:
        raise InputError(f"{path}: not a mask; give {FORMS}")
    return _read_volume(path, bone_names)


def _read_folder(
    path: Path,
    scan: SimpleITK.Image,
    bone_names: BoneNames,
    scan_path: Path | str | None,
    series: str | None,
) -> Mask:
    """Read a folder that holds masks of one kind; other files are passed over."""
    files = scans.source_files(path)
    volumes = [file for file in files if scans.volume_stem(file) and file.parent == path]
    dicom = [
        file for file in files if scans.is_dicom(file) and scans.modality(file) in DICOM_MODALITIES
    ]
    pictures = defaultdict(list)
    for file in files:
        if file.suffix.lower() == ".png":
            pictures[file.parent.relative_to(path).as_posix()].append(file)
    kinds = {
        "volume files": volumes,
        "RTSTRUCT or SEG": dicom,
        "PNG": pictures.get(".", []),
        "folders of PNG": [folder for folder in pictures if folder != "."],
    }
    found = {kind: len(members) for kind, members in kinds.items() if members}
    if len(found) != 1 or len(dicom) > 1:
        held = " and ".join(f"{count} {kind}" for kind, count in found.items())
        raise InputError(f"{path}: holds {held or 'no mask'} where one mask is due; give {FORMS}")
    if volumes:
        return _read_volumes(path, volumes, scan, bone_names)
    if dicom:
        return _read_dicom(dicom[0], scan, bone_names)
    if scan_path is None:
        raise InputError(f"{path}: PNG have no place of their own; name the scan that they show")
    return _read_pictures(path, pictures, scans.open_scan(scan_path, series), bone_names)


def _read_dicom(path: Path, scan: SimpleITK.Image, bone_names: BoneNames) -> Mask:
    modality = scans.modality(path)
    if modality == "RTSTRUCT":
        return read_structure_set(path, scan, bone_names)
    if modality == "SEG":
        return read_segmentation(path, bone_names)
    kind = modality or "unknown"
    raise InputError(f"{path}: a DICOM file of modality {kind} is not a mask; give {FORMS}")


def _read_volume(path: Path, bone_names: BoneNames) -> Mask:
    """Read a file of ids, or of the named segments that 3D Slicer keeps in layers."""
    with refusing_damage(path, DAMAGED):
        header = read_header(path)
    segments = _slicer_segments(path, header)
    if not segments:
        return scans.read_volume(path), ids_of(path, bone_names)
    chosen = choose(path, segments, bone_names)
    if header.GetNumberOfComponents() == 1:
        image = scans.read_volume(path)
    else:
        with refusing_damage(path, DAMAGED):
            image = SimpleITK.ReadImage(str(path))
    layers = SimpleITK.GetArrayViewFromImage(image)
    layers = layers.reshape(*image.GetSize()[::-1], -1)
    if image.GetDimension() != 3 or max(layer for _, (layer, _) in chosen) >= layers.shape[-1]:
        raise InputError(
            f"{path}: a segment lies in a layer that is not there; the file is damaged, save the "
            "segmentation again"
        )
    return merge(chosen, lambda source: layers[..., source[0]] == source[1], image)


def _slicer_segments(path: Path, header: SimpleITK.ImageFileReader) -> list[Structure]:
    """Return the segments that the header of a 3D Slicer segmentation lists, or none."""

    def entry(segment: str, what: str, default: str) -> str:
        key = f"{segment}_{what}"
        return header.GetMetaData(key) if header.HasMetaDataKey(key) else default

    keys = map(re.compile(r"Segment\d+(?=_)").match, header.GetMetaDataKeys())
    structures = []
    for segment in sorted({key[0] for key in keys if key}):
        value, layer = entry(segment, "LabelValue", "1"), entry(segment, "Layer", "0")
        if not (value.isdecimal() and layer.isdecimal()):
            raise InputError(
                f"{path}: the label value or layer of a segment is no number; save the "
                "segmentation again"
            )
        names = (entry(segment, "Name", segment),)
        structures.append(Structure(names, (int(layer), int(value)), int(value)))
    return structures


def _read_volumes(
    path: Path, files: Sequence[Path], scan: SimpleITK.Image, bone_names: BoneNames
) -> Mask:
    """Read a folder of binary volumes, each a structure named by its file, on the scan's grid."""

    def draw(file: Path) -> np.ndarray:
        mask = scans.read_volume(file)
        ids = np.unique(SimpleITK.GetArrayViewFromImage(mask))
        if len(ids[ids > 0]) > 1:
            raise InputError(
                f"{file}: holds several ids, but each file of a folder is one structure; give "
                "the file itself, or one file for each structure"
            )
        return SimpleITK.GetArrayFromImage(on_grid(mask, scan, file)) > 0

    structures = [Structure((scans.volume_stem(file),), file) for file in files]
    return merge(choose(path, structures, bone_names), draw, scan)


def _read_pictures(
    path: Path, pictures: dict[str, list[Path]], stored: scans.StoredScan, bone_names: BoneNames
) -> Mask:
    """Read PNG as ids, or as one structure a folder, and place them on the scan's slices.

    `pictures` holds the files by folder, "." for ids. Raises InputError for pictures that do
    not fit the slices, and where the scan is not bright under the bones.
    """
    grid = stored.grid.empty()
    if list(pictures) == ["."]:
        names = ids_of(path, bone_names)
        mask = SimpleITK.GetImageFromArray(_stacked(path, pictures["."], stored, MOST_IDS))
        mask.CopyInformation(grid)
    else:
        chosen = choose(path, [Structure((name,), name) for name in pictures], bone_names)
        mask, names = merge(
            chosen, lambda name: _stacked(path / name, pictures[name], stored, 2) > 0, grid
        )
    bone = on_grid(bone_of(mask, names), stored.image)
    image_hu = SimpleITK.GetArrayViewFromImage(stored.image)
    under_hu = image_hu[SimpleITK.GetArrayViewFromImage(bone) == 1]
    if len(under_hu) and under_hu.mean() < LOWEST_BONE_HU:
        raise InputError(
            f"{path}: the scan has {under_hu.mean():.0f} HU on average where the pictures show "
            "bone, so their order or direction is not the scan's; name each picture as its "
            "slice's file, or give the mask as a volume"
        )
    return mask, names


def _stacked(
    path: Path, files: Sequence[Path], stored: scans.StoredScan, most_ids: int
) -> np.ndarray:
    """Return ids, (slice, row, column) as stored; an interpolated slice takes the nearest one."""
    columns, rows, count = stored.grid.size
    shown = np.stack([_ids(file, (columns, rows)) for file in _in_order(path, files, stored)])
    if len(set().union(*(np.unique(part).tolist() for part in shown))) > most_ids:
        raise InputError(
            f"{path}: the pictures hold more than {most_ids} shades of grey, which are no ids; "
            "save the mask without smoothing"
        )
    return shown[np.abs(stored.places[:, None] - np.arange(count)).argmin(axis=0)]


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
            f"{path}: the scan's slices are not numbered one by one, so the order of the pictures "
            "is unknown; name each picture as its slice's file"
        )

    def natural(file: Path) -> list:  # page2 before page10
        parts = re.split(r"(\d+)", file.stem.lower())
        return [int(part) if part.isdecimal() else part for part in parts]

    ranks = np.argsort(np.argsort(numbers))
    ordered = sorted(files, key=natural)
    return [ordered[rank] for rank in ranks]


def _ids(file: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the ids of a picture of (column, row) `size`, which is checked before decoding."""
    with (
        refusing_damage(file, "cannot be read as a PNG; the file is damaged, save it again"),
        Image.open(file, formats=["PNG"]) as picture,
    ):
        if picture.size != size:
            raise InputError(
                f"{file}: has {picture.width} x {picture.height} pixels, the scan's slices "
                f"{size[0]} x {size[1]}; save the mask in the scan's size"
            )
        if picture.mode not in ID_MODES:
            raise InputError(
                f"{file}: is in colour or see-through ({picture.mode}), so its ids are unknown; "
                "save the mask in grey, or with a palette"
            )
        step = STEPS.get(picture.tile[0][3], 1)
        kind = np.int32 if picture.mode.startswith("I") else np.uint8
        return np.asarray(picture).astype(kind) // step
