"""A scan goes in, a bone model comes out: with the shipped weights, on phantoms."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import SimpleITK
import trimesh
from scipy import ndimage

from bonelib import labels, metrics, models, pretrained, scans, segment
from bonelib.errors import InputError
from bonelib.paths import SegmentationFolder
from bonelib.phantom.series import make_series, series_seed, write_dicom
from bonelib.phantom.skeleton import BONE_NAMES
from bonelib.segment import probabilities
from bonelib.segment.probabilities import find_region
from bonelib.settings import BONE, PATIENT, PRETRAINING, RESEARCH_ONLY, SHIPPED_MODEL, get_settings

SINGLE = replace(PRETRAINING, neighbour_mm=0.0)  # of networks that see single slices
SETTINGS = replace(PRETRAINING, phantom_matrix=160, phantom_slice_distance_mm=20.0)


@pytest.fixture(scope="module")
def patient():
    """The series of somebody with both hips in view."""
    return make_series(series_seed("test01", SETTINGS), 9, SETTINGS)


@pytest.fixture(scope="module")
def dicom(patient, tmp_path_factory):
    folder = tmp_path_factory.mktemp("DOE^JANE") / "ct"
    write_dicom(patient.scan, folder, "test01", 1, patient.protocol)
    return folder


@pytest.fixture(scope="module")
def made(dicom, tmp_path_factory):
    """A DICOM series, segmented into single bones; its folder, the record, what was told."""
    told = []
    folder = SegmentationFolder(tmp_path_factory.mktemp("out"))
    record = segment.segment(
        dicom, folder.root, bones=True, progress=lambda *state: told.append(state)
    )
    return folder, record, told


def test_every_file_is_there_and_the_record_lists_it(made):
    folder, record, _ = made
    assert json.loads(folder.record.read_text())["files"] == record["files"]
    found = {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*.*")}
    assert found == {*record["files"], "report.json"}
    assert {"segmentation.nii.gz", "bones.nii.gz", "segmentation.dcm", "bone.stl", "preview.png",
            "surface.html", "bones/femur_left.stl", "bones/hip_right.stl"} <= found  # fmt: skip
    page = folder.viewer.read_text(encoding="utf-8")
    assert "</span> femur left<br>" in page and RESEARCH_ONLY in page
    assert record["notes"][0] == RESEARCH_ONLY
    assert 0.8 < record["out_of_depth"]["pelvis_fit"] <= 1
    assert not [note for note in record["notes"] if "no pelvis" in note or "as bright" in note]


@pytest.mark.parametrize(("side_mm", "is_told"), [(10, False), (40, True)])
def test_much_that_is_bright_and_unlabelled_is_told(make_image, side_mm, is_told):
    image_hu = np.full((20, 60, 60), 40, np.int16)
    image_hu[:, 5:15, 5:15] = 700  # labelled: 80 ml
    image_hu[5:15, 30 : 30 + side_mm // 2, 30 : 30 + side_mm // 2] = 300
    classes = np.where(image_hu == 700, BONE, PATIENT).astype(np.uint8)
    scan, label_map = (make_image(values, (2, 2, 2)) for values in (image_hu, classes))
    model = segment.BoneModel(scan, label_map, label_map, {}, {}, {}, pelvis_fit=0.9, computed={})
    measures, notes = segment.out_of_depth(model)
    assert measures["bright_unlabelled_ml"] == pytest.approx(20 * side_mm**2 / 1000, rel=0.01)
    assert [note[:16] for note in notes] == ["32 ml are as bri"] * is_told


def test_the_label_map_lies_on_the_scan_and_is_right(made, patient):
    folder, record, _ = made
    label_map = SimpleITK.ReadImage(str(folder.label_map))
    assert label_map.GetSize() == patient.scan.GetSize()
    np.testing.assert_allclose(label_map.GetOrigin(), patient.scan.GetOrigin(), atol=1e-3)
    bone = SimpleITK.GetArrayFromImage(patient.bones) > 0
    found = SimpleITK.GetArrayFromImage(label_map)
    dice = metrics.dice(metrics.confusion_matrix(bone, found == 2, 2))[1]
    assert dice > 0.85
    voxel_ml = np.prod(patient.scan.GetSpacing()) / 1000
    assert record["volumes_ml"]["bone"] == pytest.approx((found == 2).sum() * voxel_ml, abs=0.01)
    assert record["volumes_ml"]["patient"] == pytest.approx((found > 0).sum() * voxel_ml, abs=0.01)
    image_hu = SimpleITK.GetArrayFromImage(patient.scan)
    assert record["mean_hu"]["bone"] == pytest.approx(image_hu[found == 2].mean(), abs=1)


def test_left_is_the_patients_left(made, patient):
    """In the volume, in the surfaces and in the record alike."""
    folder, record, _ = made
    ids = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder.bones)))
    numbers = {name: int(number) for number, name in record["bone_ids"].items()}
    truth = SimpleITK.GetArrayFromImage(patient.bones)
    true_numbers = {name: number for number, name in BONE_NAMES.items()}
    for name in ("femur_left", "femur_right", "hip_left", "hip_right"):
        overlap = (ids == numbers[name]) & (truth == true_numbers[name])
        assert overlap.sum() > 0.6 * (ids == numbers[name]).sum()
        surface = trimesh.load(folder.bone_surface(name))
        assert (surface.center_mass[0] > 0) == name.endswith("left")
        assert record["closed"][name] and surface.is_watertight
        assert record["areas_cm2"][name] == pytest.approx(surface.area / 100, rel=1e-3)


def test_the_surface_lies_on_the_bone(made, patient):
    """Its points are in the patient's space, and its normals point outward."""
    folder, record, _ = made
    surface = trimesh.load(folder.surface)
    assert folder.surface.read_bytes()[:80].decode().strip().endswith("SPACE=LPS; mm")
    assert surface.is_watertight and surface.volume > 0
    # Slices are 20 mm thick: a bone ends within one.
    assert surface.volume / 1000 == pytest.approx(record["volumes_ml"]["bone"], rel=0.25)
    truth = SimpleITK.GetArrayFromImage(patient.bones) > 0
    low, high = (
        np.array(patient.scan.TransformIndexToPhysicalPoint([int(at) for at in place]))
        for place in (np.argwhere(truth).min(axis=0)[::-1], np.argwhere(truth).max(axis=0)[::-1])
    )
    np.testing.assert_allclose(surface.bounds, [low, high], atol=12)


def test_progress_and_origin_are_told(made, dicom):
    folder, record, told = made
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == list(record["seconds"]) == [
        "reading", "finding the patient", "predicting", "post-processing", "single bones",
        "label map", "surfaces", "writing",
    ]  # fmt: skip
    predicted = [(done, total) for stage, done, total in told if stage == "predicting"]
    count = predicted[-1][1]
    assert predicted == [(0, 1), *((done, count) for done in range(16, count, 16)), (count, count)]
    text = folder.record.read_text()
    assert len(record["network"]["weights_sha256"]) == len(record["input_sha256"]) == 64
    assert "DOE" not in text and str(dicom.parent) not in text


def test_the_volume_has_the_axes_of_the_file(patient, made, tmp_path):
    """A file whose axes run otherwise gets the same label map, voxel by voxel its own."""
    turned = SimpleITK.DICOMOrient(patient.scan, "RSP")
    SimpleITK.WriteImage(turned, str(tmp_path / "ct.nii.gz"))
    record = segment.segment(tmp_path / "ct.nii.gz", tmp_path / "out")
    folder = SegmentationFolder(tmp_path / "out")
    label_map = SimpleITK.ReadImage(str(folder.label_map))
    assert label_map.GetSize() == turned.GetSize()
    np.testing.assert_allclose(label_map.GetDirection(), turned.GetDirection(), atol=1e-5)
    bone = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(patient.bones, "RSP")) > 0
    found = SimpleITK.GetArrayFromImage(label_map) == 2
    assert metrics.dice(metrics.confusion_matrix(bone, found, 2))[1] > 0.85
    assert not folder.dicom_seg.exists() and not folder.bones.exists()
    assert not any("DICOM" in note for note in record["notes"])
    _, from_dicom, _ = made
    volumes_ml = [one["volumes_ml"]["bone"] for one in (record, from_dicom)]
    assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.01)  # a CT has whole HU


class Bright:
    """A network that takes bright pixels for bone, grey ones for patient; output 1/2."""

    name, note, weights = SHIPPED_MODEL, "", Path(__file__)
    settings = SINGLE

    def sized(self, rows, columns):
        image = keras.Input((rows, columns, 3))
        grey = keras.layers.AveragePooling2D(2)(image[..., :1])
        scores = keras.ops.concatenate([-10 * (grey + 90), 0 * grey, 10 * (grey - 30)], axis=-1)
        return keras.Model(image, keras.layers.Softmax()(scores))


@pytest.fixture
def water(make_image, tmp_path):
    """A scan without bone."""
    image_hu = np.full((4, 60, 60), -1000, np.int16)
    image_hu[:, 10:50, 10:50] = 0
    SimpleITK.WriteImage(make_image(image_hu, (5, 4, 4)), str(tmp_path / "ct.nrrd"))
    return tmp_path / "ct.nrrd"


def test_a_scan_without_bone_says_so(water, tmp_path):
    record = segment.segment(water, tmp_path / "out", Bright(), bones=True)
    known, unlike, empty = record["notes"]
    assert (known, empty) == (RESEARCH_ONLY, "no bone was found, so there is no surface")
    assert unlike.startswith("no pelvis is recognised: the bone shows 0% of a standard one")
    assert record["volumes_ml"]["bone"] == 0 and record["areas_cm2"] == {}
    assert record["files"] == ["bones.nii.gz", "preview.png", "segmentation.nii.gz"]


# The output folder


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_folder_that_is_not_empty_is_refused(water, tmp_path):
    plan = tmp_path / "own" / "bones" / "plan.txt"
    plan.parent.mkdir(parents=True)
    plan.write_text("the user's own")
    with pytest.raises(InputError, match="own: is not empty; .*--overwrite"):
        segment.segment(water, tmp_path / "own", Bright())
    assert contents(tmp_path / "own") == {"bones/plan.txt": b"the user's own"}
    record = segment.segment(water, tmp_path / "own", Bright(), overwrite=True)
    found = contents(tmp_path / "own")
    assert set(found) == {*record["files"], "report.json", "bones/plan.txt"}
    assert found["bones/plan.txt"] == b"the user's own"


def test_nothing_of_the_scan_before_is_left(water, tmp_path):
    folder = SegmentationFolder(tmp_path / "out")
    record = segment.segment(water, folder.root, Bright())
    folder.bone_surfaces.mkdir()
    for file in (folder.surface, folder.bone_surface("femur_left")):  # as if it had found bone
        file.write_text("of another scan")
    earlier = {"files": [*record["files"], "bone.stl", "bones/femur_left.stl", "../ct.nrrd"]}
    folder.record.write_text(json.dumps(record | earlier))
    second = segment.segment(water, folder.root, Bright(), overwrite=True)
    assert set(contents(folder.root)) == {*second["files"], "report.json"}
    assert not folder.bone_surfaces.exists() and water.exists()


@pytest.mark.parametrize("name", ["preview.png", "report.json", "bones/femur_left.stl"])
@pytest.mark.parametrize("content", ["a photo", '["files"]', '{"files": ["preview.png"]}'])
def test_a_file_that_no_run_wrote_is_never_replaced(water, tmp_path, name, content):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(InputError, match=f"{name}: exists, and no earlier run"):
        segment.segment(water, tmp_path / "out", Bright(), overwrite=True)
    assert contents(tmp_path / "out") == {name: content.encode()}


def test_a_run_that_is_stopped_leaves_what_was_there(water, tmp_path):
    segment.segment(water, tmp_path / "out", Bright())
    before = contents(tmp_path / "out")

    def interrupt(at, done, total):
        if at == "writing":
            raise KeyboardInterrupt

    for name in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            segment.segment(water, tmp_path / name, Bright(), overwrite=True, progress=interrupt)
    assert contents(tmp_path / "out") == before and not (tmp_path / "new").exists()


def test_what_is_no_scan_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "ct").mkdir()
    with pytest.raises(InputError, match="ct: "):
        segment.segment(tmp_path / "ct", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_abdomen_is_segmented_without_its_uids(shared_data, tmp_path):
    """20 slices of a real CT, whose UIDs were taken off: all but the DICOM SEG is there."""
    path = shared_data / "abdomen_dicom" / "ct"
    record = segment.segment(path, tmp_path, bones=True)
    label_map = SimpleITK.ReadImage(str(tmp_path / "segmentation.nii.gz"))
    assert label_map.GetSize() == scans.read_scan(path).GetSize()
    assert any("no DICOM SEG was written: " in note for note in record["notes"])
    volumes_ml = record["volumes_ml"]
    spine_ml = sum(ml for name, ml in volumes_ml.items() if name.startswith("vertebra"))
    assert 64 < spine_ml < 110 and "bone.stl" in record["files"]  # 64: its annotation, thin
    assert volumes_ml["bone_left_1"] > 10 and volumes_ml["bone_right_1"] > 10  # both humeri
    assert "no pelvis is recognised" in " ".join(record["notes"])


# Margin of bone


def scan_with(make_image, *boxes, spacing_mm=(2.5, 1.5625, 1.5625)):
    image_hu = np.full((60, 256, 256), -1000, np.int16)
    image_hu[:, 60:200, 40:220] = 40
    for box in boxes:
        image_hu[box] = 900
    return make_image(image_hu, spacing_mm)


def region_of(scan, name=SHIPPED_MODEL):
    network = pretrained.Network(name, Path(), SINGLE)
    return find_region(network, scan, labels.body_mask(scan))


def bone_in(scan):
    return SimpleITK.GetArrayFromImage(segment.segment_image(scan, Bright())) == BONE


def test_a_bright_couch_is_in_no_region(make_image):
    couch = np.s_[:, 215:220, 30:230]
    region = region_of(scan_with(make_image, np.s_[20:40, 100:120, 80:150], couch))
    assert region.rows.stop <= 160 and region.columns.stop <= 192


def test_the_region_holds_the_bone_and_a_margin(make_image):
    region = region_of(scan_with(make_image, np.s_[20:40, 100:120, 80:150]))
    margin = 9  # pixels of 15 mm
    assert region.slices.start <= 20 and region.slices.stop >= 40
    assert region.rows.start <= 100 - margin and region.rows.stop >= 120 + margin
    assert region.columns.start <= 80 - margin and region.columns.stop >= 150 + margin
    lengths = [part.stop - part.start for part in (region.slices, region.rows, region.columns)]
    assert lengths[0] < 34 and lengths[1] <= 96 and lengths[2] <= 128
    assert lengths[1] % 32 == lengths[2] % 32 == 0


def test_a_network_of_the_paper_sees_whole_slices(make_image):
    region = region_of(scan_with(make_image, np.s_[20:40, 100:120, 80:150]), "vgg_unet")
    assert region.rows == region.columns == slice(0, 256)
    assert region.slices.stop - region.slices.start < 34


def test_two_bones_share_a_region_and_specks_have_none(make_image):
    speck = np.s_[0:4, 70:74, 200:204]
    pair = np.s_[8:30, 90:110, 50:70], np.s_[8:30, 90:110, 190:210]
    region = region_of(scan_with(make_image, speck, *pair))
    assert region.columns.start <= 50 and region.columns.stop >= 210
    assert region.slices == slice(2, 36)
    whole = region_of(scan_with(make_image, speck))
    assert whole.slices == slice(0, 60) and whole.rows == whole.columns == slice(0, 256)


@pytest.mark.parametrize("spacing_mm", [(2.5, 1.5625, 1.5625), (3.0, 0.8, 0.8), (2.5, 1.9, 1.1)])
def test_bone_is_found_where_it_lies(make_image, spacing_mm):
    """Within the region and at the edge of the scan, on any grid of pixels."""
    boxes = np.s_[20:40, 100:127, 80:151], np.s_[30:60, 200:256, 230:256]
    scan = scan_with(make_image, *boxes, spacing_mm=spacing_mm)
    found = bone_in(scan)
    truth = SimpleITK.GetArrayFromImage(scan) == 900
    reach = int(np.ceil(2.0 / min(spacing_mm)))  # two thirds of an output pixel
    edge = np.ones((1, 2 * reach + 1, 2 * reach + 1))
    assert found[ndimage.binary_erosion(truth, edge)].all()
    assert not found[~ndimage.binary_dilation(truth, edge)].any()
    assert abs(found.sum() / truth.sum() - 1) < 0.04


@pytest.mark.parametrize("start", [100, 101])
def test_an_edge_within_an_output_pixel_is_found(make_image, start):
    """The network sees blocks of 2 x 2 pixels; a bone may begin in the middle of one."""
    scan = scan_with(make_image, np.s_[20:40, start : start + 31, start : start + 40])
    found = bone_in(scan)
    truth = SimpleITK.GetArrayFromImage(scan) == 900
    cross = ndimage.generate_binary_structure(2, 1)[None]
    assert found[ndimage.binary_erosion(truth, cross)].all()
    assert not found[~ndimage.binary_dilation(truth, cross)].any()


# Post-processing, by hand

VOXEL_ML = 0.002  # of 2 x 1 x 1 mm


def margin_of(bone):
    return np.where(bone, np.float32(0.8), np.float32(-0.8))


@pytest.fixture
def bone():
    """A bone of 9.6 ml."""
    made = np.zeros((20, 60, 60), bool)
    made[2:12, 10:30, 10:34] = True
    return made


def test_metal_is_no_bone(bone):
    image_hu = np.where(bone, 1700, 40)
    image_hu[5:8, 15:20, 12:30] = 2500
    margin = margin_of(bone)
    probabilities.remove_metal(margin, image_hu)
    bone[5:8, 15:20, 12:30] = False
    np.testing.assert_array_equal(margin > 0, bone)


def test_islands_below_the_limit_vanish_with_their_edges(bone):
    with_islands = bone.copy()
    with_islands[15:18, 40:46, 40:50] = True  # 0.36 ml
    with_islands[2:12, 40:46, 43:48] = True  # 0.6 ml
    margin = margin_of(with_islands)
    probabilities.remove_islands(margin, VOXEL_ML)
    with_islands[15:18, 40:46, 40:50] = False
    np.testing.assert_array_equal(margin > 0, with_islands)
    assert (margin[14:19, 39:47, 39:51] == -1).all()


def test_small_holes_are_filled_and_large_ones_are_anatomy(bone):
    with_holes = bone.copy()
    with_holes[4:10, 22:28, 20:30] = False  # 0.72 ml
    with_holes[2:12, 12, 12] = False  # open at both ends
    expected = with_holes.copy()
    with_holes[5:7, 15:20, 15:20] = False  # 0.1 ml less two voxels
    with_holes[5, 15, 15:17] = True
    margin = margin_of(with_holes)
    probabilities.fill_holes(margin, VOXEL_ML)
    np.testing.assert_array_equal(margin > 0, expected)


def test_bone_outside_of_the_body_is_none(make_image, bone):
    spacing_mm = (2.0, 1.0, 1.0)
    body = np.zeros(bone.shape, np.uint8)
    body[:, :, 20:] = 1
    images = [
        make_image(array, spacing_mm)
        for array in (margin_of(bone), np.where(bone, 700, 40).astype(np.int16), body)
    ]
    cleaned = SimpleITK.GetArrayFromImage(probabilities.clean(*images))
    np.testing.assert_array_equal(cleaned > 0, bone & (body == 1))


# Networks


@pytest.fixture
def weights(tmp_path):
    """Weights of PSPNet, the smallest, as a training leaves them."""
    models.build_model("pspnet", 64).save(tmp_path / "best_of_2.keras")
    settings = get_settings("smoke", {"window_low_hu": -150})
    record = {"settings": asdict(settings) | {"augment": True, "retired": 1}}  # an older one's
    (tmp_path / "training.json").write_text(json.dumps(record))
    return tmp_path / "best_of_2.keras"


def test_shipped_weights_are_for_the_slices_they_were_trained_on():
    network = pretrained.find_network()
    assert network.settings == PRETRAINING and not network.note
    assert network.sized(32, 64).input_shape == (None, 32, 64, 3)


def test_a_training_tells_its_window_and_its_pixels(weights):
    network = pretrained.find_network("pspnet", weights)
    assert network.settings.window_low_hu == -150
    assert network.settings.pixel_spacing_mm == get_settings("smoke").pixel_spacing_mm
    assert network.sized(96, 64).output_shape == (None, 24, 16, 3)
    (weights.parent / "training.json").unlink()
    network = pretrained.find_network("pspnet", weights)
    assert network.settings == SINGLE and "1.5625 mm" in network.note


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("fcn8", None, "no weights are shipped for 'fcn8': 'unet25d' replaced"),
        ("unet", "absent.keras", "absent.keras: there is no such file"),
        ("unet", "best_of_2.keras", "best_of_2.keras: holds no weights of the network 'unet'"),
        ("unet", "training.json", "training.json: holds no weights of the network 'unet'"),
    ],
)
def test_weights_that_do_not_serve_are_refused_in_one_line(weights, name, file, message):
    with pytest.raises(InputError, match=message) as caught:
        pretrained.find_network(name, file and weights.parent / file).sized(64, 64)
    assert "\n" not in str(caught.value)
