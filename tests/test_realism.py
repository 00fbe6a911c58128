"""The numbers that tell a phantom from a patient, on volumes whose numbers are known."""

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from bonelib.phantom import PhantomSeries, Tissue
from bonelib.pretraining import realism
from bonelib.scans import read_scan
from bonelib.settings import PROFILES

NAMES = {1: "hip_left", 2: "hip_right", 4: "femur_left"}
SPACING_MM = (2.0, 1.0, 1.0)


@pytest.fixture
def series(make_image):
    """Fat, a block of muscle, a hip bone of 500 HU with 100 HU inside, contrast at 400 HU."""
    shape = 20, 80, 80
    tissues, bones = np.zeros((2, *shape), np.uint8)
    image = np.full(shape, -1000, np.int16)

    def paint(box, tissue, hu, bone=0):
        tissues[box], image[box], bones[box] = tissue, hu, bone

    paint(np.s_[:, 5:75, 5:75], Tissue.FAT, -100)
    paint(np.s_[:, 10:30, 10:70], Tissue.MUSCLE, 55)
    paint(np.s_[:, 60:70, 60:70], Tissue.BOWEL_CONTRAST, 400)
    paint(np.s_[2:18, 40:60, 10:30], Tissue.CORTICAL, 500, 1)
    paint(np.s_[3:17, 42:58, 12:28], Tissue.TRABECULAR, 100, 1)
    paint(np.s_[:8, 40:52, 40:50], Tissue.CORTICAL, 900, 4)
    return PhantomSeries(make_image(image, SPACING_MM), tissues, make_image(bones, SPACING_MM))


def test_tissues_are_told_apart_and_set_beside_the_real_ones(series):
    table = realism.tissue_hu([series], NAMES).set_index("tissue")
    assert table["50 %"].to_dict() == {
        "hip, outer 2 mm": 500, "hip, inside": 100, "femur, outer 2 mm": 900,
        "femur, inside": 900, "muscle": 55, "fat": -100,
    }  # fmt: skip
    assert table.loc["hip, inside", "median difference"] == 100 - 153
    assert table.loc["hip, inside", "quartiles overlap"]
    assert not table.loc["femur, outer 2 mm", "quartiles overlap"]
    assert table.loc["muscle", "50 % real"] == 30


def test_shares_are_those_counted_by_hand(series):
    table = realism.shares([series]).set_index("share")["ours"]
    body_mm2 = 70 * 70
    bone_mm2 = (16 * 20 * 20 + 8 * 12 * 10) / 20
    assert table["bone"] == pytest.approx(100 * bone_mm2 / 800**2, abs=0.005)
    assert table["patient"] == pytest.approx(100 * (body_mm2 - bone_mm2) / 800**2, abs=0.005)
    assert table["soft tissue above 200 HU of the body"] == pytest.approx(100 / 49, abs=0.005)


def test_levels_are_counted_from_the_top_of_the_femur(series):
    table = realism.bone_levels(series.bones, NAMES)
    femur = table[table["kind"] == "femur"]
    assert femur["height"].tolist() == list(range(-14, 2, 2))
    assert (femur["area"] == 120).all() and (femur["perimeter"] == 2 * (11 + 9)).all()
    assert table.loc[table["kind"] == "hip", "height"].max() == 2 * (17 - 7)


def test_levels_without_a_femur_are_refused(series, make_image):
    hips = np.where(SimpleITK.GetArrayFromImage(series.bones) == 1, 1, 0).astype(np.uint8)
    with pytest.raises(ValueError, match="no femur in view"):
        realism.bone_levels(make_image(hips), NAMES)


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_noise_is_measured_under_a_slow_shading(make_image, sigma):
    """A Gaussian blur of `sigma` halves the correlation at 2 sigma sqrt(ln 2)."""
    random = np.random.default_rng(3)
    grain = ndimage.gaussian_filter(random.normal(size=(6, 256, 256)), (0, sigma, sigma))
    shading = np.linspace(-10, 10, 256)
    image = 50 + shading + 8 * grain / grain.std()
    found = realism.noise(make_image(image.astype(np.int16), (2, 0.5, 0.5)), share=1.0)
    assert found["deviation"] == pytest.approx(8, rel=0.1)
    assert found["grain"] == pytest.approx(0.5 * 2 * sigma * np.sqrt(np.log(2)), rel=0.15)


def test_a_scan_without_soft_tissue_is_refused(make_image):
    with pytest.raises(ValueError, match="no patch of soft tissue"):
        realism.noise(make_image(np.full((2, 64, 64), -1000, np.int16)))


def test_the_noise_of_a_real_scan_is_that_of_scanners(shared_data):
    found = realism.noise(read_scan(shared_data / "abdomen_dicom" / "ct"))
    assert 4 < found["deviation"] < 25 and 0.3 < found["grain"] < 2


def test_real_levels_compared_with_themselves_are_the_same():
    table = realism.compare_levels([realism.real_levels()]).set_index("kind")
    assert set(table.index) == {"femur", "hip", "sacrum", "vertebra"}
    assert (table["area ratio"] == 1).all() and (table["perimeter ratio"] == 1).all()
    doubled = realism.real_levels()
    doubled["area"] *= 2
    assert (realism.compare_levels([doubled])["area ratio"] == 2).all()


def test_unusual_patients_are_found_and_look_it():
    found = realism.unusual_series(PROFILES["smoke"])
    body = {name: series.body.sum() for name, series in found.items()}
    assert body["obese"] > 1.3 * body["thin"]
    assert (found["hip prosthesis"].tissues == Tissue.METAL).any()
    arms = SimpleITK.GetArrayViewFromImage(found["arms beside the body"].bones)
    assert {8, 9} <= set(np.unique(arms))
