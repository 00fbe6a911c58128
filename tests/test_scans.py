import re
import shutil

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bonelib.errors import InputError
from bonelib.scans import holds_dicom, read_scan, read_volume, volume_stem

values = SimpleITK.GetArrayFromImage


@pytest.fixture
def image_hu():
    random = np.random.default_rng(1)
    return random.integers(-1024, 2000, (5, 6, 8)).astype(np.int16)


def refusal(path, read=read_scan):
    """Return the message, which must be one line that names the path or a file within."""
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def gdcm(folder):
    """Read a series with another library than the one under test."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.DICOMOrient(reader.Execute(), "LPS")


def assert_same(image, reference):
    np.testing.assert_array_equal(values(image), values(reference))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, name)(), getattr(reference, name)(), atol=1e-6)


def test_series_is_what_gdcm_reads(tmp_path, write_series, image_hu):
    folder = write_series(tmp_path / "ct", image_hu)
    scan = read_scan(folder)
    assert_same(scan, gdcm(folder))
    np.testing.assert_array_equal(values(scan), image_hu)
    assert scan.GetSpacing() == (3, 2, 5)
    assert scan.GetPixelID() == SimpleITK.sitkInt16


def test_series_in_another_direction_is_turned(tmp_path, write_series, image_hu):
    def lie_prone(file, index):
        file.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]

    folder = write_series(tmp_path, image_hu, change=lie_prone)
    assert_same(read_scan(folder), gdcm(folder))
    np.testing.assert_array_equal(values(read_scan(folder)), image_hu[:, ::-1, ::-1])


def test_sagittal_series_becomes_axial(tmp_path, write_series, image_hu):
    def sagittal(file, index):
        file.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        file.ImagePositionPatient = [10 + 5 * index, 0, 100]

    folder = write_series(tmp_path, image_hu, change=sagittal)
    scan = read_scan(folder)
    assert_same(scan, gdcm(folder))
    np.testing.assert_array_equal(values(scan), image_hu.transpose(1, 2, 0)[::-1])


def test_each_slice_has_its_own_rescaling(tmp_path, write_series, image_hu):
    def rescale(file, index):
        file.RescaleSlope, file.RescaleIntercept = 0.5 + index, -1024 - index

    scan = read_scan(write_series(tmp_path, image_hu, change=rescale))
    assert scan.GetPixelID() == SimpleITK.sitkFloat32
    for index, part in enumerate(image_hu):
        stored = part.astype(float) + 1024
        np.testing.assert_allclose(
            values(scan)[index], stored * (0.5 + index) - 1024 - index, atol=1e-2
        )


def test_compressed_series_without_uids(shared_data):
    folder = shared_data / "abdomen_dicom" / "ct"
    scan = read_scan(folder)
    assert scan.GetSize() == (512, 512, 20)
    np.testing.assert_allclose(scan.GetSpacing(), (0.9765625, 0.9765625, 2))
    np.testing.assert_allclose(scan.GetOrigin(), (-249.51171875, -437.51171875, -804.5))
    files = sorted(folder.iterdir())
    for file in files[::6]:
        one = SimpleITK.ReadImage(str(file))
        index = round((one.GetOrigin()[2] + 804.5) / 2)
        np.testing.assert_array_equal(values(scan)[index], values(one)[0])


def test_other_files_are_passed_over(tmp_path, write_series, image_hu):
    folder = write_series(tmp_path / "ct", image_hu)
    (folder / "README.txt").write_text("read me")
    (folder / "._IM003").write_bytes(b"\x00" * 200)
    write_series(
        folder / "mr", image_hu, change=lambda file, index: setattr(file, "Modality", "MR")
    )
    write_series(
        folder / "scout", image_hu[:1],
        change=lambda file, index: setattr(file, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="left out: 1 CT localizer, 1 not DICOM, 5 of modality MR"):
        np.testing.assert_array_equal(values(read_scan(folder)), image_hu)


def set_on(number, **attributes):
    def change(file, index):
        if index == number:
            for name, value in attributes.items():
                setattr(file, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_on(2, PixelSpacing=[2, 2]), "another pixel spacing"),
        (set_on(2, ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "another orientation"),
        (set_on(2, ImagePositionPatient=[-30, -40, 105]), "same position and differ"),
        (set_on(4, ImagePositionPatient=[-30, -40, 130]), "2 slices are missing: 15.00 mm"),
        (set_on(2, ImagePositionPatient=[-30, -20, 110]), "shift sideways by up to 20.0 mm"),
        (set_on(2, PixelSpacing=[0, 2]), "another pixel spacing"),
        (lambda file, index: setattr(file, "PixelSpacing", [0, 2]), "spacing of 0 x 2 mm"),
        (lambda file, index: setattr(file, "RescaleSlope", 1000), "are not HU"),
        (set_on(2, PixelData=b"\x00\x00"), "pixels cannot be decoded"),
        (set_on(2, Rows=3, PixelData=b"\x00" * 48), "another size"),
        (
            lambda file, index: setattr(file, "Modality", "MR"),
            "no CT slices here .5 of modality MR",
        ),
        (lambda file, index: setattr(file, "NumberOfFrames", 3), "header is damaged"),
        (lambda file, index: setattr(file, "RescaleIntercept", 0), "not HU"),
    ],
)
def test_bad_series_is_refused(tmp_path, write_series, image_hu, change, words):
    assert re.search(words, refusal(write_series(tmp_path, image_hu, change=change)))


def test_one_slice_is_refused(tmp_path, write_series, image_hu):
    assert "one CT slice" in refusal(write_series(tmp_path, image_hu[:1]))


def test_one_dicom_file_is_refused(tmp_path, write_series, image_hu):
    assert "give the folder" in refusal(write_series(tmp_path, image_hu) / "IM003")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_volume_files_keep_values_and_place(tmp_path, make_image, image_hu, suffix):
    image = make_image(image_hu)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, "RAS"), str(tmp_path / f"ct{suffix}"))
    assert_same(read_scan(tmp_path / f"ct{suffix}"), image)


@pytest.mark.parametrize("order", ["LPS", "RAS", "LAS", "RAI", "PIR", "SRA"])
def test_nifti_of_either_handedness(tmp_path, make_image, image_hu, order):
    image = make_image(image_hu)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, order), str(tmp_path / "ct.nii.gz"))
    assert_same(read_scan(tmp_path / "ct.nii.gz"), image)


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
    image.SetSpacing((1, 2, 3))
    path = tmp_path_factory.mktemp("order") / "ct.nrrd"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, "".join(order)), str(path))
    assert_same(read_scan(path), image)


def test_patients_left_stays_left(tmp_path, make_image):
    image_hu = np.full((3, 4, 6), -1000, np.int16)
    image_hu[:, :, 5] = 800
    SimpleITK.WriteImage(
        SimpleITK.DICOMOrient(make_image(image_hu), "RAS"), str(tmp_path / "ct.nii.gz")
    )
    scan = read_scan(tmp_path / "ct.nii.gz")
    x_mm = scan.TransformIndexToPhysicalPoint((5, 0, 0))[0]
    assert values(scan)[0, 0, 5] == 800
    assert x_mm == -20  # -30 mm and five pixels of 2 mm towards the left


def test_real_volume(shared_data):
    path = shared_data / "abdomen_nifti" / "ct.nii.gz"
    reference = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    below = values(reference) < -1024  # resampling overshot there; air is the least there is
    assert below.any()
    assert_same(read_scan(path), SimpleITK.Maximum(reference, -1024))


def test_real_mask(shared_data):
    folder = shared_data / "pelvis_label_maps" / "Pelvic-Ref-001"
    mask = read_volume(folder / "mask.mhd")
    assert mask.GetSize() == (512, 512, 153)
    assert set(np.unique(values(mask))) == {0, 1}


def test_mask_of_numbers_with_fractions_becomes_integers(tmp_path, make_image):
    mask = make_image(np.array([[[0, 0.4, 0.5, 0.6, 1, 2.9]]], np.float32))
    SimpleITK.WriteImage(mask, str(tmp_path / "mask.nrrd"))
    read = read_volume(tmp_path / "mask.nrrd")
    assert values(read).tolist() == [[[0, 0, 0, 1, 1, 3]]]
    assert read.GetPixelID() == SimpleITK.sitkUInt8
    SimpleITK.WriteImage(make_image(np.array([[[0, 1000]]], np.int16)), str(tmp_path / "mask.nrrd"))
    assert values(read_volume(tmp_path / "mask.nrrd")).tolist() == [[[0, 1000]]]


def test_bad_volume_files_are_refused(tmp_path, make_image, image_hu):
    assert "no such file" in refusal(tmp_path / "absent.nii")
    (tmp_path / "notes.txt").write_text("notes")
    assert "not a volume file" in refusal(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert "no files" in refusal(tmp_path / "empty")

    whole = tmp_path / "ct.nii.gz"
    SimpleITK.WriteImage(make_image(image_hu), str(whole))
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        cut = tmp_path / f"cut{suffix}"
        SimpleITK.WriteImage(make_image(image_hu), str(cut))
        cut.write_bytes(cut.read_bytes()[:-100])
        assert "damaged" in refusal(cut)

    SimpleITK.WriteImage(make_image(image_hu)[:, :, 0], str(tmp_path / "flat.nrrd"))
    assert "2 dimensions" in refusal(tmp_path / "flat.nrrd")
    SimpleITK.WriteImage(
        SimpleITK.JoinSeries([make_image(image_hu)] * 2), str(tmp_path / "film.nrrd")
    )
    assert "4 dimensions" in refusal(tmp_path / "film.nrrd")
    SimpleITK.WriteImage(make_image(np.full((2, 2, 2), np.nan)), str(tmp_path / "nan.nrrd"))
    assert "not finite" in refusal(tmp_path / "nan.nrrd")
    SimpleITK.WriteImage(make_image(np.full((2, 2, 2), 9, np.uint8)), str(tmp_path / "grey.nrrd"))
    assert "not HU" in refusal(tmp_path / "grey.nrrd")
    assert "ids from 0" in refusal(whole, read_volume)


def test_nifti_without_orientation_is_refused(tmp_path, make_image, image_hu):
    path = tmp_path / "ct.nii"
    SimpleITK.WriteImage(make_image(image_hu), str(path))
    content = bytearray(path.read_bytes())
    content[252:256] = b"\x00" * 4  # qform_code and sform_code
    path.write_bytes(content)
    assert "which side is left" in refusal(path)


def test_volume_stem(tmp_path):
    assert volume_stem(tmp_path / "a.b.nii.gz") == "a.b"
    assert volume_stem(tmp_path / "mask.NRRD") == "mask"
    assert volume_stem(tmp_path / "mask.png") is None


def test_holds_dicom(tmp_path, write_series, image_hu):
    folder = write_series(tmp_path / "export" / "ct", image_hu)
    assert holds_dicom(tmp_path)
    shutil.rmtree(folder)
    assert not holds_dicom(tmp_path)
