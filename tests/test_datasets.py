import numpy as np
import pytest
import SimpleITK

from bonelib.datasets import DATASETS, find_cases, prepared_name
from bonelib.errors import InputError
from bonelib.settings import BONE, SPLITS, get_settings

SMOKE = get_settings("smoke")
values = SimpleITK.GetArrayFromImage


def refusal(directory):
    with pytest.raises(InputError) as caught:
        [case.label_map() for case in find_cases("folder", directory, SMOKE)]
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


def test_folder_gives_a_case_for_each_line(write_dataset, trunk_hu):
    root = write_dataset()
    cases = find_cases("folder", root, SMOKE)
    assert [(case.series_id, case.split) for case in cases] == list(zip("abc", SPLITS, strict=True))
    for case in cases:
        scan = case.scan()
        assert case.bone_names is None
        assert ((values(case.label_map(scan)) == BONE) == (trunk_hu > 500)).all()
        assert ((values(case.structures()) == 3) == (trunk_hu > 500)).all()


def test_dicom_lies_in_a_folder_or_beside_the_mask(write_dataset, write_series, trunk_hu):
    root = write_dataset()
    for series_id, below in (("a", "ct"), ("b", "")):
        (root / series_id / "ct.nii.gz").unlink()
        write_series(root / series_id / below, trunk_hu, (5, 4, 4))
    cases = find_cases("folder", root, SMOKE)
    assert [case.scan_path for case in cases[:2]] == [root / "a" / "ct", root / "b"]
    reference = values(cases[2].label_map())
    for case in cases:
        np.testing.assert_array_equal(values(case.label_map()), reference)


def test_bone_names_choose_the_bones(write_dataset):
    root = write_dataset()
    (root / "bone_names.csv").write_text("id,name\n3, left  hip\n4,sacrum\n")
    cases = find_cases("folder", root, SMOKE)
    assert cases[0].bone_names == {3: "left_hip", 4: "sacrum"}
    (root / "bone_names.csv").write_text("id,name\n4,sacrum\n")
    assert "no bone in it: it holds ids 0, 3, bone is 4" in refusal(root)


def test_numbers_are_good_names(write_dataset):
    cases = find_cases("folder", write_dataset(series=("007", "08", "1.2.3")), SMOKE)
    assert [case.series_id for case in cases] == ["007", "08", "1.2.3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("series;split\na;train\n", "has columns series;split instead of series,split"),
        ("series,split\na,training\n", "split 'training'; write train, validation, test"),
        ("series,split\na,train\nb,validation\n", "no series for test"),
        ("series,split\na,train\nd,test\n", "series d has no folder"),
        ("series,split\na,train\na,test\nb,validation\n", "series a twice"),
        ("series,split\n../a,train\n", "no name for files"),
        ('series,split\na,"train\n', "cannot be read as a CSV table"),
        ("", "cannot be read as a CSV table"),
    ],
)
def test_bad_split_file_is_refused(write_dataset, text, words):
    root = write_dataset()
    (root / "split.csv").write_text(text)
    assert words in refusal(root)


def test_bad_folders_are_refused(write_dataset, tmp_path):
    assert "no such folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "missing; write it with columns series,split" in refusal(tmp_path / "empty")

    root = write_dataset()
    (root / "bone_names.csv").write_text("id,name\nhip,3\n")
    assert "line 'hip,3'" in refusal(root)
    (root / "bone_names.csv").unlink()

    volume = root / "a" / "ct.nii.gz"
    volume.rename(root / "a" / "ct2.nii.gz")
    (root / "a" / "ct1.nrrd").write_bytes(b"")
    assert "has ct1.nrrd, ct2.nii.gz; leave exactly one" in refusal(root)
    (root / "a" / "ct1.nrrd").unlink()
    (root / "a" / "ct2.nii.gz").unlink()
    assert "needs one of scans" in refusal(root)


def test_mask_is_one(write_dataset):
    root = write_dataset()
    (root / "b" / "mask.nii.gz").rename(root / "b" / "bone.nii.gz")
    assert len(find_cases("folder", root, SMOKE)) == 3
    (root / "b" / "labels.mha").write_bytes(b"")
    assert "has bone.nii.gz, labels.mha" in refusal(root)


def test_mask_apart_from_the_scan_names_the_file(write_dataset):
    root = write_dataset()
    path = root / "a" / "mask.nii.gz"
    mask = SimpleITK.ReadImage(str(path))
    mask.SetOrigin((0, 0, 5000))
    SimpleITK.WriteImage(mask, str(path))
    assert "mask.nii.gz: mask and scan lie apart" in refusal(root)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="choose one of phantom, folder, label_maps"):
        find_cases("ghost", None, SMOKE)
    with pytest.raises(InputError, match="--data DIR"):
        find_cases("folder", None, SMOKE)
    assert list(DATASETS) == ["phantom", "folder", "label_maps"]


def test_prepared_name(tmp_path):
    assert prepared_name("phantom", None) == "phantom"
    assert prepared_name("folder", tmp_path / "hospital") == "folder-hospital"


def test_phantom_is_made_and_read_as_a_folder(write_dataset, monkeypatch, tmp_path):
    from bonelib import phantom

    asked = []

    def generate(directory, settings, workers=1):
        asked.append((directory, settings.profile, workers))
        write_dataset(directory.name)

    monkeypatch.setattr(phantom, "generate", generate)
    cases = find_cases("phantom", tmp_path / "made", SMOKE, workers=2)
    assert asked == [(tmp_path / "made", "smoke", 2)]
    assert [case.split for case in cases] == list(SPLITS)
