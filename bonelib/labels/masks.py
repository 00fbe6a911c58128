"""A mask of any format and its scan -> ids in space, and the names of those that are bone."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from bonelib import scans
from bonelib.bone_names import IGNORE_NAME, is_not_bone
from bonelib.errors import InputError, noting, refusing_damage, warn
from bonelib.labels.dicom_masks import read_segmentation, read_structure_set
from bonelib.labels.structures import BoneNames, Mask, Structure, draw_bones
from bonelib.scans.volumes import DAMAGED, on_grid, read_header

FORMS = (
    f"a volume file ({', '.join(scans.VOLUME_SUFFIXES)}), a folder of these, a folder of PNG, "
    "an RTSTRUCT or a DICOM SEG"
)
MASK_MODALITIES = ("RTSTRUCT", "SEG")
LOWEST_BONE_HU = 100.0  # mean under a mask of bone; a mask of another scan lies elsewhere
SAMPLES = 1_000_000  # voxels of a mask that mean HU are taken from
SMALLEST_OVERLAP = 0.5  # share of the bone's volume inside the scan; less: the origins differ
MOST_IDS = 128  # in one mask; with more values it is a picture in shades of grey
FEWEST_SHADES = 8  # of a smooth mask; one of few ids may have thin structures
ID_MODES = ("1", "L", "P", "I;16", "I")  # of pictures in grey or with a palette


def read_mask(
    path: Path | str,
    scan: SimpleITK.Image,
    bone_names: BoneNames = None,
    scan_path: Path | str | None = None,
    series: str | None = None,
) -> Mask:
    """Read a mask of any format as ids on the scan's grid.

    `path` is a volume file, a folder of binary volumes or of PNG, a DICOM RTSTRUCT or SEG, or a
    folder that holds one. `scan` was read from `scan_path` and `series`: PNG need them, and a
    DICOM mask is compared with them. `bone_names` maps ids (of voxels, ROIs, segments, shades of
    grey), or patterns of structures' names, to names of bones; the first that fits wins, and
    "ignore" marks voxels of unknown class. Without it the structures whose names look like bone
    count, or a single one; where there are no names, every id does.

    Returns the ids, uint8 or int32, and the names of those that count, or None for every id.
    Raises InputError for anything else, and for a mask of which most lies outside of the scan.
    """
    path = Path(path)
    kind, files = _contents(path)
    layout = None
    if scan_path is not None and kind in ("DICOM", "PNG"):
        with noting():  # `scan` was read with the same notes
            layout = scans.read_layout(scan_path, series)
    with noting() as notes:  # the files of a folder may give one note many times
        if kind == "volume":
            mask, names = _read_volume(path, bone_names)
        elif kind == "volumes":
            mask, names = _read_volumes(path, files, scan, bone_names)
        elif kind == "PNG":
            mask, names = _read_pictures(path, files, layout, bone_names)
        elif scans.modality(files[0]) == "SEG":
            mask, names = read_segmentation(files[0], bone_names, layout)
        else:
            mask, names = read_structure_set(files[0], scan, bone_names, layout)
    for note in notes:
        warn(note)
    ids = on_grid(mask, scan, path)
    drawn, inside = _bone_volume(mask, names), _bone_volume(ids, names)
    if inside < SMALLEST_OVERLAP * drawn:
        raise InputError(
            f"{path}: most of the bone ({100 * (1 - inside / drawn):.0f} %) lies outside of the "
            "scan; export scan and mask with the same origin"
        )
    if dark := _dark_bones(scan, ids, names, together=kind == "PNG"):
        if kind == "PNG":  # in any order
            raise InputError(
                f"{path}: the scan has {dark}, so the pictures' order or direction is not the "
                "scan's; name each as its slice's file, or give the mask as a volume"
            )
        warn(f"the scan is dark in the mask, {dark}; is it of this scan?")
    return ids, names


def _contents(path: Path) -> tuple[str, list[Path]]:
    """Return the kind of a mask, and its files; raise InputError where there is not one mask."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    found = defaultdict(list)
    for file in scans.source_files(path) if path.is_dir() else [path]:
        if scans.is_dicom(file):
            found["DICOM" * (scans.modality(file) in MASK_MODALITIES)].append(file)
        elif scans.volume_stem(file) and file.parent in (path, path.parent):
            found["volumes" if path.is_dir() else "volume"].append(file)
        elif file.suffix.lower() == ".png" and file.parent == path:
            found["PNG"].append(file)
    others = found.pop("", [])
    if len(found) != 1 or len(found.get("DICOM", [])) > 1:
        held = " and ".join(f"{len(files)} {kind}" for kind, files in found.items() if files)
        if others and path.is_file():
            held = f"DICOM of modality {scans.modality(path) or 'unknown'}"
        raise InputError(f"{path}: holds {held or 'no mask'} where one mask is due; give {FORMS}")
    return found.popitem()


def _bone_volume(mask: SimpleITK.Image, names: dict[int, str] | None) -> float:
    ids = SimpleITK.GetArrayViewFromImage(mask)
    is_bone = ids > 0 if names is None else np.isin(ids, list(names))
    return is_bone.sum() * np.prod(mask.GetSpacing())


def _dark_bones(
    scan: SimpleITK.Image, mask: SimpleITK.Image, names: dict[int, str] | None, together: bool
) -> str:
    """Return the mean HU of bones, or of all `together`, in which the scan is dark."""
    ids, image_hu = (SimpleITK.GetArrayViewFromImage(image).ravel() for image in (mask, scan))
    held = np.flatnonzero(ids)
    held = held[:: 1 + len(held) // SAMPLES]
    ids, image_hu = ids[held], image_hu[held]
    numbers = defaultdict(list)
    for number, bone in (names or dict.fromkeys(np.unique(ids), "bone")).items():
        if number in ids and bone != IGNORE_NAME and not is_not_bone(bone):
            numbers["bone" if together else bone].append(number)
    means_hu = {bone: image_hu[np.isin(ids, own)].mean() for bone, own in numbers.items()}
    dark = [f"{hu:.0f} HU in {bone}" for bone, hu in means_hu.items() if hu < LOWEST_BONE_HU]
    return f"{', '.join(dark)} on average" if dark else ""


def _read_volume(path: Path, bone_names: BoneNames) -> Mask:
    """Read a file of ids, or of the named segments that 3D Slicer keeps in layers."""
    with refusing_damage(path, DAMAGED):
        header = read_header(path)
        segments = _slicer_segments(header)
    if not segments:
        mask, names = scans.read_volume(path), _by_id(path, bone_names)
        values = SimpleITK.GetArrayViewFromImage(mask)
        if names is None and _is_smooth(values):
            warn(f"the mask is smooth, from 0 to {values.max()}; above half counts as bone")
            mask = mask > values.max() / 2
        return mask, names
    with refusing_damage(path, DAMAGED):
        image = SimpleITK.ReadImage(str(path))
        layers = SimpleITK.GetArrayViewFromImage(image).reshape(*image.GetSize()[::-1], -1)

        def draw(source: tuple[int, int]) -> np.ndarray:
            return layers[..., source[0]] == source[1]

        return draw_bones(path, segments, bone_names, draw, scans.Grid.of(image))


def _is_smooth(values: np.ndarray) -> bool:
    """Tell a mask in shades of grey from one of ids, whose neighbours are mostly equal."""
    ahead, behind = values[..., 1:], values[..., :-1]
    inner = (ahead > 0) & (behind > 0) & ((ahead < values.max()) | (behind < values.max()))
    equal = (ahead == behind)[inner]
    return bool(len(np.unique(values)) > FEWEST_SHADES and equal.mean() < 0.5)


def _slicer_segments(header: SimpleITK.ImageFileReader) -> list[Structure]:
    """Return the segments that the header of a 3D Slicer segmentation lists, or none."""

    def entry(segment: str, what: str, default: str) -> str:
        key = f"{segment}_{what}"
        return header.GetMetaData(key) if header.HasMetaDataKey(key) else default

    keys = " ".join(header.GetMetaDataKeys())
    structures = []
    for segment in sorted(set(re.findall(r"\bSegment\d+(?=_)", keys))):
        value, layer = int(entry(segment, "LabelValue", "1")), int(entry(segment, "Layer", "0"))
        structures.append(Structure((entry(segment, "Name", segment),), (layer, value), value))
    return structures


def _read_volumes(
    path: Path, files: Sequence[Path], scan: SimpleITK.Image, bone_names: BoneNames
) -> Mask:
    """Read a folder of binary volumes, each a structure named by its file, on the scan's grid."""

    def draw(file: Path) -> np.ndarray:
        mask = scans.read_volume(file)
        ids = np.unique(SimpleITK.GetArrayViewFromImage(mask))
        if len(ids[ids > 0]) > 1:
            raise InputError(f"{file}: holds several ids; a file of a folder is one structure")
        return SimpleITK.GetArrayFromImage(on_grid(mask, scan, file)) > 0

    structures = [Structure((scans.volume_stem(file),), file) for file in files]
    return draw_bones(path, structures, bone_names, draw, scans.Grid.of(scan))


def _read_pictures(
    path: Path, files: Sequence[Path], layout: scans.Layout | None, bone_names: BoneNames
) -> Mask:
    """Read PNG as ids of the stored slices; an interpolated slice takes the nearest one's."""
    if layout is None:
        raise InputError(f"{path}: PNG have no place of their own; name the scan that they show")
    names = _by_id(path, bone_names)
    ordered = _in_order(path, files, layout)
    shown = layout.spread(np.stack([_ids(file, layout.grid.size[:2]) for file in ordered]))
    if len(set().union(*(np.unique(part).tolist() for part in shown))) > MOST_IDS:
        raise InputError(
            f"{path}: the pictures hold more than {MOST_IDS} shades of grey, which are no ids; "
            "save the mask without smoothing"
        )
    return layout.grid.image(shown), names


def _by_id(path: Path, bone_names: BoneNames) -> dict[int, str] | None:
    """Return `bone_names` for a mask of ids without names; raise InputError for patterns."""
    patterns = [key for key in bone_names or () if isinstance(key, str)]
    if patterns:
        raise InputError(
            f"{path}: holds numbers without names, so the pattern '{patterns[0]}' finds nothing "
            "in it; name the bones by number"
        )
    return bone_names


def _in_order(path: Path, files: Sequence[Path], layout: scans.Layout) -> list[Path]:
    """Return the files in the order of the stored slices: by name, or else by number."""
    by_name = {file.stem: file for file in files}
    names = [frame.file.stem for frame in layout.frames]
    if sorted(by_name) == sorted(names):
        return [by_name[name] for name in names]
    numbers = [frame.number for frame in layout.frames] or list(range(len(layout.places)))
    if len(files) != len(numbers):
        raise InputError(
            f"{path}: holds {len(files)} pictures, the scan {len(numbers)} slices; give one for "
            "each slice, or the mask as a volume"
        )
    if None in numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"{path}: the scan has no slice numbers; name pictures as its files")

    def natural(file: Path) -> list:  # page2 before page10
        parts = re.split(r"(\d+)", file.stem.lower())
        return [int(part) if part.isdecimal() else part for part in parts]

    return [sorted(files, key=natural)[rank] for rank in np.argsort(np.argsort(numbers))]


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
            raise InputError(f"{file}: is in colour ({picture.mode}); save it in grey")
        kind = np.int32 if picture.mode.startswith("I") else np.uint8
        return np.asarray(picture).astype(kind)
