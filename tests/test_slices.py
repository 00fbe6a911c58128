"""Prepared slices: window, grid, the folder's contents, and what is prepared again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from bonelib import preparation, slices
from bonelib.datasets import find_cases
from bonelib.errors import InputError
from bonelib.paths import SliceFolder
from bonelib.provenance import read_json
from bonelib.settings import AIR_HU, IGNORE, get_settings

SMOKE = get_settings("smoke")
values = SimpleITK.GetArrayFromImage


@pytest.fixture
def prepare(tmp_path):
    """Prepare a data set in `prepared/scans` and return its table and folder."""
    directory = tmp_path / "prepared" / "scans"

    def run(root, settings=SMOKE, workers=1):
        cases = find_cases("folder", root, settings)
        table = preparation.prepare(cases, directory, settings, workers)
        return table, SliceFolder(directory)

    return run


def times(folder):
    return {
        file.relative_to(folder.root).as_posix(): file.stat().st_mtime_ns
        for file in folder.root.rglob("*")
        if file.is_file()
    }


def series_written(before, after):
    changed = [name for name, time in after.items() if before.get(name) != time]
    return {name.split("/")[1].split("_")[0] for name in changed if name.startswith("images/")}


@given(st.lists(st.floats(-4000, 30000), min_size=2))
def test_window_is_linear_between_its_ends(image_hu):
    hand = np.array([-3000, -200, 0, 400, 600, 3000])
    grey = slices.window(hand, SMOKE)
    assert grey.tolist() == [0, 0, 64, 191, 255, 255] and grey.dtype == np.uint8
    grey = slices.window(np.sort(np.array(image_hu)), SMOKE).astype(int)
    assert (np.diff(grey) >= 0).all()


def test_a_grid_of_the_same_spacing_only_pads_and_that_of_labels_is_nearest_neighbour(make_image):
    settings = replace(SMOKE, image_size=8, field_of_view_mm=16.0)
    image_hu = np.arange(48, dtype=np.int16).reshape(2, 4, 6)
    grid = preparation.to_grid(make_image(image_hu, (5, 2, 2)), settings)
    expected = np.full((2, 8, 8), AIR_HU)
    expected[:, 2:6, 1:7] = image_hu
    np.testing.assert_allclose(values(grid), expected, atol=1e-3)
    np.testing.assert_allclose(grid.GetOrigin(), (-32, -44, 100))
    np.testing.assert_allclose(grid.GetSpacing(), (2, 2, 5))
    settings = replace(SMOKE, image_size=4, field_of_view_mm=8.0)
    labels = make_image(np.array([[[0, 2], [255, 1]]], np.uint8), (5, 4, 4))
    grid = preparation.to_grid(labels, settings, is_label=True)
    assert values(grid).tolist() == [
        [[0, 0, 2, 2], [0, 0, 2, 2], [255, 255, 1, 1], [255, 255, 1, 1]]
    ]


def test_coarser_grid_neither_aliases_nor_takes_in_padding_below_air(make_image):
    settings = replace(SMOKE, image_size=16, field_of_view_mm=80.0)
    stripes = np.broadcast_to(np.where(np.arange(80) % 2, 1000, -1000), (1, 80, 80))
    grid = values(preparation.to_grid(make_image(stripes.astype(np.int16), (5, 1, 1)), settings))
    assert np.abs(grid[:, 2:-2, 2:-2]).max() < 20
    padding = make_image(np.full((1, 40, 40), -3024, np.int16), (5, 1, 1))
    np.testing.assert_allclose(values(preparation.to_grid(padding, settings)), AIR_HU, rtol=1e-5)


@hypothesis_settings(max_examples=20, deadline=None)
@given(row=st.integers(25, 55), column=st.integers(25, 55), field_mm=st.sampled_from([80.0, 160.0]))
def test_a_point_keeps_its_place(row, column, field_mm):
    image_hu = np.full((1, 80, 80), -1000, np.float32)
    image_hu[0, row - 3 : row + 4, column - 3 : column + 4] = 1000
    scan = SimpleITK.GetImageFromArray(image_hu)
    scan.SetOrigin((7, -5, 3))
    grid = preparation.to_grid(scan, replace(SMOKE, image_size=40, field_of_view_mm=field_mm))
    weights = values(grid)[0] + 1000
    rows, columns = np.mgrid[:40, :40]
    centre = [(weights * axis).sum() / weights.sum() for axis in (columns, rows)]
    point_mm = grid.TransformContinuousIndexToPhysicalPoint((float(centre[0]), float(centre[1]), 0))
    np.testing.assert_allclose(point_mm, (column + 7, row - 5, 3), atol=0.3)


def test_the_prepared_folder_keeps_its_contract(write_dataset, prepare):
    root = write_dataset()
    (root / "bone_names.csv").write_text("id,name\n3,left hip\n255,ignore\n")
    table, folder = prepare(root)
    assert list(table.columns) == [
        "series", "slice", "split", "spacing", "source", "position_mm", "bone_pixels", "structures"
    ]  # fmt: skip
    assert len(table) == 18
    first = table.iloc[0].to_dict()
    # 8 x 10 pixels of 4 mm, at 7.5 mm a pixel: 32 mm cover 4 or 5 pixels, 40 mm 5 or 6.
    assert first.pop("bone_pixels") in range(20, 31)
    assert first == {
        "series": "a", "slice": 0, "split": "train", "spacing": "5 7.5 7.5",
        "source": "a/ct.nii.gz", "position_mm": 100, "structures": "left_hip",
    }  # fmt: skip
    assert table.position_mm[:6].tolist() == [100, 105, 110, 115, 120, 125]
    for row in table.itertuples():
        image = np.asarray(Image.open(folder.image(row.series, row.slice)))
        label = np.asarray(Image.open(folder.labels(row.series, row.slice)))
        assert image.shape == label.shape == (64, 64)
        assert image.dtype == label.dtype == np.uint8
        assert (label == 2).sum() == row.bone_pixels
        assert image[label == 2].min() > image[label == 0].max()
        assert np.argwhere(label == 2).mean(axis=0)[1] > 32  # the left side is on the right
    description = read_json(folder.description)
    assert description["dataset"] == "scans" and description["ignore"] == IGNORE
    assert description["classes"] == ["background", "patient", "bone"]
    assert description["settings"]["window_low_hu"] == SMOKE.window_low_hu
    assert description["series"]["b"]["slices"] == 6
    rows = table[table.split == "test"].iloc[::-1]
    images, labels = slices.load(folder.root, rows)
    assert images.shape == labels.shape == (6, 64, 64)
    np.testing.assert_array_equal(images[0], np.asarray(Image.open(folder.image("c", 5))))
    np.testing.assert_array_equal(labels[5], np.asarray(Image.open(folder.labels("c", 0))))


def test_only_changes_are_prepared_again(write_dataset, prepare):
    root = write_dataset()
    _, folder = prepare(root)
    before, fingerprint = times(folder), read_json(folder.description)["fingerprint"]
    prepare(root)
    assert times(folder) == before
    prepare(root, replace(SMOKE, epochs=10))  # of no concern to slices
    assert times(folder) == before

    for file in root.rglob("*.nii.gz"):  # a copy with new dates
        file.touch()
    prepare(root)
    assert series_written(before, times(folder)) == {"a", "b", "c"}
    assert read_json(folder.description)["fingerprint"] == fingerprint

    before, path = times(folder), root / "b" / "ct.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path))[:, :, :4], str(path))
    folder.labels("c", 2).unlink()
    table, _ = prepare(root)
    assert series_written(before, times(folder)) == {"b", "c"}
    assert (table.series == "b").sum() == 4 and folder.labels("c", 2).exists()
    assert not folder.image("b", 4).exists() and not folder.labels("b", 5).exists()
    assert read_json(folder.description)["fingerprint"] != fingerprint

    (root / "b").rename(root / "a_0001")  # a series leaves, another has its name's start
    (root / "split.csv").write_text("series,split\na,train\na_0001,validation\nc,test\n")
    table, _ = prepare(root, replace(SMOKE, image_size=32))
    assert slices.load(folder.root, table)[0].shape == (16, 32, 32)
    assert not list(folder.root.glob("*/b*")) and set(table.series) == {"a", "a_0001", "c"}


def test_a_killed_preparation_goes_on(write_dataset, prepare, monkeypatch):
    root = write_dataset()
    whole = preparation._prepare_series

    def killed_at_b(case, folder, *rest):
        if case.series_id == "b":
            folder.image("b", 0).write_bytes(b"half a picture")
            raise KeyboardInterrupt
        return whole(case, folder, *rest)

    monkeypatch.setattr(preparation, "_prepare_series", killed_at_b)
    with pytest.raises(KeyboardInterrupt):
        prepare(root)
    monkeypatch.undo()
    folder = SliceFolder(root.parent / "prepared" / "scans")
    with pytest.raises(InputError, match="prepare the data first"):
        slices.read_table(folder.root)
    before = times(folder)
    table, _ = prepare(root)
    assert series_written(before, times(folder)) == {"b", "c"}
    assert slices.load(folder.root, table)[0].shape == (18, 64, 64)


def test_worker_processes_give_the_same_slices_and_refuse_bad_cases(write_dataset, prepare):
    root = write_dataset()
    one, folder = prepare(root)
    pictures = {file: file.read_bytes() for file in folder.root.rglob("*.png")}
    shutil.rmtree(folder.root)
    two, _ = prepare(root, workers=2)
    assert (one == two).all().all()
    assert {file: file.read_bytes() for file in folder.root.rglob("*.png")} == pictures
    for series_id in "bc":
        (root / series_id / "ct.nii.gz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="ct.nii.gz: cannot be read as a volume"):
        prepare(root, workers=2)
    assert not folder.description.exists() and not list(folder.root.glob("images/b_*"))
