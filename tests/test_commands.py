"""The commands as a newcomer calls them: help, one scan, errors in one line."""

import re
import subprocess
import sys
import tomllib
import warnings
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import EntryPoint

import pytest
import SimpleITK

import bonelib
from bonelib import __main__
from bonelib import segment as segmentation
from bonelib.__main__ import main
from bonelib.errors import InputError, InputWarning
from bonelib.paths import REPOSITORY

from . import hospital

NO_MEMORY = "bonelib: not enough memory; crop the scan or use a larger machine"
COMMANDS = ("inspect", "segment", "convert", "pretrain")

HELP = """
import sys
from bonelib import segment  # whose network is loaded in a process of its own
from bonelib.__main__ import main
try:
    main(["--help"])
finally:
    assert "keras" not in sys.modules
"""


def test_the_help_is_one_screen_and_does_not_wait_for_keras():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert re.findall(r"^    ([a-z]+)  +\w", done.stdout, re.MULTILINE) == list(COMMANDS)
    assert len(re.findall(r"^  python -m bonelib \w+", done.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_is_for_and_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    (example,) = re.findall(r"example:\n  python -m bonelib (.+)", text)
    options = __main__.parse(example.split())  # the example is valid
    assert options.command == name
    description = text.split("\n\n")[1]
    assert description[0].isupper() and description.endswith(".") and len(description) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segmnt"], "unknown command 'segmnt': did you mean 'segment'? choose one of inspect, "),
        (["segment", "ct", "-o", "out", "--model", "u-net"], "did you mean 'unet'?"),
        (["convert", "pengwn", "a", "b"], "did you mean 'pengwin'?"),
        (["segment", "ct"], "required: -o/--output"),
        (["pretrain", "--phantoms", "0"], "a whole number from 1"),
        (["pretrain", "--set", "epochs"], "'epochs' is not SETTING=VALUE"),
        (["pretrain", "--set", "epoch=1"], "did you mean 'epochs'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(arguments))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_the_installed_command_is_the_module_and_knows_its_version(capsys):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    command = EntryPoint("bonelib", project["scripts"]["bonelib"], "console_scripts").load()
    assert command is main
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"bonelib {bonelib.__version__}\n"


def test_inspect_describes_a_scan_and_its_mask_and_saves_it(tmp_path, make_image, trunk_hu, capsys):
    for name, array in (("ct", trunk_hu), ("mask", (trunk_hu > 500).astype("uint8"))):
        SimpleITK.WriteImage(make_image(array, (5, 4, 4)), str(tmp_path / f"{name}.nrrd"))
    saved = tmp_path / "saved.nii.gz"
    arguments = ["inspect", tmp_path / "ct.nrrd", "--mask", tmp_path / "mask.nrrd", "-o", saved]
    assert main(list(map(str, arguments))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "scan: 72 columns x 64 rows x 6 slices, voxels of 4 x 4 x 5 mm, 288 x 256 x 30 mm in all"
    )
    assert lines[1] == "HU: -1000 to 700"
    assert lines[2] == "patient: 874 ml, median 40 HU"
    assert lines[3] == "mask: id 1, bone: 38.4 ml, mean 700 HU"
    assert lines[-1] == f"saved to {saved}"
    assert SimpleITK.ReadImage(str(saved)).GetSize() == (72, 64, 6)


RECORD = {
    "volumes_ml": {"bone": 1234.56, "femur_left": 321.04},
    "areas_cm2": {"bone": 2345.6, "femur_left": 432.1},
    "mean_hu": {"bone": 345.4, "femur_left": 400.6},
    "seconds": {"reading": 1.26, "predicting": 20.0},
    "notes": ["no DICOM SEG was written: no slice shows a bone"],
    "files": ["segmentation.nii.gz", "bone.stl"],
}


@pytest.fixture
def replace_segment(monkeypatch):
    """Replace the segmentation, which has tests of its own; return its arguments."""

    def replace(action):
        calls = []

        def segment(*arguments, apart):
            assert apart  # the network in a process of its own
            calls.append(arguments)
            arguments[-1]("reading", 1, 2)
            action()
            return RECORD

        monkeypatch.setattr(segmentation, "segment", segment)
        return calls

    return replace


def test_a_scan_is_segmented_and_summarised(replace_segment, capsys, tmp_path):
    calls = replace_segment(
        lambda: warnings.warn("the tilt is corrected", InputWarning, stacklevel=2)
    )
    weights = tmp_path / "w.keras"
    weights.touch()
    options = f"--series 4 --model segnet --weights {weights} --bones --overwrite"
    assert main(["segment", "my_ct", "-o", "out", *options.split()]) == 0
    ((path, directory, network, *rest, _),) = calls
    assert (str(path), str(directory), rest) == ("my_ct", "out", ["4", True, True])
    assert (network.name, network.weights) == ("segnet", weights)
    out, error = capsys.readouterr()
    assert "note: the tilt is corrected\n" in error
    out = out.splitlines()
    assert out[0].split() == ["bone", "1234.6", "ml", "2345.6", "cm2", "345", "HU"]
    assert out[1].split() == ["femur", "left", "321.0", "ml", "432.1", "cm2", "401", "HU"]
    assert out[2:] == [
        "seconds: reading 1.3, predicting 20.0",
        "note: no DICOM SEG was written: no slice shows a bone",
        "files in out: segmentation.nii.gz, bone.stl",
    ]


def test_nothing_is_printed_beside_an_error(tmp_path):
    """Not even what TensorFlow prints when it is imported."""
    command = [sys.executable, "-m", "bonelib", "segment", tmp_path / "ct", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"bonelib: {tmp_path / 'ct'}: there is no such file or folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "bonelib: stopped; no file is left half-written"),
        (InputError("my_ct: is torn; glue it"), 2, "bonelib: my_ct: is torn; glue it"),
        (OSError(28, "No space left on device", "out/bone.stl"), 2,
         "bonelib: out/bone.stl: No space left on device; check space and rights"),
        (MemoryError(), 2, NO_MEMORY),
        (BrokenProcessPool(), 2, NO_MEMORY),  # the system ended the network's process
    ],
)  # fmt: skip
def test_a_segmentation_that_ends_early_is_one_line(replace_segment, capsys, error, code, said):
    def fail():
        raise error

    replace_segment(fail)
    assert main(["segment", "my_ct", "-o", "out"]) == code
    assert capsys.readouterr().err.splitlines() == [said]


def test_commands_write_and_print_nothing_of_the_header(tmp_path, capsys):
    """The DICOM SEG, which needs some UIDs, is tested with its module."""
    data = hospital.write_hospital(tmp_path / "data")
    made = tmp_path / "made"
    made.mkdir()
    for scan in ("a/ct", "b/ct", "c/ct.nii.gz"):
        saved = made / f"{scan[0]}.nrrd"
        assert main(["inspect", str(data / scan), "-o", str(saved)]) == 0
    assert main(["segment", str(data / "a" / "ct"), "-o", str(made / "a")]) == 0
    (made / "a" / "segmentation.dcm").unlink(missing_ok=True)
    hospital.assert_silent("".join(capsys.readouterr()), made)
