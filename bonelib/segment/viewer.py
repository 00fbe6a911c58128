"""Surfaces -> an HTML page that turns them with the mouse, complete in one file."""

import html
from collections.abc import Mapping

import numpy as np
import trimesh
from matplotlib.colors import to_rgb
from trimesh.viewer.notebook import scene_to_html
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from bonelib.segment.surfaces import BONE_COLOUR, coarsen

PAGE_FACES = 60_000  # of all surfaces together: a page of less than 3 MB
FRAME_FACES = 12_000  # less in a notebook, which keeps its outputs
LEAST_FACES = 500  # of a single surface: a small bone keeps its shape
FRAME_HEIGHT_PIXELS = 480
HOW_TO_TURN = "Drag: turn. Wheel: nearer, farther. Right button: move."

# Paul Tol's scheme "light": nine colours that colour-blind readers can tell apart, and that
# stay what they are under a lamp.
COLOURS = (
    "#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00",
    "#DDDDDD",
)  # fmt: skip

FIELD_OF_VIEW_DEGREES = 30.0  # upright; a small one distorts little
LEAST_ASPECT = 1.2  # of a window in which nothing is cut off
MARGIN = 1.08
LAMP = 1.75  # of the page; it hangs at the viewer's eye
AMBIENT = 0.22  # share of the light that comes from everywhere
# Patient (x to the left, y to the back, z to the head) -> page (right, up, to the viewer).
UPRIGHT = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])

# What of trimesh's page is replaced.
PAGE_TITLE = "<title>trimesh: threejs viewer</title>"
PAGE_TOP = '<div id="container"></div>'


def surface_page(
    surfaces: Mapping[str, trimesh.Trimesh], title: str, max_faces: int = PAGE_FACES
) -> str:
    """Return a whole HTML document that shows named surfaces, in mm and LPS, upright.

    The patient is seen from the front at first, the patient's left on the right. A single
    surface has the colour of bone, several have one each and a legend. Together they are
    drawn with about `max_faces` triangles at most. The page asks for no other file.
    """
    colours = _colours(list(surfaces))
    share = max_faces / sum(len(surface.faces) for surface in surfaces.values())
    scene = trimesh.Scene()
    for name, surface in surfaces.items():
        coarse = coarsen(surface, max(LEAST_FACES, int(share * len(surface.faces))))
        scene.add_geometry(_upright(coarse, colours[name]), geom_name=name)
    _look_from_the_front(scene)
    page = scene_to_html(scene).replace(PAGE_TITLE, f"<title>{html.escape(title)}</title>")
    return page.replace(PAGE_TOP, _legend(colours))


def surface_frame(
    surfaces: Mapping[str, trimesh.Trimesh], title: str, max_faces: int = FRAME_FACES
) -> str:
    """Return `surface_page` within a frame, for a notebook or another page."""
    if all(surface.is_empty for surface in surfaces.values()):
        return "<p>No bone was found, so there is no surface to show.</p>"
    page = html.escape(surface_page(surfaces, title, max_faces))
    style = f"border: 1px solid #ddd; width: 100%; height: {FRAME_HEIGHT_PIXELS}px"
    return f'<iframe title="{html.escape(title)}" style="{style}" srcdoc="{page}"></iframe>'


def _colours(names: list[str]) -> dict[str, str]:
    if len(names) == 1:
        return {names[0]: BONE_COLOUR}
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _upright(surface: trimesh.Trimesh, colour: str) -> trimesh.Trimesh:
    """Return a copy in the page's axes, with smooth shading in `colour`."""
    rgb = np.array(to_rgb(colour))
    material = PBRMaterial(
        # The lamp and the ambient light together make the colour where the lamp hits fully.
        baseColorFactor=[*((1 - AMBIENT) / LAMP * rgb), 1.0],
        emissiveFactor=AMBIENT * rgb,
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    return trimesh.Trimesh(
        surface.vertices @ UPRIGHT.T,
        surface.faces,
        vertex_normals=surface.vertex_normals @ UPRIGHT.T,  # without, the page shows facets
        visual=TextureVisuals(material=material),
        process=False,
    )


def _look_from_the_front(scene: trimesh.Scene) -> None:
    """Move a scene's middle to the origin, about which the page turns, and face it."""
    scene.apply_translation(-scene.bounds.mean(axis=0))
    width, height, depth = scene.extents
    half = MARGIN / 2 * max(height, np.hypot(width, depth) / LEAST_ASPECT)
    distance = half / np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2)) + depth / 2
    fov = LEAST_ASPECT * FIELD_OF_VIEW_DEGREES, FIELD_OF_VIEW_DEGREES
    # By default a camera has a random name, and a page would never be the same twice.
    scene.camera = trimesh.scene.Camera("camera", fov=fov, z_near=distance / 100)
    scene.camera_transform = trimesh.transformations.translation_matrix([0, 0, distance])


def _legend(colours: Mapping[str, str]) -> str:
    """Return what lies over the drawing: how to turn it and, of several, what is which."""
    rows = [HOW_TO_TURN]
    if len(colours) > 1:
        rows += [
            f'<span style="background: {colour}">&emsp;</span> {html.escape(name)}'
            for name, colour in colours.items()
        ]
    style = "position: fixed; margin: 8px; font: 13px/1.5 sans-serif; color: #444"
    return f'<div id="legend" style="{style}; pointer-events: none">{"<br>".join(rows)}</div>'
