"""The driver as a user calls it: a run that is killed, goes on, and then has nothing to do."""

import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import nbformat
import pandas as pd
import psutil
import pytest

import run_all
from bonelib import provenance
from bonelib.paths import REPOSITORY, ResultFolder, prepared
from bonelib.settings import get_settings, replaced
from bonelib.workflow import runs, steps
from bonelib.workflow.runs import open_run

from . import hospital

SMALL = ["--profile", "smoke", "--models", "unet", "--set", "epochs=1", "epochs_long=3"]


def command(*arguments) -> list[str]:
    return [sys.executable, "-u", str(REPOSITORY / "run_all.py"), *map(str, arguments)]


def call(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on identified scans that was killed after its first epoch and started again."""
    data = hospital.write_hospital(tmp_path_factory.mktemp("hospital"))
    results = ResultFolder(tmp_path_factory.mktemp("run"))
    arguments = [*SMALL, "--dataset", "folder", "--data", data, "--results", results.root]
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as first:
        before = []
        for line in first.stdout:
            before.append(line)
            if "epoch  1/3" in line:
                break
        first.send_signal(signal.SIGKILL)
    return results, arguments, "".join(before), call(*arguments)


def test_a_run_says_what_it_does_and_a_killed_one_goes_on_at_the_last_epoch(finished):
    _, _, before, again = finished
    assert re.search(r"11 of 11 to run, roughly \d:\d\d:\d\d", before)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "unet goes on after epoch 1" in again.stdout
    assert "01_prepare_data                    up to date" in again.stdout
    assert re.search(r"started, about \d:\d\d:\d\d left", again.stdout)


def test_everything_is_written(finished):
    results = finished[0]
    for folder, name, count, suffixes, least in (
        (results.tables, "table", 4, ("csv", "md", "tex"), 50),
        (results.figures, "figure", 7, ("png", "pdf"), 2000),
    ):
        for number, suffix in product(range(1, count + 1), suffixes):
            assert (folder / f"{name}{number}.{suffix}").stat().st_size > least
    record = provenance.read_json(results.meshes / "report.json")
    assert record["volumes_ml"]["patient"] > 0
    assert (results.meshes / "bone.stl").exists() == (record["volumes_ml"]["bone"] > 0)
    assert "<html" in results.report.read_text()[:400]
    assert {"U-net", "Threshold (baseline)"} <= set(
        pd.read_csv(results.tables / "table1.csv")["name"]
    )


def test_no_output_tells_who_the_patient_is(finished):
    results, _, before, again = finished
    hospital.assert_silent(before + again.stdout + again.stderr, results.root)
    described = next(results.root.rglob("dataset.json")).read_text()
    assert "left out: series" in described and "missing slices interpolated: 1" in described


def test_the_manifest_tells_what_made_the_results(finished):
    manifest = provenance.read_json(finished[0].manifest)
    assert (manifest["profile"], manifest["dataset"]) == ("smoke", "folder")
    assert manifest["seed"] == get_settings("smoke").seed
    assert manifest["settings"]["epochs_long"] == 3
    assert {"python", "keras", "tensorflow"} <= set(manifest["versions"])
    assert manifest["git_commit"] and manifest["dataset_fingerprint"] and manifest["device"]
    assert list(manifest["notebooks"]) == sorted(manifest["notebooks"])
    for name, record in manifest["notebooks"].items():
        assert record["status"] == "done" and record["seconds"] > 0, name
        assert (finished[0].root / record["notebook"]).exists()


def test_a_second_run_runs_nothing(finished, capsys):
    results, arguments, *_ = finished
    files = set(results.root.rglob("*.*")) - {results.manifest}  # its time names the newest run
    times = {path: path.stat().st_mtime_ns for path in files}
    manifest = results.manifest.read_text()
    assert run_all.main(list(map(str, arguments))) == 0
    assert "Everything is up to date" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert results.manifest.read_text() == manifest


@pytest.fixture
def stale(finished, capsys):
    """Return the steps of the finished run that --list calls stale, with further options."""

    def listed(*options):
        assert run_all.main([*map(str, finished[1]), *options, "--list"]) == 0
        return re.findall(r"^  (\S+) +about", capsys.readouterr().out, re.MULTILINE)

    return listed


def test_only_what_depends_on_a_change_runs_again(finished, stale):
    table = finished[0].tables / "table1.csv"
    kept = table.read_bytes()
    table.unlink()
    assert stale() == ["05_tables", "08_report"]
    table.write_bytes(kept)
    scores = finished[0].scores("unet")
    kept = scores.read_bytes()
    scores.write_bytes(kept + b"\n")
    assert stale() == ["11_ablations", "07_bone_model", "05_tables", "06_figures", "08_report"]
    scores.write_bytes(kept)
    assert stale() == []
    assert len(stale("--force")) == 11


def test_ablations_add_their_trainings_and_what_reads_them(stale):
    listed = stale("--ablations")
    added = [f"{step}_model-unet-relu_decoder-{number}"
             for number in range(3) for step in ("03_train", "04_evaluate")]  # fmt: skip
    assert [name for name in listed if name in added] == added
    assert not any("own-0" in name for name in listed)
    assert listed[-3:] == ["11_ablations", "05_tables", "08_report"]


def test_tables_curves_and_report_come_from_kept_scores_alone(finished, tmp_path, capsys):
    runs.keep(finished[0], tmp_path / "kept")
    results = ResultFolder(tmp_path / "rebuilt")
    arguments = ["--reference", str(tmp_path / "kept"), "--results", str(results.root)]
    run = call(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 of 4 to run" in run.stdout
    for name in (f"table{number}.csv" for number in range(1, 5)):
        assert (results.tables / name).read_text() == (finished[0].tables / name).read_text()
    assert (results.figures / "figure4.pdf").exists() and results.report.exists()
    made, kept = (provenance.read_json(one.manifest) for one in (results, finished[0]))
    assert made["settings"] == kept["settings"] and made["models"] == ["unet"]
    assert made["dataset_fingerprint"] == kept["dataset_fingerprint"]
    assert run_all.main(arguments) == 0
    assert "Everything is up to date" in capsys.readouterr().out


def planned_steps(run, models, overrides, with_ablations=False) -> dict[str, steps.Step]:
    planned = steps.Plan(run, models, overrides).steps(with_ablations)
    return {step.name: step for step in planned}


def run_of_step(step):
    """The run that a step's notebook opens."""
    names = ("profile", "dataset", "data_dir", "results_dir", "overrides", "slices_dir")
    return open_run(*(step.parameters[name] for name in names if name in step.parameters))


def test_a_step_of_an_ablation_has_settings_and_results_of_its_own_and_the_run_s_slices(tmp_path):
    overrides = {"epochs_long": "7"}
    run = open_run("smoke", results_dir=str(tmp_path), overrides=overrides)
    planned = planned_steps(run, ["unet"], overrides, with_ablations=True)
    for name in ("03_train_model", "04_evaluate_model"):
        step = planned[f"{name}-unet-no_augmentation-2"]
        own = run_of_step(step)
        assert own.settings == replaced(run.settings, {"augment": "none", "replicate": 2})
        assert own.slices.root == run.slices.root
        assert own.results.root == tmp_path / "ablations" / "no_augmentation-2"
        assert all(path.is_relative_to(own.results.root) for path in step.outputs)
    assert planned["03_train_model-unet-no_augmentation-2"].state == own.results.training("unet")


@pytest.mark.parametrize("results_dir", ["", "elsewhere"])
def test_slices_of_other_settings_leave_the_profile_s_own_alone(results_dir):
    plain = open_run("smoke", results_dir=results_dir)
    assert plain.slices.root == prepared("smoke", "phantom")
    run = open_run("smoke", results_dir=results_dir, overrides={"seed": 7})
    assert run.slices.root.is_relative_to(run.results.root)
    planned = planned_steps(run, ["unet"], {"seed": 7})
    for step in planned.values():
        own = run_of_step(step)
        assert (own.settings, own.data_dir) == (run.settings, run.data_dir)
        assert own.slices.root == run.slices.root and own.results.root == run.results.root


def test_tables_with_as_many_epochs_share_one_training():
    overrides = {"epochs": 3, "epochs_long": 3}
    planned = planned_steps(open_run("smoke", overrides=overrides), ["unet"], overrides)
    targets = [output for step in planned.values() for output in step.outputs]
    assert len(targets) == len(set(targets))


def test_a_list_writes_nothing(tmp_path, capsys):
    assert run_all.main(["--profile", "smoke", "--list", "--results", f"{tmp_path}/results"]) == 0
    assert "24 of 24 to run" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_terminated_run_ends_its_processes(tmp_path):
    arguments = [*SMALL, "--set", "seed=7", "--results", tmp_path]
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True) as run:
        driver = psutil.Process(run.pid)
        deadline = time.monotonic() + 120
        while not (started := driver.children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.2)
        run.terminate()
        assert "goes on where it was" in run.stderr.read()
    assert run.returncode == 130
    assert started and not psutil.wait_procs(started, timeout=20)[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--profile", "quik"], "did you mean 'quick'? choose one of smoke"),
        (
            ["--profile", "smoke", "--scheduler", "nowhere"],
            "no dask scheduler answers at 'nowhere'",
        ),
        (["--models", "u-net"], "did you mean 'unet'? choose one of fcn8"),
        (["--dataset", "fantom"], "did you mean 'phantom'? choose one of phantom, folder"),
        (["--set", "epoch=3"], "did you mean 'epochs'?"),
        (["--set", "epochs"], "SETTING=VALUE"),
        (["--set", "optimizer=adan"], "did you mean 'adam'?"),
        (["--workers", "0"], "from 1"),
        (["--ablations", "--models", "segnet"], "--models"),
        (["--reference", "/nowhere"], "/nowhere"),
        (["--dataset", "folder"], "--data DIR"),
        (["--dataset", "folder", "--data", "/nowhere"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_with_the_valid_names(arguments, named, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        sys.exit(run_all.main([*arguments, "--results", str(tmp_path)]))
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and named in line


@pytest.fixture
def write_notebook(tmp_path):
    """Write a notebook with a parameter x; return a step that executes it."""

    def write(source, parameters):
        cells = [nbformat.v4.new_code_cell(text) for text in ("x = 1", source)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, tmp_path / "a.ipynb")
        return steps.Step("a", tmp_path / "a.ipynb", parameters, [], [], 1.0)

    return write


def test_a_notebook_runs_in_this_python_whatever_kernels_are_installed(
    write_notebook, tmp_path, monkeypatch
):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    provenance.write_json(
        kernel / "kernel.json",
        {"argv": ["/bin/false", "{connection_file}"], "display_name": "P", "language": "python"},
    )
    monkeypatch.setenv("JUPYTER_PATH", str(kernel.parents[1]))
    source = "import sys; print(x, sys.executable)"
    executed = tmp_path / "executed" / "a.ipynb"
    steps.execute_notebook(write_notebook(source, {"x": 5}), executed)
    (output,) = nbformat.read(executed, as_version=4).cells[-1].outputs
    assert output.text.split() == ["5", sys.executable]


def test_a_parameter_that_the_notebook_does_not_declare_is_refused(write_notebook, tmp_path):
    with pytest.raises(ValueError, match="'y': it declares x"):
        steps.execute_notebook(write_notebook("", {"y": []}), tmp_path / "executed" / "a.ipynb")
    assert not (tmp_path / "executed").exists()


def test_more_than_two_hours_are_asked_for_at_a_terminal(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert run_all.main(["--profile", "night", "--results", str(tmp_path / "results")]) == 2
    assert len(asked) == 1 and "smoke, quick. Start?" in asked[0]
    assert capsys.readouterr().err == "run_all.py: not started\n"
    assert not list(tmp_path.iterdir())


def test_a_refusal_leaves_its_traceback_fails_the_run_and_tells_no_secret(finished, tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(finished[1][finished[1].index("--data") + 1], data)
    hospital.write_second_patient(data / "a" / "ct" / "x")
    run = call(*SMALL, "--dataset", "folder", "--data", data, "--results", results)
    executed = results / "notebooks" / "01_prepare_data.ipynb"
    assert run.returncode == 2
    assert "01_prepare_data: FAILED: InputError" in run.stdout.replace("bonelib.errors.", "")
    assert "CT slices of 2 patients" in run.stdout and str(executed) in run.stdout
    assert "05_tables: not run" in run.stdout
    assert '"output_type": "error"' in executed.read_text()
    manifest = provenance.read_json(results / "manifest.json")
    assert manifest["notebooks"]["01_prepare_data"]["status"] == "failed"
    hospital.assert_silent(run.stdout + run.stderr, results)
