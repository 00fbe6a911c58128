import numpy as np
import pytest
import SimpleITK
import trimesh
from matplotlib import pyplot as plt

from bonelib.segment import surfaces

RADIUS_MM = 20.0
IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def surface_of(array, spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY, part=None):
    """The surface of a mask, or of margins, (slice, row, column)."""
    array = array.astype(np.uint8) if array.dtype == bool else array
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin_mm)
    image.SetDirection(direction)
    return surfaces.bone_surface(image, part)


def ball(spacing_mm, margin_mm=8.0):
    """Return the mask of a ball of `RADIUS_MM` and its centre, in mm from the first voxel."""
    half = [int((RADIUS_MM + margin_mm) / step) for step in spacing_mm]
    axes = [np.arange(2 * count + 1) * step for count, step in zip(half, spacing_mm, strict=True)]
    centre = np.array([count * step for count, step in zip(half, spacing_mm, strict=True)])
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return ((places - centre) ** 2).sum(axis=-1) < RADIUS_MM**2, centre


@pytest.mark.parametrize(
    ("spacing_mm", "tolerance"),
    [((1.0, 1.0, 1.0), 0.03), ((2.5, 1.5625, 1.5625), 0.04), ((5.0, 0.8, 0.8), 0.06)],
)
def test_ball_has_its_volume_area_and_place(spacing_mm, tolerance):
    mask, centre = ball(spacing_mm)
    surface = surface_of(mask, spacing_mm, origin_mm=(10.0, -20.0, 300.0))
    assert surface.is_watertight and surface.is_winding_consistent
    assert surface.volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=tolerance)
    assert surface.area == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=tolerance)
    assert surface.center_mass == pytest.approx(centre[::-1] + (10, -20, 300), abs=0.2)
    outward = surface.triangles_center - surface.center_mass
    assert (np.einsum("ij,ij->i", outward, surface.face_normals) > 0).mean() > 0.99


def test_axes_are_the_patients():
    """A bar along columns is long in x, a bar along slices in z."""
    mask = np.zeros((9, 9, 30), bool)
    mask[4, 4, 3:27] = True
    surface = surface_of(mask, (1.0, 1.0, 1.0), (5.0, 6.0, 7.0))
    assert surface.extents[0] == pytest.approx(24, abs=1.5) and max(surface.extents[1:]) < 3
    assert surface.center_mass == pytest.approx((5 + 14.5, 6 + 4, 7 + 4), abs=0.1)


@pytest.mark.parametrize("direction", [(-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1)])
def test_directions_turn_the_surface_and_leave_it_facing_outward(direction):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = surface_of(mask, (2.0, 2.0, 2.0), direction=direction)
    expected = np.reshape(direction, (3, 3)) @ centre[::-1]
    assert surface.center_mass == pytest.approx(expected, abs=0.2)
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


def test_stl_is_read_back(tmp_path):
    mask, _ = ball((2.0, 2.0, 2.0))
    surface = surface_of(mask, (2.0, 2.0, 2.0))
    surfaces.write_stl(surface, tmp_path / "meshes" / "bone.stl")
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["bone.stl"]
    read = surfaces.read_stl(tmp_path / "meshes" / "bone.stl")
    header = (tmp_path / "meshes" / "bone.stl").read_bytes()[:80]
    assert b"SPACE=LPS" in header and not header.startswith(b"solid")  # as 3D Slicer reads it
    assert surfaces.read_stl(tmp_path / "absent.stl").is_empty
    assert read.is_watertight and read.volume == pytest.approx(surface.volume, rel=1e-4)


@pytest.mark.parametrize("view", ["front", "side"])
def test_picture_shows_the_near_side_in_mm(view):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = surface_of(mask, (2.0, 2.0, 2.0))
    figure, axes = plt.subplots()
    surfaces.draw_surface(surface, axes, view, max_faces=2000)
    (patches,) = axes.collections
    assert 100 < len(patches.get_paths()) < 1600  # about half of the coarse faces
    low, high = axes.get_ylim()
    assert low < centre[0] - 18 and high > centre[0] + 18
    assert "(mm)" in axes.get_xlabel() and view.replace("side", "left") in axes.get_title()
    plt.close(figure)


def ball_margin(spacing_mm, shift=0.0):
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
    distance = np.linalg.norm(surface.vertices - shift, axis=1) - RADIUS_MM
    assert surface.is_watertight
    assert np.abs(distance).mean() < limit_mm
    assert abs(distance.mean()) < bias_mm  # smoothing has not shrunk it
    mask = surface_of(margin > 0, spacing_mm, origin_mm)
    of_mask = np.linalg.norm(mask.vertices - shift, axis=1) - RADIUS_MM
    assert np.abs(distance).mean() < np.abs(of_mask).mean()


def test_a_part_is_closed_where_it_touches_another():
    margin, origin_mm = ball_margin((2.0, 1.5, 1.5))
    lower = np.zeros(margin.shape, bool)
    lower[: len(lower) // 2] = True
    whole = surface_of(margin, (2.0, 1.5, 1.5), origin_mm)
    parts = [
        surface_of(margin, (2.0, 1.5, 1.5), origin_mm, part=(margin > 0) & half)
        for half in (lower, ~lower)
    ]
    assert all(part.is_watertight for part in parts)
    assert sum(part.volume for part in parts) == pytest.approx(whole.volume, rel=0.05)
    assert parts[0].bounds[1, 2] < parts[1].bounds[0, 2] + 3


def test_a_coarse_surface_keeps_its_volume():
    margin, origin_mm = ball_margin((1.0, 1.0, 1.0))
    whole = surface_of(margin, (1.0, 1.0, 1.0), origin_mm)
    coarse = surfaces.coarsen(whole, 1000)
    assert 800 < len(coarse.faces) <= 1000 < len(whole.faces)
    assert coarse.volume == pytest.approx(whole.volume, rel=0.03)
    assert surfaces.coarsen(coarse, 1000) is coarse


def test_distances_of_two_balls_are_the_difference_of_their_radii():
    inner, outer = (trimesh.creation.icosphere(5, radius) for radius in (20.0, 23.0))
    assert surfaces.distances(inner, inner).max() < 1e-6
    found = surfaces.compare(inner, outer)
    assert list(found.values()) == pytest.approx([3.0] * 4, abs=0.05)
    assert all(np.isnan(list(surfaces.compare(inner, trimesh.Trimesh()).values())))
