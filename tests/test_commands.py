"""The commands as a newcomer calls them: help, a run from slices to scores, one-line errors."""

import re
import subprocess
import sys
import time

import pandas as pd
import pytest

from bonelib import __main__
from bonelib.__main__ import main
from bonelib.errors import InputError, InputWarning
from bonelib.paths import REPOSITORY, WEIGHTS
from bonelib.segment import postprocess, segmentation
from bonelib.settings import MODEL_NAMES
from bonelib.workflow import runs

from .test_models import PARAMETERS

COMMANDS = (
    "inspect", "segment", "models", "convert", "prepare", "train", "evaluate", "score", "pretrain",
)  # fmt: skip

WITHOUT_KERAS = """
import sys
from bonelib.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
sys.exit(code or ("keras" in sys.modules) * 77)
"""


def without_keras(*arguments) -> str:
    """Call the command in a process of its own and return what it prints; Keras stays out."""
    command = [sys.executable, "-c", WITHOUT_KERAS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(capsys, *arguments) -> str:
    """Call the command in vain and return what it complains of."""
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(list(map(str, arguments))))
    assert stopped.value.code == 2
    return capsys.readouterr().err


# Help


def test_the_help_is_one_screen_with_three_examples():
    text = without_keras("--help")
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert re.findall(r"^    ([a-z]+)  +\w", text, re.MULTILINE) == list(COMMANDS)
    assert len(re.findall(r"^  python -m bonelib \w+", text, re.MULTILINE)) == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_is_for_and_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    (example,) = re.findall(r"example:\n  python -m bonelib (.+)", text)
    options = __main__.parse(example.split())  # what is shown, is understood
    assert options.command == name
    description = text.split("\n\n")[1]
    assert description[0].isupper() and description.endswith(".") and len(description) > 20


def test_help_does_not_wait_for_keras():
    assert "--keep-identity" in without_keras("segment", "--help")


def test_the_steps_that_can_be_left_out_are_those_that_there_are():
    assert tuple(postprocess.STEPS) == __main__.STEPS


# Networks


def test_the_networks_are_listed_with_their_parameters_and_weights():
    lines = without_keras("models").splitlines()
    rows = {
        line.split()[0]: line for line in lines if line.split()[:1] in [[n] for n in MODEL_NAMES]
    }
    for name in MODEL_NAMES:
        assert f" {PARAMETERS[name][0]:,} " in rows[name]
        assert rows[name].endswith("shipped") == (WEIGHTS / f"{name}.keras").exists()
    assert rows["unet"].endswith("shipped")
    (told,) = (line for line in lines if line.startswith("unet, trained: "))
    assert "mid-thigh to the lower lumbar spine" in told
    assert f"model card: {WEIGHTS / 'unet.md'}" in lines


# From a data set to scores

SMALL = ("--profile", "smoke", "--set", "epochs=1", "epochs_long=2", "steps_per_epoch=1")


@pytest.fixture
def small(write_dataset, tmp_path):
    """The options of a run on three tiny series, and its folders."""
    options = ["--dataset", "folder", "--data", str(write_dataset()), *SMALL]
    options += ["--results", str(tmp_path / "results")]
    run = runs.run_of(__main__.parse(["prepare", *options]))
    return options, run


def test_a_network_is_prepared_for_trained_and_evaluated(small, capsys):
    options, run = small
    assert main(["prepare", *options]) == 0
    said = capsys.readouterr().out
    assert "| train      |        1 |        6 |" in said and str(run.slices.root) in said
    assert len(pd.read_csv(run.slices.table)) == 18

    assert main(["train", *options]) == 0
    said = capsys.readouterr().out
    assert "best of 2 epochs" in said and str(run.results.training("unet")) in said
    assert len(pd.read_csv(run.results.history("unet"))) == 2
    assert main(["train", *options]) == 0
    assert "unet is trained already" in capsys.readouterr().out

    assert main(["evaluate", *options]) == 0
    table = capsys.readouterr().out
    assert run.results.scores("unet").exists() and str(run.results.scores("unet")) in table
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert header[-4:] == ["mean", "background", "patient", "bone"]
    assert {row[1] for row in rows} == {"1", "2"}  # the epochs of both tables
    assert all(0 <= float(row[-2]) <= 100 for row in rows)


def test_the_baseline_needs_no_training(small, capsys):
    options, run = small
    assert main(["prepare", *options]) == 0
    assert main(["evaluate", "--model", "threshold", *options]) == 0
    assert "threshold" in capsys.readouterr().out
    assert run.results.scores("threshold").exists()


def test_what_is_not_prepared_or_trained_yet_is_said_in_one_line(small, capsys):
    options, run = small
    for name in ("train", "evaluate"):
        said = complaint(capsys, name, *options)
        assert (
            said
            == f"bonelib: {run.slices.root}: holds no prepared slices; prepare the data first\n"
        )
    assert main(["prepare", *options]) == 0
    capsys.readouterr()
    said = complaint(capsys, "evaluate", "--model", "segnet", *options)
    assert len(said.splitlines()) == 1
    assert "best_of_1.keras: is not there; run `python -m bonelib train --model segnet`" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "--dataset", "fantom"], "unknown data set 'fantom': choose one of phantom"),
        (["prepare", "--dataset", "folder"], "--data DIR"),
        (["prepare", "--set", "epochs"], "'epochs' is not SETTING=VALUE"),
        (["train", "--set", "epoch=3"], "unknown setting 'epoch'"),
        (["pretrain", "--set", "epochs"], "'epochs' is not SETTING=VALUE"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    said = complaint(capsys, *arguments)
    assert said.startswith("bonelib: ") and words in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--model", "u-net"], "invalid choice: 'u-net'"),
        (["segment", "ct"], "required: -o/--output"),
        (["segment", "ct", "-o", "out", "--without", "holse"], "invalid choice: 'holse'"),
        (["segment", "ct", "-o", "out", "--triangles", "0"], "takes a number from 1, not '0'"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_what_is_possible(arguments, words, capsys):
    assert words in complaint(capsys, *arguments)


# One scan

RECORD = {
    "volumes_ml": {"bone": 1234.56, "femur_left": 321.04},
    "areas_cm2": {"bone": 2345.6, "femur_left": 432.1},
    "mean_hu": {"bone": 345.4, "femur_left": 400.6},
    "seconds": {"reading": 1.25, "predicting": 20.0},
    "notes": ["no DICOM SEG was written, since the scan is a volume"],
    "files": ["segmentation.nii.gz", "bone.stl"],
}


@pytest.fixture
def segmented(monkeypatch):
    """Stand in for the segmentation, which has tests of its own; return its arguments."""
    calls = []

    def segment(path, directory, options=None, progress=None):
        calls.append((path, directory, options))
        progress("reading", 0, 1)  # and no more, as of what cannot tell
        time.sleep(0.6)
        progress("predicting", 0, 30)
        time.sleep(0.6)
        progress("predicting", 30, 30)
        return RECORD

    monkeypatch.setattr(segmentation, "segment", segment)
    return calls


def test_a_scan_is_segmented_and_told_of(segmented, capsys, tmp_path):
    assert main(["segment", "my_ct", "-o", str(tmp_path / "out")]) == 0
    ((path, directory, options),) = segmented
    assert (str(path), directory) == ("my_ct", tmp_path / "out")
    assert options == segmentation.Options()
    out, err = capsys.readouterr()
    assert "bone                1234.6 ml    2345.6 cm2     345 HU" in out
    assert "femur left           321.0 ml     432.1 cm2     401 HU" in out
    assert "reading 1.2, predicting 20.0" in out or "reading 1.3, predicting 20.0" in out
    assert "note: no DICOM SEG was written" in out
    assert f"in {tmp_path / 'out'}: segmentation.nii.gz, bone.stl" in out
    assert re.search(r"reading.*100%.*1/1", err) and re.search(r"predicting.*100%.*30/30", err)


def test_a_scan_that_is_not_there_is_one_line_and_no_file(capsys, tmp_path):
    said = complaint(capsys, "segment", tmp_path / "ct", "-o", tmp_path / "out")
    assert said.startswith(f"bonelib: {tmp_path / 'ct'}: there is no such file or folder; ")
    assert len(said.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_stands_beside_what_is_wrong(tmp_path):
    """Not what TensorFlow writes past Python when it is imported, either."""
    command = [sys.executable, "-m", "bonelib", "segment", tmp_path / "ct", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bonelib: ") and "there is no such file or folder" in line


def test_the_options_of_a_segmentation_arrive(segmented, tmp_path):
    arguments = (
        "segment my_ct -o out --series 4 --model segnet --weights w.keras --bones --roi "
        "--without smooth holes --triangles 5000 --keep-identity"
    )
    assert main(arguments.split()) == 0
    ((_, _, options),) = segmented
    assert (options.series, options.model, str(options.weights)) == ("4", "segnet", "w.keras")
    assert options.bones and options.roi and options.keep_identity
    assert options.max_triangles == 5000
    assert options.steps == ("metal", "islands", "outline")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "bonelib: stopped; no file is left half-written"),
        (InputError("my_ct: is torn; glue it"), 2, "bonelib: my_ct: is torn; glue it"),
        (OSError(28, "No space left on device", "out/bone.stl"), 2,
         "bonelib: out/bone.stl: No space left on device; check space and rights"),
        (MemoryError(), 2, "bonelib: not enough memory; crop the scan or use a larger machine"),
    ],
)  # fmt: skip
def test_a_segmentation_that_ends_early_is_one_line_after_its_bar(
    monkeypatch, capsys, error, code, said
):
    def segment(path, directory, options=None, progress=None):
        progress("reading", 1, 2)
        raise error

    monkeypatch.setattr(segmentation, "segment", segment)
    assert main(["segment", "my_ct", "-o", "out"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_what_was_repaired_is_a_note_beside_the_bar(monkeypatch, capsys):
    def segment(path, directory, options=None, progress=None):
        import warnings

        progress("reading", 1, 2)
        warnings.warn("the gantry's tilt is corrected", InputWarning, stacklevel=2)
        return RECORD

    monkeypatch.setattr(segmentation, "segment", segment)
    assert main(["segment", "my_ct", "-o", "out"]) == 0
    assert "note: the gantry's tilt is corrected\n" in capsys.readouterr().err
