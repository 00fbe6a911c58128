"""What `make clean` and its variants remove of a made-up tree, and what they leave."""

import shutil
import subprocess

import pytest

from bonelib import paths
from bonelib.paths import REPOSITORY
from bonelib.settings import PROFILES

OF_A_KIND = {
    "results": ["results/smoke/report.html", "results/my run/models/unet/best_of_10.keras"],
    "prepared": ["data/prepared/smoke/phantom/slices.csv", "data/raw/phantom-quick/split.csv"],
    "caches": [
        "bonelib/models/__pycache__/unet.pyc", "notebooks/.ipynb_checkpoints/05_tables.ipynb",
        ".pytest_cache/README.md", ".ruff_cache/CACHEDIR.TAG", ".hypothesis/examples/one",
    ],
    "env": [".venv/lib/__pycache__/package.pyc", "bonelib.egg-info/PKG-INFO"],
}  # fmt: skip
NEVER = [
    "Makefile", "README.md", "data/README.md", "bonelib/paths.py", "my_bones/bone.stl",
    "data/raw/my scans/split.csv", "data/raw/my scans/__pycache__/kept", "data/raw/phantom-mine/ct",
    "data/raw/pengwin/part1.zip", "results/reference/manifest.json",
]  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Call make in a folder with files of every kind; return what it prints and what is left."""
    for name in [*sum(OF_A_KIND.values(), []), *NEVER]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("something\n")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)

    def call(target):
        run = subprocess.run(
            ["make", target], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        return run.stdout, left

    return call


def test_clean_says_how_much_there_is_and_each_kind_is_removed_alone(make):
    said, left = make("clean")
    assert left == {*sum(OF_A_KIND.values(), []), *NEVER}
    for kind, files in OF_A_KIND.items():
        line = next(line for line in said.splitlines() if line.endswith(f"make clean-{kind}"))
        assert not line.split()[0].startswith("0")
        before, left = left, make(f"clean-{kind}")[1]
        assert before - left == set(files)
    assert make("clean-all")[1] == set(NEVER)  # nothing left of a kind is no error


def test_the_makefile_knows_every_profile():
    lines = (REPOSITORY / "Makefile").read_text().splitlines()
    assert f"PROFILES := {' '.join(PROFILES)}" in lines
    assert paths.raw_phantom("smoke").relative_to(REPOSITORY).as_posix() == "data/raw/phantom-smoke"
