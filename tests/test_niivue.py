"""The viewer's widgets without a browser: what they send, and that they keep it until then."""

import io

import ipywidgets
import numpy as np
import pytest
import SimpleITK
import trimesh

from bonelib.figures import niivue
from bonelib.figures.style import BONE_COLOUR, CLASS_COLOURS


def parts(widget, kind):
    """A widget and all that it holds, of one kind."""
    found = [widget] if isinstance(widget, kind) else []
    return found + [one for child in getattr(widget, "children", ()) for one in parts(child, kind)]


def named(widget, description):
    (found,) = [
        part
        for part in parts(widget, ipywidgets.Widget)
        if getattr(part, "description", "") == description
    ]
    return found


def attach(widget):
    """What a browser reports once it has drawn the widget's canvas."""
    (viewer,) = parts(widget, niivue.NiiVue)
    viewer._canvas_attached = True
    return viewer


def sent(volume, path):
    path.write_bytes(volume.data)
    return SimpleITK.ReadImage(str(path))


@pytest.fixture
def scan(make_image):
    values = np.arange(6 * 20 * 30, dtype=np.int16).reshape(6, 20, 30) - 1000
    return make_image(values, (5, 2, 1))


@pytest.fixture
def label_map(make_image):
    return make_image(np.full((6, 20, 30), 2, np.uint8), (5, 2, 1))


def test_a_scan_is_sent_once_a_browser_shows_it(scan, label_map, tmp_path):
    viewer = niivue.ScanViewer()
    viewer.show(scan, label_map)
    assert parts(viewer, niivue.NiiVue)[0].volumes == []
    inner = attach(viewer)
    image, labels = (sent(volume, tmp_path / "sent.nii.gz") for volume in inner.volumes)
    assert (SimpleITK.GetArrayFromImage(image) == SimpleITK.GetArrayFromImage(scan)).all()
    for made in (image, labels):
        assert made.GetSpacing() == pytest.approx(scan.GetSpacing())
        assert made.GetOrigin() == pytest.approx(scan.GetOrigin())
        assert made.GetDirection() == pytest.approx(scan.GetDirection())
    colours = np.reshape(inner.volumes[1].colormap_label.lut, (-1, 4))
    assert colours[:3, 3].tolist() == [0, 0, 255]
    assert "#" + bytes(colours[2, :3].tolist()).hex().upper() == CLASS_COLOURS[2]
    assert "30 x 20 x 6 voxels of 1 x 2 x 5 mm" in viewer.children[0].children[-1].value
    # Another scan takes its place, without the label map
    viewer.show(scan)
    assert len(inner.volumes) == 1 and named(viewer, "overlay").layout.display == "none"


def test_a_large_scan_loses_columns_and_rows_but_no_slice_and_no_value(
    scan, label_map, monkeypatch, tmp_path
):
    monkeypatch.setattr(niivue, "MAX_VOXELS", 1000)
    viewer = niivue.ScanViewer()
    viewer.show(scan, label_map)
    image, labels = (sent(one, tmp_path / "sent.nii.gz") for one in attach(viewer).volumes)
    assert image.GetSize() == labels.GetSize() == (15, 10, 6)
    assert image.GetSpacing() == pytest.approx((2, 4, 5))
    kept = SimpleITK.GetArrayFromImage(scan)[:, ::2, ::2]
    assert (SimpleITK.GetArrayFromImage(image) == kept).all()


def test_window_and_overlay_reach_the_volumes_and_the_value_is_said(scan, label_map):
    viewer = niivue.ScanViewer()
    viewer.show(scan, label_map)
    image, labels = attach(viewer).volumes
    named(viewer, "window").label = "soft tissue"
    named(viewer, "overlay").value = 0.25
    assert (image.cal_min, image.cal_max, image.opacity) == (-160, 240, 1)
    assert labels.opacity == 0.25
    location = {"event": "location_change", "data": {"values": [{"value": 94.0}, {"value": 2}]}}
    parts(viewer, niivue.NiiVue)[0]._handle_custom_msg(location, [])
    assert "94 HU" in viewer.children[-1].value


def test_surfaces_have_colours_and_boxes_and_stand_as_the_patient(monkeypatch):
    monkeypatch.setattr(niivue, "MAX_TRIANGLES", 2000)
    place = trimesh.transformations.translation_matrix([40, -30, 20])
    surfaces = {"left hip": trimesh.creation.box([20, 14, 8], place)}
    surfaces |= {"ball": trimesh.creation.icosphere(5, 30.0)}
    widget = niivue.view_surfaces(surfaces)
    box, ball = attach(widget).meshes
    shown = trimesh.load(io.BytesIO(box.data), file_type="ply")
    assert shown.bounds.mean(axis=0) == pytest.approx([-40, 30, 20])  # RAS
    assert shown.volume == pytest.approx(20 * 14 * 8)  # not mirrored
    assert len(trimesh.load(io.BytesIO(ball.data), file_type="ply").faces) <= 2000
    assert box.rgba255 != ball.rgba255
    assert [one.description for one in parts(widget, ipywidgets.Checkbox)] == list(surfaces)
    (alone,) = attach(niivue.view_surfaces({"bone": surfaces["ball"]})).meshes
    assert alone.rgba255 == [*bytes.fromhex(BONE_COLOUR[1:]), 255]
    assert "No bone" in niivue.view_surfaces({"bone": trimesh.Trimesh()}).value
