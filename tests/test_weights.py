"""The weights that the package ships, on series that they were not trained on."""

from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest
import SimpleITK

from bonelib import labels, metrics, scans
from bonelib.models import WEIGHTS, load_pretrained
from bonelib.phantom.patient import Patient
from bonelib.phantom.series import make_series
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.segment import find_network, segment_image
from bonelib.settings import BONE, PATIENT, PRETRAINING, SHIPPED_MODEL

values = SimpleITK.GetArrayFromImage


@pytest.fixture(scope="module")
def segment():
    return partial(segment_image, network=find_network())


def test_the_shipped_weights_are_small_and_have_a_card():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 20e6
    card = (WEIGHTS / f"{SHIPPED_MODEL}.md").read_text()
    assert "not for diagnosis" in card and "| seed |" in card and "commit " in card
    assert load_pretrained(SHIPPED_MODEL, 64).output_shape == (None, 64, 64, 3)
    with pytest.raises(ValueError, match=f"'unet': '{SHIPPED_MODEL}' replaced those of 'unet'"):
        load_pretrained("unet")


@pytest.mark.parametrize(
    ("seed", "matrix", "distance_mm"), [(123_456_789, 200, 45.0), (987_654_321, 384, 30.0)]
)
def test_an_unseen_phantom_is_segmented_from_knee_to_spine(segment, seed, matrix, distance_mm):
    fine = replace(PRETRAINING, phantom_matrix=matrix, phantom_slice_distance_mm=distance_mm)
    series = make_series(seed, round(360 / distance_mm), fine)
    reference = np.where(values(series.bones) > 0, BONE, series.body.astype(np.uint8))
    found = values(segment(series.scan))
    scores = metrics.dice(metrics.confusion_matrix(reference, found))
    assert scores[BONE] > 0.9 and scores[0] > 0.99


@pytest.mark.parametrize("finding", ["arms", "replaced_hips"])
def test_arms_are_bone_and_metal_is_not(segment, finding):
    fine = replace(PRETRAINING, phantom_matrix=384, phantom_slice_distance_mm=30.0)
    patients = ((seed, Patient(seed)) for seed in count(77_000_000))
    unlike = {"arms", "replaced_hips"} - {finding}
    seed, _ = next(
        (seed, patient)
        for seed, patient in patients
        if getattr(patient, finding) and not any(getattr(patient, name) for name in unlike)
    )
    series = make_series(seed, 9, fine)
    bones, found = values(series.bones), values(segment(series.scan))
    if finding == "arms":
        arms = np.isin(bones, [number for number, name in BONE_NAMES.items() if "arm" in name])
        assert arms.sum() > 1000 and (found[arms] == BONE).mean() > 0.7
    else:
        metal = values(series.scan) > 2500
        # At its rim, the network's pixels are mixed with bone's.
        assert metal.sum() > 1000 and (found[metal] == PATIENT).mean() > 0.94
        scores = metrics.dice(metrics.confusion_matrix((bones > 0).astype(int), found == BONE, 2))
        assert scores[1] > 0.85


def test_ribs_and_arms_of_real_scans_are_bone(segment, shared_data):
    """Two abdomens; their structures were labelled by another network."""
    kinds = {"ribs": range(92, 116), "humeri": (69, 70)}
    for folder, ct, recalls in (
        ("abdomen_dicom", "ct", {"ribs": 0.6, "humeri": 0.75}),
        ("abdomen_nifti", "ct.nii.gz", {"ribs": 0.4}),
    ):
        scan = scans.read_scan(shared_data / folder / ct)
        drawn = labels.on_grid(scans.read_volume(shared_data / folder / "labels.nii.gz"), scan)
        found = values(segment(scan)) == BONE
        for kind, recall in recalls.items():
            assert found[np.isin(values(drawn), list(kinds[kind]))].mean() > recall


def test_left_and_right_stay_where_they_are(segment):
    """A series mirrored in plane gives the mirrored label map, nearly."""
    fine = replace(PRETRAINING, phantom_matrix=256, phantom_slice_distance_mm=60.0)
    scan = make_series(5, 4, fine).scan
    mirrored = SimpleITK.GetImageFromArray(values(scan)[:, :, ::-1])
    mirrored.CopyInformation(scan)
    straight, back = values(segment(scan)), values(segment(mirrored))[:, :, ::-1]
    assert metrics.dice(metrics.confusion_matrix(straight, back))[BONE] > 0.95
