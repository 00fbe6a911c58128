"""A scan and a mask -> what was read, in words.

Nothing that the words say tells who the patient is.
"""

import numpy as np
import SimpleITK

from bonelib import labels
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


def _times(numbers, form: str) -> str:
    return " x ".join(format(number, form) for number in numbers)
