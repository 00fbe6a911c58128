"""The layout `folder`: which files are scan and mask, and what is refused."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from bonelib.datasets import find_cases, prepared_name, read_bone_names
from bonelib.errors import InputError, InputWarning
from bonelib.settings import BONE, SPLITS, get_settings
from tests.mask_files import refusal_of, voxel_edges, write_pictures, write_seg, write_structure_set

SMOKE = get_settings("smoke")
values = SimpleITK.GetArrayFromImage


def refusal(directory):
    def read(path):
        return [case.label_map() for case in find_cases("folder", path, SMOKE)]

    return refusal_of(directory, read)


def test_folder_gives_a_case_for_each_line(write_dataset, trunk_hu):
    names = ("007", "b", "1.2.3")
    cases = find_cases("folder", write_dataset(series=names), SMOKE)
    assert [(case.series_id, case.split) for case in cases] == list(zip(names, SPLITS, strict=True))
    for case in cases:
        scan = case.scan()
        assert case.bone_names is None
        assert ((values(case.label_map(scan)) == BONE) == (trunk_hu > 500)).all()
        assert ((values(case.annotation()[0]) == 3) == (trunk_hu > 500)).all()


def test_bone_names_choose_the_bones(write_dataset):
    root = write_dataset()
    (root / "bone_names.csv").write_text("id,name\n3, left  hip\n4,sacrum\n")
    assert find_cases("folder", root, SMOKE)[0].bone_names == {3: "left_hip", 4: "sacrum"}
    (root / "bone_names.csv").write_text("id,name\n4,sacrum\n")
    assert "no bone in it: it holds ids 0, 3, bone is 4" in refusal(root)
    (root / "bone_names.csv").write_text("id,name\nhip,3\n")
    assert "line 'hip,3' needs an id above 0, used once, and a name" in refusal(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("series\tsplit\na\ttrain\n", "has columns series\\tsplit instead of series,split"),
        ("series,split\na,training\n", "split 'training'; write train, validation, test"),
        ("series,split\na,train\nb,validation\n", "no series for test"),
        ("series,split\na,train\nd,test\n", "series d has no folder"),
        ("series,split\na,train\na,test\nb,validation\n", "series a twice"),
        ("series,split\n../a,train\n", "not a valid file name"),
        ('series,split\na,"train\n', "cannot be read as a CSV table"),
        ("", "cannot be read as a CSV table"),
        ("series,split,more\na,train,x\n", "or series,split,scan_series; correct its first line"),
    ],
)
def test_bad_split_file_is_refused(write_dataset, text, words):
    root = write_dataset()
    (root / "split.csv").write_text(text)
    assert words in refusal(root)


def test_bad_folders_are_refused(write_dataset, tmp_path, monkeypatch):
    assert "no such folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "missing; write it with columns series,split" in refusal(tmp_path / "empty")
    root = write_dataset()
    (root / "b" / "mask.nii.gz").rename(root / "b" / "bone.nii.gz")
    assert len(find_cases("folder", root, SMOKE)) == 3
    (root / "b" / "labels.mha").write_bytes(b"")
    assert "has bone.nii.gz, labels.mha; leave exactly one" in refusal(root)
    (root / "a" / "ct.nii.gz").rename(root / "a" / "ct2.nii.gz")
    (root / "a" / "ct1.nrrd").write_bytes(b"")
    assert "has ct1.nrrd, ct2.nii.gz; leave exactly one" in refusal(root)
    for name in ("ct1.nrrd", "ct2.nii.gz"):
        (root / "a" / name).unlink()
    assert "needs one of scans" in refusal(root)
    (root / "a" / "ct").mkdir()
    (root / "a" / "ct" / "1.dcm").write_bytes(b"")  # is refused when it is read
    (root / "b" / "labels.mha").unlink()
    assert len(find_cases("folder", root, SMOKE)) == 3

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"{root / 'a'}: Permission denied; check that you may read it" in refusal(root)


def test_data_sets_by_name(tmp_path):
    with pytest.raises(InputError, match="choose one of phantom, folder"):
        find_cases("ghost", None, SMOKE)
    with pytest.raises(InputError, match="--data DIR"):
        find_cases("folder", None, SMOKE)
    assert prepared_name("phantom", None) == "phantom"
    assert prepared_name("folder", tmp_path / "hospital") == "folder-hospital"


@pytest.fixture
def dicom_dataset(write_dataset, write_series, trunk_hu):
    """A `folder` data set whose first series is DICOM without a mask, and that folder."""
    root = write_dataset()
    shutil.rmtree(root / "a")
    write_series(root / "a" / "ct", trunk_hu, (5, 4, 4))
    return root, root / "a"


@pytest.fixture
def bone(make_image, trunk_hu):
    return make_image((trunk_hu > 500).astype(np.uint8), (5, 4, 4))


def first_map(root):
    case = find_cases("folder", root, SMOKE)[0]
    return case, values(case.label_map()) == BONE


@pytest.mark.parametrize(
    ("kind", "place", "scan"),
    [
        ("SEG", "seg.dcm", "ct"),
        ("RTSTRUCT", "ct/rt.dcm", "ct"),
        ("RTSTRUCT", "rt.dcm", "."),  # among the slices
    ],
)
def test_a_mask_in_dicom_is_found_by_its_modality(dicom_dataset, bone, trunk_hu, kind, place, scan):
    root, folder = dicom_dataset
    if scan == ".":
        shutil.copytree(folder / "ct", folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "ct")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    if kind == "SEG":
        write_seg(folder / place, {"left hip bone": bone})
    else:
        write_structure_set(folder / place, {"left hip bone": voxel_edges(bone)})
    case, found = first_map(root)
    np.testing.assert_array_equal(found, trunk_hu > 500)
    assert case.scan_path == folder / scan
    assert folder / place in case.source_files()
    assert len(case.source_files()) == len(trunk_hu) + 1
    SimpleITK.WriteImage(bone, str(folder / "mask.nii.gz"))  # wins by its name
    case, found = first_map(root)
    assert (case.scan_path, case.mask_path) == (folder / scan, folder / "mask.nii.gz")
    np.testing.assert_array_equal(found, trunk_hu > 500)


def test_no_mask_and_two_structure_sets_are_refused(dicom_dataset, bone):
    root, folder = dicom_dataset
    assert "needs one of files called mask or labels or bone" in refusal(root)
    for name in ("first.dcm", "second.dcm"):
        write_structure_set(folder / name, {"hip": voxel_edges(bone)})
    assert "modality RTSTRUCT or SEG, has first.dcm, second.dcm; leave exactly one" in refusal(root)


@pytest.mark.parametrize("kind", ["volumes", "pictures"])
def test_a_folder_of_volumes_or_pictures(dicom_dataset, make_image, trunk_hu, kind):
    root, folder = dicom_dataset
    if kind == "pictures":  # conftest numbers the slices from the head
        write_pictures(folder / "mask", (trunk_hu > 500).astype(np.uint8)[::-1])
    else:
        (folder / "labels").mkdir()
        for structure, low in (("femur_left", 500), ("liver", 30)):
            mask = make_image((trunk_hu > low).astype(np.uint8), (5, 4, 4))
            SimpleITK.WriteImage(mask, str(folder / "labels" / f"{structure}.nii.gz"))
    np.testing.assert_array_equal(first_map(root)[1], trunk_hu > 500)


def test_an_archive_is_a_scan_and_a_mask_may_be_called_seg(write_dataset, tmp_path, trunk_hu):
    root = write_dataset()
    scan = root / "a" / "ct.nii.gz"
    (root / "a" / "ct").mkdir()
    with zipfile.ZipFile(root / "a" / "ct" / "export.zip", "w") as archive:
        archive.write(scan, f"study/{scan.name}")
    scan.unlink()
    mask = SimpleITK.ReadImage(str(root / "a" / "mask.nii.gz"))
    SimpleITK.WriteImage(mask, str(root / "a" / "mask.seg.nrrd"))
    (root / "a" / "mask.nii.gz").unlink()
    case, found = first_map(root)
    assert (case.source, case.mask_path.name) == ("a/ct", "mask.seg.nrrd")
    np.testing.assert_array_equal(found, trunk_hu > 500)


def test_split_names_the_series_of_a_folder(write_dataset, write_series, trunk_hu):
    root = write_dataset()
    (root / "a" / "ct.nii.gz").unlink()
    for number in (1, 2):

        def change(file, _, number=number):
            file.SeriesNumber = number

        image_hu = trunk_hu + np.int16(100 * number)
        write_series(root / "a" / "ct" / str(number), image_hu, (5, 4, 4), change=change)
    lines = "series,split,scan_series\na,train,{}\nb,validation,\nc,test,\n"
    for number in (1, 2):
        (root / "split.csv").write_text(lines.format(number))
        case = find_cases("folder", root, SMOKE)[0]
        np.testing.assert_array_equal(values(case.scan()), trunk_hu + np.int16(100 * number))
    assert [case.series for case in find_cases("folder", root, SMOKE)] == ["2", None, None]


def test_tables_of_spreadsheets_are_read(write_dataset):
    root = write_dataset()
    text = (root / "split.csv").read_text().replace(",", ";").replace("\n", "\r\n")
    (root / "split.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(find_cases("folder", root, SMOKE)) == 3
    (root / "bone_names.csv").write_bytes("id,name\n3,Hüfte links\n".encode("latin-1"))
    with pytest.warns(InputWarning, match=r"^bone_names\.csv is not in UTF-8 and is read in Win"):
        assert read_bone_names(root / "bone_names.csv") == {3: "Hüfte_links"}
    (root / "bone_names.csv").write_text("pattern,name\nHUEFT*,left  hip\nvag*,ignore\n")
    assert read_bone_names(root / "bone_names.csv") == {"HUEFT*": "left_hip", "vag*": "ignore"}
    (root / "bone_names.csv").write_text("pattern,name\nvag*,vague\nvag*,twice\n")
    assert "line 'vag*,twice' needs a pattern, used once, and a name" in refusal(root)
