"""What an evaluation writes beside the counts; tests/test_training.py has those."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from bonelib import metrics, models, prediction, provenance, slices
from bonelib.evaluation import error_analysis, evaluate, scoring
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, BONE, IGNORE, PATIENT, get_settings
from tests.synthetic_results import ellipses, write_slices

SETTINGS = get_settings("smoke", {"epochs": 1, "epochs_long": 2, "precision": "float32"})
BONES = get_settings("smoke", {"class_scheme": "bones"})
SPACING_MM = (5.0, 7.5, 7.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Slices, and the results of an untrained U-net and of the baseline."""
    root = tmp_path_factory.mktemp("run")
    labels = ellipses(64)
    labels[:, 50:52, 30:34] = IGNORE
    volumes = {"a": ("train", ellipses(64)), "b": ("test", labels), "c": ("test", ellipses(64, 4))}
    folder = write_slices(root / "slices", volumes, SPACING_MM, lambda labels: "femur_left")
    provenance.write_json(folder.description, {"fingerprint": "made"})
    results = ResultFolder(root / "results")
    provenance.write_json(results.training_record("unet"), {})
    history = pd.DataFrame({"epoch": [1, 2], "val_mean_iou": [0.2, 0.4]})
    history.to_csv(results.history("unet"), index=False)
    for horizon in SETTINGS.horizons("unet"):
        models.build_model("unet", 64, 3).save(results.best("unet", horizon))
    for method in ("unet", BASELINE):
        evaluate.evaluate(method, folder, results, SETTINGS)
    return folder, results


METHODS = ["unet", BASELINE]


def test_surfaces_are_measured_by_horizon_series_and_structure(run):
    surfaces = scoring.read_surfaces(run[1], METHODS)
    assert list(surfaces) == scoring.SURFACE_COLUMNS
    found = surfaces.groupby(["model", "epochs", "series"])["structure"].agg(list)
    assert set(map(tuple, found)) == {("patient", "bone")}
    assert found.index.tolist() == [
        (model, epochs, series)
        for model, epochs in ((BASELINE, 0), ("unet", 1), ("unet", 2))
        for series in "bc"
    ]
    baseline = surfaces[(surfaces["model"] == BASELINE) & (surfaces["series"] == "c")]
    folder, table = run[0], slices.read_table(run[0].root)
    images, labels = slices.load(folder.root, table[table["series"] == "c"])
    predicted, _ = prediction.threshold_segmenter(SETTINGS)(images)
    for first, (_, row) in zip((PATIENT, BONE), baseline.iterrows(), strict=True):
        expected = metrics.surface_scores(labels >= first, predicted >= first, SPACING_MM)
        assert row["state"] == "found"
        assert row[list(expected)].to_dict() == pytest.approx(expected)


def test_reliability_is_that_of_the_networks_probabilities(run):
    folder, results = run
    reliability = scoring.read_reliability(results, METHODS)
    assert list(reliability) == scoring.RELIABILITY_COLUMNS
    assert set(reliability["model"]) == {"unet"} and set(reliability["epochs"]) == {1, 2}
    network = prediction.load_network(results.best("unet", 2), "unet", SETTINGS)
    table = slices.read_table(folder.root)
    images, labels = slices.load(folder.root, table[table["series"] == "b"])
    *_, probabilities = prediction.network_segmenter(network, True)(images)
    known = labels != IGNORE
    for label, name in enumerate(SETTINGS.class_names):
        rows = reliability[reliability["class"] == name]
        rows = rows[(rows["epochs"] == 2) & (rows["series"] == "b")]
        assert rows["bin"].tolist() == list(range(error_analysis.BINS))
        assert rows["pixels"].sum() == known.sum()
        often, mean = calibration_curve(
            labels[known] == label, probabilities[known][:, label] / 255, n_bins=error_analysis.BINS
        )
        rows = rows[rows["pixels"] > 0]
        np.testing.assert_allclose(rows["positive"] / rows["pixels"], often)
        np.testing.assert_allclose(rows["probability"] / rows["pixels"], mean)


def test_every_pixel_of_false_bone_has_one_cause(run):
    false = scoring.read_false_bone(run[1], METHODS)
    assert list(false) == scoring.FALSE_BONE_COLUMNS
    assert set(false["cause"]) <= set(error_analysis.CAUSES) and (false["pixels"] > 0).all()
    counts = scoring.read_scores(run[1], METHODS)
    counts = counts[counts["resolution"] == "input"]
    key = ["model", "epochs", "series", "slice"]
    expected = counts.set_index(key)[["n02", "n12"]].sum(axis=1)
    found = false.groupby(key)["pixels"].sum().reindex(expected.index, fill_value=0)
    assert found.tolist() == expected.tolist() and found.sum() > 0


def test_test_slices_are_listed_with_level_and_bone(run):
    table = scoring.read_slices(run[1])
    assert list(table) == scoring.SLICE_COLUMNS
    assert table["series"].tolist() == ["b"] * 7 + ["c"] * 4
    assert set(table["level"]) == {"femur shaft"}
    assert table["bone_mm2"].iloc[0] == (ellipses(64)[0] == BONE).sum() * 7.5 * 7.5


def test_methods_without_files_have_no_rows_but_the_columns(tmp_path):
    results = ResultFolder(tmp_path)
    for read, columns in (
        (scoring.read_surfaces, scoring.SURFACE_COLUMNS),
        (scoring.read_reliability, scoring.RELIABILITY_COLUMNS),
        (scoring.read_false_bone, scoring.FALSE_BONE_COLUMNS),
    ):
        assert read(results, METHODS).empty and list(read(results, METHODS)) == columns
    assert scoring.read_slices(results).empty


def test_unknown_pixels_belong_to_no_structure():
    reference = np.full((3, 8, 8), PATIENT, np.uint8)
    reference[1, 2:4, 2:4], reference[1, 6, 6] = BONE, IGNORE
    predicted = np.where(reference == IGNORE, BONE, reference)
    surfaces = evaluate.measure_surfaces(reference, predicted, SPACING_MM, SETTINGS)
    assert surfaces["state"].tolist() == ["found", "found"]
    assert (surfaces[["assd_mm", "hd95_mm"]] == 0).all(axis=None)


def test_each_class_of_bone_is_found_missed_invented_or_absent():
    reference, predicted = np.full((2, 3, 8, 8), PATIENT, np.uint8)
    femur, hip, sacrum, vertebra = range(BONE, BONE + 4)
    reference[1, 1, :3] = predicted[1, 1, :3] = femur
    reference[1, 3, 3], predicted[1, 5, 5] = hip, sacrum
    surfaces = evaluate.measure_surfaces(reference, predicted, SPACING_MM, BONES)
    assert dict(zip(surfaces["structure"], surfaces["state"], strict=True)) == {
        "patient": "found", "femur": "found", "hip bone": "missed", "sacrum": "invented",
        "vertebra": "absent",
    }  # fmt: skip
    worst = np.linalg.norm(np.multiply((3, 8, 8), SPACING_MM))
    assert surfaces["hd95_mm"].tolist() == pytest.approx([0, 0, worst, worst, np.nan], nan_ok=True)


def test_probabilities_are_held_for_a_few_slices_at_a_time():
    images = np.arange(35, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    labels, seen = images % 3, []

    def segment(part):
        seen.append(len(part))
        probabilities = np.stack([part % 7, part % 5, part % 11], axis=-1)
        return part % 2, part[:, ::2, ::2], probabilities

    predicted, native, reliability = evaluate.segment_series(segment, images, labels)
    assert max(seen) <= slices.SLICES_AT_ONCE and min(seen) >= max(seen) - 1 and sum(seen) == 35
    np.testing.assert_array_equal(predicted, images % 2)
    np.testing.assert_array_equal(native, images[:, ::2, ::2])
    seen.clear()
    whole = error_analysis.reliability(segment(images)[2], labels)
    np.testing.assert_array_equal(reliability, whole)
