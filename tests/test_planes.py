import io

import ipywidgets
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from bonelib.figures import CLASS_COLOURS
from bonelib.figures.browser import WINDOWS_HU
from bonelib.segment import planes

SPACING_MM = (10.0, 4.0, 2.0)
SHAPE = (12, 30, 60)  # 120 x 120 x 120 mm


def inside(widget):
    """A widget and all that it holds."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


def named(browser, description):
    (found,) = [part for part in inside(browser) if getattr(part, "description", "") == description]
    return found


def pictures(browser):
    """What is seen: name -> RGB of shape (row, column)."""
    shown = [part for part in inside(browser) if isinstance(part, ipywidgets.Image)]
    return {
        name: np.asarray(Image.open(io.BytesIO(part.value)).convert("RGB")).astype(int)
        for name, part in zip(("axial", "coronal", "sagittal"), shown, strict=True)
    }


@pytest.fixture
def scan(make_image):
    """Soft tissue with one bright block: to the head, to the front, on the patient's right."""
    image_hu = np.full(SHAPE, 40, np.int16)
    image_hu[8:11, 3:9, 6:18] = 1500
    return make_image(image_hu, SPACING_MM)


@pytest.fixture
def label_map(make_image):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 2:28, 4:56] = 1
    labels[8:11, 3:9, 6:18] = 2
    return make_image(labels, SPACING_MM)


@pytest.fixture
def browser(scan):
    made = planes.PlaneBrowser()
    made.show(scan)
    return made


def test_each_plane_shows_the_block_where_the_patient_has_it(browser):
    for name, place in (("axial", 9), ("coronal", 6), ("sagittal", 12)):
        named(browser, name).value = place
    middles = {}
    for name, picture in pictures(browser).items():
        white = np.argwhere(picture.min(axis=-1) > 240)
        middles[name] = white.mean(axis=0) / picture.shape[:2]
    # Shares of height and width: front up, head up; right of the patient, front on the left.
    assert middles["axial"] == pytest.approx((6 / 30, 12 / 60), abs=0.03)
    assert middles["coronal"] == pytest.approx((1 - 9.5 / 12, 12 / 60), abs=0.03)
    assert middles["sagittal"] == pytest.approx((1 - 9.5 / 12, 6 / 30), abs=0.03)
    named(browser, "axial").value = 2
    assert (
        pictures(browser)["axial"][20:200, 20:200].min(axis=-1).max() < 200
    )  # letters are outside


@pytest.mark.parametrize("spacing_mm", [(10.0, 4.0, 2.0), (1.0, 4.0, 2.0), (40.0, 4.0, 2.0)])
def test_all_planes_have_one_scale_in_mm(make_image, spacing_mm):
    browser = planes.PlaneBrowser()
    browser.show(make_image(np.full(SHAPE, 40, np.int16), spacing_mm))
    slices, rows, columns = np.multiply(SHAPE, spacing_mm)
    scales = []
    shapes = {name: picture.shape[:2] for name, picture in pictures(browser).items()}
    for name, size_mm in (
        ("axial", (rows, columns)), ("coronal", (slices, columns)), ("sagittal", (slices, rows)),
    ):  # fmt: skip
        scales += (np.array(shapes[name]) / size_mm).tolist()
    assert scales == pytest.approx([scales[0]] * 6, rel=0.05)
    assert shapes["coronal"][1] + shapes["sagittal"][1] <= planes.WIDTH_PIXELS + 1
    assert max(height for height, _ in shapes.values()) <= planes.HEIGHT_PIXELS


def cross(picture):
    """Where the yellow lines meet, in shares of height and width."""
    yellow = (np.abs(picture - 255 * np.array(to_rgb(planes.CROSS_COLOUR))) < 40).all(axis=-1)
    counts = yellow.sum(axis=1), yellow.sum(axis=0)
    return [float(np.argmax(count) / len(count)) for count in counts]


def test_a_slider_moves_its_line_in_the_other_two_planes(browser):
    named(browser, "axial").value = 1
    named(browser, "coronal").value = 25
    named(browser, "sagittal").value = 50
    seen = {name: cross(picture) for name, picture in pictures(browser).items()}
    height, depth, width = 1 - 1.5 / 12, 25.5 / 30, 50.5 / 60
    assert seen["axial"] == pytest.approx([depth, width], abs=0.01)
    assert seen["coronal"] == pytest.approx([height, width], abs=0.01)
    assert seen["sagittal"] == pytest.approx([height, depth], abs=0.01)
    before = pictures(browser)
    named(browser, "axial").value = 9
    after = pictures(browser)
    assert cross(after["axial"]) == cross(before["axial"])
    for name in ("coronal", "sagittal"):
        assert cross(after[name])[0] == pytest.approx(1 - 9.5 / 12, abs=0.01)


def test_without_a_label_map_the_picture_is_grey_and_with_one_it_opens_at_the_bone(
    browser, scan, label_map
):
    opacity = named(browser, "overlay")
    (overlay,) = [part for part in inside(browser) if opacity in getattr(part, "children", ())]
    assert overlay.layout.display == "none"
    browser.show(scan, label_map)
    assert overlay.layout.display is None
    assert [named(browser, name).value for name in ("axial", "coronal", "sagittal")] == [9, 6, 12]
    named(browser, "outlines").value = False
    named(browser, "overlay").value = 1.0
    pixel = tuple(
        int(share * size) for share, size in zip((5 / 30, 9 / 60), (440, 440), strict=True)
    )
    tinted = pictures(browser)["axial"][pixel]
    assert tinted == pytest.approx(255 * np.array(to_rgb(CLASS_COLOURS[2])), abs=12)
    named(browser, "overlay").value = 0.0
    plain = pictures(browser)["axial"]
    assert np.ptp(plain[pixel]) < 6
    named(browser, "outlines").value = True
    green = 255 * np.array(to_rgb(CLASS_COLOURS[2]))
    outlined = pictures(browser)["axial"]
    edge = np.argwhere((np.abs(outlined - green) < 45).all(axis=-1)) / outlined.shape[:2]
    low, high = edge.min(axis=0), edge.max(axis=0)
    assert [*low, *high] == pytest.approx([3 / 30, 6 / 60, 9 / 30, 18 / 60], abs=0.02)


def test_a_window_changes_the_greys(browser):
    before = pictures(browser)["axial"][30, 30].mean()
    named(browser, "window").value = "soft tissue"
    assert named(browser, "HU").value == WINDOWS_HU["soft tissue"]
    low, high = WINDOWS_HU["soft tissue"]
    after = pictures(browser)["axial"][30, 30].mean()
    assert after == pytest.approx(255 * (40 - low) / (high - low), abs=4)
    assert before != pytest.approx(after, abs=10)


def test_a_smaller_scan_takes_the_place_of_a_larger_one(browser, make_image):
    named(browser, "sagittal").value = 59
    browser.show(make_image(np.zeros((3, 8, 8), np.int16), (5, 5, 5)))
    assert [named(browser, name).max for name in ("axial", "coronal", "sagittal")] == [2, 7, 7]
    assert [named(browser, name).value for name in ("axial", "coronal", "sagittal")] == [1, 4, 4]
