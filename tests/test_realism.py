"""Measures of realism, on volumes for which they are known."""

import numpy as np
import pytest

from bonelib.phantom.series import PhantomSeries
from bonelib.phantom.tissues import Tissue
from bonelib.pretraining import realism
from bonelib.settings import get_settings

SPACING_MM = (2.0, 1.0, 1.0)


def test_tissues_and_shares_are_those_painted(make_image):
    """Fat, a block of muscle and four bones of 500 HU with 100 HU inside, in 20 slices."""
    shape = 20, 80, 80
    tissues, bones = np.zeros((2, *shape), np.uint8)
    image = np.full(shape, -1000, np.int16)

    def paint(box, tissue, hu, bone=0):
        tissues[box], image[box], bones[box] = tissue, hu, bone

    paint(np.s_[:, 5:75, 5:75], Tissue.FAT, -100)
    paint(np.s_[:, 6:36, 10:70], Tissue.MUSCLE, 55)
    for column, number in ((10, 1), (25, 3), (40, 4), (55, 6)):
        paint(np.s_[:, 40:60, column : column + 12], Tissue.CORTICAL, 500, number)
        paint(np.s_[:, 42:58, column + 2 : column + 10], Tissue.TRABECULAR, 100, number)
    series = PhantomSeries(make_image(image, SPACING_MM), tissues, make_image(bones, SPACING_MM))
    table = realism.compare([series])
    for bone in ("hip", "sacrum", "femur", "vertebra"):
        assert table.loc[f"{bone}, surface (HU)", "phantom"] == 500
        assert table.loc[f"{bone}, inside (HU)", "phantom"] == 100
    assert table.loc[["muscle (HU)", "fat (HU)"], "phantom"].tolist() == [55, -100]
    assert table.loc["muscle (HU)", "difference"] == 55 - 30
    bone, body = 4 * 20 * 12, 70 * 70
    assert table.loc["bone (%)", "phantom"] == pytest.approx(100 * bone / 800**2, abs=0.005)
    assert table.loc["patient (%)", "phantom"] == pytest.approx(
        100 * (body - bone) / 800**2, abs=0.005
    )


def test_an_example_has_the_finding_asked_for():
    wanted = realism.FINDINGS["hip prosthesis"]
    (series,) = realism.examples(get_settings("smoke"), num_slices=4, wanted=wanted)
    assert (series.tissues == Tissue.METAL).any()
