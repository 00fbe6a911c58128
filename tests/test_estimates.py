import json
import subprocess
from dataclasses import asdict, replace

import pandas as pd
import pytest

from bonelib import provenance
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, MODEL_NAMES, get_settings
from bonelib.workflow import estimates

SMOKE, PAPER = get_settings("smoke"), get_settings("paper")


@pytest.fixture
def untimed(monkeypatch, tmp_path):
    """No machine is fast enough, and none has been timed; what a process would print."""
    printed = {}

    def run(command, **_):
        code = 0 if printed else 1
        return subprocess.CompletedProcess(command, code, f"noise\n{json.dumps(printed)}\n")

    monkeypatch.setattr(estimates, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(estimates, "CACHE", tmp_path / "cache" / "step_seconds.json")
    monkeypatch.setattr(estimates.subprocess, "run", run)
    return printed


def step_seconds(*models, settings=PAPER):
    return estimates.step_seconds(dict.fromkeys(models, 1000.0), settings, {})


def test_more_work_takes_longer(tmp_path):
    results = ResultFolder(tmp_path)
    for model in MODEL_NAMES:
        steps = [estimates.training_work(model, results, one)[1] for one in (SMOKE, PAPER)]
        assert steps[1] > 20 * steps[0] > 0
        once, twice = (estimates.evaluation_work(model, PAPER, count) for count in (1, 2))
        assert twice[1] == 2 * once[1] and twice[0] > once[0]
    assert estimates.evaluation_work(BASELINE, PAPER, 1) == (once[0], 0.0)
    assert estimates.preparation_seconds(PAPER) > 3 * estimates.preparation_seconds(SMOKE)


def test_recorded_epochs_tell_how_long_those_left_take(tmp_path):
    results = ResultFolder(tmp_path)
    provenance.write_json(results.training_record("unet"), {"settings": asdict(PAPER)})
    pd.DataFrame({"seconds": [90.0, 20.0, 20.0]}).to_csv(results.history("unet"))
    results.state("unet").touch()
    start = estimates.START_SECONDS
    assert estimates.training_work("unet", results, PAPER) == (start + 27 * 20, 0.0)
    assert estimates.training_work("unet", results, PAPER, force=True) == (start + 30 * 20, 0.0)
    other = replace(PAPER, batch_size=4)
    assert estimates.training_work("unet", results, other)[0] == start
    results.state("unet").unlink()
    assert estimates.training_work("unet", results, PAPER) == (start + 30 * 20, 0.0)


def test_times_are_kept_for_an_hour(untimed, monkeypatch, capsys):
    untimed |= {"unet": 0.5}
    assert step_seconds("unet") == {"unet": 0.5}
    assert "Timing a step of unet" in capsys.readouterr().err
    untimed["unet"] = 0.7
    assert step_seconds("unet") == {"unet": 0.5}
    assert step_seconds("unet", settings=replace(PAPER, batch_size=4)) == {"unet": 0.7}
    monkeypatch.setattr(estimates, "KEPT_SECONDS", 0.0)
    assert step_seconds("unet") == {"unet": 0.7}


def test_networks_that_were_not_timed_are_scaled_by_those_that_were(untimed):
    usual = estimates.STEP_SECONDS
    assert step_seconds(*MODEL_NAMES) == usual
    untimed |= {"unet": usual["unet"] / 10}
    assert step_seconds(*MODEL_NAMES) == pytest.approx(
        {model: seconds / 10 for model, seconds in usual.items()}
    )


def test_short_work_is_not_timed(monkeypatch):
    monkeypatch.setattr(estimates.subprocess, "run", None)
    assert step_seconds("unet", settings=SMOKE)["unet"] < estimates.STEP_SECONDS["unet"]
    assert estimates.step_seconds({}, PAPER, {}) == {}


def test_a_real_step_is_timed_in_a_process_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(estimates, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(estimates, "CACHE", tmp_path / "step_seconds.json")
    seconds = step_seconds("pspnet", settings=SMOKE)["pspnet"]
    (kept,) = provenance.read_json(estimates.CACHE).values()
    assert kept["seconds"] == seconds > 0
