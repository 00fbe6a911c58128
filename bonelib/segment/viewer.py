"""Surfaces -> an HTML page that turns them with the mouse, complete in one file."""

import html
from collections.abc import Mapping

import numpy as np
import trimesh
from matplotlib.colors import to_rgb
from trimesh.viewer.notebook import scene_to_html
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from bonelib.figures.style import surface_colours
from bonelib.segment.surfaces import coarsen
from bonelib.settings import RESEARCH_ONLY

MAX_TRIANGLES = 60_000  # of all surfaces together: a page of less than 3 MB
MIN_TRIANGLES = 500  # of one surface: a small bone keeps its shape
FIELD_OF_VIEW_DEGREES = 30.0  # vertical; a small one distorts little
MIN_ASPECT = 1.2  # width to height of a window in which nothing is cut off
LAMP, AMBIENT = 1.75, 0.22  # light of the page's lamp, share of it from all directions
# Patient (x to the left, y to the back, z to the head) -> page (right, up, to the viewer).
UPRIGHT = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
PAGE_TITLE = "<title>trimesh: threejs viewer</title>"  # in trimesh's page; replaced
PAGE_TOP = '<div id="container"></div>'  # the same
LEGEND = """<div id="legend" style="position: fixed; margin: 8px; font: 13px/1.5 sans-serif;
color: #444; pointer-events: none">Drag: turn. Wheel: zoom. Right button: move.{}<br>{}</div>"""
LEGEND_LINE = '<br><span style="background: {}">&emsp;</span> {}'


def surface_page(surfaces: Mapping[str, trimesh.Trimesh], title: str) -> str:
    """Return an HTML document that shows named surfaces in mm (LPS), and loads no other file.

    The patient stands upright and faces the viewer. A single surface is bone-coloured; several
    have one colour each and a legend.
    """
    names = [html.escape(name) for name in surfaces]
    colours = surface_colours(len(names))
    share = MAX_TRIANGLES / sum(len(surface.faces) for surface in surfaces.values())
    scene = trimesh.Scene()
    for (name, surface), colour in zip(surfaces.items(), colours, strict=True):
        coarse = coarsen(surface, max(MIN_TRIANGLES, int(share * len(surface.faces))))
        scene.add_geometry(_in_page(coarse, colour), geom_name=name)
    _look_from_the_front(scene)
    lines = [LEGEND_LINE.format(*line) for line in zip(colours, names, strict=True)]
    legend = LEGEND.format("".join(lines) * (len(names) > 1), RESEARCH_ONLY)
    page = scene_to_html(scene).replace(PAGE_TITLE, f"<title>{html.escape(title)}</title>")
    return page.replace(PAGE_TOP, legend)


def _in_page(surface: trimesh.Trimesh, colour: str) -> trimesh.Trimesh:
    """Return a smoothly shaded copy in the page's axes."""
    rgb = np.array(to_rgb(colour))
    material = PBRMaterial(  # lamp and ambient light add up to the colour
        baseColorFactor=[*((1 - AMBIENT) / LAMP * rgb), 1.0],
        emissiveFactor=AMBIENT * rgb,
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    return trimesh.Trimesh(
        surface.vertices @ UPRIGHT.T,
        surface.faces,
        vertex_normals=surface.vertex_normals @ UPRIGHT.T,  # without them the page shows facets
        visual=TextureVisuals(material=material),
        process=False,
    )


def _look_from_the_front(scene: trimesh.Scene) -> None:
    """Centre a scene on the origin, about which the page turns it, and place the camera."""
    scene.apply_translation(-scene.bounds.mean(axis=0))
    width, height, depth = scene.extents
    half = 0.54 * max(height, np.hypot(width, depth) / MIN_ASPECT)  # a margin of 8 %
    distance = half / np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2)) + depth / 2
    fov = MIN_ASPECT * FIELD_OF_VIEW_DEGREES, FIELD_OF_VIEW_DEGREES
    # Named, since trimesh's random name would make every page different.
    scene.camera = trimesh.scene.Camera("camera", fov=fov, z_near=distance / 100)
    scene.camera_transform = trimesh.transformations.translation_matrix([0, 0, distance])
