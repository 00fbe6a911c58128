"""CTPEL as downloaded: a folder for each patient, with a CT and a DICOM segmentation."""

from pathlib import Path

from bonelib import labels, scans
from bonelib.datasets import pelvis
from bonelib.datasets.public import Found, PublicSet

SCAN_FOLDER = "im_1"
MASK_FOLDER = "im_3"
BONE_NAMES = {
    "right femur": "femur_right",
    "left femur": "femur_left",
    "right hip": "hip_right",
    "left hip": "hip_left",
    "sacrum": "sacrum",
}  # by the segments' descriptions


def _find(roots: list[Path]) -> list[Found]:
    return [
        Found(
            folder.parent.name,
            folder.parent.name,
            folder if scans.holds_dicom(folder) else None,
            mask if (mask := folder.with_name(MASK_FOLDER)).is_dir() else None,
        )
        for root in roots
        for folder in sorted(root.rglob(SCAN_FOLDER))
        if folder.is_dir()
    ]


def _measure(item: Found) -> pelvis.Landmark:
    scan = scans.read_scan(item.scan_path)
    mask, names = labels.read_mask(item.mask_path, scan, BONE_NAMES, item.scan_path)
    return pelvis.smallest_and_extent(
        [
            pelvis.landmark(mask, [number for number, name in names.items() if name == hip])
            for hip in ("hip_left", "hip_right")
        ]
    )


CTPEL = PublicSet(
    name="ctpel",
    find=_find,
    needs=f"a folder for each patient with {SCAN_FOLDER}/ (CT) and {MASK_FOLDER}/ (masks)",
    wanted=lambda member: {SCAN_FOLDER, MASK_FOLDER} & set(member.split("/")[:-1]) != set(),
    measure=_measure,
    bone_names=BONE_NAMES,
    complete=False,  # no lumbar spine, and of the femur the upper part only
)
