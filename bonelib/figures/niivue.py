"""Scans, label maps and surfaces in NiiVue: widgets for notebooks that need no network.

Images are sent when a browser attaches, so a notebook that runs without one stores none.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets
import numpy as np
import SimpleITK
import trimesh
from ipyniivue import DragMode, Mesh, NiiVue, ShowRender, SliceType, Volume
from matplotlib.colors import to_rgb

from bonelib.datasets import Case
from bonelib.figures.style import CLASS_COLOURS, WINDOW_HU, surface_colours
from bonelib.settings import BACKGROUND, PATIENT

WINDOWS_HU = {"bone": WINDOW_HU, "soft tissue": (-160, 240), "wide": (-1000, 1500)}
MAX_VOXELS = 8_000_000  # per scan: the browser may have no graphics card
MAX_TRIANGLES = 100_000  # of all surfaces together
MIN_TRIANGLES = 500  # of one surface: a small bone keeps its shape
HEIGHT_PIXELS = 560
CROSSHAIR_RGBA = (0.94, 0.89, 0.26, 1.0)  # not the colour of a class
FRONT_DEGREES = (180, 5)  # azimuth and elevation of the camera
HELP = "Click to move the cross, scroll with the wheel, zoom with the right button."


class ScanViewer(ipywidgets.VBox):
    """Three planes of a scan through one point, with the HU at that point."""

    def __init__(self):
        self._niivue = NiiVue(
            height=HEIGHT_PIXELS, slice_type=SliceType.MULTIPLANAR,
            multiplanar_show_render=ShowRender.NEVER, drag_mode=DragMode.SLICER_3D,
            is_radiological_convention=True, sagittal_nose_left=True,
            crosshair_color=CROSSHAIR_RGBA, crosshair_width_unit="mm",
            loading_text="the scan appears here",
        )  # fmt: skip
        self._window = ipywidgets.Dropdown(options=WINDOWS_HU, description="window")
        self._overlay = ipywidgets.FloatSlider(
            value=0.5, min=0, max=1, description="overlay", readout=False
        )
        self._size, self._cursor = ipywidgets.HTML(), ipywidgets.HTML(HELP)
        self._volumes, self._is_attached = [], False
        self._window.observe(self._adjust, "value")
        self._overlay.observe(self._adjust, "value")
        self._niivue.on_location_change(self._report_value)
        self._niivue.on_canvas_attached(self._attach)
        controls = ipywidgets.HBox([self._window, self._overlay, self._size])
        super().__init__([controls, self._niivue, self._cursor])

    def show(self, scan: SimpleITK.Image, label_map: SimpleITK.Image | None = None) -> None:
        """Show another scan, and its label map on the same grid if there is one."""
        # Skips columns and rows of a large scan, since averages would not be its HU.
        step = int(np.ceil(np.sqrt(scan.GetNumberOfPixels() / MAX_VOXELS)))
        image = SimpleITK.Cast(scan[::step, ::step], SimpleITK.sitkInt16)
        self._volumes = [Volume(data=_nifti(image), name="scan.nii.gz", colormap="gray")]
        if label_map is not None:
            labels = _nifti(label_map[::step, ::step])
            self._volumes.append(Volume(data=labels, name="labels.nii.gz"))
            self._volumes[1].set_colormap_label(_class_colours())
        self._overlay.layout.display = "none" if label_map is None else None
        size = " x ".join(map(str, scan.GetSize()))
        voxel = " x ".join(f"{length:.3g}" for length in scan.GetSpacing())
        self._size.value = f"{size} voxels of {voxel} mm"
        self._adjust()
        if self._is_attached:
            self._niivue.load_volumes(self._volumes)

    def _attach(self) -> None:
        self._is_attached = True
        self._niivue.load_volumes(self._volumes)

    def _adjust(self, _=None) -> None:
        for volume in self._volumes[:1]:
            volume.opacity = 1.0
            volume.cal_min, volume.cal_max = self._window.value
        for volume in self._volumes[1:]:
            volume.opacity = self._overlay.value

    def _report_value(self, location: dict) -> None:
        self._cursor.value = f"<b>{location['values'][0]['value']:.0f} HU</b> at the cross. {HELP}"


def browse(cases: Sequence[Case]) -> ipywidgets.Widget:
    """Return a viewer for any of the cases, with their label maps."""
    viewer = ScanViewer()
    names = [f"{case.series_id} ({case.split})" for case in cases]
    series = ipywidgets.Dropdown(options=names, description="series")

    def show(_=None):
        scan = cases[series.index].scan()
        viewer.show(scan, cases[series.index].label_map(scan))

    series.observe(show, "index")
    show()
    return ipywidgets.VBox([series, viewer])


def view_surfaces(surfaces: Mapping[str, trimesh.Trimesh]) -> ipywidgets.Widget:
    """Return a widget that turns named surfaces in mm (LPS) and shows or hides each one."""
    triangles = sum(len(surface.faces) for surface in surfaces.values())
    if triangles == 0:
        return ipywidgets.HTML("No bone was found, so there is no surface to show.")
    niivue = NiiVue(
        height=HEIGHT_PIXELS, slice_type=SliceType.RENDER, back_color=(1, 1, 1, 1),
        is_orient_cube=True,  # letters of the directions
    )  # fmt: skip
    meshes, boxes = [], []
    colours = surface_colours(len(surfaces))
    for number, ((name, surface), colour) in enumerate(zip(surfaces.items(), colours, strict=True)):
        rgba = [round(255 * value) for value in (*to_rgb(colour), 1)]
        most = max(len(surface.faces) * MAX_TRIANGLES // triangles, MIN_TRIANGLES)
        meshes.append(Mesh(data=_ply(surface, most), name=f"{number}.ply", rgba255=rgba))
        box = ipywidgets.Checkbox(value=True, description=name, indent=False)
        box.layout.border_left, box.layout.width = f"16px solid {colour}", "150px"
        ipywidgets.jslink((box, "value"), (meshes[-1], "visible"))
        boxes.append(box)
    niivue.on_canvas_attached(lambda: niivue.load_meshes(meshes))
    niivue.set_render_azimuth_elevation(*FRONT_DEGREES)
    return ipywidgets.VBox([ipywidgets.Box(boxes, layout={"flex_flow": "row wrap"}), niivue])


def _nifti(image: SimpleITK.Image) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        SimpleITK.WriteImage(image, path, useCompression=True, compressionLevel=1)
        return path.read_bytes()


def _ply(surface: trimesh.Trimesh, max_triangles: int) -> bytes:
    """Return a binary PLY in NiiVue's space, RAS: x to the right, y to the front."""
    if len(surface.faces) > max_triangles:
        surface = surface.simplify_quadric_decimation(face_count=max_triangles)
    turned = surface.copy()
    turned.vertices *= [-1, -1, 1]
    return turned.export(file_type="ply", vertex_normal=False)


def _class_colours() -> dict:
    """Return NiiVue's colour map of labels; only bone has a colour, to leave the image visible."""
    rgb = np.round(255 * np.array([to_rgb(colour) for colour in CLASS_COLOURS])).astype(int)
    alpha = np.full(len(rgb), 255)
    alpha[[BACKGROUND, PATIENT]] = 0
    return dict(zip("RGBA", np.column_stack([rgb, alpha]).T.tolist(), strict=True))
