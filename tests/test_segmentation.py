"""A scan goes in, a bone model comes out: by the shipped weights, on made-up patients."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
import trimesh

from bonelib import metrics, phantom, scans
from bonelib.errors import InputError
from bonelib.paths import SegmentationFolder
from bonelib.phantom.series import write_dicom
from bonelib.segment import segmentation
from bonelib.settings import PRETRAINING

SETTINGS = replace(PRETRAINING, phantom_matrix=160, phantom_slice_distance_mm=20.0)


@pytest.fixture(scope="module")
def patient():
    """The series of somebody with both hips in view."""
    return phantom.make_series(phantom.series_seed("test01", SETTINGS), 9, SETTINGS)


@pytest.fixture(scope="module")
def dicom(patient, tmp_path_factory):
    folder = tmp_path_factory.mktemp("DOE^JANE") / "ct"
    write_dicom(patient.scan, folder, "test01", 1, patient.protocol)
    return folder


@pytest.fixture(scope="module")
def made(dicom, tmp_path_factory):
    """A DICOM series, segmented into single bones; its folder, the record, what was told."""
    told = []
    folder = SegmentationFolder(tmp_path_factory.mktemp("out"))
    record = segmentation.segment(
        dicom, folder.root, segmentation.Options(bones=True), lambda *state: told.append(state)
    )
    return folder, record, told


def test_every_file_is_there_and_the_record_lists_it(made):
    folder, record, _ = made
    assert json.loads(folder.record.read_text())["files"] == record["files"]
    found = {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*.*")}
    assert found == {*record["files"], "report.json"}
    assert {"segmentation.nii.gz", "bones.nii.gz", "segmentation.dcm", "bone.stl", "preview.png",
            "surface.html", "bones/femur_left.stl", "bones/hip_right.stl"} <= found  # fmt: skip
    assert "</span> femur left<br>" in folder.viewer.read_text(encoding="utf-8")


def test_the_label_map_lies_on_the_scan_and_is_right(made, patient):
    folder, record, _ = made
    label_map = SimpleITK.ReadImage(str(folder.label_map))
    assert label_map.GetSize() == patient.scan.GetSize()
    np.testing.assert_allclose(label_map.GetOrigin(), patient.scan.GetOrigin(), atol=1e-3)
    bone = SimpleITK.GetArrayFromImage(patient.bones) > 0
    found = SimpleITK.GetArrayFromImage(label_map)
    dice = metrics.dice(metrics.confusion_matrix(bone, found == 2, 2))[1]
    assert dice > 0.85
    voxel_ml = np.prod(patient.scan.GetSpacing()) / 1000
    assert record["volumes_ml"]["bone"] == pytest.approx((found == 2).sum() * voxel_ml, abs=0.01)
    assert record["volumes_ml"]["patient"] == pytest.approx((found > 0).sum() * voxel_ml, abs=0.01)
    image_hu = SimpleITK.GetArrayFromImage(patient.scan)
    assert record["mean_hu"]["bone"] == pytest.approx(image_hu[found == 2].mean(), abs=1)


def test_left_is_the_patients_left(made, patient):
    """In the volume, in the surfaces and in the record alike."""
    folder, record, _ = made
    ids = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder.bones)))
    numbers = {name: int(number) for number, name in record["bone_ids"].items()}
    truth = SimpleITK.GetArrayFromImage(patient.bones)
    true_numbers = {name: number for number, name in phantom.BONE_NAMES.items()}
    for name in ("femur_left", "femur_right", "hip_left", "hip_right"):
        overlap = (ids == numbers[name]) & (truth == true_numbers[name])
        assert overlap.sum() > 0.6 * (ids == numbers[name]).sum()
        surface = trimesh.load(folder.bone_surface(name))
        assert (surface.center_mass[0] > 0) == name.endswith("left")
        assert record["surfaces"][name]["closed"] and surface.is_watertight
        assert record["areas_cm2"][name] == pytest.approx(surface.area / 100, rel=1e-3)


def test_the_surface_lies_on_the_bone(made, patient):
    """Its points are in the patient's space, and its normals point outward."""
    folder, record, _ = made
    surface = trimesh.load(folder.surface)
    assert folder.surface.read_bytes()[:80].decode().strip().endswith("SPACE=LPS; mm")
    assert surface.is_watertight and surface.volume > 0
    # Slices are 20 mm thick: a bone ends within one.
    assert surface.volume / 1000 == pytest.approx(record["volumes_ml"]["bone"], rel=0.25)
    truth = SimpleITK.GetArrayFromImage(patient.bones) > 0
    low, high = (
        np.array(patient.scan.TransformIndexToPhysicalPoint([int(at) for at in place]))
        for place in (np.argwhere(truth).min(axis=0)[::-1], np.argwhere(truth).max(axis=0)[::-1])
    )
    np.testing.assert_allclose(surface.bounds, [low, high], atol=12)


def test_progress_is_told_from_beginning_to_end(made):
    _, record, told = made
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["reading", "predicting", "post-processing", "surfaces", "writing"]
    predicted = [(done, total) for stage, done, total in told if stage == "predicting"]
    assert predicted == [(0, 1), *((done, 9) for done in range(1, 10)), (9, 9)]
    assert list(record["seconds"]) == stages


def test_the_record_names_weights_and_no_patient(made, dicom):
    folder, record, _ = made
    text = folder.record.read_text()
    assert len(record["network"]["weights_sha256"]) == len(record["input_sha256"]) == 64
    assert "DOE" not in text and str(dicom.parent) not in text


def test_the_volume_has_the_axes_of_the_file(patient, tmp_path):
    """A file whose axes run otherwise gets a label map whose voxels are its own."""
    turned = SimpleITK.DICOMOrient(patient.scan, "RSP")
    SimpleITK.WriteImage(turned, str(tmp_path / "ct.nii.gz"))
    record = segmentation.segment(tmp_path / "ct.nii.gz", tmp_path / "out")
    folder = SegmentationFolder(tmp_path / "out")
    label_map = SimpleITK.ReadImage(str(folder.label_map))
    assert label_map.GetSize() == turned.GetSize()
    np.testing.assert_allclose(label_map.GetDirection(), turned.GetDirection(), atol=1e-5)
    bone = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(patient.bones, "RSP")) > 0
    found = SimpleITK.GetArrayFromImage(label_map) == 2
    assert metrics.dice(metrics.confusion_matrix(bone, found, 2))[1] > 0.85
    assert not folder.dicom_seg.exists() and not folder.bones.exists()
    assert not any("DICOM" in note for note in record["notes"])


def test_a_region_gives_nearly_the_same_bone_for_less(patient, made, tmp_path):
    SimpleITK.WriteImage(patient.scan, str(tmp_path / "ct.mha"))
    options = segmentation.Options(roi=True, max_triangles=4000)
    record = segmentation.segment(tmp_path / "ct.mha", tmp_path / "out", options)
    (note,) = [note for note in record["notes"] if "region" in note]
    assert int(note.split(", ")[1].split(" %")[0]) < 75
    whole, part = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(root / "segmentation.nii.gz")))
        for root in (made[0].root, tmp_path / "out")
    )
    assert metrics.dice(metrics.confusion_matrix(whole, part))[2] > 0.97
    assert metrics.dice(metrics.confusion_matrix(whole > 0, part > 0, 2))[1] > 0.98
    assert record["surfaces"]["bone"]["triangles"] <= 4000
    assert trimesh.load(tmp_path / "out" / "bone.stl").is_watertight


def test_a_scan_without_bone_says_so(make_image, tmp_path):
    water = np.full((4, 60, 60), -1000, np.int16)
    water[:, 10:50, 10:50] = 0
    SimpleITK.WriteImage(make_image(water, (5, 4, 4)), str(tmp_path / "ct.nrrd"))
    record = segmentation.segment(
        tmp_path / "ct.nrrd", tmp_path / "out", segmentation.Options(bones=True)
    )
    assert "no bone was found, so there is no surface" in record["notes"]
    assert record["volumes_ml"]["bone"] == 0 and record["areas_cm2"] == {}
    assert record["files"] == ["bones.nii.gz", "preview.png", "segmentation.nii.gz"]


def test_a_later_run_takes_the_place_of_an_earlier_one(make_image, tmp_path):
    """Nothing of what was made of another scan stays beside it."""
    folder = SegmentationFolder(tmp_path / "out")
    for file in (folder.surface, folder.bone_surface("femur_left"), folder.dicom_seg):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of another scan")
    (folder.root / "notes.txt").write_text("the user's own")
    water = np.full((4, 60, 60), -1000, np.int16)
    water[:, 10:50, 10:50] = 0
    SimpleITK.WriteImage(make_image(water, (5, 4, 4)), str(tmp_path / "ct.nrrd"))
    record = segmentation.segment(tmp_path / "ct.nrrd", folder.root)
    kept = {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*.*")}
    assert kept == {*record["files"], "report.json", "notes.txt"}


@pytest.mark.parametrize("stage", ["predicting", "surfaces", "writing"])
def test_a_run_that_is_stopped_leaves_what_was_there(dicom, tmp_path, stage):
    (tmp_path / "bone.stl").write_text("of the run before")

    def interrupt(at, done, total):
        if at == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segmentation.segment(dicom, tmp_path, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["bone.stl"]
    assert (tmp_path / "bone.stl").read_text() == "of the run before"


def test_two_runs_give_the_same(made, dicom, tmp_path):
    folder, first, _ = made
    second = segmentation.segment(dicom, tmp_path, segmentation.Options(bones=True))
    for file in ("segmentation.nii.gz", "bone.stl", "bones/hip_left.stl"):
        assert (folder.root / file).read_bytes() == (tmp_path / file).read_bytes()
    for key in ("volumes_ml", "areas_cm2", "mean_hu", "input_sha256", "bone_ids"):
        assert first[key] == second[key]


def test_what_is_no_scan_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "ct").mkdir()
    with pytest.raises(InputError, match="ct: "):
        segmentation.segment(tmp_path / "ct", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_abdomen_is_segmented_without_its_uids(shared_data, tmp_path):
    """20 slices of a real CT, whose UIDs were taken off: all but the DICOM SEG is there."""
    path = shared_data / "abdomen_dicom" / "ct"
    record = segmentation.segment(path, tmp_path, segmentation.Options(bones=True, roi=True))
    label_map = SimpleITK.ReadImage(str(tmp_path / "segmentation.nii.gz"))
    assert label_map.GetSize() == scans.read_scan(path).GetSize()
    assert any("no DICOM SEG: has slices without a valid" in note for note in record["notes"])
    assert record["volumes_ml"]["bone"] > 20 and "bone.stl" in record["files"]
    # The network sees ribs on the left only, and yet knows where the patient's middle is.
    assert "vertebra_from_lowest_1" in record["volumes_ml"]
