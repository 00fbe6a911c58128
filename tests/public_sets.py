"""Writers of small public data sets in the very layout in which their owners hand them out."""

import tarfile
import zipfile

import numpy as np
import SimpleITK

SPACING_MM = (10.0, 8.0, 8.0)  # between slices, rows, columns
SHAPE = (60, 40, 48)
CORNERS = {  # first and last slice, row, column of boxes; columns go to the patient's left
    "hip_right": ((20, 29), (18, 23), (10, 15)),
    "hip_left": ((20, 29), (18, 23), (30, 35)),
    "sacrum": ((24, 31), (24, 27), (20, 25)),
    "vertebrae_S1": ((32, 33), (24, 27), (20, 25)),
    "vertebrae_L5": ((34, 40), (22, 26), (20, 25)),
    "skull": ((55, 58), (15, 25), (18, 28)),
    "femur_right": ((0, 19), (18, 22), (11, 14)),
    "femur_left": ((0, 19), (18, 22), (31, 34)),
    "urinary_bladder": ((22, 27), (12, 17), (20, 25)),
}
BONES = [name for name in CORNERS if name != "urinary_bladder"]
PELVIC_SLICES = slice(10, 40)  # from 100 mm below the hips' faces to 100 mm above
BLADDER_SLICES = slice(7, 48)  # from 150 mm below the bladder's faces to 200 mm above
JUNK = b"\0\5\x16\7not a volume"


def structure(name, shift=0):
    """One structure as 0 and 1; `shift` moves it up by slices."""
    array = np.zeros(SHAPE, np.uint8)
    (low, high), *rest = CORNERS[name]
    rows, columns = (slice(first, last + 1) for first, last in rest)
    array[max(low + shift, 0) : max(high + shift + 1, 0), rows, columns] = 1
    return array


def scan_hu():
    """A trunk with bones in it."""
    image_hu = np.full(SHAPE, -1000, np.int16)
    image_hu[:, 8:32, 6:42] = 40
    for name in BONES:
        image_hu[structure(name) == 1] = 600
    return image_hu


def labelled(ids, shift=0):
    """A mask of ids by structure."""
    mask = np.zeros(SHAPE, np.uint8)
    for name, number in ids.items():
        mask[structure(name, shift) == 1] = number
    return mask


def save(path, array):
    """Write a volume, in any format; NIfTI as owners do, with other axes than LPS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin((-190.0, -150.0, 0.0))
    if path.name.endswith((".nii", ".nii.gz")):
        image = SimpleITK.DICOMOrient(image, "RAS")
    SimpleITK.WriteImage(image, str(path))


def write_totalsegmentator(folder, splits, top="", first_sacral="vertebrae_S1", shifts=None):
    """`splits` by series id; a series with a shift of None has empty hips, as most have."""
    root = folder / top
    root.mkdir(parents=True, exist_ok=True)
    lines = ["image_id;age;gender;institute;study_type;split;manufacturer"]
    lines += [f"{name};60;f;A;ct pelvis;{split};X" for name, split in splits.items()]
    (root / "meta.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    for name in splits:
        save(root / name / "ct.nii.gz", scan_hu())
        shift = (shifts or {}).get(name, 0)
        for bone in CORNERS:
            gone = shift is None and bone.startswith("hip")
            mask = np.zeros(SHAPE, np.uint8) if gone else structure(bone, shift or 0)
            file = first_sacral if bone == "vertebrae_S1" else bone
            save(root / name / "segmentations" / f"{file}.nii.gz", mask)
        (root / name / "._ct.nii.gz").write_bytes(JUNK)
    return folder


PELVIC_IDS = {"sacrum": 1, "vertebrae_S1": 1, "hip_left": 2, "hip_right": 3, "vertebrae_L5": 4}


def write_ctpelvic1k(folder, clinic, metal=(), masks_only=(), scans_only=(), ending=".nii.gz"):
    """Subsets 6 and 7; `masks_only` are masks of other subsets, `scans_only` have no mask."""
    for name in clinic:
        save(folder / f"CTPelvic1K_dataset6_data/dataset6_{name}_data.nii.gz", scan_hu())
        file = f"ipcai2021_dataset6_Anonymized/dataset6_{name}_mask_4label{ending}"
        save(folder / file, labelled(PELVIC_IDS))
    for name in (*metal, *scans_only):
        save(folder / f"CTPelvic1K_dataset7_data/dataset7_{name}_data.nii.gz", scan_hu())
    for name in metal:
        save(folder / f"{name}_mask_4label.nii.gz", labelled(PELVIC_IDS))
    for name in masks_only:
        file = f"CTPelvic1K_{name.split('_')[0]}_mask_mappingback/{name}_mask_4label.nii.gz"
        save(folder / file, labelled(PELVIC_IDS))
    (folder / "._CLINIC_0001_mask_4label.nii.gz").write_bytes(JUNK)
    (folder / "splits_final.pkl").write_bytes(b"cposix\nsystem\n(S'touch opened'\ntR.")
    return folder


def write_ct_org(folder, numbers, without_bladder=()):
    """`labels-N` and `volume-N`, all bone as 5."""
    for number in numbers:
        ids = dict.fromkeys(BONES, 5) | {"urinary_bladder": 2}
        if number in without_bladder:
            del ids["urinary_bladder"]
        save(folder / "OrganSegmentations" / f"volume-{number}.nii.gz", scan_hu())
        save(folder / "OrganSegmentations" / f"labels-{number}.nii.gz", labelled(ids))
    return folder


def write_pengwin(folder, names, images="PENGWIN_CT_train_images_part1", top="labels"):
    """Scans and fragments: the left hip is broken in two."""
    for name in names:
        save(folder / images / f"{name}.mha", scan_hu())
        mask = labelled({"sacrum": 1, "vertebrae_S1": 1, "hip_left": 11, "hip_right": 21})
        mask[25:][mask[25:] == 11] = 12
        save(folder / f"PENGWIN_CT_train_{top}" / f"{name}.mha", mask)
    return folder


def pack(folder, archive, members=None):
    """Put a folder's files into a zip or a .tar.gz, under their names below the folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {file: file.relative_to(folder).as_posix() for file in files}
    chosen = {file: name for file, name in names.items() if members is None or members(name)}
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for file, name in chosen.items():
                target.write(file, name)
    else:
        with tarfile.open(archive, "w:gz") as target:
            for file, name in chosen.items():
                target.add(file, name)
    return archive
