"""What `segment` draws of its result: surface.html and preview.png."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
import trimesh
from matplotlib.colors import to_rgb

from bonelib.figures.style import BONE_COLOUR
from bonelib.segment import surfaces, viewer
from bonelib.settings import BONE, PATIENT, RESEARCH_ONLY


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
    legend = re.search('<div id="legend".*?</div>', page, re.DOTALL)[0]
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
    assert "<title>A &lt;b&gt; &amp; c</title>" in page and RESEARCH_ONLY in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)  # complete in itself


@pytest.mark.parametrize("surface", [{}, {"bone": trimesh.creation.box([48, 48, 80])}])
def test_the_preview_shows_slices_planes_and_views(make_image, surface):
    row, column = np.mgrid[:60, :80]
    distance = np.hypot(row - 30, column - 40)
    classes = np.where(distance < 8, BONE, np.where(distance < 25, PATIENT, 0))
    labels = np.broadcast_to(classes, (20, 60, 80)).astype(np.uint8)
    image_hu = np.array([-1000, 50, 900], np.int16)[labels]
    figure = surfaces.draw_preview(
        make_image(image_hu, (4, 3, 3)), make_image(labels, (4, 3, 3)), surface
    )
    upper, lower = (part.axes for part in figure.subfigs)
    assert len(upper) == 10 and len(lower[0].collections) == 1  # the patient fills the picture
    titles = ["coronal", "sagittal", *["from the front", "from the left"] * len(surface)]
    assert [axes.get_title() for axes in lower] == titles
    assert figure.get_suptitle() == RESEARCH_ONLY
    # Without the air around the patient, of 49 x 49 pixels.
    assert lower[0].get_xlim() == (0, 3 * 49) and lower[0].get_ylim() == (0, 4 * 20)
