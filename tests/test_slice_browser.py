import io

import numpy as np
import pytest
from PIL import Image

from bonelib import datasets
from bonelib.figures import browser
from bonelib.settings import get_settings


@pytest.fixture
def widget(write_dataset):
    cases = datasets.find_cases("folder", write_dataset(), get_settings("smoke"))
    box = browser.browse(cases)
    picture, controls = box.children
    names = ("series", "position", "preset", "window", "opacity", "caption")
    return picture, dict(zip(names, controls.children, strict=True))


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.value)).convert("RGB")).astype(int)


def test_every_control_changes_the_picture(widget):
    picture, controls = widget
    shown = [picture.value]
    assert "slice 2 of 0 to 5" in controls["caption"].value
    controls["position"].value = 0
    assert "slice 0 of 0 to 5" in controls["caption"].value
    controls["opacity"].value = 0.9
    shown.append(picture.value)
    controls["preset"].value = "soft tissue"
    assert controls["window"].value == browser.WINDOWS_HU["soft tissue"]
    shown.append(picture.value)
    assert len(set(shown)) == 3
    controls["series"].value = 2
    assert "slice 2 of 0 to 5" in controls["caption"].value


def test_without_overlay_the_picture_is_grey_and_with_it_bone_is_tinted(widget):
    picture, controls = widget
    controls["opacity"].value = 0
    plain = pixels(picture)
    assert (plain[..., 0] == plain[..., 1]).all()
    controls["opacity"].value = 1
    rows, columns = plain.shape[:2]
    row, column = rows * 34 // 64, columns * 50 // 72  # inside the bone of the trunk
    red, green, blue = pixels(picture)[row, column]
    assert green > red and green > blue


def test_every_class_has_its_tint():
    labels = np.arange(6, dtype=np.uint8)[None]
    picture = browser.slice_picture(np.zeros((1, 6)), labels, (-100, 100), 0.8)
    assert len(np.unique(np.asarray(picture)[0], axis=0)) == 6
