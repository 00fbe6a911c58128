from dataclasses import replace
from unittest.mock import Mock

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import metrics, prediction, provenance, slices, training
from bonelib.errors import InputError
from bonelib.evaluation import evaluate, scoring
from bonelib.paths import ResultFolder
from bonelib.settings import IGNORE, Settings, get_settings
from tests.synthetic_results import ellipses, write_slices

SIZE = 32
# U-net keeps the best weights of two horizons.
SETTINGS = get_settings(
    "smoke",
    {
        "image_size": SIZE, "steps_per_epoch": 4, "batch_size": 4, "epochs": 2, "epochs_long": 3,
        "precision": "float32",
    },
)  # fmt: skip
SPACING_MM = (5.0, 15.0, 15.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    body = ellipses(SIZE)
    volumes = {"a": ("train", body), "b": ("train", body[::-1])}
    volumes |= {"c": ("validation", body), "d": ("test", body)}
    return write_slices(tmp_path_factory.mktemp("slices"), volumes, SPACING_MM)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    results = ResultFolder(tmp_path_factory.mktemp("results"))
    history = training.train("unet", folder, results, SETTINGS)
    return results, history


def test_the_history_has_every_epoch_and_score_and_the_record_the_settings(trained, folder):
    results, history = trained
    assert list(history["epoch"]) == [1, 2, 3]
    names = ("background", "patient", "bone")
    expected = {
        "loss", "accuracy", "val_accuracy", "val_mean_iou", "val_mean_dice", "seconds",
        *(f"val_{kind}_{name}" for kind in ("iou", "dice") for name in names),
    }  # fmt: skip
    assert expected <= set(history.columns)
    pd.testing.assert_frame_equal(history, pd.read_csv(results.history("unet")))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert (results.training("unet") / "tensorboard").is_dir()
    record = provenance.read_json(results.training_record("unet"))
    assert Settings(**record["settings"]) == SETTINGS
    # A finished training is not repeated.
    before = results.best("unet", 3).stat().st_mtime_ns
    pd.testing.assert_frame_equal(training.train("unet", folder, results, SETTINGS), history)
    assert results.best("unet", 3).stat().st_mtime_ns == before
    assert not results.state("unet").exists()


def test_the_best_weights_have_the_scores_of_the_history(trained, folder):
    results, history = trained
    table = slices.read_table(folder.root)
    images, labels = slices.load(folder.root, table[table["split"] == "validation"])
    for horizon in (2, 3):
        best = evaluate.best_epoch(history, horizon)
        network = prediction.load_network(results.best("unet", horizon), "unet", SETTINGS)
        predicted, _ = prediction.network_segmenter(network)(images)
        scores = training.validation_scores(metrics.confusion_matrix(labels, predicted))
        assert scores["val_mean_iou"] == pytest.approx(history["val_mean_iou"][best - 1], abs=1e-6)


def test_the_key_depends_on_settings_data_and_name_only(folder):
    def key(name="unet", fingerprint="", **changes):
        settings = replace(SETTINGS, **changes)
        samples = training.AugmentedSlices(folder, settings, fingerprint)
        return training.training_key(name, folder, settings, samples)

    assert key() == key(loader_workers=3)
    others = {key(augment="none"), key(seed=1), key("segnet"), key(fingerprint="others")}
    assert len({key(), *others}) == 5


def test_a_stopped_training_continues_as_if_nothing_had_happened(
    trained, folder, tmp_path, monkeypatch
):
    """By the line of progress, everything of an epoch is written; test_run_all kills a run."""
    results = ResultFolder(tmp_path / "results")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.EpochRecord, "_print_progress", Mock(side_effect=KeyboardInterrupt))
        training.train("unet", folder, results, SETTINGS)
    assert results.state("unet").exists() and len(pd.read_csv(results.history("unet"))) == 1
    history = training.train("unet", folder, results, SETTINGS)
    _, uninterrupted = trained
    scores = [name for name in history.columns if name != "seconds"]
    np.testing.assert_allclose(history[scores], uninterrupted[scores], rtol=2e-3, atol=2e-3)


def test_optimizer_and_batch_norm_are_the_protocols_and_a_short_training_may_average_weights():
    model, start = training.new_model("segnet", SETTINGS)
    assert start is None and isinstance(model.optimizer, keras.optimizers.Adadelta)
    assert float(model.optimizer.learning_rate) == 1.0 and not model.optimizer.use_ema
    momenta = {layer.momentum for layer in model.layers if "batch" in type(layer).__name__.lower()}
    assert momenta == {0.99}
    settings = replace(SETTINGS, weight_average=0.9, optimizer="adam", learning_rate=0.001)
    optimizer = training.new_model("segnet", settings)[0].optimizer
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9
    assert optimizer.ema_overwrite_frequency == settings.steps_per_epoch  # as an epoch ends
    assert float(optimizer.learning_rate) == pytest.approx(0.001)
    optimizer.iterations.assign(settings.steps_per_epoch * settings.epochs)  # SegNet's last step
    assert float(optimizer.learning_rate) == pytest.approx(0)


def test_batch_norm_statistics_are_those_of_the_images():
    keras.config.set_dtype_policy("float32")
    model, _ = training.new_model("unet", SETTINGS)
    images = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE), dtype=np.uint8)
    callback = training.BatchNormStatistics(images)
    callback.set_model(model)
    callback.on_epoch_end(0)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    seen = keras.Model(model.input, norms[0].input)
    batches = [
        np.asarray(seen(prediction.network_input(images[first::2]))).reshape(6 * SIZE**2, -1)
        for first in range(2)
    ]
    for variable, statistic in (("moving_mean", np.mean), ("moving_variance", np.var)):
        expected = np.mean([statistic(batch, axis=0) for batch in batches], axis=0)
        np.testing.assert_allclose(getattr(norms[0], variable), expected, rtol=1e-4, atol=1e-4)
    assert {layer.momentum for layer in norms} == {0.99}


def test_without_weights_a_strict_profile_stops_and_a_lenient_one_says_so(tmp_path, capsys):
    strict = replace(SETTINGS, encoder_weights=str(tmp_path), allow_random_encoder=False)
    with pytest.raises(InputError):
        training.new_model("vgg_unet", strict)
    _, start = training.new_model("vgg_unet", replace(strict, allow_random_encoder=True))
    assert start == "random"
    assert "random encoder" in capsys.readouterr().out


def test_evaluation_counts_what_it_predicts(trained, folder):
    results, _ = trained
    scores = evaluate.evaluate("unet", folder, results, SETTINGS)
    counts = scores[scoring.COUNT_COLUMNS].to_numpy()
    assert set(scores["epochs"]) == {2, 3}
    assert len(scores) == 7 * 2 * 2
    pixels = {"input": SIZE**2, "native": SIZE**2 // 4}
    np.testing.assert_array_equal(counts.sum(axis=1), scores["resolution"].map(pixels))
    row = scores[(scores["epochs"] == 3) & (scores["resolution"] == "input")].iloc[2]
    files = folder.labels("d", row["slice"]), results.prediction("unet", "d", row["slice"])
    expected = metrics.confusion_matrix(*map(Image.open, files)).ravel().tolist()
    assert row[scoring.COUNT_COLUMNS].tolist() == expected
    record = provenance.read_json(results.score_record("unet"))
    assert (record["parameters"], record["trainable_parameters"]) == (4_472_323, 4_468_995)
    assert record["milliseconds_per_slice"] > 0 and record["slices"] == 7


def test_ignored_pixels_and_classes_that_the_reference_lacks_do_not_count():
    accuracy = training.PixelAccuracy()
    accuracy.update_state(np.array([[[0, 1], [2, IGNORE]]]), np.eye(3)[[[[0, 1], [0, 0]]]])
    assert float(accuracy.result()) == pytest.approx(2 / 3)
    counts = np.diag([50, 30, 0])
    seen = training.validation_scores(counts)
    counts[1, 2] = 10  # now bone is predicted, wrongly
    mistaken = training.validation_scores(counts)
    assert seen["val_mean_iou"] == 1 and np.isnan(seen["val_iou_bone"])
    assert mistaken["val_mean_iou"] == pytest.approx((1 + 0.75) / 2)
    assert mistaken["val_mean_dice"] == pytest.approx((1 + 6 / 7) / 2)
