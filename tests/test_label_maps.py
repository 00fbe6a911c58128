"""Annotated anatomy without a CT -> a `folder` data set of rendered CT series."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import SimpleITK

from bonelib import labels
from bonelib.__main__ import main
from bonelib.datasets import find_cases
from bonelib.errors import InputError
from bonelib.phantom.tissues import Tissue
from bonelib.pretraining import corpus_writer
from bonelib.pretraining.annotated_patient import convert, render_annotation
from bonelib.pretraining.annotation import deform, read_annotation, read_label_maps
from bonelib.pretraining.corpus_writer import held_out, write_corpus
from bonelib.settings import SPLITS, get_settings
from bonelib.slices import read_table

SMOKE = get_settings("smoke")
TISSUES = {
    1: "hip_left", 2: "hip_right", 3: "sacrum", 4: "femur_left", 5: "femur_right",
    6: "vertebra_L5", 10: "muscle", 11: "muscle", 12: "fluid",
}  # fmt: skip
SPACING_MM = (12.0, 2.5, 2.5)
values = SimpleITK.GetArrayFromImage


def pelvis() -> tuple[np.ndarray, np.ndarray]:
    """Label map and body, (slice, row, column): the left bones are the larger ones."""
    z, y, x = np.ogrid[:14:2, :120, :144]

    def disk(row, column, rows, columns, first=0, last=13):
        inside = ((y - row) / rows) ** 2 + ((x - column) / columns) ** 2 < 1
        return inside & (z >= first) & (z <= last)

    body = disk(60, 72, 46, 64)
    found = np.zeros(body.shape, np.uint8)
    found[disk(60, 72, 38, 56)] = 10
    found[disk(60, 72, 38, 56) & (x > 72)] = 11
    found[disk(56, 72, 26, 40, 3)] = 0  # the pelvis' inside
    for number, column, size in ((1, 112, 13), (2, 32, 10)):
        found[disk(60, column, size + 4, size - 2, 4)] = number
    for number, column, size in ((4, 112, 9), (5, 32, 7)):
        found[disk(60, column, size, size, 0, 5)] = number
    found[disk(84, 72, 10, 18, 3, 9)] = 3
    found[disk(80, 72, 12, 14, 10, 13)] = 6
    found[disk(42, 72, 4, 5, 5, 8)] = 12
    return found, body.astype(np.uint8)


def write_subject(folder, orientation="LPS", masked=True, suffix="mha"):
    """Write the map, and the body with `masked`, turned to `orientation`."""
    folder.mkdir(parents=True)
    stems = ("label", "mask") if masked else ("label",)
    for stem, voxels in zip(stems, pelvis(), strict=False):
        image = SimpleITK.GetImageFromArray(voxels)
        image.SetSpacing(SPACING_MM[::-1])
        image.SetOrigin((-30.0, -40.0, 100.0))
        image = SimpleITK.DICOMOrient(image, orientation)
        SimpleITK.WriteImage(image, str(folder / f"{stem}.{suffix}"))
    return folder


def write_data_set(root):
    """Write one subject for each split; b and c have two slices."""
    for name in "abc":
        write_subject(root / name)
    lines = [f"{name},{split}" for name, split in zip("abc", SPLITS, strict=True)]
    (root / "split.csv").write_text("\n".join(["series,split", *lines]) + "\n")
    rows = [f"{number},{tissue}" for number, tissue in TISSUES.items()]
    (root / "tissues.csv").write_text("\n".join(["id,tissue", *rows]) + "\n")
    (root / "range.csv").write_text("series,first,last\nb,4,5\nc,4,5\n")
    return root


@pytest.fixture
def data_set(tmp_path):
    return write_data_set(tmp_path / "maps")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A `label_maps` folder, and what it is rendered to."""
    root = write_data_set(tmp_path_factory.mktemp("label_maps") / "maps")
    output = root.with_name("out")
    assert main(["convert", "label_maps", str(root), str(output)]) == 0
    return root, output


@pytest.fixture(scope="module")
def annotation(converted):
    folder = converted[0] / "a"
    return read_annotation(folder / "label.mha", folder / "mask.mha", TISSUES)


@pytest.fixture(scope="module")
def rendered(annotation):
    return render_annotation(annotation, 3)


def dice(reference: SimpleITK.Image, other: SimpleITK.Image, number: int = 1) -> float:
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(
        SimpleITK.Cast(reference, SimpleITK.sitkUInt8), SimpleITK.Cast(other, SimpleITK.sitkUInt8)
    )
    return overlap.GetDiceCoefficient(number)


def centre_mm(image: SimpleITK.Image, number: int) -> np.ndarray:
    index = np.argwhere(values(image) == number).mean(axis=0)[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))


def test_a_case_is_the_annotation_in_its_place(converted):
    root, output = converted
    case = find_cases("folder", output, SMOKE)[0]
    bones = {number: name for number, name in TISSUES.items() if number < 10}
    assert case.bone_names == bones
    drawn = SimpleITK.ReadImage(str(root / "a" / "label.mha"))
    mask = SimpleITK.ReadImage(str(root / "a" / "mask.mha"))
    scan = case.scan()
    structures = case.annotation(scan)[0]
    for image in (scan, structures):
        assert image.GetSize() == drawn.GetSize()
        np.testing.assert_allclose(image.GetSpacing(), drawn.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), drawn.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(image.GetDirection(), drawn.GetDirection(), atol=1e-6)
    structures.CopyInformation(drawn)
    assert set(np.unique(values(structures))) == {0, *bones}
    for number in bones:
        assert dice(drawn, structures, number) > 0.97, bones[number]
    outline = labels.body_mask(scan)
    outline.CopyInformation(mask)
    assert dice(mask, outline) > 0.97


def test_an_unchanged_series_stays_and_a_changed_subject_is_rendered_again(converted):
    root, output = converted

    def states():
        return {
            file.relative_to(output): (file.stat().st_mtime_ns, file.read_bytes())
            for file in output.glob("*/**/*")
            if file.is_file()
        }

    first = states()
    convert(root, output, get_settings("paper"))
    assert states() == first
    (root / "range.csv").write_text("series,first,last\nb,4,6\nc,4,5\n")
    convert(root, output, get_settings("paper"))
    second = states()
    changed = {path.parts[0] for path in first.keys() | second.keys()
               if first.get(path) != second.get(path)}  # fmt: skip
    assert changed == {"b"}


@pytest.fixture
def three_phantoms(monkeypatch):
    splits = (("train01", "train"), ("validation01", "validation"), ("test01", "test"))
    monkeypatch.setattr("bonelib.phantom.series.PAPER_SERIES", [(*pair, 4) for pair in splits])


def test_a_corpus_holds_slabs_of_each_version_of_a_subject(
    data_set, tmp_path, monkeypatch, three_phantoms
):
    monkeypatch.setattr(corpus_writer, "RENDERINGS", 2)
    monkeypatch.setattr(corpus_writer, "SLABS", 2)
    (data_set / "range.csv").write_text("series,first,last\na,4,6\nb,4,5\nc,4,5\n")
    settings = replace(SMOKE, loader_workers=0, phantom_matrix=32, neighbour_mm=5.0)
    corpus = write_corpus(tmp_path / "corpus", [data_set], settings, phantoms=0, workers=1)
    assert list(corpus.slabs()["subject"]) == ["a"] * 4
    first, second = (
        cv2.imread(str(corpus.root / f"slabs/{name}/01.png"), cv2.IMREAD_UNCHANGED)
        for name in ("a_00", "a_01")
    )
    assert first.shape[2] == 3 and (first[..., 0] != first[..., 2]).any()  # below and above
    assert first.shape != second.shape or (first != second).any()
    assert (first >= Tissue.MARROW).any()
    assert set(read_table(corpus.validation.root)["series"]) == {"b"}


def test_held_out_series_are_unseen_subjects_and_phantoms(data_set, tmp_path, three_phantoms):
    cases = held_out(tmp_path, [data_set], replace(SMOKE, phantom_matrix=32), workers=1)
    assert [(case.series_id, case.split) for case in cases] == [
        ("b", "validation"), ("c", "test"), ("test01", "test"),
    ]  # fmt: skip
    assert [case.scan().GetSize()[2] for case in cases[:2]] == [2, 2]
    alone = held_out(tmp_path, [], replace(SMOKE, phantom_matrix=32), workers=1)
    assert [case.split for case in alone] == ["validation", "validation", "test"]


def test_a_seed_gives_one_series(annotation, rendered):
    again, other = render_annotation(annotation, 3), render_annotation(annotation, 4)
    np.testing.assert_array_equal(values(rendered.scan), values(again.scan))
    np.testing.assert_array_equal(values(rendered.bones), values(again.bones))
    assert (values(rendered.scan) != values(other.scan)).mean() > 0.5
    joints = values(rendered.bones) != values(other.bones)  # of different widths
    assert joints.mean() < 0.005


def test_tissues_follow_the_annotation(annotation, rendered):
    image_hu = values(rendered.scan)
    np.testing.assert_array_equal(values(rendered.bones) > 0, rendered.tissues >= Tissue.MARROW)
    assert (rendered.tissues[annotation.where("muscle")] == Tissue.MUSCLE).mean() > 0.7
    assert (rendered.tissues[annotation.where("fluid")] == Tissue.FLUID).mean() > 0.7
    couch = np.isin(rendered.tissues, (Tissue.COUCH_CORE, Tissue.COUCH_SHELL))
    rows = np.nonzero(annotation.body.any(axis=(0, 2)))[0]
    assert couch.any() and np.nonzero(couch)[1].min() > rows[-1] - 12
    assert np.median(image_hu[couch]) < -300
    belly = (annotation.structures == 0) & annotation.body
    assert len(set(np.unique(rendered.tissues[belly])) & set(Tissue)) >= 5


def test_sides_hold_in_any_orientation(tmp_path):
    for orientation in ("LPS", "RAI", "PSR"):
        folder = write_subject(tmp_path / orientation, orientation, suffix="nii.gz")
        turned = read_annotation(folder / "label.nii.gz", folder / "mask.nii.gz", TISSUES)
        bones = SimpleITK.GetImageFromArray(turned.structures)  # ids count from 1 in TISSUES
        bones.CopyInformation(turned.grid)
        left, right = (centre_mm(bones, number) for number in (1, 2))
        assert left[0] > right[0] + 100  # LPS: x grows to the patient's left
        assert (turned.structures == 1).sum() > (turned.structures == 2).sum()
        assert centre_mm(bones, 6)[2] > centre_mm(bones, 4)[2]


def test_a_deformed_anatomy_keeps_its_structures_and_sides(annotation):
    before = np.bincount(annotation.structures.ravel())
    for seed in range(4):
        changed = deform(annotation, seed)
        assert (changed.structures != annotation.structures).any()
        np.testing.assert_allclose(np.bincount(changed.structures.ravel()), before, rtol=0.25)
        assert (changed.body | (changed.structures == 0)).all()
        columns = [np.nonzero(changed.structures == number)[2].mean() for number in (1, 2)]
        assert columns[0] > columns[1] + 40


def test_muscles_tell_the_outline_and_a_mask_lies_round_bones(tmp_path, annotation):
    folder = write_subject(tmp_path / "no_mask", masked=False)
    body = read_annotation(folder / "label.mha", None, TISSUES).body
    assert 0.8 < body.sum() / annotation.body.sum() < 1.25
    bones = {number: name for number, name in TISSUES.items() if number < 10}
    with pytest.raises(InputError, match="add the body as a volume called mask"):
        read_annotation(folder / "label.mha", None, bones)
    folder = write_subject(tmp_path / "masked")
    bare = read_annotation(folder / "label.mha", folder / "mask.mha", bones, (4, 6))
    series = render_annotation(bare, 3)
    assert (series.tissues == Tissue.MUSCLE).mean() > 0.1
    np.testing.assert_array_equal(values(series.bones) > 0, series.tissues >= Tissue.MARROW)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("tissues.csv", "id,tissue\n1,hipp\n", "unknown tissue 'hipp': choose one of hip, femur,"),
        ("tissues.csv", "id,tissue\n10,muscle\n", "names no bone"),
        ("tissues.csv", "id,name\n1,hip\n", "has columns id,name instead of id,tissue"),
        ("range.csv", "series,first,last\nd,0,4\n", "does not name one series of"),
        ("range.csv", "series,first,last\na,4,2\n", "a first and a higher last slice"),
        ("split.csv", "series,split\na,training\n", "split 'training'"),
    ],
)
def test_bad_tables_are_refused_before_anything_is_rendered(data_set, file, text, words):
    (data_set / file).write_text(text)
    with pytest.raises(InputError) as caught:
        convert(data_set, data_set.with_name("out"), SMOKE)
    message = str(caught.value)
    assert words in message and str(data_set / file) in message and "\n" not in message
    assert not (data_set.parent / "out").exists()


def test_bad_subjects_are_refused(data_set, make_image):
    (data_set / "range.csv").write_text("series,first,last\na,4,20\n")
    with pytest.raises(InputError, match="has slices 0 to 6, not 4 to 20"):
        convert(data_set, data_set.with_name("out"), SMOKE)
    (data_set / "range.csv").unlink()
    (data_set / "tissues.csv").write_text("id,tissue\n99,hip\n")
    with pytest.raises(InputError, match="label.mha: no bone in it: it holds ids 0, 1, 2"):
        convert(data_set, data_set.with_name("out"), SMOKE)
    oblong = make_image(pelvis()[0], (6, 2.5, 2))
    SimpleITK.WriteImage(oblong, str(data_set / "a" / "label.mha"))
    with pytest.raises(InputError, match="are not square"):
        convert(data_set, data_set.with_name("out"), SMOKE)
    (data_set / "a" / "label.mha").rename(data_set / "a" / "map.mha")
    with pytest.raises(InputError, match="has no label map; add a volume called label"):
        read_label_maps(data_set)


def test_a_real_annotation_looks_like_a_real_scan(shared_data):
    """Medians of one planning CT of a male pelvis with such labels, in HU."""
    folder = shared_data / "pelvis_label_maps" / "Pelvic-Ref-001"
    names = {1: "hip", 2: "femur", 3: "sacrum", 4: "vertebra"}
    names |= dict.fromkeys(range(5, 29), "muscle")
    whole = read_annotation(folder / "label.mhd", folder / "mask.mhd", names, (6, 94))
    mask = values(SimpleITK.ReadImage(str(folder / "mask.mhd")))[6:95]
    assert abs(whole.body.sum() / (mask > 0).sum() - 1) < 0.01
    some = slice(None, None, 11)
    annotation = replace(
        whole, structures=whole.structures[some], body=whole.body[some], grid=whole.grid[:, :, some]
    )
    series = render_annotation(annotation, 12)  # middling density, 120 kV
    image_hu, spacing = values(series.scan), annotation.grid.GetSpacing()
    for number, outer_hu, inner_hu in ((1, 355, 153), (2, 428, None), (3, 185, 72), (4, 155, 155)):
        drawn = SimpleITK.GetImageFromArray((annotation.structures == number).astype(np.uint8))
        drawn.SetSpacing(spacing)
        own = SimpleITK.GetImageFromArray((values(series.bones) == number).astype(np.uint8))
        own.SetSpacing(spacing)
        assert dice(drawn, own) > 0.96  # joints are cut where labels touch
        depths = np.stack(
            [
                values(SimpleITK.SignedMaurerDistanceMap(drawn[:, :, k], True, False, True))
                for k in range(drawn.GetSize()[2])
            ]
        )
        inside = values(drawn) > 0  # whose outermost pixels have depth 0
        assert abs(np.median(image_hu[inside & (depths <= 1)]) - outer_hu) < 60
        if inner_hu is not None:
            assert abs(np.median(image_hu[depths > 1]) - inner_hu) < 60
    assert abs(np.median(image_hu[annotation.where("muscle")]) - 30) < 30
    assert abs(np.median(image_hu[series.tissues == Tissue.FAT]) + 100) < 20
