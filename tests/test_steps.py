from dataclasses import asdict, replace

import pandas as pd
import pytest

from bonelib import provenance
from bonelib.paths import ResultFolder
from bonelib.settings import MODEL_NAMES, get_settings
from bonelib.workflow import steps

SMOKE, PAPER = get_settings("smoke"), get_settings("paper")


def record(results, model, settings, seconds):
    """Write what a training leaves after each epoch."""
    provenance.write_json(results.training_record(model), {"settings": asdict(settings)})
    pd.DataFrame({"seconds": seconds}).to_csv(results.history(model))
    results.state(model).touch()


def test_recorded_epochs_tell_how_long_those_left_take(tmp_path):
    results = ResultFolder(tmp_path)
    record(results, "unet", PAPER, [90.0, 20.0, 20.0])
    pace = steps.paces(results, PAPER, ["unet"], 1.0)["unet"]

    def left(restarts=False):
        seconds = steps.training_seconds("unet", results, PAPER, pace, restarts)
        return seconds - steps.START_SECONDS

    assert left() == pytest.approx(27 * 20)
    assert left(restarts=True) == pytest.approx(30 * 20)
    results.state("unet").unlink()  # nothing to go on with
    assert left() == pytest.approx(30 * 20)
    other = replace(PAPER, batch_size=4)
    assert steps.paces(results, other, ["unet"], 1.0) == {"unet": 1.0}


def test_networks_without_an_epoch_are_scaled_by_those_with_one(tmp_path):
    results = ResultFolder(tmp_path)
    assert set(steps.paces(results, PAPER, MODEL_NAMES, 2.0).values()) == {2.0}
    record(results, "unet", PAPER, [steps.epoch_seconds("unet", PAPER) / 10])
    paces = steps.paces(results, PAPER, MODEL_NAMES, 2.0)
    assert paces == pytest.approx(dict.fromkeys(MODEL_NAMES, 0.1))


def test_the_update_of_many_weights_takes_its_time_at_any_size():
    small = replace(PAPER, image_size=32)
    assert steps.epoch_seconds("fcn8", small) > 0.5 * PAPER.steps_per_epoch
    assert steps.epoch_seconds("unet", small) < 0.02 * PAPER.steps_per_epoch
