import pytest

from bonelib import provenance


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    provenance.write_json(path, {"number": 1})
    with pytest.raises(RuntimeError), provenance.replacing(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert provenance.read_json(path) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_code_files_follow_imports():
    found = provenance.code_files("from bonelib import preparation")
    files = {path.relative_to(provenance.PACKAGE).as_posix() for path in found}
    assert {"preparation.py", "scans/dicom.py", "labels/body.py", "settings.py"} <= files
    assert not {"figures/paper.py", "training.py", "tables/render.py"} & files
    whole = {path.name for path in provenance.code_files("import bonelib.models")}
    assert {"__init__.py", "unet.py", "fcn.py"} <= whole
    tables = {path.name for path in provenance.code_files("import bonelib.phantom.anatomy")}
    assert {"anatomy.yaml", "skeleton.yaml", "tissues.csv"} <= tables


def test_a_package_that_is_absent_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES_OF_NOTE", ("numpy", "no-such-package"))
    assert set(provenance.versions()) == {"python", "numpy"}
