"""Measure how well `segment --bones` tells the bones of a mask apart: recall and precision.

python benchmarks/single_bones.py ANNOTATIONS    folder with pelvis_label_maps and
                                                 totalsegmentator_label_maps; phantoms in any case

The mask is the union of all annotated bones, so the network's errors are not counted.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK

from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.segment.bones import separate

PHANTOM_SEEDS = (10, 11, 12)
SPACING_MM = (3.0, 2.0, 2.0)  # of the phantoms
RANGE_MM = (-120.0, 160.0)  # of the phantoms: from the thighs to L4
PELVIC_IDS = {1: "hip", 2: "femur", 3: "sacrum", 4: "vertebrae"}  # of pelvis_label_maps
PAIRED = ("hip", "femur")
OTHERS = ("rib", "humerus", "scapula", "clavicula", "skull", "sternum")


def phantom(seed: int) -> dict[str, np.ndarray]:
    """Return the bones of a phantom by name."""
    person = Patient(seed)
    columns_mm = (np.arange(190) - 94.5) * SPACING_MM[2]
    rows_mm = (np.arange(130) - 64.5) * SPACING_MM[1] + 28
    heights_mm = np.arange(*RANGE_MM, SPACING_MM[0]) * person.scale
    ids = np.stack([cut_slice(person, columns_mm, rows_mm, z_mm)[1] for z_mm in heights_mm])
    return _merged((name, ids == number) for number, name in BONE_NAMES.items())


def pelvic_person(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the bones of a person of pelvis_label_maps by name, and the spacing."""
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(file), "LPS")[::2, ::2]
    ids = SimpleITK.GetArrayFromImage(image)
    left = np.arange(ids.shape[2]) > np.nonzero(ids == 3)[2].mean()
    bones = {}
    for number, name in PELVIC_IDS.items():
        mask = ids == number
        sides = {f"{name}_left": mask & left, f"{name}_right": mask & ~left}
        bones |= sides if name in PAIRED else {name: mask}
    return bones, np.array(image.GetSpacing()[::-1])


def whole_person(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the bones of a person of totalsegmentator_label_maps by name, and the spacing."""
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(file), "LPS")
    ids = SimpleITK.GetArrayFromImage(image)
    names = pd.read_csv(file.parent / "classes.csv").set_index("id")["name"]
    bones = ("femur", "hip", "sacrum", "vertebrae", *OTHERS)
    found = ((name, ids == number) for number, name in names.items() if name.startswith(bones))
    return _merged(found), np.array(image.GetSpacing()[::-1])


def _merged(bones) -> dict[str, np.ndarray]:
    """Return masks by the names of the table: S1 is part of the sacrum, vertebrae are one."""
    merged = {}
    for name, mask in bones:
        if name.startswith(OTHERS):
            name = "others"
        elif name.endswith("_S1"):
            name = "sacrum"
        elif name.startswith("vertebra"):
            name = "vertebrae"
        merged[name] = mask | merged.get(name, False)
    return {name: mask for name, mask in merged.items() if mask.any()}


def score(person: str, bones: dict[str, np.ndarray], spacing_mm) -> list[dict]:
    """Return a row for each bone of a person."""
    union = np.any(list(bones.values()), axis=0)
    started = time.perf_counter()
    ids, names = separate(union, spacing_mm)
    print(f"{person}: {time.perf_counter() - started:.1f} s, {', '.join(names.values())}")
    found = {name: np.zeros(union.shape, bool) for name in bones}
    for number, name in names.items():
        kind = {"bone": "others", "vertebra": "vertebrae"}.get(name.split("_")[0], name)
        found[kind] = found.get(kind, False) | (ids == number)
    voxel_ml = np.prod(spacing_mm) / 1000
    return [
        {
            "person": person,
            "bone": name,
            "ml": mask.sum() * voxel_ml,
            "found ml": found[name].sum() * voxel_ml,
            "recall %": 100 * (mask & found[name]).sum() / mask.sum(),
            "precision %": 100 * (mask & found[name]).sum() / max(found[name].sum(), 1),
        }
        for name, mask in bones.items()
    ]


def main() -> None:
    """Print a table for each person and the summary by bone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("annotations", type=Path, nargs="?", help="folder of annotated people")
    folder = parser.parse_args().annotations
    rows = []
    for seed in PHANTOM_SEEDS:
        rows += score(f"phantom {seed}", phantom(seed), np.array(SPACING_MM))
    if folder:
        for file in sorted(folder.glob("pelvis_label_maps/*/label.mhd")):
            rows += score(file.parent.name, *pelvic_person(file))
        for file in sorted(folder.glob("totalsegmentator_label_maps/s*.nii.gz")):
            rows += score(file.name.split(".")[0], *whole_person(file))
    table = pd.DataFrame(rows)
    print(table.to_markdown(index=False, floatfmt=".1f"))
    table["set"] = np.where(table["person"].str.startswith("phantom"), "phantoms", "people")
    columns = ["recall %", "precision %"]
    summary = table.groupby(["set", "bone"])[columns].agg(["count", "median", "min"])
    print(summary.to_markdown(floatfmt=".1f"))


if __name__ == "__main__":
    main()
