"""A mask of any format and its scan -> ids in space, and which of them are bone."""

import re
from pathlib import Path

import SimpleITK

from bonelib import scans
from bonelib.errors import InputError
from bonelib.labels.pictures import read_pictures
from bonelib.labels.segments import read_segmentation
from bonelib.labels.structure_sets import read_structure_set
from bonelib.labels.volumes import Mask, read_volume_files, read_volume_mask

FORMS = (
    f"a volume file ({', '.join(scans.VOLUME_SUFFIXES)}), a folder of such, a folder of PNG, "
    "an RTSTRUCT or a DICOM SEG"
)
DICOM_MODALITIES = ("RTSTRUCT", "SEG")


def read_mask(
    path: Path | str,
    scan: SimpleITK.Image,
    bone_names: dict[int | str, str] | None = None,
    scan_path: Path | str | None = None,
    series: str | None = None,
) -> Mask:
    """Read a mask of any format as ids, on any grid in the scan's space.

    `path` is a volume file, a folder of binary volumes, of PNG, or of folders of PNG, or a
    DICOM RTSTRUCT or SEG, or a folder that holds one. `scan_path` and `series` tell where
    `scan` was read from; PNG need it.

    `bone_names` maps ids (of voxels, ROIs, segments, shades of grey), or patterns of
    structures' names, to names of bones; the first that fits wins, and "ignore" marks voxels
    of an unknown class. Without it the structures whose names look like bone count, or one
    that is alone; where there are no names, every id does.

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
    return read_volume_mask(path, bone_names)


def _read_dicom(path: Path, scan: SimpleITK.Image, bone_names: dict[int | str, str] | None) -> Mask:
    modality = scans.modality(path)
    if modality == "RTSTRUCT":
        return read_structure_set(path, scan, bone_names)
    if modality == "SEG":
        return read_segmentation(path, bone_names)
    # Where the length of the field is damaged, it takes in the patient's name.
    known = modality if re.fullmatch("[A-Z]{2,10}", modality) else "unknown"
    raise InputError(f"{path}: a DICOM file of modality {known} is not a mask; give {FORMS}")


def _read_folder(
    path: Path,
    scan: SimpleITK.Image,
    bone_names: dict[int | str, str] | None,
    scan_path: Path | str | None,
    series: str | None,
) -> Mask:
    """Read a folder that holds masks of one kind; files of no kind are passed over."""
    files = scans.source_files(path)
    volumes = [file for file in files if scans.volume_stem(file) and file.parent == path]
    dicom = [
        file for file in files if scans.is_dicom(file) and scans.modality(file) in DICOM_MODALITIES
    ]
    pictures = _by_folder(path, [file for file in files if file.suffix.lower() == ".png"])
    kinds = {
        "volume files": volumes,
        "RTSTRUCT or SEG": dicom,
        "PNG": pictures.get("", []),
        "folders of PNG": [folder for folder in pictures if folder],
    }
    found = {kind: len(members) for kind, members in kinds.items() if members}
    if len(found) != 1 or len(dicom) > 1:
        held = " and ".join(f"{count} {kind}" for kind, count in found.items())
        raise InputError(f"{path}: holds {held or 'no mask'} where one mask is due; give {FORMS}")
    if volumes:
        return read_volume_files(path, volumes, scan, bone_names)
    if dicom:
        return _read_dicom(dicom[0], scan, bone_names)
    if scan_path is None:
        raise InputError(f"{path}: PNG have no place of their own; name the scan that they show")
    return read_pictures(path, pictures, scan, scans.open_scan(scan_path, series), bone_names)


def _by_folder(path: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return files by the name of their folder below `path`, "" being `path` itself."""
    folders = {}
    for file in files:
        folder = file.parent.relative_to(path).as_posix()
        folders.setdefault("" if folder == "." else folder, []).append(file)
    return folders
