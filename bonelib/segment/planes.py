"""Scan + label map -> a widget for notebooks that cuts them in three linked planes."""

import io
from dataclasses import dataclass

import ipywidgets
import numpy as np
import SimpleITK
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bonelib.figures import CLASS_COLOURS
from bonelib.figures.browser import WINDOWS_HU, slice_picture
from bonelib.settings import BACKGROUND, BONE, PATIENT

WIDTH_PIXELS = 900  # of two planes side by side
HEIGHT_PIXELS = 440  # of one at most
CONTROLS_PIXELS = 400
SLIDER_PIXELS = 240  # at least, however narrow the scan
CROSS_COLOUR = "#F0E442"  # none of the classes'
LETTER_PIXELS = 15
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Plane:
    """One way to cut a scan, of axes (slice, row, column) in LPS, and to look at it."""

    name: str
    axis: int  # that its slider walks along
    down: int
    across: int
    upside_down: bool  # the array begins at the feet, a picture at the head
    sides: str  # letters of its left, right, top and bottom

    def cut(self, volume: np.ndarray, position: tuple[int, ...]) -> np.ndarray:
        """Return the 2-D part at `position`, the picture's top in row 0."""
        part = volume.take(position[self.axis], self.axis)
        return part[::-1] if self.upside_down else part

    def place(self, shape: tuple[int, ...], position: tuple[int, ...]) -> tuple[float, float]:
        """Return where `position` lies in the picture, in shares of its height and width."""
        down, across = ((position[axis] + 0.5) / shape[axis] for axis in (self.down, self.across))
        return (1 - down if self.upside_down else down), across


PLANES = (  # axial as from the feet, coronal from the front, sagittal from the left
    Plane("axial", 0, 1, 2, False, "RLAP"),
    Plane("coronal", 1, 0, 2, True, "RLHF"),
    Plane("sagittal", 2, 0, 1, True, "APHF"),
)
LETTERS = "R, L: the patient's right, left<br>A, P: front, back<br>H, F: head, feet"


class PlaneBrowser(ipywidgets.VBox):
    """Three planes through one point of a scan, at one scale; lines show where they meet."""

    def __init__(self):
        self._volumes = None
        self._pictures = [ipywidgets.Image(format="jpeg") for _ in PLANES]
        self._captions = [ipywidgets.HTML() for _ in PLANES]
        self._sliders = [
            ipywidgets.IntSlider(max=0, description=plane.name, readout=False) for plane in PLANES
        ]
        wide = {"width": f"{CONTROLS_PIXELS}px"}
        self._preset = ipywidgets.Dropdown(options=list(WINDOWS_HU), description="window")
        self._window = ipywidgets.IntRangeSlider(
            value=WINDOWS_HU["bone"], min=-1024, max=3071, description="HU", layout=wide
        )
        self._opacity = ipywidgets.FloatSlider(
            value=0.3, min=0, max=1, step=0.1, description="overlay", layout=wide
        )
        self._outlines = ipywidgets.Checkbox(value=True, description="outlines")
        self._overlay = ipywidgets.VBox([self._opacity, self._outlines])
        self._size = ipywidgets.HTML(layout=wide)
        self._preset.observe(self._choose_window, "value")
        for control in (*self._sliders, self._window, self._opacity, self._outlines):
            control.observe(self._draw, "value")

        axial, coronal, sagittal = (
            ipywidgets.VBox(parts, layout={"margin": "0 16px 12px 0"})
            for parts in zip(self._pictures, self._sliders, self._captions, strict=True)
        )
        controls = ipywidgets.VBox([self._preset, self._window, self._overlay, self._size])
        rows = [[axial, controls], [coronal, sagittal]]
        super().__init__([ipywidgets.HBox(row) for row in rows], layout={"display": "none"})

    def show(self, scan: SimpleITK.Image, label_map: SimpleITK.Image | None = None) -> None:
        """Show another scan, in LPS, and its label map on the same grid where there is one.

        It opens at the middle of the bone, or else of the scan.
        """
        volume = SimpleITK.GetArrayFromImage(scan)
        labels = np.broadcast_to(np.uint8(BACKGROUND), volume.shape)
        if label_map is not None:
            labels = SimpleITK.GetArrayFromImage(label_map)
        self._volumes = None  # nothing is drawn while the sliders are set
        self._spacing_mm = scan.GetSpacing()[::-1]
        self._fit(volume.shape)
        for plane, slider, place in zip(PLANES, self._sliders, _middle(labels), strict=True):
            slider.max = volume.shape[plane.axis] - 1
            slider.value = place
        self._overlay.layout.display = "none" if label_map is None else None
        voxel = " x ".join(f"{length:.3g}" for length in scan.GetSpacing())
        size = " x ".join(map(str, scan.GetSize()))
        self._size.value = f"{size} voxels of {voxel} mm<br>{LETTERS}"
        self.layout.display = None
        self._volumes = volume, labels
        self._draw()

    def _fit(self, shape: tuple[int, ...]) -> None:
        """Give the pictures one scale at which all are in view."""
        size_mm = np.multiply(shape, self._spacing_mm)
        scale = min(WIDTH_PIXELS / size_mm[1:].sum(), HEIGHT_PIXELS / size_mm[:2].max())
        pixels = np.maximum(np.round(scale * size_mm), 1).astype(int).tolist()
        for plane, picture, slider in zip(PLANES, self._pictures, self._sliders, strict=True):
            picture.width, picture.height = str(pixels[plane.across]), str(pixels[plane.down])
            slider.layout.width = f"{max(pixels[plane.across], SLIDER_PIXELS)}px"

    def _choose_window(self, _) -> None:
        self._window.value = WINDOWS_HU[self._preset.value]

    def _draw(self, _=None) -> None:
        if self._volumes is None:
            return
        position = tuple(slider.value for slider in self._sliders)
        for plane, picture, slider, caption in zip(
            PLANES, self._pictures, self._sliders, self._captions, strict=True
        ):
            size = int(picture.width), int(picture.height)
            picture.value = self._picture(plane, position, size)
            place_mm = slider.value * self._spacing_mm[plane.axis]
            caption.value = f"{slider.value} of 0 to {slider.max}, at {place_mm:.1f} mm"

    def _picture(self, plane: Plane, position: tuple[int, ...], size: tuple[int, int]) -> bytes:
        image_hu, labels = (plane.cut(volume, position) for volume in self._volumes)
        tinted = slice_picture(image_hu, labels, self._window.value, self._opacity.value)
        pixels = np.array(tinted.resize(size))
        if self._outlines.value:
            draw_outlines(pixels, labels)
        row, column = plane.place(self._volumes[0].shape, position)
        colour = 255 * np.array(to_rgb(CROSS_COLOUR))
        pixels[int(row * size[1])] = pixels[:, int(column * size[0])] = colour
        shown = Image.fromarray(pixels)
        _letter(shown, plane.sides)
        stream = io.BytesIO()
        # Colours in full resolution: an outline is one pixel wide.
        shown.save(stream, "jpeg", quality=JPEG_QUALITY, subsampling=0)
        return stream.getvalue()


def draw_outlines(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Draw the outlines of the classes into an RGB picture, one of its pixels wide."""
    size = pixels.shape[1::-1]
    classes = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        inside = classes != BACKGROUND if label == PATIENT else classes == label
        edge = inside & ~ndimage.binary_erosion(inside, border_value=1)
        pixels[edge] = 255 * np.array(to_rgb(colour))


def _letter(picture: Image.Image, sides: str) -> None:
    """Write what is on the left, right, top and bottom of a picture."""
    width, height = picture.size
    middle, centre = width / 2, height / 2
    places = ((3, centre), (width - 3, centre), (middle, 3), (middle, height - 3))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTER_PIXELS)
    for letter, place, anchor in zip(sides, places, ("lm", "rm", "mt", "mb"), strict=True):
        pen.text(place, letter, "white", font, anchor, stroke_width=1, stroke_fill="black")


def _middle(labels: np.ndarray) -> list[int]:
    """Return the bone's centre of mass, or the middle of all where there is none."""
    bone = labels >= BONE
    if not bone.any():
        return [length // 2 for length in labels.shape]
    profiles = (bone.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
    return [round(np.average(np.arange(len(profile)), weights=profile)) for profile in profiles]
