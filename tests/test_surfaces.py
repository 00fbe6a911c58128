import numpy as np
import pytest
import trimesh
from matplotlib import pyplot as plt

from bonelib.segment import surfaces
from bonelib.segment.probabilities import Probabilities

RADIUS_MM = 20.0


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
    surface = surfaces.bone_surface(mask, spacing_mm, origin_mm=(10.0, -20.0, 300.0))
    assert surface.is_watertight and surface.is_winding_consistent
    assert surface.volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=tolerance)
    assert surface.area == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=tolerance)
    assert surface.center_mass == pytest.approx(centre[::-1] + (10, -20, 300), abs=0.2)
    outward = surface.triangles_center - surface.center_mass
    assert (np.einsum("ij,ij->i", outward, surface.face_normals) > 0).mean() > 0.99


def test_axes_are_the_patients():
    """A bar along columns is long in x, a bar along slices in z."""
    labels = np.zeros((9, 9, 30), np.uint8)
    labels[4, 4, 3:27] = 2
    labels[4, 0, 0] = 1  # the patient is no bone
    extents = surfaces.bone_surface(labels, (1, 1, 1)).extents
    assert extents[0] == pytest.approx(24, abs=1.5) and max(extents[1:]) < 3
    surface = surfaces.bone_surface(labels == 2, (1, 1, 1), (5, 6, 7))
    assert surface.center_mass == pytest.approx((5 + 14.5, 6 + 4, 7 + 4), abs=0.1)


@pytest.mark.parametrize("direction", [(-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1)])
def test_directions_turn_the_surface_and_leave_it_facing_outward(direction):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = surfaces.bone_surface(mask, (2.0, 2.0, 2.0), direction=direction)
    expected = np.reshape(direction, (3, 3)) @ centre[::-1]
    assert surface.center_mass == pytest.approx(expected, abs=0.2)
    assert surface.volume > 0


def test_thick_slices_give_slopes_and_not_steps():
    """The surface of a cone of few slices lies near the cone, between its slices too."""
    rows, columns = np.mgrid[:61, :61] - 30
    radii = np.arange(24, 4, -4)
    cone = np.stack([rows**2 + columns**2 < radius**2 for radius in radii])
    surface = surfaces.bone_surface(cone, (10.0, 1.0, 1.0))
    between = surface.vertices[(surface.vertices[:, 2] > 3) & (surface.vertices[:, 2] < 37)]
    radius = np.hypot(between[:, 0] - 30, between[:, 1] - 30)
    assert np.abs(radius - (24 - 0.4 * between[:, 2])).max() < 1.2  # a step would be off by 2


def test_bone_at_the_edge_of_the_scan_is_closed():
    surface = surfaces.bone_surface(np.ones((4, 6, 8), bool), (2.0, 1.0, 1.0))
    assert surface.is_watertight
    assert surface.volume == pytest.approx(4 * 6 * 8 * 2, rel=0.2)


def test_no_bone_is_said_in_one_line():
    with pytest.raises(ValueError, match="no bone in this label map"):
        surfaces.bone_surface(np.ones((3, 4, 5), np.uint8), (1, 1, 1))


def test_stl_is_read_back(tmp_path):
    mask, _ = ball((2.0, 2.0, 2.0))
    surface = surfaces.bone_surface(mask, (2.0, 2.0, 2.0))
    surfaces.write_stl(surface, tmp_path / "meshes" / "bone.stl")
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["bone.stl"]
    read = trimesh.load(tmp_path / "meshes" / "bone.stl")
    assert read.is_watertight and read.volume == pytest.approx(surface.volume, rel=1e-4)


@pytest.mark.parametrize("view", ["front", "side"])
def test_picture_shows_the_near_side_in_mm(view):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = surfaces.bone_surface(mask, (2.0, 2.0, 2.0))
    figure, axes = plt.subplots()
    surfaces.draw_surface(surface, axes, view, max_faces=2000)
    (patches,) = axes.collections
    assert 100 < len(patches.get_paths()) < 1600  # about half of the coarse faces
    low, high = axes.get_ylim()
    assert low < centre[0] - 18 and high > centre[0] + 18
    assert "(mm)" in axes.get_xlabel() and view.replace("side", "left") in axes.get_title()
    plt.close(figure)


def ball_probabilities(spacing_mm, shift=0.0):
    """Return the shares of a ball in each voxel, its centre `shift` mm beside a voxel."""
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
    values = np.stack([np.zeros_like(share), 1 - share, share], axis=-1).astype(np.float16)
    origin_mm = tuple(
        -count * step for count, step in zip(half[::-1], spacing_mm[::-1], strict=True)
    )
    return Probabilities(values, spacing_mm, origin_mm, surfaces.IDENTITY)


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
    probabilities = ball_probabilities(spacing_mm, shift)
    surface = surfaces.probability_surface(probabilities)
    distance = np.linalg.norm(surface.vertices - shift, axis=1) - RADIUS_MM
    assert surface.is_watertight
    assert np.abs(distance).mean() < limit_mm
    assert abs(distance.mean()) < bias_mm  # smoothing has not shrunk it
    mask = surfaces.bone_surface(
        probabilities.label_map(), spacing_mm, probabilities.origin_mm, surfaces.IDENTITY
    )
    of_mask = np.linalg.norm(mask.vertices - shift, axis=1) - RADIUS_MM
    assert np.abs(distance).mean() < np.abs(of_mask).mean()


def test_a_part_is_closed_where_it_touches_another():
    probabilities = ball_probabilities((2.0, 1.5, 1.5))
    lower = np.zeros(probabilities.values.shape[:3], bool)
    lower[: len(lower) // 2] = True
    bone = probabilities.label_map() == 2
    whole = surfaces.probability_surface(probabilities)
    parts = [surfaces.probability_surface(probabilities, bone & at) for at in (lower, ~lower)]
    assert all(part.is_watertight for part in parts)
    assert sum(part.volume for part in parts) == pytest.approx(whole.volume, rel=0.05)
    assert parts[0].bounds[1, 2] < parts[1].bounds[0, 2] + 3


@pytest.mark.parametrize("max_faces", [4000, 1000, 300])
def test_a_surface_keeps_to_its_triangle_budget_and_stays_closed(max_faces):
    whole = surfaces.probability_surface(ball_probabilities((1.0, 1.0, 1.0)))
    coarse = surfaces.coarsen(whole, max_faces)
    assert 0.8 * max_faces < len(coarse.faces) <= max_faces < len(whole.faces)
    assert coarse.is_watertight and coarse.is_winding_consistent
    assert coarse.volume == pytest.approx(whole.volume, rel=0.03)
    assert surfaces.coarsen(coarse, max_faces) is coarse


def test_sheets_that_touch_are_parted_in_the_file_too(tmp_path):
    """Two boxes that share an edge: an edge of four triangles, which is not closed to a slicer."""
    mask = np.zeros((40, 40, 40), bool)
    mask[5:20, 5:20, 5:35] = mask[20:35, 20:35, 5:35] = True
    mask[8:32, 8:32, 8:32] ^= np.indices((24, 24, 24)).sum(axis=0) % 7 == 0
    surface = surfaces.coarsen(surfaces.bone_surface(mask, (1, 1, 1)), 2000)
    surfaces.write_stl(surface, tmp_path / "bone.stl")
    assert trimesh.load(tmp_path / "bone.stl").is_watertight


def test_distances_of_two_balls_are_the_difference_of_their_radii():
    inner, outer = (trimesh.creation.icosphere(5, radius) for radius in (20.0, 23.0))
    for distance in (surfaces.distances(inner, outer), surfaces.distances(outer, inner)):
        assert distance == pytest.approx(3.0, abs=0.05)
    assert surfaces.distances(inner, inner).max() < 1e-6


def test_the_file_says_in_which_space_it_is(tmp_path):
    """3D Slicer reads SPACE=LPS from an STL's header."""
    surfaces.write_stl(trimesh.creation.icosphere(2, 5.0), tmp_path / "bone.stl")
    header = (tmp_path / "bone.stl").read_bytes()[:80]
    assert b"SPACE=LPS" in header and not header.startswith(b"solid")
