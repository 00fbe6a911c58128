"""The driver as a user calls it: a run that is killed, goes on, and then has nothing to do."""

import re
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import SimpleITK

import run_all
from bonelib import provenance
from bonelib.paths import NOTEBOOKS, REPOSITORY, ResultFolder, prepared
from bonelib.settings import get_settings, replaced
from bonelib.workflow import driver, execution, reference, steps
from bonelib.workflow.runs import open_run

SMALL = ["--profile", "smoke", "--models", "unet", "--set", "epochs=1", "epochs_long=3"]


def command(*arguments) -> list[str]:
    return [sys.executable, "-u", str(REPOSITORY / "run_all.py"), *map(str, arguments)]


def call(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def finished(small_scans, tmp_path_factory):
    """A run that was killed after its first epoch and started again."""
    results = ResultFolder(tmp_path_factory.mktemp("run"))
    data = ["--dataset", "folder", "--data", small_scans]
    arguments = [*SMALL, *data, "--results", results.root]
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as first:
        before = []
        for line in first.stdout:
            before.append(line)
            if "epoch  1/3" in line:
                break
        first.send_signal(signal.SIGKILL)
    return results, arguments, "".join(before), call(*arguments)


def test_a_run_says_at_the_start_what_and_how_long(finished):
    before = finished[2]
    assert "03_train_model-unet" in before
    assert re.search(r"11 of 11 to run, roughly \d:\d\d:\d\d", before)


def test_a_killed_run_goes_on_at_the_last_epoch(finished):
    again = finished[3]
    assert again.returncode == 0, again.stdout + again.stderr
    assert "unet goes on after epoch 1" in again.stdout
    assert "01_prepare_data                    up to date" in again.stdout
    assert "left" in again.stdout


def test_everything_is_written(finished):
    results = finished[0]
    for number in range(1, 5):
        for suffix in ("csv", "md", "tex"):
            assert (results.tables / f"table{number}.{suffix}").stat().st_size > 50
    for number in range(1, 8):
        for suffix in ("png", "pdf"):
            assert (results.figures / f"figure{number}.{suffix}").stat().st_size > 2000
    record = provenance.read_json(results.meshes / "report.json")
    assert record["volumes_ml"]["patient"] > 0
    assert (results.meshes / "bone.stl").exists() == (record["volumes_ml"]["bone"] > 0)
    assert "<html" in results.report.read_text()[:400]
    table = pd.read_csv(results.tables / "table1.csv")
    assert {"U-net", "Threshold (baseline)"} <= set(table.iloc[:, 0])


def test_the_manifest_tells_what_made_the_results(finished):
    manifest = provenance.read_json(finished[0].manifest)
    assert (manifest["profile"], manifest["dataset"]) == ("smoke", "folder")
    assert manifest["seed"] == get_settings("smoke").seed
    assert manifest["settings"]["epochs_long"] == 3
    assert {"python", "keras", "tensorflow"} <= set(manifest["versions"])
    assert manifest["git_commit"] and manifest["dataset_fingerprint"] and manifest["device"]
    assert list(manifest["notebooks"]) == sorted(
        manifest["notebooks"], key=lambda name: int(name[:2])
    )
    for name, record in manifest["notebooks"].items():
        assert record["status"] == "done" and record["seconds"] > 0, name
        assert (finished[0].root / record["notebook"]).exists()


def test_a_second_run_runs_nothing(finished):
    results, arguments, *_ = finished
    times = {path: path.stat().st_mtime_ns for path in results.root.rglob("*.*")}
    again = call(*arguments)
    assert again.returncode == 0
    assert "Everything is up to date" in again.stdout
    assert times == {path: path.stat().st_mtime_ns for path in times}


def stale(output: str) -> list[str]:
    return re.findall(r"^  (\S+) +about", output, re.MULTILINE)


def test_only_what_depends_on_a_change_runs_again(finished):
    results, arguments, *_ = finished
    table = results.tables / "table1.csv"
    kept = table.read_bytes()
    table.unlink()
    assert stale(call(*arguments, "--list").stdout) == ["05_tables", "08_report"]
    table.write_bytes(kept)
    scores = results.scores("unet")
    kept = scores.read_bytes()
    scores.write_bytes(kept + b"\n")
    assert stale(call(*arguments, "--list").stdout) == [
        "11_ablations", "05_tables", "06_figures", "07_bone_model", "08_report",
    ]  # fmt: skip
    scores.write_bytes(kept)
    assert stale(call(*arguments, "--list").stdout) == []
    assert len(stale(call(*arguments, "--list", "--force").stdout)) == 11


def test_ablations_add_their_trainings_and_what_reads_them(finished):
    results, arguments, *_ = finished
    listed = stale(call(*arguments, "--ablations", "--list").stdout)
    added = [f"{step}_model-unet-relu_decoder-{number}"
             for step in ("03_train", "04_evaluate") for number in range(3)]  # fmt: skip
    assert [name for name in listed if name in added] == added
    assert not any("own-0" in name or "random_encoder" in name for name in listed)
    assert listed[-3:] == ["11_ablations", "05_tables", "08_report"]


def test_tables_curves_and_report_come_from_kept_scores_alone(finished, tmp_path):
    reference.keep(finished[0], tmp_path / "kept")
    results = ResultFolder(tmp_path / "rebuilt")
    arguments = ["--reference", tmp_path / "kept", "--results", results.root]
    run = call(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 of 3 to run" in run.stdout
    for name in (f"table{number}.csv" for number in range(1, 5)):
        assert (results.tables / name).read_text() == (finished[0].tables / name).read_text()
    assert (results.figures / "figure4.pdf").exists() and results.report.exists()
    made, kept = (provenance.read_json(one.manifest) for one in (results, finished[0]))
    assert made["settings"] == kept["settings"] and made["models"] == ["unet"]
    assert made["dataset_fingerprint"] == kept["dataset_fingerprint"]
    assert "Everything is up to date" in call(*arguments).stdout


def test_a_scheduler_that_does_not_answer_is_one_line(finished):
    results, arguments, *_ = finished
    run = call(*arguments, "--force", "--scheduler", "nowhere")
    assert run.returncode == 2
    assert run.stderr.splitlines() == [run.stderr.strip()]
    assert "no dask scheduler answers at 'nowhere'" in run.stderr


def run_of_step(step):
    """The run that a step's notebook opens."""
    names = ("profile", "dataset", "data_dir", "results_dir", "overrides", "slices_dir")
    return open_run(*(step.parameters[name] for name in names if name in step.parameters))


def test_slices_that_another_run_has_prepared(tmp_path):
    run = open_run("smoke", results_dir=str(tmp_path), overrides={"replicate": 1},
                   slices_dir=str(tmp_path / "others"))  # fmt: skip
    assert run.slices.root == tmp_path / "others"
    assert run.results.root == tmp_path and run.settings.replicate == 1


@pytest.mark.parametrize("overrides", [{}, {"epochs_long": "7"}])
def test_a_step_of_an_ablation_has_settings_and_results_of_its_own_and_the_run_s_slices(
    overrides, tmp_path
):
    run = open_run("smoke", results_dir=str(tmp_path), overrides=overrides)
    planned = driver.Driver(run, ["unet"], overrides, with_ablations=True).steps
    for name in ("03_train_model", "04_evaluate_model"):
        step = planned[f"{name}-unet-no_augmentation-2"]
        own = run_of_step(step)
        assert own.settings == replaced(run.settings, {"augment": "none", "replicate": 2})
        assert own.slices.root == run.slices.root
        assert own.results.root == tmp_path / "ablations" / "no_augmentation-2"
        assert all(path.is_relative_to(own.results.root) for path in step.outputs)
    assert step.parameters["horizons"] == [run.settings.epochs_long]
    assert step.seconds < planned["04_evaluate_model-unet"].seconds
    assert planned["03_train_model-unet-no_augmentation-2"].state == own.results.training("unet")


@pytest.mark.parametrize("results_dir", ["", "elsewhere"])
def test_slices_of_other_settings_leave_the_profile_s_own_alone(results_dir):
    plain = open_run("smoke", results_dir=results_dir)
    assert plain.slices.root == prepared("smoke", "phantom")
    run = open_run("smoke", results_dir=results_dir, overrides={"class_scheme": "bones"})
    assert run.slices.root.is_relative_to(run.results.root)
    started = driver.Driver(run, ["unet"], {"class_scheme": "bones"})
    assert not any("threshold" in name for name in started.steps)
    for step in started.steps.values():
        own = run_of_step(step)
        assert (own.settings, own.data_dir) == (run.settings, run.data_dir)
        assert own.slices.root == run.slices.root and own.results.root == run.results.root


def test_tables_with_as_many_epochs_share_one_training(tmp_path):
    overrides = {"epochs": 3, "epochs_long": 3}
    run = open_run("smoke", results_dir=str(tmp_path), overrides=overrides)
    started = driver.Driver(run, ["unet"], overrides)
    started.tasks()  # doit refuses a target that it is given twice
    assert started.steps["04_evaluate_model-unet"].parameters["horizons"] == [3]


def test_a_list_writes_nothing(tmp_path):
    listed = call("--profile", "smoke", "--list", "--results", tmp_path / "results")
    assert "24 of 24 to run" in listed.stdout, listed.stdout + listed.stderr
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


def test_a_step_depends_on_the_modules_that_its_notebook_imports():
    figures = provenance.code_files(execution.code(NOTEBOOKS / "06_figures.ipynb"))
    training = provenance.code_files(execution.code(NOTEBOOKS / "03_train_model.ipynb"))
    assert "surfaces.py" not in {path.name for path in figures}
    assert {"training.py", "policy.py", "unet.py"} <= {path.name for path in training}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--profile", "quik"], "smoke"),
        (["--models", "u-net"], "resnet50_unet"),
        (["--dataset", "fantom"], "phantom, folder"),
        (["--set", "epoch=3"], "epochs_long"),
        (["--set", "epochs"], "SETTING=VALUE"),
        (["--set", "class_scheme=nonsense"], "bone, bones"),
        (["--workers", "0"], "from 1"),
        (["--ablations", "--models", "segnet"], "--models"),
        (["--reference", "/nowhere"], "/nowhere"),
        (["--dataset", "folder"], "--data DIR"),
        (["--dataset", "folder", "--data", "/nowhere"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_with_the_valid_names(arguments, named, capsys):
    try:
        code = run_all.main(arguments)
    except SystemExit as stop:
        code = stop.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1 and named in lines[0]


def test_a_parameter_that_the_notebook_does_not_declare_is_refused(tmp_path):
    step = steps.Step("05_tables", NOTEBOOKS / "05_tables.ipynb", {"modles": []}, [], [], 1.0)
    with pytest.raises(ValueError, match="'modles'.*models"):
        execution.execute_notebook(step, tmp_path / "05_tables.ipynb")
    assert not list(tmp_path.iterdir())


def test_a_failing_notebook_leaves_its_traceback_and_fails_the_run(write_dataset, tmp_path):
    root = write_dataset()
    mask = SimpleITK.ReadImage(str(root / "b" / "mask.nii.gz"))
    mask.SetOrigin((9000, 9000, 9000))
    SimpleITK.WriteImage(mask, str(root / "b" / "mask.nii.gz"))
    results = tmp_path / "results"
    run = call(
        "--profile", "smoke", "--dataset", "folder", "--data", root, "--models", "unet",
        "--set", "seed=5", "--results", results,
    )  # fmt: skip
    executed = results / "notebooks" / "01_prepare_data.ipynb"
    assert run.returncode == 2
    assert "01_prepare_data: FAILED: InputError" in run.stdout.replace("bonelib.errors.", "")
    assert str(executed) in run.stdout
    assert "05_tables: not run" in run.stdout
    outputs = [
        output
        for cell in nbformat.read(executed, as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    assert any(output.output_type == "error" for output in outputs)
    manifest = provenance.read_json(results / "manifest.json")
    assert manifest["notebooks"]["01_prepare_data"]["status"] == "failed"


def test_real_scans_go_the_whole_way(shared_data, tmp_path):
    """Vertebrae and ribs stand in for the pelvis; the shorter scan is cut in two."""
    root = tmp_path / "scans"
    dicom = root / "dicom"
    dicom.mkdir(parents=True)
    (dicom / "ct").symlink_to(shared_data / "abdomen_dicom" / "ct")
    (dicom / "labels.nii.gz").symlink_to(shared_data / "abdomen_dicom" / "labels.nii.gz")
    for name, part in (("lower", slice(0, 15)), ("upper", slice(15, 30))):
        (root / name).mkdir()
        for file in ("ct.nii.gz", "labels.nii.gz"):
            image = SimpleITK.ReadImage(str(shared_data / "abdomen_nifti" / file))
            SimpleITK.WriteImage(image[:, :, part], str(root / name / file))
    (root / "split.csv").write_text("series,split\ndicom,train\nlower,validation\nupper,test\n")
    ids = [*range(25, 51), *range(69, 79), *range(91, 117)]
    lines = [f"{number},bone_{number}" for number in ids]
    (root / "bone_names.csv").write_text("\n".join(["id,name", *lines]) + "\n")
    overrides = {"field_of_view_mm": "500"}
    run = open_run("smoke", "folder", str(root), str(tmp_path / "results"), overrides)
    started = driver.Driver(run, ["unet"], overrides)
    started.steps = {
        name: step for name, step in started.steps.items() if name[:2] in ("01", "03", "04", "05")
    }
    assert started.start()
    table = pd.read_csv(run.results.tables / "table1.csv")
    threshold = table[table.iloc[:, 0].str.startswith("Threshold")].iloc[0]
    assert threshold["measure"] == "IoU"
    # At 7.8 mm a rib is a pixel wide, and the vessels and kidneys are as bright as bone.
    assert threshold["bone"] > 5 and threshold["patient"] > 70
    assert np.isfinite(table["mean"]).all()
