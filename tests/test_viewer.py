import base64
import html
import io
import re

import numpy as np
import pytest
import trimesh
from matplotlib.colors import to_rgb

from bonelib.segment import surfaces, viewer


def box(centre, size=(20.0, 14.0, 8.0)):
    return trimesh.creation.box(size, trimesh.transformations.translation_matrix(centre))


def scene_of(page):
    """The scene that a page holds, read back."""
    data = re.search('base64_data="([^"]*)"', page)[1]
    return trimesh.load_scene(io.BytesIO(base64.b64decode(data)), file_type="glb")


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
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                         [-np.sin(angle), 0, np.cos(angle)]])  # fmt: skip
        x, y, z = np.abs(turn @ corners.T) * [[1], [1], [-1]]  # the corners nearest to the eye
        shares.append(max((y / (eye + z)).max(), (x / (eye + z)).max() / viewer.LEAST_ASPECT))
    assert 0.6 < max(shares) / slope < 1.1


def test_one_surface_is_bone_coloured_and_several_differ():
    (alone,) = scene_of(viewer.surface_page({"bone": box((0, 0, 0))}, "Bone")).geometry.values()
    colour = np.array(alone.visual.material.baseColorFactor[:3], float)
    assert colour / colour.max() == pytest.approx(
        np.array(to_rgb(surfaces.BONE_COLOUR)) / max(to_rgb(surfaces.BONE_COLOUR)), abs=0.02
    )
    page = viewer.surface_page({f"bone {n}": box((30 * n, 0, 0)) for n in range(9)}, "Bones")
    colours = {
        tuple(surface.visual.material.baseColorFactor)
        for surface in scene_of(page).geometry.values()
    }
    assert len(colours) == 9
    legend = re.search('<div id="legend".*?</div>', page)[0]
    assert [f"bone {n}" in legend for n in range(9)] == [True] * 9
    assert len(set(re.findall("background: (#[0-9A-F]{6})", legend))) == 9


def test_many_triangles_are_reduced_and_small_bones_keep_theirs():
    large, small = trimesh.creation.icosphere(7, 90.0), trimesh.creation.icosphere(2, 5.0)
    large_faces, small_faces = len(large.faces), len(small.faces)
    page = viewer.surface_page({"large": large, "small": small}, "Bones")
    made = placed(scene_of(page))
    assert len(made["large"].faces) + len(made["small"].faces) <= 1.05 * viewer.PAGE_FACES
    assert len(made["large"].faces) > viewer.PAGE_FACES / 3
    assert len(made["small"].faces) == small_faces
    assert made["large"].extents == pytest.approx([180] * 3, rel=0.01)
    assert len(page) < 3_000_000
    assert len(large.faces) == large_faces  # the caller's own is left alone


def test_shading_is_smooth_and_the_title_is_text():
    page = viewer.surface_page({"ball": trimesh.creation.icosphere(3, 50.0)}, "A <b> & c")
    assert "<title>A &lt;b&gt; &amp; c</title>" in page
    ball = placed(scene_of(page))["ball"]
    outward = np.sum(ball.vertex_normals * ball.vertices, axis=1) / 50
    assert outward.min() > 0.99
    assert len(ball.vertices) == 642  # shared between the triangles


def test_a_page_asks_for_nothing_and_a_frame_holds_it_whole():
    surfaces = {"bone": box((0, 0, 0))}
    page = viewer.surface_page(surfaces, "Bone")
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    frame = viewer.surface_frame(surfaces, "Bone")
    document = re.fullmatch('<iframe [^>]*srcdoc="([^"]*)"></iframe>', frame)[1]
    assert html.unescape(document) == page
