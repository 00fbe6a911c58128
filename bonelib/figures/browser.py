"""A slice browser for notebooks: series, slice, window and overlay."""

import io
from functools import lru_cache

import ipywidgets
import numpy as np
import SimpleITK
from matplotlib.colors import to_rgb
from PIL import Image

from bonelib.datasets import Case
from bonelib.figures import CLASS_COLOURS
from bonelib.settings import PATIENT

WINDOWS_HU = {"bone": (-450, 1050), "soft tissue": (-160, 240), "wide": (-1000, 1500)}
WIDTH_PIXELS = 560


def slice_picture(
    image_hu: np.ndarray, labels: np.ndarray, window_hu: tuple[float, float], opacity: float
) -> Image.Image:
    """Return one slice (row, column) in a HU window as RGB, its classes tinted by `opacity`."""
    low, high = window_hu
    grey = np.clip((image_hu - low) / max(high - low, 1), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label, colour in list(enumerate(CLASS_COLOURS))[PATIENT:]:
        # The patient outline is tinted less: it covers what one wants to see.
        weight = opacity / 4 if label == PATIENT else opacity
        inside = labels == label
        picture[inside] = (1 - weight) * picture[inside] + weight * np.array(to_rgb(colour))
    return Image.fromarray((255 * picture).astype(np.uint8))


def _volumes(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    scan = case.scan()
    return (
        SimpleITK.GetArrayFromImage(scan),
        SimpleITK.GetArrayFromImage(case.label_map(scan)),
        scan.GetSpacing(),
    )


def browse(cases: list[Case]) -> ipywidgets.Widget:
    """Return a widget that shows any slice of any of the cases, feet first."""
    volumes = lru_cache(maxsize=2)(lambda index: _volumes(cases[index]))
    series = ipywidgets.Dropdown(
        options=[(f"{case.series_id} ({case.split})", index) for index, case in enumerate(cases)],
        description="series",
    )
    position = ipywidgets.IntSlider(description="slice", max=0, continuous_update=True)
    preset = ipywidgets.Dropdown(options=list(WINDOWS_HU), description="window")
    window = ipywidgets.IntRangeSlider(
        value=WINDOWS_HU["bone"], min=-1024, max=3071, description="HU",
        layout={"width": "420px"},
    )  # fmt: skip
    opacity = ipywidgets.FloatSlider(value=0.4, min=0, max=1, step=0.1, description="overlay")
    picture = ipywidgets.Image(format="png", width=WIDTH_PIXELS)
    caption = ipywidgets.HTML()

    def show(_=None):
        image_hu, labels, (column_mm, row_mm, slice_mm) = volumes(series.value)
        shown = slice_picture(
            image_hu[position.value], labels[position.value], window.value, opacity.value
        )
        height = round(WIDTH_PIXELS * shown.height * row_mm / (shown.width * column_mm))
        stream = io.BytesIO()
        shown.resize((WIDTH_PIXELS, height)).save(stream, "png")
        picture.value = stream.getvalue()
        caption.value = (
            f"slice {position.value} of 0 to {position.max}, "
            f"{position.value * slice_mm:g} mm above the lowest; the patient's right is on the left"
        )

    def open_series(_=None):
        position.max = len(volumes(series.value)[0]) - 1
        position.value = position.max // 2
        show()

    def choose_window(_=None):
        window.value = WINDOWS_HU[preset.value]

    series.observe(open_series, "value")
    preset.observe(choose_window, "value")
    for control in (position, window, opacity):
        control.observe(show, "value")
    open_series()
    controls = ipywidgets.VBox([series, position, preset, window, opacity, caption])
    return ipywidgets.HBox([picture, controls])
