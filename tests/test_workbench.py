import json
import os
import re
import threading

import ipywidgets
import numpy as np
import pytest
import SimpleITK
import trimesh

from bonelib import segment as segmentation
from bonelib.errors import InputError
from bonelib.paths import SegmentationFolder
from bonelib.segment import workbench
from tests.test_niivue import named, parts

RECORD = {
    "volumes_ml": {"patient": 20000.04, "bone": 800.0, "femur_left": 300.0, "speck": 0.1},
    "areas_cm2": {"bone": 1000.0, "femur_left": 400.06},
    "mean_hu": {"bone": 300.0, "femur_left": 350.0, "speck": 20.0},
    "seconds": {"reading": 1.0, "predicting": 2.4},
    "notes": ["a slice was missing & filled"],
}


@pytest.fixture
def scan(make_image, trunk_hu, tmp_path):
    path = tmp_path / "ct.nii.gz"
    SimpleITK.WriteImage(make_image(trunk_hu, (5, 4, 4)), str(path))
    return path


@pytest.fixture
def calls(monkeypatch):
    """Put a stand-in in the place of the segmentation; collect what it was asked for."""
    made = []

    def segment(path, directory, series, bones, overwrite, progress):
        made.append((path, series, bones, overwrite))
        folder = SegmentationFolder(directory)
        image = SimpleITK.ReadImage(str(path))
        progress("predicting", 1, 2)
        folder.bone_surfaces.mkdir(parents=True, exist_ok=True)
        labels = SimpleITK.Cast((image > 500) + (image > -200), SimpleITK.sitkUInt8)
        SimpleITK.WriteImage(labels, str(folder.label_map))
        files = {"segmentation.nii.gz", "bone.stl"}
        names = ("femur_left", "hip_left") if bones else ()
        for file in (folder.surface, *map(folder.bone_surface, names)):
            trimesh.creation.box([20, 20, 20]).export(file)
            files.add(file.relative_to(directory).as_posix())
        folder.record.write_text(json.dumps(RECORD))
        return RECORD | {"files": sorted(files)}

    monkeypatch.setattr(segmentation, "segment", segment)
    return made


def text(bench):
    """All that the controls say."""
    return " ".join(part.value for part in parts(bench.controls, ipywidgets.HTML))


def click(bench, button):
    """Click a button and wait for the thread that it starts."""
    before = set(threading.enumerate())
    named(bench.controls, button).click()
    for thread in set(threading.enumerate()) - before:
        thread.join()


def shown(bench):
    """How many volumes the viewer holds, and what the surface's boxes name."""
    boxes = parts(bench.surface, ipywidgets.Checkbox)
    return len(bench._viewer._volumes), [box.description for box in boxes]


def test_a_scan_is_shown_as_it_is_opened_with_what_was_repaired(scan, tmp_path):
    image = SimpleITK.ReadImage(str(scan), SimpleITK.sitkInt32)
    image.SetSpacing((4, 3, 5))
    image[3, 3, 3] = 40_000
    SimpleITK.WriteImage(image, str(scan))
    bench = workbench.Workbench(scan, tmp_path / "out")
    assert "72 x 64 x 6 voxels of 4 x 3 x 5 mm" in text(bench)
    assert "40000 HU are cut to 32767" in text(bench)
    assert shown(bench) == (1, []) and bench.files.value == ""
    assert not (tmp_path / "out").exists()


def test_segment_shows_what_was_made(scan, calls, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bench = workbench.Workbench(scan, tmp_path / "out")
    record = bench.segment()
    assert record == bench.record and record["volumes_ml"]["bone"] == 800
    assert shown(bench) == (2, ["femur left", "hip left"])
    (table,) = bench.measures.outputs
    rows = re.findall("<tr>(.*?)</tr>", table["data"]["text/html"], re.DOTALL)[1:]
    assert [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows] == [
        ["patient", "20,000.0", "", ""],
        ["bone", "800.0", "1,000.0", "300.0"],
        ["femur left", "300.0", "400.1", "350.0"],
        ["speck", "0.1", "", "20.0"],
    ]
    for name in ("segmentation.nii.gz", "bones/femur_left.stl", "report.json"):
        assert name in bench.files.value
    assert "In out/ct-" in bench.files.value and str(tmp_path) not in bench.files.value
    assert "done in 3 s" in text(bench) and "missing &amp; filled" in text(bench)


def test_a_button_segments_with_the_ticked_options(scan, calls, tmp_path):
    bench = workbench.Workbench(scan, tmp_path / "out")
    named(bench.controls, "single bones").value = False
    click(bench, "Segment")
    assert calls == [(scan, None, False, True)]
    assert shown(bench) == (2, ["bone"])


def test_a_series_is_chosen_by_number(write_series, calls, trunk_hu, tmp_path):
    for number in (1, 2):

        def label(file, _, number=number):
            file.SeriesNumber = number

        part = trunk_hu[: 2 + 2 * number]
        write_series(tmp_path / "ct" / str(number), part, (5, 4, 4), change=label)
    bench = workbench.Workbench(tmp_path / "ct", tmp_path / "out")
    assert "72 x 64 x 4 voxels" in text(bench) and "left out: series 2" in text(bench)
    named(bench.controls, "series").value = "2"
    assert "72 x 64 x 6 voxels" in text(bench)
    named(bench.controls, "series").value = "3"
    assert "has no one series" in text(bench) and "72 x 64 x 6 voxels" in text(bench)
    bench = workbench.Workbench(tmp_path / "ct", tmp_path / "out", series="2")
    assert "72 x 64 x 6 voxels" in text(bench)


def test_a_path_opens_another_scan_in_place_of_the_last_and_its_result(
    scan, calls, make_image, tmp_path
):
    bench = workbench.Workbench(scan, tmp_path / "out")
    bench.segment()
    other = tmp_path / "other.nii.gz"
    SimpleITK.WriteImage(make_image(np.full((4, 20, 20), -500, np.int16)), str(other))
    named(bench.controls, "path").value = f" {other} "
    assert "20 x 20 x 4 voxels" in text(bench) and "done" not in text(bench)
    assert shown(bench) == (1, []) and bench.record == {}
    assert bench.measures.outputs == () and bench.files.value == ""
    bench.segment()
    assert len(list((tmp_path / "out").iterdir())) == 2  # a folder for each scan


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("a/<b>: is no CT; export it again"), "a/&lt;b&gt;: is no CT; export it again"),
        (MemoryError("no room\nfor it"), "MemoryError: no room<"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_a_button_says_in_one_line_what_went_wrong(scan, monkeypatch, tmp_path, error, said):
    bench = workbench.Workbench(scan, tmp_path / "out")

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(segmentation, "segment", refuse)
    button = named(bench.controls, "Segment")
    click(bench, "Segment")
    assert said in text(bench)
    assert not button.disabled and shown(bench) == (1, [])
    with pytest.raises(type(error)):  # a cell of a notebook fails all the same
        bench.segment()


def test_a_path_that_cannot_be_opened_is_not_segmented(scan, calls, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        workbench.Workbench(tmp_path / "nothing", tmp_path / "out")
    bench = workbench.Workbench(scan, tmp_path / "out")
    named(bench.controls, "path").value = str(tmp_path / "nothing")
    assert "no such file or folder" in text(bench) and "72 x 64 x 6 voxels" in text(bench)
    click(bench, "Segment")
    assert "no such file or folder" in text(bench) and calls == []


def test_without_a_scan_the_button_asks_for_one(calls, tmp_path):
    bench = workbench.Workbench(None, tmp_path / "out")
    click(bench, "Segment")
    assert "no scan is chosen" in text(bench) and calls == []


def test_stop_ends_a_segmentation_during_which_nothing_else_can_be_changed(
    scan, calls, monkeypatch, tmp_path
):
    bench = workbench.Workbench(scan, tmp_path / "out")
    stop, path = named(bench.controls, "Stop"), named(bench.controls, "path")

    def segment(*_, progress, **__):
        assert stop.layout.display is None and path.disabled
        progress("predicting", 1, 3)
        assert "predicting: 1 of 3" in text(bench)
        stop.click()
        progress("predicting", 2, 3)
        raise AssertionError("not stopped")

    monkeypatch.setattr(segmentation, "segment", segment)
    click(bench, "Segment")
    assert "stopped; no result was written" in text(bench)
    assert stop.layout.display == "none" and not path.disabled
    assert shown(bench) == (1, [])


def test_files_have_links_where_jupyterlab_serves_them(scan, calls, monkeypatch, tmp_path):
    bench = workbench.Workbench(scan, tmp_path / "my results")
    servers = [
        {"pid": 4711, "root_dir": str(tmp_path), "base_url": "/user/x/"},
        {"pid": 4712, "root_dir": str(tmp_path), "base_url": "/"},
    ]
    monkeypatch.setattr(workbench, "list_running_servers", lambda: iter(servers))
    monkeypatch.setitem(os.environ, "JPY_PARENT_PID", "4711")
    bench.segment()
    place = f"/user/x/files/my%20results/{bench.folder.root.name}/bone.stl?download=1"
    assert f'href="{place}"' in bench.files.value
    servers[0]["root_dir"] = str(tmp_path / "elsewhere")
    bench.segment()
    assert "href" not in bench.files.value and "bone.stl" in bench.files.value
