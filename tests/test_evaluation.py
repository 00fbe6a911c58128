"""The files of an evaluation; tests/test_training.py evaluates a trained network."""

import keras
import numpy as np
import pandas as pd
import pytest

from bonelib import metrics, prediction, provenance, slices
from bonelib.evaluation import error_analysis, evaluate, scoring
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, BONE, CLASS_NAMES, IGNORE, PATIENT, get_settings
from tests.synthetic_results import ellipses, score_rows, write_slices

SETTINGS = get_settings("smoke", {"epochs": 1, "epochs_long": 2})
SPACING_MM = (5.0, 7.5, 7.5)
METHODS = ["unet", BASELINE]


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
    folder = write_slices(root / "slices", volumes, SPACING_MM, "femur_left")
    results = ResultFolder(root / "results")
    provenance.write_json(results.training_record("unet"), {})
    history = pd.DataFrame({"epoch": [1, 2], "val_mean_iou": [0.2, 0.4]})
    history.to_csv(results.history("unet"), index=False)
    for horizon in SETTINGS.horizons("unet"):
        results.best("unet", horizon).write_text("weights")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "load_network", lambda *_: network)
        patch.setattr(prediction, "network_segmenter", lambda *_, **__: segment)
        evaluate.evaluate("unet", folder, results, SETTINGS)
    return folder, results


def test_surfaces_are_measured_by_horizon_series_and_structure_and_slices_listed(run):
    surfaces = scoring.read_scores(run[1], METHODS, "surfaces")
    assert list(surfaces) == scoring.COLUMNS["surfaces"]
    found = surfaces.groupby(["model", "epochs", "series"])["structure"].agg(list)
    assert set(map(tuple, found)) == {("patient", "bone")}
    assert found.index.tolist() == [
        (model, epochs, series)
        for model, epochs in ((BASELINE, 0), ("unet", 1), ("unet", 2))
        for series in "bc"
    ]
    listed = scoring.read_slices(run[1])
    assert list(listed) == scoring.SLICE_COLUMNS and set(listed["level"]) == {"femur shaft"}
    assert listed["series"].tolist() == ["b"] * 7 + ["c"] * 4
    assert listed["bone_mm2"][0] == (ellipses(64)[0] == BONE).sum() * 7.5 * 7.5
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
    reliability = scoring.read_scores(results, METHODS, "reliability")
    assert list(reliability) == scoring.COLUMNS["reliability"]
    assert set(reliability["model"]) == {"unet"} and set(reliability["epochs"]) == {1, 2}
    table = slices.read_table(folder.root)
    images, labels = slices.load(folder.root, table[table["series"] == "b"])
    *_, probabilities = segment(images)
    expected = error_analysis.reliability(probabilities, labels)
    for counts, name in zip(expected, CLASS_NAMES, strict=True):
        rows = reliability.query(f"`class` == '{name}' and series == 'b' and epochs == 2")
        assert rows["bin"].tolist() == list(range(error_analysis.BINS))
        found = rows[["pixels", "probability", "positive"]].to_numpy() * [1, 255, 1]
        np.testing.assert_allclose(found, counts)


def test_every_pixel_of_false_bone_has_one_cause(run):
    false = scoring.read_scores(run[1], METHODS, "false_bone")
    assert list(false) == scoring.COLUMNS["false_bone"]
    assert set(false["cause"]) <= set(error_analysis.CAUSES) and (false["pixels"] > 0).all()
    counts = scoring.read_scores(run[1], METHODS).query("resolution == 'input'")
    key = ["model", "epochs", "series", "slice"]
    expected = counts.set_index(key)[["n02", "n12"]].sum(axis=1)
    found = false.groupby(key)["pixels"].sum().reindex(expected.index, fill_value=0)
    assert found.tolist() == expected.tolist() and found.sum() > 0


def test_scores_are_not_computed_twice(run, capsys):
    folder, results = run
    before = results.scores(BASELINE).stat().st_mtime_ns
    scores = evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    assert "scored already" in capsys.readouterr().out
    assert results.scores(BASELINE).stat().st_mtime_ns == before and len(scores) == 2 * 11
    next(results.root.glob("predictions/threshold/*.png")).unlink()
    evaluate.evaluate(BASELINE, folder, results, SETTINGS)
    assert results.scores(BASELINE).stat().st_mtime_ns > before


def test_validation_chooses_the_best_model():
    models = ("unet", "vgg_unet", BASELINE)
    scores = pd.concat([score_rows({"a": [np.diag([9, 9, 9])]}, model) for model in models])
    values = {"unet": [0.5, 0.6, 1.0], "vgg_unet": [0.5, 0.7, 0.1]}  # the third epoch is beyond
    histories = {model: pd.DataFrame({"val_mean_iou": curve}) for model, curve in values.items()}
    assert scoring.best_model(scores, SETTINGS, histories) == "vgg_unet"
    baseline = scores[scores["model"] == BASELINE]
    assert scoring.best_model(baseline, SETTINGS, histories) is None


def test_a_bone_model_needs_a_network_that_finds_bone():
    found, little = np.diag([9, 9, 9]), np.diag([9, 9, 1])
    little[BONE, PATIENT] = 9
    histories = {"unet": pd.DataFrame({"val_mean_iou": [0.5]})}
    for counts, network in ((found, "unet"), (little, None)):
        scores = score_rows({"a": [counts]})
        assert scoring.network_with_bone(scores, SETTINGS, histories) == network
