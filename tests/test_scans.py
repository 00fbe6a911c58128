"""Volume files and archives: kept as they are, or refused in one line."""

import gzip
import io
import re
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from bonelib import scans
from bonelib.errors import InputError
from bonelib.scans import open_scan, read_scan, read_volume
from tests.mask_files import assert_same, refusal_of, told_by

values = SimpleITK.GetArrayFromImage


@pytest.fixture
def image_hu():
    random = np.random.default_rng(1)
    return random.integers(-1024, 2000, (5, 6, 8)).astype(np.int16)


def refusal(path, read=read_scan):
    return refusal_of(path, read)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_volume_files_keep_values_and_place(tmp_path, make_image, image_hu, suffix):
    image, path = make_image(image_hu), tmp_path / f"ct{suffix}"
    stored = SimpleITK.DICOMOrient(image, "RAS")
    stored.SetMetaData("content", "Hüftbein, kość, кость")
    SimpleITK.WriteImage(stored, str(path))
    opened = open_scan(path)
    assert_same(opened.image, image)
    assert opened.grid.size == stored.GetSize() and not opened.frames
    if suffix != ".mhd":
        path.write_bytes(path.read_bytes()[:-100])
        assert "damaged" in refusal(path)


@settings(max_examples=20, deadline=None)
@given(
    array=arrays.arrays(
        np.int16,
        arrays.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=4),
        elements=st.integers(-1024, 32767),
    ),
    order=st.permutations("xyz").flatmap(
        lambda axes: st.tuples(
            *(st.sampled_from({"x": "LR", "y": "PA", "z": "SI"}[a]) for a in axes)
        )
    ),
)
def test_every_order_of_axes_comes_out_the_same(tmp_path_factory, array, order):
    array[0, 0, 0] = -1000
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1, 1, 3))
    path = tmp_path_factory.mktemp("order") / "ct.nrrd"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, "".join(order)), str(path))
    assert_same(read_scan(path), image)


@pytest.mark.parametrize("order", ["LPS", "RAI", "ASL", "IRP"])
@pytest.mark.parametrize("depth, thick", [(13, 4), (5, 3), (2, 2)])
def test_thin_slices_are_averaged_where_they_lie(tmp_path, order, depth, thick):
    """HU rise by 10 a slice along the patient, whatever axis of the file that is."""
    rising = 10.0 * np.arange(depth)[:, None, None] * np.ones((1, 4, 5))
    image = SimpleITK.GetImageFromArray((rising - 500).astype(np.float32))
    image.SetSpacing((2, 3, 0.36))
    path = tmp_path / "ct.nrrd"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, order), str(path))
    opened = open_scan(path, thickest_mm=1.5)
    averaged = opened.image
    assert averaged.GetDepth() == thick and opened.grid.size == SimpleITK.ReadImage(path).GetSize()
    heights = [averaged.TransformIndexToPhysicalPoint((0, 0, at))[2] for at in range(thick)]
    wrong = np.abs(values(averaged)[:, 0, 0] + 500 - 10 / 0.36 * np.array(heights))
    assert np.sort(wrong)[:-1].max() < 1e-3  # the last may be of fewer slices


def test_real_volume(shared_data):
    path = shared_data / "abdomen_nifti" / "ct.nii.gz"
    reference = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    below = values(reference) < -1024  # resampling overshot there; air is the lowest value
    assert below.any()
    assert_same(read_scan(path), SimpleITK.Maximum(reference, -1024))


def test_mask_of_fractions_becomes_integers(tmp_path, make_image):
    mask = make_image(np.array([[[-0.1, 0.4, 0.5, 0.6, 1, 2.9]]], np.float32))
    SimpleITK.WriteImage(mask, str(tmp_path / "mask.nrrd"))
    read = read_volume(tmp_path / "mask.nrrd")
    assert values(read).tolist() == [[[0, 0, 0, 1, 1, 3]]]
    assert read.GetPixelID() == SimpleITK.sitkUInt8
    SimpleITK.WriteImage(make_image(np.array([[[0, 1000]]], np.int16)), str(tmp_path / "mask.nrrd"))
    assert values(read_volume(tmp_path / "mask.nrrd")).tolist() == [[[0, 1000]]]


def test_other_than_one_volume_is_refused(tmp_path, make_image, image_hu):
    image = make_image(image_hu)
    for wrong, words in (
        (image[:, :, 0], "2 dimensions"),
        (SimpleITK.JoinSeries([image] * 2), "4 dimensions"),
        (make_image(np.full((1, 5, 6), -1000, np.int16)), "holds one CT slice"),
    ):
        SimpleITK.WriteImage(wrong, str(tmp_path / "odd.nrrd"))
        assert words in refusal(tmp_path / "odd.nrrd")
    SimpleITK.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    assert "ids from 0" in refusal(tmp_path / "ct.nii.gz", read_volume)


@pytest.mark.parametrize(
    ("suffix", "old", "new", "words"),
    [
        ("nrrd", b"left-posterior-superior", b"scanner-xyz", "no 'space' in a known form"),
        ("nrrd", b"left-posterior-superior", b"right-anterior-superior", ""),
        ("nrrd", b"kinds:", b'space units: "m" "m" "m"\nkinds:', "not in mm"),
        ("nrrd", b"kinds:", b'Space Units: "cm" "cm" "cm"\nkinds:', "not in mm"),
        ("nrrd", b"kinds:", b'space units: "mm" "mm" "millimeters"\nkinds:', ""),
        ("mha", b"ElementType", b"DistanceUnits = cm\nElementType", "not in mm"),
        ("mha", b"ElementType", b"DistanceUnits = mm\nElementType", ""),
        ("mha", b"Offset", b"Ofset", "has no 'Offset' in a known form"),
        ("mha", b"TransformMatrix = 1", b"TransformMatrix = x", "has no 'TransformMatrix'"),
        ("mha", b"\nElementSpacing", b"\nSpacing", "has no 'ElementSpacing'"),
        ("nrrd", b"encoding: raw", b"encoding: bzip2", "compression (bzip2) is not supported"),
        ("mha", b"= LOCAL", b"= ct.raw", "damaged"),
    ],
)
def test_units_and_spaces_are_honoured_or_refused(
    tmp_path, make_image, image_hu, suffix, old, new, words
):
    path = tmp_path / f"ct.{suffix}"
    SimpleITK.WriteImage(make_image(image_hu), str(path))
    path.write_bytes(path.read_bytes().replace(old, new))
    if words:
        assert words in refusal(path)
        return
    scan = read_scan(path)
    turned = image_hu[:, ::-1, ::-1] if b"right" in new else image_hu
    np.testing.assert_array_equal(values(scan), turned)


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha"])
@pytest.mark.parametrize(("degrees", "said"), [(0.005, None), (0.09, "0.09 degrees"), (0.2, "")])
def test_rounded_axes_are_straightened(tmp_path, make_image, suffix, degrees, said):
    """As direction cosines of few decimals are; with a rotation, whose sense must stay."""
    image_hu = np.full((5, 6, 8), -1000, np.int16)
    image_hu[2:, 3:, 5:] = 500
    image = make_image(image_hu)
    axes = Rotation.from_euler("xyz", (3, -5, 8), degrees=True).as_matrix()
    image.SetDirection(axes.ravel().tolist())
    skew = axes.copy()
    skew[:, 1] += np.tan(np.radians(degrees)) * axes[:, 0]
    path = tmp_path / f"ct.{suffix}"
    SimpleITK.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    if suffix == "nii":
        struct.pack_into("<h", content, QFORM_CODE, 0)
        affine = np.c_[skew * image.GetSpacing(), image.GetOrigin()] * [[-1], [-1], [1]]
        struct.pack_into("<12f", content, SFORM, *affine.ravel())
    else:
        steps = skew.T * (np.reshape(image.GetSpacing(), (3, 1)) if suffix == "nrrd" else 1)
        text = " ".join(str(tuple(row)).replace(" ", "") for row in steps.tolist())
        text = text if suffix == "nrrd" else re.sub(r"[(),]", " ", text)
        name = rb"space directions: " if suffix == "nrrd" else rb"TransformMatrix = "
        content = re.sub(name + rb"[^\n]*", name + text.encode(), bytes(content))
    path.write_bytes(content)
    if said == "":
        assert "0.20 degrees off" in refusal(path)
        return
    scan, texts = told_by(read_scan, path)
    assert said in texts[0] if said else not texts
    direction = np.reshape(scan.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(direction, axes, atol=2e-3)
    np.testing.assert_array_equal(values(scan), image_hu)


@pytest.fixture
def write_nifti(tmp_path, make_image):
    """Write a small NIfTI and return its path; `edit` maps places in the header to bytes."""

    def write(edit=(), image_hu=None, name="ct.nii"):
        if image_hu is None:
            image_hu = np.random.default_rng(3).integers(-1000, 900, (5, 6, 8)).astype(np.int16)
        path = tmp_path / name
        SimpleITK.WriteImage(make_image(image_hu, (5.0, 2.0, 2.0)), str(path))
        content = bytearray(path.read_bytes())
        for start, kind, value in edit:
            struct.pack_into(kind, content, start, value)
        path.write_bytes(content)
        return path

    return write


PIXDIM, QFORM_CODE, SFORM_CODE, QOFFSET_Z, SFORM, SROW_Z = 76, 252, 254, 276, 280, 312


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ([(QOFFSET_Z, "<f", 140.0)], "places the volume in two ways, 40.0 mm apart"),
        ([(PIXDIM, "<f", -1.0)], "in two ways"),  # the slices' direction
        ([(PIXDIM + 12, "<f", 7.0), (QFORM_CODE, "<h", 0)], "in two ways"),
        ([(QFORM_CODE, "<h", 0), (SFORM_CODE, "<h", 0)], "which side is left"),
        ([(PIXDIM + 12, "<f", 0.0), (SFORM_CODE, "<h", 0)], "spacing of 2 x 2 x 0 mm"),
        ([(42, "<h", 30_000), (44, "<h", 30_000), (46, "<h", 30_000)], "make no sense"),
        ([(70, "<h", 999)], "damaged"),
        ([(123, "<b", 1)], "spacing of 2000 x 2000 x 5000 mm"),  # metres
    ],
)
def test_a_nifti_that_contradicts_itself_is_refused(write_nifti, edit, words):
    assert words in refusal(write_nifti(edit))
    for code in (QFORM_CODE, SFORM_CODE):  # one orientation is enough
        assert_same(read_scan(write_nifti([(code, "<h", 0)])), read_scan(write_nifti()))


@pytest.mark.parametrize(("code", "factor"), [(1, 1e-3), (3, 1e3)])
def test_a_nifti_in_metres_or_micrometres_is_read(write_nifti, code, factor):
    reference, path = read_scan(write_nifti()), write_nifti([(123, "<b", code)])
    content = bytearray(path.read_bytes())
    for start, count in ((PIXDIM + 4, 3), (QFORM_CODE + 16, 3), (SFORM, 12)):
        lengths = np.frombuffer(content, "<f4", count, start) * factor
        struct.pack_into(f"<{count}f", content, start, *lengths)
    path.write_bytes(content)
    assert_same(read_scan(path), reference)


def test_a_twin_of_another_suffix_is_not_mixed_up(write_nifti):
    """ITK reads the voxels of ct.nii for ct.nii.gz where both are in one folder."""
    other = write_nifti(image_hu=np.full((3, 4, 5), -700, np.int16))
    packed = write_nifti(image_hu=np.full((3, 4, 5), -800, np.int16), name="ct.nii.gz")
    assert values(SimpleITK.ReadImage(str(packed))).max() == -700  # still so, or not needed
    assert values(read_scan(packed)).max() == -800
    assert values(read_scan(other)).max() == -700


def test_a_suffix_does_not_say_whether_a_nifti_is_compressed(tmp_path, write_nifti):
    plain, packed = tmp_path / "b.nii", tmp_path / "a.nii.gz"
    original = write_nifti()
    packed.write_bytes(original.read_bytes())
    plain.write_bytes(gzip.compress(original.read_bytes()))
    assert_same(read_scan(plain), read_scan(original))
    assert_same(read_scan(packed), read_scan(original))


def test_a_mark_before_the_header_is_named(tmp_path, make_image, image_hu):
    path = tmp_path / "ct.nrrd"
    SimpleITK.WriteImage(make_image(image_hu), str(path))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "an editor put a mark before the header" in refusal(path)


# Archives


@pytest.fixture
def pack(tmp_path, write_nifti):
    """Write a volume, or the entries given, as an archive of the kind that its suffix says."""

    def write(suffix=".zip", entries=None):
        path = tmp_path / f"scans{suffix}"
        entries = entries or {"s1/deep/ct.nii": write_nifti().read_bytes(), "meta.csv": b"a;b"}
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, content in entries.items():
                    packed.writestr(name, content)
            return path
        kind = {"tgz": "gz", "tar": ""}.get(suffix.split(".")[-1], suffix.split(".")[-1])
        with tarfile.open(path, f"w:{kind}") as packed:
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
        return path

    return write


@pytest.mark.parametrize("suffix", scans.ARCHIVE_SUFFIXES)
def test_an_archive_of_a_volume_is_read_or_refused(pack, write_nifti, suffix):
    path = pack(suffix)
    reference = read_scan(write_nifti())
    assert_same(read_scan(path), reference)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 8).astype(int):
        path.write_bytes(whole[:length])
        try:
            assert_same(read_scan(path), reference)  # only padding was cut
            assert suffix != ".zip"
        except InputError as error:
            assert f"{path}: cannot be unpacked (" in str(error)
    path.write_text("<html>Not found</html>" * 100)
    assert "cannot be unpacked (" in refusal(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
def test_nothing_is_written_out_of_the_folder(pack, tmp_path, name, suffix):
    path = pack(suffix, {"good": b"1", name: b"2"})
    is_outside = suffix == ".tar" and not name.startswith("/")
    assert ("outside the destination" if is_outside else "no CT slices here") in refusal(path)
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_out_of_the_folder_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        entry = tarfile.TarInfo("bad")
        entry.type, entry.linkname = kind, "../../etc/passwd"
        packed.addfile(entry)
    assert "'bad'" in refusal(tmp_path / "x.tar")


def test_a_zip_with_a_password_is_refused(pack):
    path = pack(entries={"a": b"1"})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # flags of the entry
        content[content.index(magic) + place] |= 1
    path.write_bytes(content)
    message = refusal(path)
    assert "encrypted, password required" in message and "unpack it yourself" in message


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_bomb_two_volumes_and_more_than_the_disk_holds_are_refused(pack, monkeypatch, suffix):
    path = pack(suffix, {"a.nii": bytes(2**23), "b.nii": b""})
    assert "holds 2 volumes (a.nii, b.nii)" in refusal(path)  # a short bomb does no harm
    monkeypatch.setattr(scans, "HARMLESS_BYTES", 2**20)
    assert "as a decompression bomb" in refusal(path)
    monkeypatch.undo()
    monkeypatch.setattr(scans, "KEEP_FREE_BYTES", 2**60)
    assert "more than the disk has to spare" in refusal(path)
