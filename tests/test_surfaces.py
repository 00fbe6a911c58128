"""Surfaces of bone, against shapes whose surfaces are known."""

import numpy as np
import pytest
import SimpleITK
import trimesh
from matplotlib import pyplot as plt

from bonelib.segment import surfaces

RADIUS_MM = 20.0
IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
SPACING_MM = (2.0, 1.5, 1.5)


def surface_of(array, spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY, part=None):
    """The surface of a mask, or of margins, (slice, row, column)."""
    array = array.astype(np.uint8) if array.dtype == bool else array
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin_mm)
    image.SetDirection(direction)
    return surfaces.bone_surface(image, part)


def ball_margin(spacing_mm=SPACING_MM, shift=0.0):
    """The margin of a ball in each voxel, its centre `shift` mm beside a voxel, and the origin."""
    fine = 4
    steps_mm = np.array(spacing_mm) / fine
    half = [int((RADIUS_MM + 6) / step) for step in spacing_mm]
    axes = [
        (np.arange(fine * (2 * count + 1)) - fine * count - (fine - 1) / 2) * step - shift
        for count, step in zip(half, steps_mm, strict=True)
    ]
    inside = sum(places**2 for places in np.meshgrid(*axes, indexing="ij")) < RADIUS_MM**2
    shape = [size for count in half for size in (2 * count + 1, fine)]
    share = inside.reshape(shape).mean(axis=(1, 3, 5))
    origin_mm = [-count * step for count, step in zip(half[::-1], spacing_mm[::-1], strict=True)]
    return (2 * share - 1).astype(np.float32), origin_mm


@pytest.mark.parametrize(
    ("spacing_mm", "limit_mm", "bias_mm"),
    [
        ((1.5625, 1.5625, 1.5625), 0.12, 0.06),
        ((2.5, 1.5625, 1.5625), 0.2, 0.12),
        ((5.0, 0.8, 0.8), 0.4, 0.4),  # the poles lie between slices
    ],
)
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_surface_runs_between_the_voxels(spacing_mm, limit_mm, bias_mm, shift):
    """It is as near to the ball as a small part of a voxel, wherever the voxels lie."""
    margin, origin_mm = ball_margin(spacing_mm, shift)
    surface = surface_of(margin, spacing_mm, origin_mm)
    assert surface.is_watertight and surface.is_winding_consistent
    assert surface.volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.07)
    assert surface.area == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=0.06)
    assert surface.center_mass == pytest.approx([shift] * 3, abs=0.2)
    outward = np.einsum("ij,ij->i", surface.triangles_center - shift, surface.face_normals)
    assert (outward > 0).mean() > 0.99
    distance = np.linalg.norm(surface.vertices - shift, axis=1) - RADIUS_MM
    assert np.abs(distance).mean() < limit_mm
    assert abs(distance.mean()) < bias_mm  # smoothing has not shrunk it
    of_mask = surface_of(margin > 0, spacing_mm, origin_mm)
    of_mask_mm = np.linalg.norm(of_mask.vertices - shift, axis=1) - RADIUS_MM
    assert np.abs(distance).mean() < np.abs(of_mask_mm).mean()


@pytest.mark.parametrize(
    "direction", [IDENTITY, (-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1)]
)
def test_axes_are_the_patients(direction):
    """A bar along columns is long in x, on any grid, and faces outward."""
    mask = np.zeros((9, 9, 30), bool)
    mask[4, 4, 3:27] = True
    surface = surface_of(mask, (1.0, 1.0, 1.0), (5.0, 6.0, 7.0), direction)
    assert surface.extents[0] == pytest.approx(24, abs=1.5) and max(surface.extents[1:]) < 3
    expected = np.reshape(direction, (3, 3)) @ (14.5, 4, 4) + (5, 6, 7)
    assert surface.center_mass == pytest.approx(expected, abs=0.1)
    assert surface.volume > 0


def test_thick_slices_give_slopes_and_not_steps():
    """The surface of a cone of few slices lies near the cone, between its slices too."""
    rows, columns = np.mgrid[:61, :61] - 30
    radii = np.arange(24, 4, -4)
    cone = np.stack([rows**2 + columns**2 < radius**2 for radius in radii])
    surface = surface_of(cone, (10.0, 1.0, 1.0))
    between = surface.vertices[(surface.vertices[:, 2] > 3) & (surface.vertices[:, 2] < 37)]
    radius = np.hypot(between[:, 0] - 30, between[:, 1] - 30)
    assert np.abs(radius - (24 - 0.4 * between[:, 2])).max() < 1.2  # a step would be off by 2


def test_bone_at_the_edge_of_the_scan_is_closed():
    surface = surface_of(np.ones((4, 6, 8), bool), (2.0, 1.0, 1.0))
    assert surface.is_watertight
    assert surface.volume == pytest.approx(4 * 6 * 8 * 2, rel=0.2)


def test_without_bone_there_is_no_surface():
    with pytest.raises(ValueError, match="there is no bone"):
        surface_of(np.zeros((3, 4, 5), bool), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def ball():
    margin, origin_mm = ball_margin()
    return surface_of(margin, SPACING_MM, origin_mm)


def test_a_part_is_closed_where_it_touches_another(ball):
    margin, origin_mm = ball_margin()
    lower = np.zeros(margin.shape, bool)
    lower[: len(lower) // 2] = True
    parts = [
        surface_of(margin, SPACING_MM, origin_mm, part=(margin > 0) & half)
        for half in (lower, ~lower)
    ]
    assert all(part.is_watertight for part in parts)
    assert sum(part.volume for part in parts) == pytest.approx(ball.volume, rel=0.05)
    assert parts[0].bounds[1, 2] < parts[1].bounds[0, 2] + 3


def test_stl_is_read_back(ball, tmp_path):
    path = tmp_path / "meshes" / "bone.stl"
    surfaces.write_stl(ball, path)
    assert [file.name for file in path.parent.iterdir()] == ["bone.stl"]
    header = path.read_bytes()[:80]
    assert b"SPACE=LPS" in header and not header.startswith(b"solid")  # as 3D Slicer reads it
    read = surfaces.read_stl(path)
    assert read.is_watertight and read.volume == pytest.approx(ball.volume, rel=1e-4)
    assert surfaces.read_stl(tmp_path / "absent.stl").is_empty


@pytest.mark.parametrize("view", list(surfaces.VIEWS))
def test_picture_shows_the_near_side_in_mm(ball, view):
    figure, axes = plt.subplots()
    surfaces.draw_surfaces({"ball": ball}, axes, view)
    (patches,) = axes.collections
    assert 0.4 < len(patches.get_paths()) / len(ball.faces) < 0.6
    low, high = axes.get_ylim()
    assert low < -18 and high > 18
    assert "(mm)" in axes.get_xlabel() and view in axes.get_title()
    plt.close(figure)


def test_a_coarse_surface_keeps_its_volume(ball):
    coarse = surfaces.coarsen(ball, 1000)
    assert 800 < len(coarse.faces) <= 1000 < len(ball.faces)
    assert coarse.volume == pytest.approx(ball.volume, rel=0.03)
    assert surfaces.coarsen(coarse, 1000) is coarse


def test_distances_of_two_balls_are_the_difference_of_their_radii():
    inner, outer = (trimesh.creation.icosphere(5, radius) for radius in (20.0, 23.0))
    assert surfaces.distances(inner, inner).max() < 1e-6
    found = surfaces.compare(inner, outer)
    assert list(found.values()) == pytest.approx([3.0] * 2, abs=0.05)
    assert all(np.isnan(list(surfaces.compare(inner, trimesh.Trimesh()).values())))
