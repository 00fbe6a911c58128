"""One picture that shows whether a segmentation is right."""

import numpy as np
import pytest
import SimpleITK
import trimesh

from bonelib.segment import overview
from bonelib.settings import BONE, PATIENT

PANELS = 10  # of axial slices


@pytest.fixture
def thigh(make_image):
    """Return a scan of a thigh of so many slices, and its label map."""

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


def test_a_picture_is_as_high_as_what_it_shows(thigh):
    heights = {}
    for slices in (3, 8, 40, 400):
        surface = trimesh.creation.box([48, 48, 4 * slices])
        figure = overview.draw_overview(*thigh(slices), surface)
        assert len([axes for part in figure.subfigs for axes in part.axes]) == PANELS + 4
        heights[slices] = figure.get_size_inches()[1]
    assert heights[3] < heights[8] < heights[40] == heights[400] < overview.WIDTH_INCHES


def test_without_a_surface_its_views_are_left_out(thigh):
    figure = overview.draw_overview(*thigh(20), None)
    titles = [axes.get_title() for axes in figure.subfigs[1].axes]
    assert [title.split(",")[0] for title in titles] == ["coronal", "sagittal"]
    assert figure.get_size_inches()[1] < overview.WIDTH_INCHES
