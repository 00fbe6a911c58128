"""What `make clean` and its variants remove of a made-up tree, and what they leave."""

import shutil
import subprocess

import pytest

from bonelib import paths
from bonelib.paths import REPOSITORY
from bonelib.settings import PROFILES

OF_A_KIND = {
    "results": ["results/smoke/report.html", "results/my run/models/unet/best_of_10.keras"],
    "prepared": [
        "data/prepared/smoke/phantom/slices.csv",
        "data/raw/phantom-quick/split.csv",
    ],
    "caches": [
        "bonelib/__pycache__/paths.pyc",
        "bonelib/models/__pycache__/unet.pyc",
        "notebooks/.ipynb_checkpoints/05_tables.ipynb",
        ".pytest_cache/README.md",
        ".ruff_cache/CACHEDIR.TAG",
        ".hypothesis/examples/one",
    ],
    "env": [".venv/lib/__pycache__/package.pyc", "bonelib.egg-info/PKG-INFO"],
}
NEVER = [
    "Makefile", "README.md", "data/README.md", "bonelib/paths.py", "my_bones/bone.stl",
    "data/raw/my scans/split.csv", "data/raw/my scans/__pycache__/kept", "data/raw/phantom-mine/ct",
    "data/raw/pengwin/part1.zip", "results/reference/manifest.json",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    """A folder with the Makefile and files of every kind."""
    for name in [*sum(OF_A_KIND.values(), []), *NEVER]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("something\n")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    return tmp_path


def make(tree, *targets) -> str:
    run = subprocess.run(["make", *targets], cwd=tree, capture_output=True, text=True, check=True)
    return run.stdout


def files(tree) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", OF_A_KIND)
def test_a_kind_is_removed_and_nothing_else(tree, kind):
    before = files(tree)
    make(tree, f"clean-{kind}")
    assert before - files(tree) == set(OF_A_KIND[kind])
    make(tree, f"clean-{kind}")  # nothing left is no error


def test_clean_all_leaves_the_user_s_files(tree):
    make(tree, "clean-all")
    assert files(tree) == set(NEVER)


def test_clean_says_how_much_there_is_of_each_kind_and_removes_nothing(tree):
    before = files(tree)
    said = make(tree, "clean")
    assert files(tree) == before
    for kind in OF_A_KIND:
        line = next(line for line in said.splitlines() if line.endswith(f"make clean-{kind}"))
        assert not line.split()[0].startswith("0")


def test_the_makefile_knows_every_profile():
    text = (REPOSITORY / "Makefile").read_text()
    said = {
        name: value.split()
        for name, _, value in (line.partition(" := ") for line in text.splitlines())
    }
    assert said["PROFILES"] == list(PROFILES)
    assert paths.raw_phantom("smoke").relative_to(REPOSITORY).as_posix() == "data/raw/phantom-smoke"
