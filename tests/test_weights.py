"""The weights that the package ships, on series that they were not trained on."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from bonelib import __main__ as command
from bonelib import metrics
from bonelib.models import WEIGHTS, load_pretrained, pretrained_names
from bonelib.phantom import make_series
from bonelib.pretraining import model_card
from bonelib.settings import BONE, PRETRAINING

values = SimpleITK.GetArrayFromImage


@pytest.fixture(scope="module")
def segment():
    return model_card.network("unet", PRETRAINING, WEIGHTS)


def test_what_is_shipped_is_small_and_has_a_card():
    assert "unet" in pretrained_names()
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 20e6
    for name in pretrained_names():
        card = (WEIGHTS / f"{name}.md").read_text()
        assert "not for diagnosis" in card and "| seed |" in card and "commit " in card


@pytest.mark.parametrize(("matrix", "distance_mm"), [(384, 30.0), (200, 45.0)])
def test_an_unseen_phantom_is_segmented_on_any_grid(segment, matrix, distance_mm):
    fine = replace(PRETRAINING, phantom_matrix=matrix, phantom_slice_distance_mm=distance_mm)
    series = make_series(123_456_789, round(360 / distance_mm), fine)  # from mid-thigh to L4
    reference = np.where(values(series.bones) > 0, BONE, series.body.astype(np.uint8))
    found = metrics.dice(metrics.confusion_matrix(reference, values(segment(series.scan))))
    assert found[BONE] > 0.9 and found[0] > 0.99


def test_a_femur_is_segmented_down_to_the_knee(segment):
    fine = replace(PRETRAINING, phantom_matrix=384, phantom_slice_distance_mm=30.0)
    series = make_series(987_654_321, 12, fine)
    reference = np.where(values(series.bones) > 0, BONE, series.body.astype(np.uint8))
    found = metrics.dice(metrics.confusion_matrix(reference, values(segment(series.scan))))
    assert found[BONE] > 0.9


def test_left_and_right_stay_where_they_are(segment):
    """A series turned over in plane gives the label map turned over, nearly."""
    fine = replace(PRETRAINING, phantom_matrix=256, phantom_slice_distance_mm=60.0)
    scan = make_series(5, 4, fine).scan
    turned = SimpleITK.GetImageFromArray(values(scan)[:, :, ::-1])
    turned.CopyInformation(scan)
    straight, back = values(segment(scan)), values(segment(turned))[:, :, ::-1]
    assert metrics.dice(metrics.confusion_matrix(straight, back))[BONE] > 0.95


@pytest.fixture
def abdomen(shared_data, tmp_path):
    """The real scans as a data set; the one with the lower spine is in the split test."""
    for name, source in (("dicom", "abdomen_dicom/ct"), ("nifti", "abdomen_nifti/ct.nii.gz")):
        (tmp_path / name).mkdir()
        scan = shared_data / source
        (tmp_path / name / scan.name).symlink_to(scan)
        (tmp_path / name / "labels.nii.gz").symlink_to(scan.parent / "labels.nii.gz")
    for name in ("train", "validation"):
        (tmp_path / name).symlink_to(tmp_path / "nifti")
    rows = ["train,train", "validation,validation", "dicom,test", "nifti,test"]
    (tmp_path / "split.csv").write_text("\n".join(["series,split", *rows]) + "\n")
    ids = [*range(25, 51), *range(69, 79), 91, *range(92, 117)]
    lines = [f"{number},bone_{number}" for number in ids]
    (tmp_path / "bone_names.csv").write_text("\n".join(["id,name", *lines]) + "\n")
    return tmp_path


def test_the_body_is_found_on_real_scans_out_of_region(abdomen, capsys):
    """Ribs, arms and lungs are no pelvis: only the body is asked for, and no crash."""
    assert command.main(["score", str(abdomen)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, rows = table[0], [row for row in table[2:] if row[-1] == "unet"]
    assert header == ["series", "bone Dice", "bone IoU", "body Dice", "method"]
    assert [row[0] for row in rows] == ["dicom", "nifti"]
    assert all(float(row[3]) > 90 for row in rows)


def test_networks_without_weights_are_named():
    with pytest.raises(ValueError, match="no weights of 'fcn8' are shipped: choose one of unet"):
        load_pretrained("fcn8")
