import getpass
import json
import os

import pandas as pd
import pytest

from bonelib import paths, report
from bonelib.errors import InputError
from bonelib.paths import RESULTS, ResultFolder
from bonelib.provenance import read_json, write_json
from bonelib.workflow import runs
from tests.synthetic_results import MODELS, SETTINGS, small_results, write_text

HOME = "/home/someone"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = small_results(tmp_path_factory.mktemp("run"))[1]
    ablation = ResultFolder(results.root / "ablations" / "relu_decoder-1")
    for folder in (results, ablation):
        write_text(folder.training_record("unet"), json.dumps({
            "seconds": 1.5, "settings": {"encoder_weights": f"{HOME}/weights/vgg"},
        }))  # fmt: skip
    write_text(ablation.history("unet"), results.history("unet").read_text())
    write_text(ablation.scores("unet"), results.scores("unet").read_text())
    write_text(ablation.state("unet"), "weights")
    write_json(results.manifest, {
        "profile": "smoke", "dataset": "phantom", "models": ["unet"],
        "created": "2021-06-01T00:00:00+00:00",
        "device": {"processor": "abacus", "gpus": []}, "versions": {"keras": "3.99.1"},
        "data_dir": f"{HOME}/data", "user": "someone",
        "settings": {"encoder_weights": f"{HOME}/weights", "epochs": 2},
        "notebooks": {"01_prepare_data": {
            "status": "done", "seconds": 2.5, "notebook": "notebooks/01.ipynb", "worker": "w7",
        }},
    })  # fmt: skip
    return results


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference")
    write_text(ResultFolder(directory).scores("nonsense"), "model\n")  # of an earlier run
    write_text(directory / "README.md", "mine")
    runs.keep(run, directory)
    return directory


def below(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}


def test_what_is_kept_is_what_tables_and_curves_need_without_names(kept):
    expected = {"manifest.json", "scores/slices.csv", "models/unet/training.json", "README.md"}
    expected |= {f"models/{model}/history.csv" for model in MODELS if model != "threshold"}
    endings = (".json", ".csv", "_surfaces.csv", "_reliability.csv", "_false_bone.csv")
    expected |= {f"scores/{model}{ending}" for model in MODELS for ending in endings}
    ablation = ("scores/unet.csv", "models/unet/history.csv", "models/unet/training.json")
    assert below(kept) == expected | {f"ablations/relu_decoder-1/{name}" for name in ablation}
    # It names no folder and no user.
    for path in kept.rglob("*.*"):
        text = path.read_text()
        assert not any(word in text for word in (HOME, "someone", "w7", str(kept.parent)))
        assert f"/{getpass.getuser()}/" not in text
    manifest = read_json(kept / "manifest.json")
    assert manifest["settings"] == {"encoder_weights": "weights", "epochs": 2}
    assert manifest["notebooks"] == {"01_prepare_data": {"status": "done", "seconds": 2.5}}
    assert manifest["reference"]["device"] == {"processor": "abacus", "gpus": []}


def test_numbers_come_back_to_six_digits_and_counts_exactly(run, kept, tmp_path):
    results = ResultFolder(tmp_path / "restored")
    write_text(results.scores("nonsense"), "model\n")  # of an earlier run
    runs.restore(kept, results)
    assert below(results.root) == below(kept) - {"README.md"}
    for path in runs.small_files(run.root):
        if path.suffix == ".csv":
            pair = [
                pd.read_csv(root / path.relative_to(run.root), dtype={"series": str})
                for root in (run.root, results.root)
            ]
            pd.testing.assert_frame_equal(*pair, rtol=1e-5, check_exact=False, check_dtype=False)
            whole = list(pair[0].select_dtypes("integer"))
            pd.testing.assert_frame_equal(pair[0][whole], pair[1][whole])
    text = report.write_report(results, SETTINGS, MODELS).read_text()
    assert "reference results, without data or training" in text and "3.99.1" in text
    assert text.count("which the reference results do not contain") >= 4


def test_there_must_be_something_to_keep_or_to_restore(run, kept, tmp_path):
    with pytest.raises(InputError, match="no scores to keep"):
        runs.keep(ResultFolder(tmp_path), tmp_path / "kept")
    with pytest.raises(InputError, match="no reference results here"):
        runs.open_kept(tmp_path / "nothing", ResultFolder(tmp_path / "restored"))
    assert not list(tmp_path.iterdir())
    write_text(ResultFolder(tmp_path / "mine").state("unet"), "weights")
    with pytest.raises(InputError, match="a run of its own"):
        runs.restore(kept, ResultFolder(tmp_path / "mine"))


def test_the_committed_run_is_small_and_opens_whatever_settings_have_gone_since(tmp_path):
    files = [path for path in (RESULTS / "reference").rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    weights = sum(size for path, size in sizes.items() if path.suffix == ".keras")
    assert weights <= 20 * 2**20 and sum(sizes.values()) - weights <= 4_000_000
    run, models, changes = runs.open_kept(RESULTS / "reference", ResultFolder(tmp_path))
    assert run.settings.profile == "paper" and "unet" in models
    assert changes.keys() <= vars(run.settings).keys()


def test_the_newest_run_and_the_kept_one_open_by_these_names(run, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(paths, "REBUILT", tmp_path / "from-reference")
    assert runs.open_run("newest").banner() == "Profile smoke; nothing has run yet."
    for time, profile in enumerate(("paper", "quick", "smoke")):
        manifest = ResultFolder(tmp_path / profile).manifest
        write_json(manifest, read_json(run.manifest) | {"profile": profile})
        os.utime(manifest, (1e9 + time, 1e9 - time))
    newest = runs.open_run("newest", overrides={"epochs": 3})
    assert (newest.settings.profile, newest.settings.epochs) == ("paper", 3)
    assert newest.banner() == "Profile paper in paper/: made on 2021-06-01 on abacus."

    runs.keep(run, tmp_path / "reference")
    opened = runs.open_run("reference", "folder")
    assert opened.settings.profile == "smoke" and opened.dataset == "phantom"
    assert opened.results.scores("unet").exists()
    assert "in from-reference/, the kept reference run: made on 2021" in opened.banner()
