"""A folder of one's own series -> cases."""

from pathlib import Path

from bonelib import scans
from bonelib.datasets.case import BONE_NAMES_FILE, Case
from bonelib.datasets.listing import existing, read_bone_names, read_split_of_folders
from bonelib.errors import InputError

MASK_STEMS = ("mask", "labels", "bone")
MASK_MODALITIES = ("RTSTRUCT", "SEG")


def cases(directory: Path | None) -> list[Case]:
    """Return the cases of a `folder` data set, in the order of its split file."""
    directory = existing("folder", directory)
    bone_names = read_bone_names(directory / BONE_NAMES_FILE)
    return [
        Case(
            row.series_id,
            row.split,
            *scan_and_mask(directory / row.series_id),
            bone_names,
            directory,
            series=row.scan_series,
        )
        for row in read_split_of_folders(directory)
    ]


def scan_and_mask(folder: Path) -> tuple[Path, Path]:
    """Return the one scan and the one mask in the folder of a series.

    A mask has its name, or else is the one structure set or segmentation among the DICOM files.
    """
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    masks = [entry for entry in visible if _is_named_mask(entry)]
    others = [entry for entry in visible if entry not in masks]
    masks = masks or [file for entry in others for file in _drawn_in_dicom(entry)]
    scan = _only(
        folder,
        _scans(folder, others, masks),
        "scans (a folder of DICOM slices or a volume file)",
    )
    what = (
        f"files called {' or '.join(MASK_STEMS)} ({', '.join(scans.VOLUME_SUFFIXES)}), folders "
        f"of that name or DICOM files of modality {' or '.join(MASK_MODALITIES)}"
    )
    return scan, _only(folder, masks, what)


def _is_named_mask(entry: Path) -> bool:
    return (entry.name if entry.is_dir() else scans.volume_stem(entry)) in MASK_STEMS


def _scans(folder: Path, entries: list[Path], masks: list[Path]) -> list[Path]:
    found = [entry for entry in entries if scans.is_scan_file(entry)]
    if any(scans.is_dicom(file) for file in found):
        return found  # a DICOMDIR: the folders beside it are those that it lists
    found += [entry for entry in entries if entry.is_dir() and _holds_slices(entry, masks)]
    if any(scans.is_dicom(entry) and entry not in masks for entry in entries):
        found.append(folder)
    return found


def _holds_slices(entry: Path, masks: list[Path]) -> bool:
    return any(scans.is_dicom(file) for file in scans.source_files(entry) if file not in masks)


def _drawn_in_dicom(entry: Path) -> list[Path]:
    return [
        file
        for file in scans.source_files(entry)
        if scans.is_dicom(file) and scans.modality(file) in MASK_MODALITIES
    ]


def _only(folder: Path, candidates: list[Path], expected: str) -> Path:
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise InputError(f"{folder}: needs one of {expected}, has {names}; leave exactly one")
    return candidates[0]
