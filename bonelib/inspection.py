"""A scan and a mask -> what was read, in words, and the scan as one volume file.

Nothing that the words say tells who the patient is.
"""

from pathlib import Path

import numpy as np
import SimpleITK

from bonelib import labels, scans
from bonelib.errors import InputError
from bonelib.provenance import replacing
from bonelib.scans.volumes import read_file
from bonelib.settings import BONE, PATIENT


def describe_scan(scan: SimpleITK.Image) -> list[str]:
    """Say in lines how large a scan is and what it shows."""
    image_hu = SimpleITK.GetArrayViewFromImage(scan)
    body = SimpleITK.GetArrayFromImage(labels.body_mask(scan)) > 0
    extent_mm = np.multiply(scan.GetSize(), scan.GetSpacing())
    body_ml = body.sum() * np.prod(scan.GetSpacing()) / 1000
    median = f"median {np.median(image_hu[body]):.0f} HU" if body.any() else "no patient found"
    return [
        f"scan: {_times(scan.GetSize(), '.0f')} voxels (columns, rows, slices) of "
        f"{_times(scan.GetSpacing(), '.3g')} mm, {_times(extent_mm, '.0f')} mm in all",
        f"HU: {image_hu.min():g} to {image_hu.max():g}",
        f"patient: {body_ml:,.0f} ml, {median}",
    ]


def describe_mask(
    scan: SimpleITK.Image, mask: SimpleITK.Image, names: dict[int, str] | None
) -> list[str]:
    """Say in lines what a mask on the scan's grid holds, and whether that is bone by its HU."""
    image_hu = SimpleITK.GetArrayViewFromImage(scan)
    structures = SimpleITK.GetArrayViewFromImage(mask)
    voxel_ml = np.prod(scan.GetSpacing()) / 1000
    lines = []
    for number in np.unique(structures[structures > 0]).tolist():
        inside = structures == number
        name = "bone" if names is None else names.get(number, "not bone")
        lines.append(
            f"mask: id {number}, {name}: {inside.sum() * voxel_ml:,.1f} ml, "
            f"mean {image_hu[inside].mean():.0f} HU"
        )
    classes = SimpleITK.GetArrayFromImage(labels.label_map(scan, mask, names))
    shares = [100 * (classes == label).mean() for label in (PATIENT, BONE)]
    return [*lines, f"label map: {shares[0]:.2f} % patient, {shares[1]:.3f} % bone"]


def write_volume(image: SimpleITK.Image, path: Path) -> None:
    """Write a volume in one step, with its geometry and nothing else of the input's header.

    Raises InputError for a name that is not a volume's, and where nothing can be written.
    """
    if scans.volume_stem(path) is None or path.suffix.lower() == ".mhd":
        raise InputError(f"{path}: cannot be written; end the name in .nii.gz, .nrrd or .mha")
    try:
        with replacing(path) as scratch:
            SimpleITK.WriteImage(image, str(scratch), useCompression=True)
            read_file(scratch)  # ITK says nothing where the disk is full
    except (RuntimeError, InputError) as error:
        raise InputError(f"{path}: cannot be written; check the disk's space and rights") from error


def _times(numbers, form: str) -> str:
    return " x ".join(format(number, form) for number in numbers)
