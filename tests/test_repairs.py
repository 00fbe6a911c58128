"""Repairs of geometry, against a field whose HU are linear in space.

Linear interpolation reproduces such a field exactly, wherever a voxel comes to lie; so each
voxel of a scan can be held against the field at its own place.
"""

import gzip
import pickle
import struct
import warnings

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bonelib.errors import InputError, InputWarning
from bonelib.scans import open_scan, read_scan

values = SimpleITK.GetArrayFromImage
AIR_HU = -1024
SHAPE = (9, 14, 12)


def field_hu(points_mm):
    """HU at points (…, 3) in the patient's x, y, z: different along each axis and direction."""
    return points_mm @ np.array([4.0, -6.0, 5.0]) - 300


def place(scan):
    """The x, y, z in mm of every voxel, of shape (slice, row, column, 3)."""
    columns, rows, count = scan.GetSize()
    indices = np.stack(np.meshgrid(*map(np.arange, (count, rows, columns)), indexing="ij"), -1)
    axes = np.reshape(scan.GetDirection(), (3, 3)) * scan.GetSpacing()
    return indices[..., ::-1] @ axes.T + scan.GetOrigin()


def assert_field(scan, share=1.0):
    """Every voxel holds the field at its place, or is air that was added around.

    Beside added air, a voxel may hold that of its neighbour: interpolation ends there.
    """
    image_hu = values(scan)
    given = image_hu != AIR_HU
    inner = given if given.all() else ndimage.binary_erosion(given, np.ones((3, 3, 3)))
    right = np.abs(image_hu - field_hu(place(scan))) <= 2.0
    assert right[inner].all()
    assert inner.mean() >= share


@pytest.fixture
def write_field(tmp_path, write_series):
    """Write the field as DICOM slices whose geometry is given, and return the folder."""

    def write(positions_mm, row=(1, 0, 0), column=(0, 1, 0), spacing_mm=2.0, name="ct", **more):
        count, rows, columns = len(positions_mm), *SHAPE[1:]
        down, right = np.mgrid[:rows, :columns] * spacing_mm
        in_plane_mm = down[..., None] * np.array(column) + right[..., None] * np.array(row)
        image_hu = [field_hu(np.array(start) + in_plane_mm) for start in positions_mm]

        def change(file, index):
            file.ImagePositionPatient = [f"{value:.6f}" for value in positions_mm[index]]
            file.ImageOrientationPatient = [f"{value:.9f}" for value in (*row, *column)]
            file.InstanceNumber = index + 1
            for key, value in more.items():
                setattr(file, key, value)

        assert count == len(image_hu)
        spacings = (5, spacing_mm, spacing_mm)
        return write_series(tmp_path / name, np.rint(image_hu).astype(int), spacings, change=change)

    return write


def heights(*heights_mm):
    return [(-12.0, -13.0, height) for height in heights_mm]


def told(folder):
    """Read a scan and return it with the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scan = read_scan(folder)
    assert all(issubclass(warning.category, InputWarning) for warning in caught)
    return scan, [str(warning.message) for warning in caught]


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_a_straight_series_needs_no_word(write_field):
    scan, texts = told(write_field(heights(*range(0, 45, 5))))
    assert not texts
    assert_field(scan)
    assert scan.GetSize() == (12, 14, 9) and scan.GetSpacing() == (2, 2, 5)


def test_one_missing_slice_is_interpolated(write_field):
    folder = write_field(heights(0, 5, 10, 20, 25, 30))
    scan, texts = told(folder)
    assert texts == ["missing slices interpolated: 1"]
    assert_field(scan)
    assert scan.GetSize()[2] == 7 and scan.GetSpacing()[2] == 5
    stored = open_scan(folder)
    assert stored.places.tolist() == [0, 1, 2, 4, 5, 6] and len(stored.frames) == 6
    assert stored.grid.size == (12, 14, 7)


@pytest.mark.parametrize(
    ("heights_mm", "words"),
    [
        ((0, 5, 10, 25, 30, 35), "2 slices are missing: 15.00 mm between "),
        ((0, 5, 10, 15, 20, 40), "3 slices are missing: 20.00 mm between "),
        ((0, 5, 10, 20, 25, 30, 40, 45, 50), "2 slices of 11 are missing, one at a time"),
    ],
)
def test_more_than_one_missing_slice_is_refused(write_field, heights_mm, words):
    assert words in refusal(write_field(heights(*heights_mm)))


def test_uneven_distances_are_made_even(write_field):
    scan, texts = told(write_field(heights(0, 5, 11, 15, 20, 26, 30)))
    assert texts == ["slice distances from 4.00 to 6.00 mm are resampled to 5.00 mm"]
    assert_field(scan)
    assert scan.GetSize()[2] == 7


def test_thick_slices_after_thin_ones(write_field):
    scan, texts = told(write_field(heights(0, 2.5, 5, 7.5, 10, 12.5, 15, 20)))
    assert "interpolated: 1" in texts[0]
    assert_field(scan)


def test_slices_given_twice_are_dropped(write_field):
    scan, texts = told(write_field(heights(0, 5, 5, 10, 15, 15, 20)))
    assert texts == ["duplicate slices dropped: 2"]
    assert_field(scan)
    assert scan.GetSize()[2] == 5


@pytest.mark.parametrize("degrees", [-25, 8, 20])
@pytest.mark.parametrize("told_by", [None, "tag"])
def test_a_tilted_gantry_is_corrected(write_field, degrees, told_by):
    tilt = np.radians(degrees)
    column = (0, np.cos(tilt), -np.sin(tilt))
    tag = {"GantryDetectorTilt": degrees} if told_by else {}
    folder = write_field(heights(*range(0, 45, 5)), column=column, **tag)
    scan, texts = told(folder)
    assert texts == [f"the gantry's tilt of {abs(degrees):.1f} degrees is corrected"]
    np.testing.assert_allclose(scan.GetDirection(), np.eye(3).ravel(), atol=1e-9)
    np.testing.assert_allclose(scan.GetSpacing(), (2, 2, 5))
    assert_field(scan, share=0.4)
    assert open_scan(folder).grid.is_skew


def test_tilt_that_the_positions_do_not_show_is_refused(write_field):
    folder = write_field(heights(*range(0, 45, 5)), GantryDetectorTilt=-15.5)
    assert "tilted by -15.5 degrees, and the slices' positions do not show it" in refusal(folder)


def test_a_slight_shift_of_a_long_series_is_not_lost(write_field):
    """2 mm sideways in 160 mm: too much for a straight grid, and far from a gantry's tilt."""
    scan, texts = told(
        write_field([(-12.0 + 0.25 * index, -13.0, 20.0 * index) for index in range(9)])
    )
    assert texts == ["the gantry's tilt of 0.7 degrees is corrected"]
    assert_field(scan, share=0.4)


def test_rounded_cosines_are_no_tilt(write_field):
    row, column = (0.985, 0.174, 0.0), (-0.174, 0.985, 0.0)
    scan, texts = told(write_field(heights(*range(0, 45, 5)), row, column))
    assert not texts
    direction = np.reshape(scan.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    assert_field(scan)


def test_slices_beside_one_another_are_refused(write_field):
    positions = [(-12.0 + 9 * index, -13.0, 5.0 * index) for index in range(6)]
    assert "61 degrees, more than a gantry tilts" in refusal(write_field(positions))
    positions = heights(0, 5, 10, 15, 20)
    positions[3] = (-12.0, -9.0, 15.0)
    assert "shift sideways by up to 4.0 mm, not as" in refusal(write_field(positions))


def test_a_slice_that_lies_about_half_a_pixel_moves_nothing(write_field):
    positions = heights(*range(0, 45, 5))
    positions[0] = (-12.9, -13.0, 0.0)
    scan, texts = told(write_field(positions, name="first"))
    assert scan.GetOrigin() == pytest.approx((-12, -13, 0), abs=1e-6) and not texts
    positions = heights(0.4, *range(5, 45, 5))
    scan, _ = told(write_field(positions, name="lowest"))
    assert scan.GetSpacing()[2] == pytest.approx(5, abs=0.02)


POSES = {
    "supine, head first": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "feet first, seen from the feet": ((-1, 0, 0), (0, 1, 0)),
    "decubitus left": ((0, 1, 0), (-1, 0, 0)),
    "decubitus right": ((0, -1, 0), (1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("downwards", [False, True])
def test_every_pose_keeps_every_voxel_at_its_place(write_field, pose, downwards):
    row, column = np.array(POSES[pose], float)
    normal = np.cross(row, column) * (-1 if downwards else 1)
    scan, texts = told(write_field([normal * 5 * index for index in range(9)], row, column))
    assert not texts
    assert_field(scan)
    assert sorted(scan.GetSize()) == sorted((12, 14, 9))
    np.testing.assert_allclose(scan.GetDirection(), np.eye(3).ravel(), atol=1e-9)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(angles=st.tuples(*[st.integers(-180, 180)] * 3), distance_mm=st.sampled_from([1.5, 3, 5]))
def test_every_oblique_series_keeps_every_voxel_at_its_place(write_field, angles, distance_mm):
    row, column, normal = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    name = f"{angles}{distance_mm}"
    scan, texts = told(
        write_field([normal * distance_mm * i for i in range(9)], row, column, name=name)
    )
    turned = Rotation.from_matrix(np.reshape(scan.GetDirection(), (3, 3))).magnitude()
    assert turned < 0.5  # about 15 degrees round each axis stay
    assert not texts or (turned < 1e-6 and "are resampled to axial ones" in texts[0])
    assert_field(scan, share=0.05)


# Volume files


@pytest.fixture
def write_nifti(tmp_path, make_image):
    """Write a small NIfTI and return its path; `edit` maps places in the header to bytes."""

    def write(edit=None, image_hu=None, name="ct.nii", spacing_mm=(5.0, 2.0, 2.0)):
        if image_hu is None:
            image_hu = np.random.default_rng(3).integers(-1000, 900, (5, 6, 8)).astype(np.int16)
        path = tmp_path / name
        SimpleITK.WriteImage(make_image(image_hu, spacing_mm), str(path))
        content = bytearray(path.read_bytes())
        for start, kind, value in edit or ():
            struct.pack_into(kind, content, start, value)
        path.write_bytes(content)
        return path

    return write


PIXDIM, QFORM_CODE, SFORM_CODE, QOFFSET_Z, SROW_X, SROW_Z = 76, 252, 254, 276, 280, 312


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ([(QOFFSET_Z, "<f", 140.0)], "places the volume in two ways, 40.0 mm"),
        ([(SROW_Z + 12, "<f", 140.0)], "places the volume in two ways, 40.0 mm"),
        ([(PIXDIM + 12, "<f", 7.0)], "in two ways"),
        ([(PIXDIM + 12, "<f", 7.0), (QFORM_CODE, "<h", 0)], "in two ways"),
        ([(QFORM_CODE, "<h", 0), (SFORM_CODE, "<h", 0)], "which side is left"),
        (
            [(PIXDIM + 4 * axis, "<f", 0.0) for axis in (1, 2, 3)] + [(SFORM_CODE, "<h", 0)],
            "makes no sense",
        ),
        ([(42, "<h", 30_000), (44, "<h", 30_000), (46, "<h", 30_000)], "make no sense"),
        ([(42, "<h", -5)], "damaged"),
        ([(70, "<h", 999)], "damaged"),
        ([(123, "<b", 1)], "spacing of 2000 x 2000 x 5000 mm"),  # metres
    ],
)
def test_a_nifti_that_contradicts_itself_is_refused(write_nifti, edit, words):
    assert words in refusal(write_nifti(edit))


def test_a_volume_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "ct.mha"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        "ElementSpacing = 0.05 0.05 0.05\nDimSize = 40000 40000 40000\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\nx"
    )
    assert "40000 x 40000 x 40000 voxels need 476837 GiB of memory" in refusal(path)


def test_a_gzip_that_never_ends_is_refused(write_nifti):
    path = write_nifti()
    bomb = path.with_suffix(".nii.gz")
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        stream.write(path.read_bytes() + bytes(2**26))
    assert "damaged" in refusal(bomb)


def test_a_changed_byte_in_a_compressed_volume_is_noticed(write_nifti):
    path = write_nifti(name="ct.nii.gz")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_a_twin_of_another_suffix_is_not_mixed_up(write_nifti):
    """ITK reads the voxels of ct.nii for ct.nii.gz where both are in one folder."""
    other = write_nifti(image_hu=np.full((3, 4, 5), -700, np.int16))
    packed = write_nifti(image_hu=np.full((3, 4, 5), -800, np.int16), name="ct.nii.gz")
    assert values(SimpleITK.ReadImage(str(packed))).max() == -700  # still so, or not needed
    assert values(read_scan(packed)).max() == -800
    assert values(read_scan(other)).max() == -700


def test_absurd_values(write_nifti):
    image_hu = np.full((4, 5, 6), -1000.0, np.float32)
    image_hu[1, 1, 1] = 47_685
    scan, texts = told(write_nifti(image_hu=image_hu))
    assert texts == ["values up to 47685 HU are cut to 32767"]
    assert values(scan).max() == 32767
    image_hu[1, 1, 1] = 1e6
    assert "are not HU" in refusal(write_nifti(image_hu=image_hu))
    image_hu[1, 1, 1] = -1e30
    assert "are not HU" in refusal(write_nifti(image_hu=image_hu))
    image_hu[1, 1, 1] = np.nan
    assert "not finite" in refusal(write_nifti(image_hu=image_hu))


def test_padding_far_below_air_becomes_air(write_nifti):
    image_hu = np.full((4, 5, 6), 40, np.int16)
    image_hu[0] = -3024
    assert values(read_scan(write_nifti(image_hu=image_hu))).min() == AIR_HU


def test_one_slice_is_no_scan(write_nifti):
    path = write_nifti(image_hu=np.full((1, 5, 6), -1000, np.int16))
    assert "holds one CT slice" in refusal(path)


def test_pixels_that_are_not_square_are_told(write_nifti):
    _, texts = told(write_nifti(spacing_mm=(5, 2, 3)))
    assert texts == ["pixels are not square but 3 x 2 mm; is that right?"]


def test_what_is_no_image_is_refused_and_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("ct.nii", "ct.nii.gz", "ct.npy", "ct.nrrd", "ct.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        refusal(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
