"""Small public data sets in their owners' layouts -> `folder` data sets of pelvic scans."""

import gzip
import json
import struct
import warnings

import numpy as np
import pytest
import SimpleITK

from bonelib.__main__ import main
from bonelib.datasets import find_cases, note
from bonelib.datasets.public_sets import PUBLIC_SETS, convert
from bonelib.errors import InputError, InputWarning
from bonelib.settings import BONE, IGNORE, PATIENT, SPLITS, get_settings
from tests.mask_files import refusal_of, write_seg

SMOKE = get_settings("smoke")
SPACING_MM = (10.0, 8.0, 8.0)  # between slices, rows, columns
ORIGIN_MM = (-190.0, -150.0, 0.0)
SHAPE = (60, 40, 48)
BOXES = {  # first and last slice, row, column; columns count to the patient's left
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
BONES = [name for name in BOXES if name != "urinary_bladder"]
PELVIC_SLICES = slice(10, 40)  # from 100 mm below the faces of the hip bones to 100 mm above
BLADDER_SLICES = slice(7, 48)  # from 150 mm below the faces of the bladder to 200 mm above
PELVIC_IDS = {"sacrum": 1, "vertebrae_S1": 1, "hip_left": 2, "hip_right": 3, "vertebrae_L5": 4}
JUNK = b"\0\5\x16\7not a volume"
values = SimpleITK.GetArrayFromImage


def structure(name, shift=0):
    """One structure as 0 and 1, moved up by `shift` slices."""
    array = np.zeros(SHAPE, np.uint8)
    (low, high), *rest = BOXES[name]
    rows, columns = (slice(first, last + 1) for first, last in rest)
    array[max(low + shift, 0) : max(high + shift + 1, 0), rows, columns] = 1
    return array


def labelled(ids):
    """A mask of ids by structure."""
    mask = np.zeros(SHAPE, np.uint8)
    for name, number in ids.items():
        mask[structure(name) == 1] = number
    return mask


def union(names, slices):
    return np.any([structure(name)[slices] for name in names], axis=0)


def trunk_with_bones():
    image_hu = np.full(SHAPE, -1000, np.int16)
    image_hu[:, 8:32, 6:42] = 40
    image_hu[union(BONES, slice(None))] = 600
    return image_hu


SCAN_HU = trunk_with_bones()


def save(path, array):
    """Write a volume, in RAS as the owners of these sets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin(ORIGIN_MM)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, "RAS"), str(path))


def write_totalsegmentator(root, names, first_sacral="vertebrae_S1", shifts=None):
    """Write series; `shifts` moves the bones of a series, None removes hips."""
    for name in names:
        save(root / name / "ct.nii.gz", SCAN_HU)
        shift = (shifts or {}).get(name, 0)
        for bone in BOXES:
            file = first_sacral if bone == "vertebrae_S1" else bone
            gone = shift is None and bone.startswith("hip")
            mask = 0 * structure(bone) if gone else structure(bone, shift or 0)
            save(root / name / "segmentations" / f"{file}.nii.gz", mask)
        (root / name / "._ct.nii.gz").write_bytes(JUNK)
    return root


def skew(file):
    """Turn the rows of a NIfTI file by 0.006 degrees, as rounding does, in its matrix alone."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<h", content, 252, 0)  # qform_code: there is no quaternion
    struct.pack_into("<f", content, 284, 1e-4 * SPACING_MM[1])  # x of a step along the columns
    file.write_bytes(gzip.compress(content))


def write_ctpelvic1k(root, names, prefix=""):
    for name in names:
        save(root / f"CTPelvic1K_dataset6_data/{prefix}{name}_data.nii.gz", SCAN_HU)
        mask = root / f"ipcai2021_dataset6_Anonymized/{prefix}{name}_mask_4label.nii.gz"
        save(mask, labelled(PELVIC_IDS))
    (root / "._CLINIC_0001_mask_4label.nii.gz").write_bytes(JUNK)
    (root / "splits_final.pkl").write_bytes(b"cposix\nsystem\n(S'touch opened'\ntR.")
    return root


def write_ct_org(root, numbers, without_bladder=()):
    for number in numbers:
        ids = dict.fromkeys(BONES, 5)
        ids |= {} if number in without_bladder else {"urinary_bladder": 2}
        save(root / "OrganSegmentations" / f"volume-{number}.nii.gz", SCAN_HU)
        save(root / "OrganSegmentations" / f"labels-{number}.nii.gz", labelled(ids))
    return root


# Series ids with the splits that their hashes give.
BY_HASH = {
    "totalsegmentator": {"s0001": "train", "s0002": "validation", "s0005": "test"},
    "ctpelvic1k": {"CLINIC_0002": "train", "CLINIC_0009": "validation", "CLINIC_0001": "test"},
    "pengwin": {"001": "train", "002": "validation", "005": "test"},
    "ctpel": {
        "0000000000000001": "train",
        "000000000000000e": "validation",
        "0000000000000006": "test",
    },
}


def converted(dataset, root, splits=SPLITS):
    """The cases after a conversion without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        convert(dataset, root, root.with_name("out"))
        return find_cases("folder", root.with_name("out"), SMOKE, splits=splits)


def splits_of(cases):
    return {case.series_id: case.split for case in cases}


def named(case, bone):
    """Where a bone of this name is."""
    structures, names = case.annotation()
    ids = [number for number, name in names.items() if name == bone]
    return np.isin(values(structures), ids)


def refusal(dataset, root):
    output = root.with_name("out")
    message = refusal_of(root, lambda path: convert(dataset, path, output))
    assert not list(output.rglob("*.csv"))
    return message


@pytest.mark.parametrize("first_sacral", ["vertebrae_S1", "vertebrae_L6"])  # versions 2 and 3
def test_totalsegmentator_is_cut_to_the_pelvis_and_all_bone_is_labelled(tmp_path, first_sacral):
    splits = BY_HASH["totalsegmentator"]
    root = write_totalsegmentator(tmp_path / "ts" / "v300", splits, first_sacral)
    for file in (root / "s0002").rglob("[a-z]*.nii.gz"):
        skew(file)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    cases = converted("totalsegmentator", root)
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before
    assert splits_of(cases) == splits
    scan = cases[0].scan()
    np.testing.assert_array_equal(values(scan), SCAN_HU[PELVIC_SLICES])
    assert scan.GetOrigin() == (*ORIGIN_MM[:2], 100.0)
    for case in cases[:2]:
        classes = values(case.label_map())
        np.testing.assert_array_equal(classes == BONE, union(BONES, PELVIC_SLICES))
        assert classes[15, 12, 24] == PATIENT and not (classes == IGNORE).any()
    hip = structure("hip_left")[PELVIC_SLICES] == 1
    np.testing.assert_array_equal(named(cases[0], "hip_left"), hip)


def test_scans_without_both_hips_and_damaged_ones_are_left_out(tmp_path):
    # s0009 ends inside the hips, which have less than 100 of 230 ml left.
    names, shifts = ["s0000", "s0007", "s0009", "s0011", "s0013"], {"s0007": None, "s0009": -26}
    root = write_totalsegmentator(tmp_path / "ts", names, shifts=shifts)
    (root / "s0011" / "segmentations" / "hip_left.nii.gz").unlink()
    (root / "s0013" / "ct.nii.gz").write_bytes(JUNK)
    with pytest.warns(InputWarning, match=r"^s0013: left out: .*s0013/ct.nii.gz: ") as caught:
        counts = convert("totalsegmentator", root, tmp_path / "out")
    assert len(caught) == 1
    assert counts == {"converted": 1, "without the pelvis": 3, "left out": 1}


def test_ctpelvic1k_ignores_the_femur_which_is_not_labelled(tmp_path):
    splits = BY_HASH["ctpelvic1k"]
    cases = converted("ctpelvic1k", write_ctpelvic1k(tmp_path / "p", splits, "dataset6_"))
    assert splits_of(cases) == splits
    assert set(cases[0].bone_names.values()) == {"sacrum", "hip", "lumbar_vertebrae", "ignore"}
    classes = values(cases[0].label_map())
    np.testing.assert_array_equal(classes == BONE, union(PELVIC_IDS, PELVIC_SLICES))
    assert (classes[union(["femur_left", "femur_right"], PELVIC_SLICES)] == IGNORE).all()
    assert classes[15, 12, 24] == PATIENT


def test_ctpelvic1k_pairs_by_id_and_leaves_out_duplicates(tmp_path):
    metal = [f"CLINIC_metal_{number}" for number in ("0064", "0036", "0059", "0071")]
    root = write_ctpelvic1k(tmp_path / "p", metal)
    save(root / "CTPelvic1K_dataset7_data/dataset7_CLINIC_metal_0002_data.nii.gz", SCAN_HU)
    for name in ("dataset1_img0001", "dataset3_colon_001"):
        save(root / f"{name}_mask_4label.nii.gz", labelled(PELVIC_IDS))
    # The owner's scan and, under the same name, the owner's own mask.
    save(root / "Task10/imagesTr/colon_001.nii.gz", SCAN_HU)
    save(root / "Task10/labelsTr/colon_001.nii.gz", structure("sacrum"))
    with pytest.warns(InputWarning, match="^2 series have only a scan or only a mask"):
        convert("ctpelvic1k", root, tmp_path / "out")
    found = find_cases("folder", tmp_path / "out", SMOKE, splits=())
    assert [case.series_id for case in found] == ["CLINIC_metal_0059", "colon_001"]
    save(root / "again" / "CLINIC_metal_0059_data.nii.gz", SCAN_HU)
    with pytest.raises(InputError, match="keep one of them"):
        convert("ctpelvic1k", root, tmp_path / "out")


def test_ct_org_is_cut_around_the_bladder(tmp_path):
    splits = {0: "test", 20: "test", 21: "train", 24: "validation"}
    root = write_ct_org(tmp_path / "o", [*splits, 5], without_bladder=[5])
    cases = converted("ct_org", root)
    assert splits_of(cases) == {f"volume-{number}": split for number, split in splits.items()}
    classes = values(cases[0].label_map())
    np.testing.assert_array_equal(classes == BONE, union(BONES, BLADDER_SLICES))
    assert not (classes == IGNORE).any()


def test_pengwin_joins_fragments(tmp_path):
    root = tmp_path / "w"
    mask = labelled({"sacrum": 1, "vertebrae_S1": 1, "hip_left": 11, "hip_right": 21})
    mask[25:][mask[25:] == 11] = 12  # the left hip bone is broken in two
    for name in BY_HASH["pengwin"]:
        save(root / "PENGWIN_CT_train_images_part1" / f"{name}.mha", SCAN_HU)
        save(root / "PENGWIN_CT_train_labels" / f"{name}.mha", mask)
    cases = converted("pengwin", root)
    assert splits_of(cases) == BY_HASH["pengwin"]
    hip = structure("hip_left")[PELVIC_SLICES] == 1
    np.testing.assert_array_equal(named(cases[0], "hip_left"), hip)
    classes = values(cases[0].label_map())
    unlabelled = union(["femur_left", "femur_right", "vertebrae_L5"], PELVIC_SLICES)
    assert (classes[unlabelled] == IGNORE).all()
    np.testing.assert_array_equal(classes == BONE, mask[PELVIC_SLICES] > 0)


CTPEL_SEGMENTS = {
    "Right Femur": "femur_right", "Left Femur": "femur_left", "Right Hip": "hip_right",
    "Left Hip": "hip_left", "Sacrum": "sacrum",
}  # fmt: skip


def test_ctpel_reads_the_dicom_segmentation(tmp_path, write_series, make_image):
    root = tmp_path / "ctpel"
    masks = {
        text: make_image(structure(name), SPACING_MM, ORIGIN_MM)
        for text, name in CTPEL_SEGMENTS.items()
    }
    for patient in BY_HASH["ctpel"]:
        write_series(root / patient / "im_1", SCAN_HU, SPACING_MM, ORIGIN_MM)
        for folder in ("im_3", "im_4"):
            (root / patient / folder).mkdir()
        write_seg(root / patient / "im_3" / "x0000.dcm", masks, descriptions=list(masks))
        (root / patient / "im_4" / "x0000.dcm").write_bytes(b"a report")
    cases = converted("ctpel", root)
    assert splits_of(cases) == BY_HASH["ctpel"]
    for bone in CTPEL_SEGMENTS.values():
        np.testing.assert_array_equal(named(cases[0], bone), structure(bone)[PELVIC_SLICES] == 1)
    classes = values(cases[0].label_map())
    np.testing.assert_array_equal(classes == BONE, union(CTPEL_SEGMENTS.values(), PELVIC_SLICES))
    assert (classes[union(["vertebrae_S1", "vertebrae_L5"], PELVIC_SLICES)] == IGNORE).all()


def test_the_command_continues_and_says_what_it_did(tmp_path, capsys):
    root, output = write_ct_org(tmp_path / "o", [0, 1, 30], without_bladder=[1]), tmp_path / "out"
    assert main(["convert", "ct_org", str(root), str(output)]) == 0
    said = capsys.readouterr().out
    assert "2 converted, 1 without the pelvis" in said
    assert f"run_all.py --dataset folder --data {output}" in said
    times = {file: file.stat().st_mtime_ns for file in output.rglob("*.nii.gz")}
    assert len(times) == 4
    (output / "volume-0" / "ct.nii.gz").unlink()  # as if the process had been killed
    convert("ct_org", root, output)
    again = {file: file.stat().st_mtime_ns for file in output.rglob("*.nii.gz")}
    changed = {file.parent.name for file in again if again[file] != times[file]}
    assert again.keys() == times.keys() and changed == {"volume-0"}
    assert note(output) == PUBLIC_SETS["ct_org"]["note"] and note(tmp_path) == note(None) == ""
    text = (output / "dataset.json").read_text()
    assert json.loads(text).keys() == {"name", "note"} and str(tmp_path) not in text


@pytest.mark.parametrize("dataset", PUBLIC_SETS)
def test_a_folder_without_the_set_is_refused(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    assert "no scan here has its mask" in refusal(dataset, tmp_path / "empty")
    assert "no such folder" in refusal(dataset, tmp_path / "absent")
    with pytest.raises(InputError, match=f"run `python -m bonelib convert {dataset} DIR OUT`"):
        find_cases(dataset, tmp_path, SMOKE)
    text = PUBLIC_SETS[dataset]["note"]
    assert "doi 10." in text and ("CC BY" in text or "licence" in text)


def test_a_set_without_pelves_and_a_folder_of_other_files_are_refused(tmp_path):
    root = write_ct_org(tmp_path / "o", [0, 30], without_bladder=[0, 30])
    assert "none of 2 scans shows the whole pelvis" in refusal("ct_org", root)
    with pytest.raises(InputError, match="o/out: is inside the source; name a folder elsewhere"):
        convert("ct_org", root, root / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="mine: holds other files; name a new or empty folder"):
        convert("ct_org", root, tmp_path / "mine")
