"""What a CT scanner does to a slice, on slices whose tissues are known."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from bonelib.phantom.projection import artefacts
from bonelib.phantom.rendering import Protocol, Scanner
from bonelib.phantom.series import FIELD_OF_VIEW_MM, make_series, scan_slices, write_dicom
from bonelib.phantom.tissues import Tissue
from bonelib.settings import get_settings

SPACING_MM = 2.0
SIDE = 250  # pixels: a field of 500 mm
X = (np.arange(SIDE)[None, :] - (SIDE - 1) / 2) * SPACING_MM
Y = -X.T
NOISELESS = 1e9  # as a dose


def ellipse(half_width_mm, half_depth_mm, x_mm=0.0, x=X, y=Y):
    return ((x - x_mm) / half_width_mm) ** 2 + (y / half_depth_mm) ** 2 < 1


def water(half_width_mm, half_depth_mm):
    return np.where(ellipse(half_width_mm, half_depth_mm), 0.0, -1000.0)


def patch(image, x_mm, y_mm, half_mm=12.0):
    return image[(np.abs(X - x_mm) < half_mm) & (np.abs(Y - y_mm) < half_mm)]


def see(image_hu, kv=120):
    return artefacts(image_hu, SPACING_MM, kv, np.random.default_rng(0))


def scanner_of(protocol):
    """A scanner that shows tissues without texture."""
    scanner = Scanner.from_seed(5, protocol)
    return replace(scanner, tissue_hu=scanner.tissue_hu * np.array((1, 0, 0), np.float32))


def phantom(half_width_mm, half_depth_mm):
    """An ellipse of muscle with a ball of dense bone at its left."""
    tissues = np.where(ellipse(half_width_mm, half_depth_mm), Tissue.MUSCLE, Tissue.AIR)
    tissues[ellipse(20, 20, half_width_mm / 2)] = Tissue.CORTICAL
    return tissues.astype(np.uint8)[None]


def test_water_shows_no_cupping():
    for kv, size in ((80, (160, 160)), (140, (215, 120))):
        hardening_hu, _, streaks = see(water(*size), kv)
        assert np.abs(hardening_hu).max() < 5
        assert streaks.any() == (size[0] > 200)  # only wide bodies starve the detector


def test_hardening_is_dark_between_dense_bones_and_within_them():
    image = water(200, 120)
    for side in (-90, 90):
        image[ellipse(25, 25, side)] = 500
    found = {kv: see(image, kv)[0] for kv in (80, 120, 140)}
    between, before, inside = (
        patch(found[120], x, y).mean() for x, y in ((0, 0), (0, 80), (90, 0))
    )
    assert inside < between < -4 and abs(before) < 2
    assert patch(found[80], 0, 0).mean() < between < patch(found[140], 0, 0).mean()
    np.testing.assert_allclose(found[120], found[120][:, ::-1], atol=3)


def test_metal_throws_dark_and_bright_streaks_of_bounded_height():
    image = water(200, 120)
    image[ellipse(14, 14, 90)] = 6000
    hardening_hu, _, streaks = see(image)
    tissue = ellipse(200, 120) & ~ellipse(20, 20, 90)
    assert hardening_hu[tissue].min() < -100 and hardening_hu[tissue].max() > 30
    assert np.abs(hardening_hu).max() <= 400
    longest, shortest = (patch(hardening_hu, x, y).mean() for x, y in ((50, 0), (90, 60)))
    assert longest < -50 < -10 < shortest
    # Starved rays streak along the metal's own rows, and stay near them.
    assert patch(streaks, 0, 0).std() > 2 * patch(streaks, 0, 80).std()
    part = see(image[50:201])[0]  # a slice that is not square
    assert part.shape == (151, SIDE)
    assert np.corrcoef(hardening_hu[50:201].ravel(), part.ravel())[0, 1] > 0.99


def test_noise_grows_with_the_body_and_towards_its_middle_and_falls_with_the_dose():
    def noise(size, **protocol):
        still, moving = (
            scanner_of(Protocol(**options)).render(phantom(*size), 1, SPACING_MM, 0.0, 0)
            for options in ({"dose": NOISELESS}, protocol)
        )
        residual = moving.astype(float) - still
        middle = patch(residual, 0, 0, 25).std()
        assert middle > 1.15 * patch(residual, 0, size[1] - 10).std()
        return middle

    small, usual, large = (noise(size) for size in ((80, 80), (170, 105), (215, 130)))
    assert small < usual < large and large > 1.3 * small
    assert 8 < usual < 15
    assert noise((170, 105), dose=4.0) == pytest.approx(usual / 2, rel=0.1)
    thick = noise((170, 105), slice_thickness_mm=5.0)
    assert thick == pytest.approx(usual / np.sqrt(2), rel=0.1)


def test_kernels_trade_noise_for_sharpness():
    side = 512
    spacing_mm = FIELD_OF_VIEW_MM / side
    axis = (np.arange(side) - (side - 1) / 2) * spacing_mm
    body = ellipse(190, 115, x=axis[None, :], y=axis[:, None])
    tissues = np.where(body, Tissue.MUSCLE, Tissue.AIR).astype(np.uint8)[None]

    def look(kernel):
        """Return noise, the steepest step at the skin and the overshoot there."""
        noisy, still = (
            scanner_of(Protocol(kernel=kernel, dose=dose))
            .render(tissues, 1, spacing_mm, 0.0, 0)
            .astype(float)
            for dose in (1.0, NOISELESS)
        )
        edge = still[:, side // 2]
        return (noisy - still)[body].std(), np.diff(edge).max(), edge.max() - edge[side // 2]

    soft, standard, sharp = (look(kernel) for kernel in ("soft", "standard", "sharp"))
    for measured in zip(soft[:2], standard[:2], sharp[:2], strict=True):
        assert list(measured) == sorted(measured) and measured[2] > 1.1 * measured[0]
    assert sharp[2] > 3 * max(standard[2], soft[2])


def test_the_voltage_changes_bone_and_fat_but_not_muscle():
    by_kv = {kv: scanner_of(Protocol(kv=kv)).tissue_hu[:, 0] for kv in (80, 100, 120, 140)}
    for tissue in (Tissue.CORTICAL, Tissue.ENHANCED_BLOOD, Tissue.CALCIFICATION):
        found = [by_kv[kv][tissue] for kv in by_kv]
        assert found == sorted(found, reverse=True) and found[0] > 1.25 * found[2]
    assert by_kv[80][Tissue.FAT] < by_kv[120][Tissue.FAT] - 10
    assert by_kv[80][Tissue.MUSCLE] == by_kv[140][Tissue.MUSCLE]


def test_a_slice_is_the_mean_of_its_cuts_and_most_of_them_label_it():
    soft = np.full((60, 60), Tissue.FAT, np.uint8)
    bony = np.full((60, 60), Tissue.SPARSE_TRABECULAR, np.uint8)
    nothing, bone = np.zeros_like(soft), np.full_like(soft, 4)
    scanner = scanner_of(Protocol(dose=NOISELESS))
    slices = [
        (0.0, np.stack([soft]), np.stack([nothing])),
        (5.0, np.stack([soft, soft, bony]), np.stack([nothing, nothing, bone])),
        (10.0, np.stack([soft, bony, bony]), np.stack([nothing, bone, bone])),
        (15.0, np.stack([bony]), np.stack([bone])),
    ]
    image, tissues, bones = scan_slices(slices, scanner, 2, SPACING_MM)
    assert image.shape == tissues.shape == bones.shape == (4, 30, 30)
    low, first, second, high = image[:, 15, 15].astype(float)
    fat, bone_hu = scanner.tissue_hu[[Tissue.FAT, Tissue.SPARSE_TRABECULAR], 0]
    assert low == pytest.approx(fat, abs=2) and high == pytest.approx(bone_hu, abs=2)
    assert first - low == pytest.approx((high - low) / 3, abs=2)
    assert second - low == pytest.approx((high - low) * 2 / 3, abs=2)
    assert bones[:, 15, 15].tolist() == [0, 0, 4, 4]
    assert ((tissues >= Tissue.MARROW) == (bones > 0)).all()


def test_a_narrow_field_cuts_the_body(monkeypatch):
    def cut_slice(patient, x_mm, y_mm, z_mm):
        body = ellipse(230, 60, x=x_mm[None, :], y=y_mm[:, None])
        return body.astype(np.uint8) * Tissue.FAT, np.zeros(body.shape, np.uint8)

    monkeypatch.setattr("bonelib.phantom.series.cut_slice", cut_slice)
    settings = replace(get_settings("smoke"), phantom_matrix=16)
    widths_mm = []
    for seed in range(12):
        series = make_series(seed, 1, settings)
        widths_mm.append(16 * series.scan.GetSpacing()[0])
        cut = series.body[:, :, [0, -1]].any()
        assert cut == (widths_mm[-1] < FIELD_OF_VIEW_MM)
        assert 380 <= widths_mm[-1] <= 450 or not cut
    assert 1 <= sum(width_mm < FIELD_OF_VIEW_MM for width_mm in widths_mm) < 6


def test_files_tell_the_protocol(tmp_path):
    settings = replace(get_settings("smoke"), phantom_matrix=48)
    series = make_series(11, 1, settings)
    protocol = series.protocol
    assert protocol == Protocol.from_seed(11) != Protocol()
    write_dicom(series.scan, tmp_path / "ct", "a", 11, protocol)
    file = pydicom.dcmread(tmp_path / "ct" / "0001.dcm")
    assert (protocol.kv, protocol.kernel.upper()) == (file.KVP, file.ConvolutionKernel)
    assert file.SliceThickness == protocol.slice_thickness_mm
    assert file.SpacingBetweenSlices == settings.phantom_slice_distance_mm
    assert file.ReconstructionDiameter == pytest.approx(48 * series.scan.GetSpacing()[0])
