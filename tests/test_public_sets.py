"""Public data sets, small and in their owners' layouts: which cases, splits, classes."""

import hashlib
import os
import warnings

import numpy as np
import pandas
import pytest
import SimpleITK

from bonelib import datasets, paths
from bonelib.datasets import find_cases, pelvis
from bonelib.errors import InputError, InputWarning
from bonelib.settings import BONE, IGNORE, PATIENT, SPLITS, get_settings
from tests import public_sets
from tests.mask_files import write_seg
from tests.public_sets import BLADDER_SLICES, BONES, PELVIC_SLICES, pack, structure

SMOKE = get_settings("smoke")
values = SimpleITK.GetArrayFromImage


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The project's own data folder, away from the real one."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "project_data")
    return tmp_path / "project_data"


def share(dataset, patient):
    digits = hashlib.sha256(f"{dataset}:{patient}".encode()).hexdigest()
    return int(digits[:16], 16) / 2**64


def split_by_hand(dataset, patient):
    place = share(dataset, patient)
    return "train" if place < 0.7 else "validation" if place < 0.8 else "test"


def one_of_each(dataset, patients):
    """The first patient of each split."""
    chosen = {}
    for patient in patients:
        chosen.setdefault(split_by_hand(dataset, patient), patient)
    return [chosen[split] for split in SPLITS]


def splits_of(cases):
    return {case.series_id: case.split for case in cases}


def union(names, slices):
    return np.any([structure(name)[slices] for name in names], axis=0)


def refusal(dataset, directory):
    with pytest.raises(InputError) as caught:
        find_cases(dataset, directory, SMOKE)
    message = str(caught.value)
    assert "\n" not in message and str(directory) in message and ";" in message
    return message


def quiet_cases(dataset, directory, splits=SPLITS):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        return find_cases(dataset, directory, SMOKE, splits=splits)


# TotalSegmentator

THREE = {"s0000": "train", "s0001": "val", "s0004": "test"}


@pytest.fixture
def totalsegmentator(tmp_path):
    return public_sets.write_totalsegmentator(tmp_path / "ts", THREE)


def test_totalsegmentator_is_cut_to_the_pelvis_and_all_bone_is_labelled(totalsegmentator):
    cases = quiet_cases("totalsegmentator", totalsegmentator)
    assert splits_of(cases) == {"s0000": "train", "s0001": "validation", "s0004": "test"}
    scan = cases[0].scan()
    expected = public_sets.scan_hu()[PELVIC_SLICES]
    np.testing.assert_array_equal(values(scan), expected)
    classes = values(cases[0].label_map(scan))
    bone = union(BONES, PELVIC_SLICES)
    assert (classes[bone] == BONE).all() and (classes == BONE).sum() == bone.sum()
    assert not (classes == IGNORE).any()
    assert classes[15, 12, 24] == PATIENT  # in the trunk, far from bone


def test_totalsegmentator_names_bones_and_joins_the_sacrum(totalsegmentator):
    case = quiet_cases("totalsegmentator", totalsegmentator)[0]
    structures, names = case.annotation()
    found = values(structures)
    by_name = {
        name: np.isin(found, [number for number, other in names.items() if other == name])
        for name in names.values()
    }
    sacrum = union(["sacrum", "vertebrae_S1"], PELVIC_SLICES)
    np.testing.assert_array_equal(by_name["sacrum"], sacrum)
    np.testing.assert_array_equal(by_name["hip_left"], structure("hip_left")[PELVIC_SLICES] == 1)
    assert "urinary_bladder" not in by_name


def test_totalsegmentator_takes_scans_with_both_hips_only(tmp_path):
    splits = THREE | {"s0007": "train", "s0009": "train", "s0011": "test"}
    # s0009 ends within the hips: less than 100 of 230 ml.
    shifts = {"s0007": None, "s0009": -26}
    folder = public_sets.write_totalsegmentator(tmp_path / "ts", splits, shifts=shifts)
    (folder / "s0011" / "segmentations" / "hip_left.nii.gz").unlink()
    with pytest.warns(InputWarning, match="^1 scans without a mask and 0 masks without a scan"):
        cases = find_cases("totalsegmentator", folder, SMOKE)
    assert list(splits_of(cases)) == list(THREE)


def test_totalsegmentator_3_has_a_top_folder_and_no_validation(tmp_path):
    names = [f"s{number:04d}" for number in range(12)]
    folder = public_sets.write_totalsegmentator(
        tmp_path / "ts",
        dict.fromkeys(names, "train") | {"s0002": "test"},
        top="Totalsegmentator_dataset_v300",
        first_sacral="vertebrae_L6",
    )
    cases = find_cases("totalsegmentator", folder, SMOKE, splits=())
    validating = {name for name in names if share("totalsegmentator", name) < 0.125}
    for name, split in splits_of(cases).items():
        expected = "validation" if name in validating else "train"
        assert split == ("test" if name == "s0002" else expected)
    assert (values(cases[0].label_map()) == BONE).sum() == union(BONES, PELVIC_SLICES).sum()


@pytest.mark.parametrize("top", ["", "Totalsegmentator_dataset_v300"])
def test_totalsegmentator_as_downloaded(totalsegmentator, tmp_path, data, top):
    folder = public_sets.write_totalsegmentator(tmp_path / "made", THREE, top=top)
    download = tmp_path / "download"
    archive = pack(folder, download / "Totalsegmentator_dataset.zip")
    cases = quiet_cases("totalsegmentator", download)
    raw = data / "raw" / "totalsegmentator-download"
    assert all(case.scan_path.is_relative_to(raw) for case in cases)
    assert splits_of(cases) == splits_of(quiet_cases("totalsegmentator", totalsegmentator))
    assert [path.name for path in download.iterdir()] == [archive.name]
    names = {path.name for path in raw.rglob("*") if path.is_file()}
    assert "hip_left.nii.gz" in names and "urinary_bladder.nii.gz" not in names
    assert not any(name.startswith("._") for name in names)

    times = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    quiet_cases("totalsegmentator", download)
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == times
    os.utime(archive, (1, 1))
    quiet_cases("totalsegmentator", download)
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} != times


def test_a_damaged_archive_is_refused_and_leaves_nothing(totalsegmentator, tmp_path, data):
    archive = pack(totalsegmentator, tmp_path / "download" / "all.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "all.zip: is damaged or incomplete" in refusal("totalsegmentator", archive.parent)
    assert [path.name for path in data.rglob("*") if path.is_file()] == ["archives.json"]
    archive.write_bytes(whole)
    assert len(quiet_cases("totalsegmentator", archive.parent)) == 3


def test_what_a_killed_run_unpacked_is_unpacked_again(totalsegmentator, tmp_path, data):
    archive = pack(totalsegmentator, tmp_path / "download" / "all.zip")
    root = data / "raw" / "totalsegmentator-download"
    (root / "all" / "s0000").mkdir(parents=True)
    (root / "archives.json").write_text('{"all.zip": null}')
    (root / "mine").mkdir()
    assert len(quiet_cases("totalsegmentator", archive.parent)) == 3
    assert (root / "mine").is_dir()


def test_two_releases_in_one_folder_are_refused(tmp_path):
    for top in ("small", "v300"):
        public_sets.write_totalsegmentator(tmp_path / "ts", THREE, top=top)
    assert "holds 2 releases" in refusal("totalsegmentator", tmp_path / "ts")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image_id,split\ns0000,train\n", "columns image_id and split"),
        ("image_id;split\ns0000;all\n", "has split 'all'"),
        ("", "columns image_id and split"),
    ],
)
def test_a_damaged_table_is_refused(totalsegmentator, text, words):
    (totalsegmentator / "meta.csv").write_text(text)
    assert words in refusal("totalsegmentator", totalsegmentator)


# CTPelvic1K

CLINIC = one_of_each("ctpelvic1k", [f"CLINIC_{number:04d}" for number in range(1, 60)])


def test_ctpelvic1k_ignores_the_femur_that_nobody_drew(tmp_path):
    folder = public_sets.write_ctpelvic1k(tmp_path / "p", CLINIC)
    case = quiet_cases("ctpelvic1k", folder)[0]
    assert set(case.bone_names.values()) == {"sacrum", "hip", "lumbar_vertebrae"}
    classes = values(case.label_map())
    drawn = union(public_sets.PELVIC_IDS, PELVIC_SLICES)
    femurs = union(["femur_left", "femur_right"], PELVIC_SLICES)
    assert (classes[drawn] == BONE).all() and (classes == BONE).sum() == drawn.sum()
    assert (classes[femurs] == IGNORE).all()
    assert classes[15, 12, 24] == PATIENT


def test_ctpelvic1k_pairs_by_id_and_drops_duplicates(tmp_path):
    metal = ["CLINIC_metal_0001", "CLINIC_metal_0064", "CLINIC_metal_0036", "CLINIC_metal_0059"]
    folder = public_sets.write_ctpelvic1k(
        tmp_path / "p",
        CLINIC,
        [*metal, "CLINIC_metal_0071"],
        scans_only=["CLINIC_metal_0002"],
        masks_only=["dataset1_img0001", "dataset3_colon_001", "dataset5_0507688_Image"],
        ending=".nii",
    )
    # The owner's scan and, under the same name, the owner's own mask.
    public_sets.save(folder / "Task10/imagesTr/colon_001.nii.gz", public_sets.scan_hu())
    public_sets.save(folder / "Task10/labelsTr/colon_001.nii.gz", structure("sacrum"))
    with pytest.warns(InputWarning, match="^1 scans without a mask and 2 masks without a scan"):
        cases = find_cases("ctpelvic1k", folder, SMOKE)
    expected = {*CLINIC, "CLINIC_metal_0001", "CLINIC_metal_0059", "colon_001"}
    assert set(splits_of(cases)) == expected
    for series_id, split in splits_of(cases).items():
        assert split == split_by_hand("ctpelvic1k", series_id)
    scan = next(case for case in cases if case.series_id == "colon_001").scan_path
    assert scan.parent.name == "imagesTr"


def test_ctpelvic1k_keeps_the_series_of_a_patient_together(tmp_path):
    folder = public_sets.write_ctpelvic1k(tmp_path / "p", CLINIC)
    patients = [f"1.3.6.1.4.1.9328.50.4.{number:04d}" for number in (1, 2, 3)]
    for patient in patients:
        for series in ("3_325", "4_499"):
            name = f"dataset2_{patient}_{series}"
            public_sets.save(folder / f"{name}.nii.gz", public_sets.scan_hu())
            mask = public_sets.labelled(public_sets.PELVIC_IDS)
            public_sets.save(folder / f"{name}_mask_4label.nii.gz", mask)
    found = splits_of(quiet_cases("ctpelvic1k", folder))
    assert len(found) == 3 + 6
    for patient in patients:
        assert found[f"{patient}_3_325"] == found[f"{patient}_4_499"]
        assert found[f"{patient}_3_325"] == split_by_hand("ctpelvic1k", patient)


def test_ctpelvic1k_as_downloaded_is_unpacked_as_far_as_it_is_not(tmp_path, data):
    made = public_sets.write_ctpelvic1k(tmp_path / "made", CLINIC, ["CLINIC_metal_0001"])
    download = tmp_path / "download"
    for archive, start in (
        ("dataset6_data", "CTPelvic1K_dataset6_data"),
        ("dataset6_Anonymized_mask", "ipcai2021"),
        ("dataset7_data", "CTPelvic1K_dataset7_data"),
        ("dataset7_mask", "metal_0001_mask"),
        ("Models", "splits"),
    ):
        pack(made, download / f"CTPelvic1K_{archive}.tar.gz", lambda name, s=start: s in name)
    for name in CLINIC:  # the masks of subset 6 were unpacked by hand
        mask = public_sets.labelled(public_sets.PELVIC_IDS)
        public_sets.save(download / "x" / f"dataset6_{name}_mask_4label.nii.gz", mask)
    cases = quiet_cases("ctpelvic1k", download)
    assert set(splits_of(cases)) == {*CLINIC, "CLINIC_metal_0001"}
    raw = data / "raw" / "ctpelvic1k-download"
    assert {path.name for path in raw.glob("*/")} == {
        "CTPelvic1K_dataset6_data",
        "CTPelvic1K_dataset7_data",
        "CTPelvic1K_dataset7_mask",
    }
    assert all(case.label_map() for case in cases)
    assert all(file.is_relative_to(cases[0].directory) for file in cases[0].source_files())


def test_a_scan_that_lies_in_two_places_is_refused(tmp_path):
    folder = public_sets.write_ctpelvic1k(tmp_path / "p", CLINIC)
    public_sets.save(folder / "again" / f"{CLINIC[0]}_data.nii.gz", public_sets.scan_hu())
    assert "keep one of them" in refusal("ctpelvic1k", folder)


# CT-ORG

CT_ORG_NUMBERS = [0, 20] + [
    next(n for n in range(21, 140) if (share("ct_org", str(n)) < 0.125) == validates)
    for validates in (False, True)
]


def test_ct_org_goes_by_the_bladder(tmp_path):
    numbers = [*CT_ORG_NUMBERS, 5]
    folder = public_sets.write_ct_org(tmp_path / "o", numbers, without_bladder=[5])
    cases = quiet_cases("ct_org", folder)
    first, second = CT_ORG_NUMBERS[2:]
    assert splits_of(cases) == {
        "volume-0": "test",
        "volume-20": "test",
        f"volume-{first}": "train",
        f"volume-{second}": "validation",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)  # the organs' ids are known
        classes = values(cases[0].label_map())
    bone = union(BONES, BLADDER_SLICES)
    assert classes.shape == bone.shape
    np.testing.assert_array_equal(classes == BONE, bone)
    assert not (classes == IGNORE).any()


def test_of_two_files_of_one_name_the_packed_one_counts(tmp_path):
    folder = public_sets.write_ct_org(tmp_path / "o", CT_ORG_NUMBERS)
    cases = quiet_cases("ct_org", folder)
    for case in cases:
        for path in (case.scan_path, case.mask_path):
            path.with_suffix("").write_bytes(public_sets.JUNK)
            path.with_name(f"._{path.name}").write_bytes(public_sets.JUNK)
    assert quiet_cases("ct_org", folder) == cases


# PENGWIN

PENGWIN_NAMES = one_of_each("pengwin", [f"{number:03d}" for number in range(1, 60)])


def test_pengwin_joins_fragments(tmp_path):
    folder = public_sets.write_pengwin(tmp_path / "w", PENGWIN_NAMES)
    cases = quiet_cases("pengwin", folder)
    assert splits_of(cases) == {name: split_by_hand("pengwin", name) for name in PENGWIN_NAMES}
    structures, names = cases[0].annotation()
    left = np.isin(values(structures), [n for n, name in names.items() if name == "hip_left"])
    np.testing.assert_array_equal(left, structure("hip_left")[PELVIC_SLICES] == 1)
    classes = values(cases[0].label_map())
    undrawn = union(["femur_left", "femur_right", "vertebrae_L5"], PELVIC_SLICES)
    assert (classes[undrawn] == IGNORE).all()
    drawn = union(["sacrum", "vertebrae_S1", "hip_left", "hip_right"], PELVIC_SLICES)
    np.testing.assert_array_equal(classes == BONE, drawn)


def test_pengwin_as_downloaded_has_no_top_folders(tmp_path):
    made = public_sets.write_pengwin(tmp_path / "made", PENGWIN_NAMES)
    download = tmp_path / "download"
    pack(made / "PENGWIN_CT_train_images_part1", download / "PENGWIN_CT_train_images_part1.zip")
    pack(made / "PENGWIN_CT_train_labels", download / "PENGWIN_CT_train_labels.zip")
    assert len(quiet_cases("pengwin", download)) == 3


# CTPEL

CTPEL_SEGMENTS = {
    "Right Femur": "femur_right",
    "Left Femur": "femur_left",
    "Right Hip": "hip_right",
    "Left Hip": "hip_left",
    "Sacrum": "sacrum",
}
CTPEL_PATIENTS = one_of_each("ctpel", [f"{number:016x}" for number in range(1, 60)])


@pytest.fixture
def ctpel(tmp_path, write_series, make_image):
    """A folder for each patient: CT, segmentation and images that are neither."""
    for patient in CTPEL_PATIENTS:
        folder = tmp_path / "ctpel" / patient
        write_series(folder / "im_1", public_sets.scan_hu(), (10, 8, 8), (-190, -150, 0))
        masks = {
            text: make_image(structure(name), (10, 8, 8), (-190, -150, 0))
            for text, name in CTPEL_SEGMENTS.items()
        }
        (folder / "im_3").mkdir()
        write_seg(folder / "im_3" / "x0000.dcm", masks, descriptions=list(masks))
        (folder / "im_4").mkdir()
        (folder / "im_4" / "x0000.dcm").write_bytes(b"a report")
    return tmp_path / "ctpel"


def test_ctpel_reads_the_segmentation(ctpel):
    cases = quiet_cases("ctpel", ctpel)
    assert splits_of(cases) == {name: split_by_hand("ctpel", name) for name in CTPEL_PATIENTS}
    annotation = cases[0].annotation()
    structures, names = annotation
    for name in CTPEL_SEGMENTS.values():
        found = np.isin(values(structures), [n for n, other in names.items() if other == name])
        np.testing.assert_array_equal(found, structure(name)[PELVIC_SLICES] == 1)
    classes = values(cases[0].label_map(annotation=annotation))
    drawn = union(CTPEL_SEGMENTS.values(), PELVIC_SLICES)
    np.testing.assert_array_equal(classes == BONE, drawn)
    undrawn = union(["vertebrae_S1", "vertebrae_L5"], PELVIC_SLICES)
    assert (classes[undrawn] == IGNORE).all()


def test_ctpel_as_downloaded(ctpel, tmp_path, data):
    pack(ctpel, tmp_path / "download" / "ctpel.zip")
    cases = quiet_cases("ctpel", tmp_path / "download")
    assert len(cases) == 3 and cases[0].scan_path.is_relative_to(data)
    assert {path.parent.name for path in data.rglob("*.dcm")} == {"im_3"}


# All of them

WRITERS = {
    "totalsegmentator": lambda folder: public_sets.write_totalsegmentator(folder, THREE),
    "ctpelvic1k": lambda folder: public_sets.write_ctpelvic1k(folder, CLINIC),
    "ct_org": lambda folder: public_sets.write_ct_org(folder, CT_ORG_NUMBERS),
    "pengwin": lambda folder: public_sets.write_pengwin(folder, PENGWIN_NAMES),
}


@pytest.mark.parametrize("dataset", WRITERS)
def test_masks_are_measured_once_and_again_where_they_change(dataset, tmp_path, data, monkeypatch):
    folder = WRITERS[dataset](tmp_path / "set")
    counts = []
    landmark = pelvis.landmark
    monkeypatch.setattr(
        pelvis, "landmark", lambda mask, ids: counts.append(1) or landmark(mask, ids)
    )
    cases = quiet_cases(dataset, folder)
    measured = len(counts)
    assert measured
    table = pandas.read_csv(data / "prepared" / "pelvis" / f"{dataset}-set.csv")
    expected_ml = 138.24 if dataset == "ct_org" else 230.4
    np.testing.assert_allclose(table.volume_ml, expected_ml)
    assert quiet_cases(dataset, folder) == cases
    assert len(counts) == measured
    mask = cases[0].mask_path
    changed = mask / "hip_left.nii.gz" if mask.is_dir() else mask
    os.utime(changed, (1, 1))
    assert quiet_cases(dataset, folder) == cases
    assert measured < len(counts) < 2 * measured


@pytest.mark.parametrize("dataset", WRITERS)
def test_a_split_file_chooses_the_cases(dataset, tmp_path):
    folder = WRITERS[dataset](tmp_path / "set")
    every = list(splits_of(quiet_cases(dataset, folder)))
    (folder / "split.csv").write_text(f"series,split\n{every[2]},test\n{every[0]},train\n")
    chosen = quiet_cases(dataset, folder, splits=("train", "test"))
    assert splits_of(chosen) == {every[2]: "test", every[0]: "train"}
    assert chosen[1].region_mm is not None
    (folder / "split.csv").write_text("series,split\nghost,test\n")
    assert "series ghost is not among the" in refusal(dataset, folder)


@pytest.mark.parametrize("dataset", datasets.PUBLIC_SETS)
def test_a_folder_without_the_set_is_refused(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    assert f"no {dataset} here; give the folder that holds" in refusal(dataset, tmp_path / "empty")
    assert "no such folder" in refusal(dataset, tmp_path / "absent")
    with pytest.raises(InputError, match="--data DIR"):
        find_cases(dataset, None, SMOKE)
    with pytest.raises(InputError, match="no .* here; give the folder"):
        datasets.check(dataset, tmp_path / "empty", SMOKE)


@pytest.mark.parametrize("dataset", WRITERS)
def test_check_makes_nothing(dataset, tmp_path, data):
    datasets.check(dataset, WRITERS[dataset](tmp_path / "set"), SMOKE)
    assert not data.exists()


def test_a_set_without_pelves_is_refused(tmp_path):
    folder = public_sets.write_ct_org(tmp_path / "o", [0, 30], without_bladder=[0, 30])
    assert "none of 2 scans holds a bladder" in refusal("ct_org", folder)


def test_a_split_without_scans_is_refused(tmp_path):
    folder = public_sets.write_ct_org(tmp_path / "o", [0, 1])
    assert "no scan of the pelvis for train; add more of the data set" in refusal("ct_org", folder)


def test_masks_without_any_scan_are_refused(tmp_path):
    public_sets.write_ctpelvic1k(tmp_path / "p", [], masks_only=["dataset1_img0001"])
    with pytest.warns(InputWarning, match="1 masks without a scan"):
        assert "no mask here has its scan" in refusal("ctpelvic1k", tmp_path / "p")


def test_notes_for_captions():
    for dataset in datasets.DATASETS:
        assert bool(datasets.note(dataset)) == (dataset in datasets.PUBLIC_SETS)
    assert set(datasets.CATALOGUE) == set(datasets.PUBLIC_SETS)
    assert "femur" in datasets.note("ctpelvic1k") and "ignored" in datasets.note("pengwin")
