import numpy as np
import pytest
import trimesh
from matplotlib import pyplot as plt

from bonelib import meshes

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
    surface = meshes.bone_surface(mask, spacing_mm, origin_mm=(10.0, -20.0, 300.0))
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
    extents = meshes.bone_surface(labels, (1, 1, 1)).extents
    assert extents[0] == pytest.approx(24, abs=1.5) and max(extents[1:]) < 3
    surface = meshes.bone_surface(labels == 2, (1, 1, 1), (5, 6, 7))
    assert surface.center_mass == pytest.approx((5 + 14.5, 6 + 4, 7 + 4), abs=0.1)


@pytest.mark.parametrize("direction", [(-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1)])
def test_directions_turn_the_surface_and_leave_it_facing_outward(direction):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = meshes.bone_surface(mask, (2.0, 2.0, 2.0), direction=direction)
    expected = np.reshape(direction, (3, 3)) @ centre[::-1]
    assert surface.center_mass == pytest.approx(expected, abs=0.2)
    assert surface.volume > 0


def test_thick_slices_give_slopes_and_not_steps():
    """The surface of a cone of few slices lies near the cone, between its slices too."""
    rows, columns = np.mgrid[:61, :61] - 30
    radii = np.arange(24, 4, -4)
    cone = np.stack([rows**2 + columns**2 < radius**2 for radius in radii])
    surface = meshes.bone_surface(cone, (10.0, 1.0, 1.0))
    between = surface.vertices[(surface.vertices[:, 2] > 3) & (surface.vertices[:, 2] < 37)]
    radius = np.hypot(between[:, 0] - 30, between[:, 1] - 30)
    assert np.abs(radius - (24 - 0.4 * between[:, 2])).max() < 1.2  # a step would be off by 2


def test_bone_at_the_edge_of_the_scan_is_closed():
    surface = meshes.bone_surface(np.ones((4, 6, 8), bool), (2.0, 1.0, 1.0))
    assert surface.is_watertight
    assert surface.volume == pytest.approx(4 * 6 * 8 * 2, rel=0.2)


def test_no_bone_is_said_in_one_line():
    with pytest.raises(ValueError, match="no bone in this label map"):
        meshes.bone_surface(np.ones((3, 4, 5), np.uint8), (1, 1, 1))


def test_stl_is_read_back(tmp_path):
    mask, _ = ball((2.0, 2.0, 2.0))
    surface = meshes.bone_surface(mask, (2.0, 2.0, 2.0))
    meshes.write_stl(surface, tmp_path / "meshes" / "bone.stl")
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["bone.stl"]
    read = trimesh.load(tmp_path / "meshes" / "bone.stl")
    assert read.is_watertight and read.volume == pytest.approx(surface.volume, rel=1e-4)


@pytest.mark.parametrize("view", ["front", "side"])
def test_picture_shows_the_near_side_in_mm(view):
    mask, centre = ball((2.0, 2.0, 2.0))
    surface = meshes.bone_surface(mask, (2.0, 2.0, 2.0))
    figure, axes = plt.subplots()
    meshes.draw_surface(surface, axes, view, max_faces=2000)
    (patches,) = axes.collections
    assert 100 < len(patches.get_paths()) < 1600  # about half of the coarse faces
    low, high = axes.get_ylim()
    assert low < centre[0] - 18 and high > centre[0] + 18
    assert "(mm)" in axes.get_xlabel() and view.replace("side", "left") in axes.get_title()
    plt.close(figure)
