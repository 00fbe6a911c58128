"""The order of modules, the pairs of notebooks, and the files that pin versions."""

import json
import re
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

import bonelib
from bonelib import models, provenance
from bonelib.paths import NOTEBOOKS, REPOSITORY
from bonelib.settings import MODEL_NAMES

PACKAGE = REPOSITORY / "bonelib"


def flow() -> list[str]:
    """The modules in the order that the package's docstring states."""
    block = bonelib.__doc__.split("One noun")[0]
    left = (line[4:23] for line in block.splitlines() if line.startswith("    "))
    return [name.strip("/") for part in left for name in re.findall(r"[a-z_]+/?", part)]


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py"]


def module_name(path: Path) -> str:
    """The name in the flow: a package stands for all its files."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_package_stays_small():
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert sum(lines.values()) <= 14_860 and len(lines) <= 85  # the aim: 13,000 in 85
    assert max(lines.values()) <= 400, max(lines, key=lines.get)
    tests = (REPOSITORY / "tests").rglob("*.py")
    assert sum(len(path.read_text().splitlines()) for path in tests) <= 10_750  # the aim: 9,000


def test_no_two_modules_have_one_name():
    names = Counter(path.name for path in modules() if path.name != "__init__.py")
    assert max(names.values()) == 1, names.most_common(1)


def test_no_modules_import_each_other():
    imports = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(
            ".__init__"
        ): provenance.bonelib_imports(path.read_text())
        for path in modules()
    }
    # A package's __init__ may offer what its own modules define.
    graph = {
        name: {one for one in imported if one in imports and not f"{one}.".startswith(f"{name}.")}
        for name, imported in imports.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_docstring_names_every_module():
    assert set(flow()) == {module_name(path) for path in modules()} - {"__init__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_above_it(path):
    order = {name: position for position, name in enumerate(flow())}
    own = module_name(path)
    imported = {name.split(".")[1] for name in provenance.bonelib_imports(path.read_text())}
    below = {name for name in imported - {own} if order[name] > order.get(own, -1)}
    assert not below


def test_only_augment_imports_imgaug_and_nothing_imports_tensorflow():
    for path in modules():
        imports = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        assert "tensorflow" not in imports, path
        assert "imgaug" not in imports or path.parent.name == "augment", path


def test_the_model_names_are_the_registered_ones():
    assert tuple(models.MODELS) == MODEL_NAMES


NOTEBOOK_FILES = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_every_notebook_has_its_pair():
    assert len(NOTEBOOK_FILES) == 11
    assert {path.stem for path in NOTEBOOK_FILES} == {
        path.stem for path in (NOTEBOOKS / "py").glob("*.py")
    }


@pytest.mark.parametrize("path", NOTEBOOK_FILES, ids=lambda path: path.stem)
def test_a_notebook_and_its_pair_say_the_same(path):
    notebook = nbformat.read(path, as_version=4)
    script = jupytext.read(NOTEBOOKS / "py" / f"{path.stem}.py")

    def essence(cells):
        return [
            (cell.cell_type, cell.source, sorted(cell.metadata.get("tags", []))) for cell in cells
        ]

    assert essence(notebook.cells) == essence(script.cells), "run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOK_FILES, ids=lambda path: path.stem)
def test_a_notebook_tells_and_the_package_does(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        assert not re.search(r"^\s*(def|class|if) ", cell.source, re.MULTILINE), cell.source
        assert len(cell.source.splitlines()) <= 12, cell.source
        assert cell.execution_count, "outputs are missing: run `make notebooks`"
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    opening = notebook.cells[0].source
    assert opening.startswith("# ") and "?**" in opening
    assert "*Reads*" in opening and "*Writes*" in opening


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_project_and_environment_agree():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert all(re.match(r"[\w.-]+==\S+( ; .+)?$", line) for line in lines)
    locked = {canonical(line.split("==")[0]) for line in lines}
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert {canonical(re.match(r"[\w.-]+", line)[0]) for line in asked} <= locked

    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    for file in ("environment.yml", ".binder/environment.yml"):
        environment = yaml.safe_load((REPOSITORY / file).read_text())["dependencies"]
        python = next(entry for entry in environment if entry.startswith("python="))
        assert int(low) <= int(python.removeprefix("python=3.")) < int(high)


def test_every_citation_names_the_same_version_title_and_date():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    zenodo, codemeta = (
        json.loads((REPOSITORY / name).read_text()) for name in (".zenodo.json", "codemeta.json")
    )
    versions = {entry["version"] for entry in (citation, zenodo, codemeta)}
    assert versions == {bonelib.__version__} and zenodo["title"] == citation["title"]
    dates = {str(citation["date-released"]), zenodo["publication_date"], codemeta["dateModified"]}
    assert len(dates) == 1
