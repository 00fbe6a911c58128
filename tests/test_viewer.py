"""What `segment` draws of its result: surface.html and preview.png."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
import SimpleITK
import trimesh
from matplotlib.colors import to_rgb

from bonelib.figures.style import BONE_COLOUR
from bonelib.segment import overview, viewer
from bonelib.settings import BONE, PATIENT

PANELS = 10  # of axial slices


def box(centre, size=(20.0, 14.0, 8.0)):
    return trimesh.creation.box(size, trimesh.transformations.translation_matrix(centre))


def scene_of(page):
    """The scene that a page holds, read back."""
    data = re.search('base64_data="([^"]*)"', page)[1]
    return trimesh.load_scene(io.BytesIO(b64decode(data)), file_type="glb")


def placed(scene):
    """The meshes of a scene by name, where they stand in the page."""
    made = {}
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        made[name] = scene.geometry[name].copy().apply_transform(transform)
    return made


def test_the_patient_stands_upright_and_faces_the_viewer():
    page = viewer.surface_page(
        {"left": box((40, 0, 0)), "head": box((0, 0, 40)), "front": box((0, -40, 0))}, "Bones"
    )
    made = placed(scene_of(page))
    sizes = {name: np.round(surface.extents, 3).tolist() for name, surface in made.items()}
    assert sizes == dict.fromkeys(("left", "head", "front"), [20.0, 8.0, 14.0])
    middle = {name: surface.bounds.mean(axis=0) for name, surface in made.items()}
    # The page's axes: right, up, towards the viewer. 40 mm apart, as in the patient.
    assert middle["left"] - middle["front"] == pytest.approx([40, 0, -40], abs=1e-3)
    assert middle["head"] - middle["front"] == pytest.approx([0, 40, -40], abs=1e-3)
    for surface in made.values():
        assert surface.volume == pytest.approx(20 * 14 * 8, rel=1e-4)  # not mirrored


@pytest.mark.parametrize("size", [(400, 90, 60), (90, 90, 400), (90, 400, 90)])
def test_a_surface_is_centred_and_stays_in_view_as_it_turns(size):
    scene = scene_of(viewer.surface_page({"bone": box((500, -300, 900), size)}, "Bone"))
    corners = placed(scene)["bone"].vertices
    assert corners.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-3)
    right, up, eye = scene.camera_transform[:3, 3]
    assert (right, up) == pytest.approx((0, 0))
    slope = np.tan(np.radians(viewer.FIELD_OF_VIEW_DEGREES / 2))
    shares = []
    for angle in np.radians(range(0, 360, 15)):
        turn = trimesh.transformations.rotation_matrix(angle, (0, 1, 0))[:3, :3]
        x, y, z = np.abs(turn @ corners.T) * [[1], [1], [-1]]  # the corners nearest to the eye
        shares.append(max((y / (eye + z)).max(), (x / (eye + z)).max() / viewer.MIN_ASPECT))
    assert 0.6 < max(shares) / slope < 1.1


def test_one_surface_is_bone_coloured_and_several_differ():
    (alone,) = scene_of(viewer.surface_page({"bone": box((0, 0, 0))}, "Bone")).geometry.values()
    colour = np.array(alone.visual.material.baseColorFactor[:3], float)
    expected = np.array(to_rgb(BONE_COLOUR))
    assert colour / colour.max() == pytest.approx(expected / expected.max(), abs=0.02)
    page = viewer.surface_page({f"bone {n}": box((30 * n, 0, 0)) for n in range(9)}, "Bones")
    colours = {
        tuple(one.visual.material.baseColorFactor) for one in placed(scene_of(page)).values()
    }
    legend = re.search('<div id="legend".*?</div>', page)[0]
    assert [f"bone {n}" in legend for n in range(9)] == [True] * 9
    assert len(colours) == len(set(re.findall("background: (#[0-9A-F]{6})", legend))) == 9


def test_many_triangles_are_reduced_smoothly_and_small_bones_keep_theirs():
    large, small = trimesh.creation.icosphere(7, 90.0), trimesh.creation.icosphere(2, 5.0)
    page = viewer.surface_page({"large": large, "small": small}, "A <b> & c")
    made = placed(scene_of(page))
    assert len(made["large"].faces) + len(made["small"].faces) <= 1.05 * viewer.MAX_TRIANGLES
    assert len(made["large"].faces) > viewer.MAX_TRIANGLES / 3
    assert len(made["small"].faces) == len(small.faces)
    assert made["large"].extents == pytest.approx([180] * 3, rel=0.01)
    centred = made["large"].vertices - made["large"].bounds.mean(axis=0)
    assert (np.sum(made["large"].vertex_normals * centred, axis=1) / 90).min() > 0.98
    assert len(page) < 3_000_000
    assert "<title>A &lt;b&gt; &amp; c</title>" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)  # complete in itself


@pytest.fixture
def thigh(make_image):
    """A function from a number of slices to a scan of a thigh and its label map."""

    def make(slices):
        row, column = np.mgrid[:60, :80]
        distance = np.hypot(row - 30, column - 40)
        classes = np.where(distance < 8, BONE, np.where(distance < 25, PATIENT, 0))
        labels = np.broadcast_to(classes, (slices, 60, 80)).astype(np.uint8)
        image_hu = np.array([-1000, 50, 900], np.int16)[labels]
        scan = make_image(image_hu, (4, 3, 3))
        label_map = SimpleITK.GetImageFromArray(labels)
        label_map.CopyInformation(scan)
        return scan, label_map

    return make


def test_the_preview_is_as_high_as_what_it_shows(thigh):
    heights = {}
    for slices in (3, 40, 400):
        surface = trimesh.creation.box([48, 48, 4 * slices])
        figure = overview.draw_overview(*thigh(slices), surface)
        assert len([axes for part in figure.subfigs for axes in part.axes]) == PANELS + 4
        heights[slices] = figure.get_size_inches()[1]
    assert heights[3] < heights[40] == heights[400] < overview.WIDTH_INCHES


def test_without_a_surface_the_preview_leaves_out_its_views(thigh):
    figure = overview.draw_overview(*thigh(20), None)
    assert [axes.get_title() for axes in figure.subfigs[1].axes] == ["coronal", "sagittal"]
    outlines = figure.subfigs[1].axes[0].collections
    assert len(outlines) == 2 and len(figure.subfigs[0].axes) == PANELS
