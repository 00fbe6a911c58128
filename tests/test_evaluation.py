"""The files of an evaluation; tests/test_training.py evaluates a trained network."""

import keras
import numpy as np
import pandas as pd
import pytest

from bonelib import metrics, prediction, provenance, slices
from bonelib.evaluation import error_analysis, evaluate, scoring
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, BONE, IGNORE, PATIENT, Settings, get_settings
from tests.synthetic_results import ellipses, score_rows, write_slices

SETTINGS = get_settings("smoke", {"epochs": 1, "epochs_long": 2})
BONES = Settings(class_scheme="bones")
SPACING_MM = (5.0, 7.5, 7.5)


def segment(images):
    """Return label maps on both grids and 8-bit probabilities by grey level, as a network does."""
    distance = np.abs(images[..., None] - np.array([10.0, 90.0, 180.0]))
    share = np.exp(-distance / 40)
    probabilities = np.round(255 * share / share.sum(axis=-1, keepdims=True)).astype(np.uint8)
    label_maps = probabilities.argmax(axis=-1).astype(np.uint8)
    return label_maps, label_maps[:, ::2, ::2], probabilities


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return slices and the results of `segment` as U-net, and of the baseline."""
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
        results.best("unet", horizon).write_text("weights")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "load_segmenter", lambda *_: (segment, network))
        patch.setattr(evaluate, "network_segmenter", lambda *_, **__: segment)
        evaluate.evaluate("unet", folder, results, SETTINGS)
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
    table = slices.read_table(folder.root)
    images, labels = slices.load(folder.root, table[table["series"] == "b"])
    *_, probabilities = segment(images)
    expected = error_analysis.reliability(probabilities, labels)
    for counts, name in zip(expected, SETTINGS.class_names, strict=True):
        rows = reliability[(reliability["class"] == name) & (reliability["series"] == "b")]
        rows = rows[rows["epochs"] == 2]
        assert rows["bin"].tolist() == list(range(error_analysis.BINS))
        found = rows[["pixels", "probability", "positive"]].to_numpy() * [1, 255, 1]
        np.testing.assert_allclose(found, counts)


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

    def counted(part):
        seen.append(len(part))
        return segment(part)

    predicted, native, reliability = evaluate.segment_series(counted, images, labels)
    assert max(seen) <= slices.SLICES_AT_ONCE and min(seen) >= max(seen) - 1 and sum(seen) == 35
    whole = segment(images)
    np.testing.assert_array_equal(predicted, whole[0])
    np.testing.assert_array_equal(native, whole[1])
    np.testing.assert_array_equal(reliability, error_analysis.reliability(whole[2], labels))


def test_scores_are_not_computed_twice(run, capsys):
    folder, results = run
    before = results.scores(BASELINE).stat().st_mtime_ns
    scores = evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    assert "scored already" in capsys.readouterr().out
    assert results.scores(BASELINE).stat().st_mtime_ns == before and len(scores) == 2 * 11
    next(results.root.glob("predictions/threshold/*.png")).unlink()
    evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    assert results.scores(BASELINE).stat().st_mtime_ns > before


def test_pooled_scores_have_a_row_a_horizon_and_grid(run):
    scores = scoring.read_scores(run[1], ["unet"])
    frame = scoring.pooled_scores(scores, SETTINGS)
    assert len(frame) == 2 * 2 * 3
    row = frame[(frame["resolution"] == "input") & (frame["epochs"] == 1)].iloc[0]
    expected = scoring.pooled(scoring.select(scores, "unet", 1), "iou")
    assert [row[name] for name in scoring.SCORE_COLUMNS] == list(expected)
    frame = scoring.pooled_scores(score_rows({"a": [np.diag([9, 9, 5, 4, 3, 2])]}), BONES)
    assert list(frame)[-7:] == ["mean", *BONES.class_names]


def test_validation_chooses_the_best_model():
    better, worse = np.diag([9, 9, 9]), np.array([[9, 0, 0], [0, 9, 0], [0, 4, 5]])
    scores = pd.concat([
        score_rows({"a": [counts]}, model, epochs=2)
        for model, counts in (("unet", better), ("vgg_unet", worse), (BASELINE, better))
    ])  # fmt: skip
    values = {"unet": [0.5, 0.6, 1.0], "vgg_unet": [0.5, 0.7, 0.1]}  # the third epoch is beyond
    histories = {model: pd.DataFrame({"val_mean_iou": curve}) for model, curve in values.items()}
    model, rule = scoring.best_model(scores, SETTINGS, histories)
    assert model == "vgg_unet" and "validation" in rule
    model, rule = scoring.best_model(scores, SETTINGS)
    assert model == "unet" and "test series" in rule
    with pytest.raises(ValueError, match="no network has scores"):
        scoring.best_model(scores[scores["model"] == BASELINE], SETTINGS)


@pytest.mark.parametrize("settings", [SETTINGS, BONES], ids=["bone", "bones"])
def test_a_bone_model_needs_a_network_that_finds_bone(settings):
    found = np.diag([9] * settings.num_classes)
    little = np.diag([9, 9] + [1] * (settings.num_classes - 2))
    little[BONE:, PATIENT] = 9
    assert scoring.network_with_bone(score_rows({"a": [found]}), settings)[0] == "unet"
    network, why = scoring.network_with_bone(score_rows({"a": [little]}), settings)
    assert network is None and "little of the bone" in why
