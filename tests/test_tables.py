import numpy as np
import pandas as pd
import pytest

from bonelib import metrics, published, scoring, tables
from bonelib.settings import BASELINE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from tests.synthetic_results import MODELS, SETTINGS, small_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return small_results(tmp_path_factory.mktemp("run"), random_encoders=("vgg_unet",))[1]


@pytest.fixture
def scores(results):
    return scoring.read_scores(results, MODELS)


@pytest.fixture
def records(results):
    return scoring.read_records(results, MODELS)


def test_published_values_are_consistent():
    rows = [*published.TABLE1.values(), *published.TABLE3.values()]
    for row in rows:
        for measure in published.MEASURE_NAMES:
            assert np.mean(row[measure][1:]) == pytest.approx(row[measure][0], abs=0.0101)
        for iou, dice in zip(row["iou"], row["dice"], strict=True):
            if iou != row["iou"][0]:
                assert 200 * iou / (100 + iou) == pytest.approx(dice, abs=0.0101)
    for row in (*published.TABLE4, published.TABLE4_COMBINED):
        assert np.mean(row["iou"][1:]) == pytest.approx(row["iou"][0], abs=0.0101)
    assert sum(row["images"] for row in published.TABLE4) == published.TABLE4_COMBINED["images"]
    best = published.TABLE3[published.TABLE4_MODEL]["iou"]
    assert published.TABLE4_COMBINED["iou"] == best
    gain = published.TABLE3["unet"]["iou"][3] - published.TABLE1["unet"]["iou"][3]
    assert gain == pytest.approx(published.LONGER_TRAINING_GAIN["bone"])
    assert set(published.TABLE1) == set(published.TABLE2) == set(TABLE1_MODELS)
    assert set(published.TABLE3) == set(TABLE3_MODELS)
    assert set(published.METHOD_NAMES) == set(MODELS)


def made(model, counts, series="s1", epochs=10):
    rows = [
        [model, epochs, 3, "input", series, index, *np.ravel(each)]
        for index, each in enumerate(counts)
    ]
    return pd.DataFrame(rows, columns=scoring.KEY_COLUMNS + metrics.count_columns(len(counts[0])))


def test_pixels_are_pooled_before_classes_are_averaged():
    scores = made("unet", [np.diag([80, 15, 5]), [[0, 0, 0], [0, 50, 0], [0, 50, 0]]])
    frame = tables.table1(scores, Settings()).frame
    iou = frame[frame["measure"] == "IoU"].iloc[0]
    expected = [100.0, 100 * 65 / 115, 100 * 5 / 55]  # the mean over images would be 50 for bone
    assert [iou[name] for name in CLASS_NAMES] == pytest.approx(expected, abs=0.005)
    assert iou["mean"] == pytest.approx(np.mean(expected), abs=0.005)
    assert iou["epoch"] == 3 and iou["epoch_paper"] == 10


def test_pooled_scores_have_a_row_a_horizon_and_grid(scores):
    frame = scoring.pooled_scores(scores[scores["model"] == "unet"], SETTINGS)
    assert len(frame) == 2 * 2 * 3
    row = frame[(frame["resolution"] == "input") & (frame["epochs"] == SETTINGS.epochs)].iloc[0]
    expected = scoring.pooled(scoring.select(scores, "unet", SETTINGS.epochs), "iou")
    assert [row[name] for name in scoring.SCORE_COLUMNS] == list(expected)


def test_rows_carry_ours_the_papers_and_the_difference(scores):
    frame = tables.table1(scores, SETTINGS).frame
    assert len(frame) == 3 * (len(TABLE1_MODELS) + 1)
    row = frame[(frame["name"] == "FCN8") & (frame["measure"] == "Dice coeff.")].iloc[0]
    assert row["bone_paper"] == 89.47
    assert row["bone_difference"] == pytest.approx(row["bone"] - 89.47)
    baseline = frame[frame["name"].str.contains("baseline")]
    assert len(baseline) == 3 and baseline.filter(like="_paper").isna().all(axis=None)
    assert baseline["bone"].notna().all()


def test_horizons_go_to_their_own_tables(scores, records):
    short = tables.table1(scores, SETTINGS).frame.set_index(["name", "measure"])
    long = tables.table3(scores, records, SETTINGS).frame.set_index(["name", "measure"])
    assert short.loc[("U-net", "IoU"), "mean_paper"] == 93.91
    assert long.loc[("U-net", "IoU"), "mean_paper"] == 94.64
    assert short.loc[("U-net", "IoU"), "mean"] != long.loc[("U-net", "IoU"), "mean"]


def test_random_encoders_are_owned_up_to(scores, records):
    table = tables.table3(scores, records, SETTINGS)
    assert "VGG-U-net (random encoder)" in set(table.frame["name"])
    assert "ResNet-U-net" in set(table.frame["name"])
    assert any("VGG-U-net started from a random encoder" in note for note in table.notes)


def test_missing_models_are_named(scores):
    table = tables.table1(scores[scores["model"].isin(["unet", "fcn8"])], SETTINGS)
    assert set(table.frame["name"]) == {"U-net", "FCN8"}
    assert any("Not run: FCN32, PSPNet, SegNet" in note for note in table.notes)
    assert any("12 test slices of 2 series" in note for note in table.notes)


def test_table2_has_the_papers_counts(records):
    frame = tables.table2(records, SETTINGS).frame.set_index("name")
    assert frame.loc["U-net", "parameters_difference"] == 0
    assert frame.loc["U-net", "milliseconds"] == pytest.approx(13.2, abs=0.06)
    assert pd.isna(frame.loc["VGG-U-net", "parameters_paper"])


def test_table4_pairs_series_by_order(scores, records):
    table = tables.table4(scores, records, SETTINGS)
    assert list(table.frame["series"]) == ["test01", "test02", "Combined"]
    assert list(table.frame["images"]) == [7, 5, 12]
    assert list(table.frame["images_paper"]) == [85, 152, 730]
    assert list(table.frame["bone_paper"]) == [92.83, 93.10, 92.87]
    counts = scoring.counts(scoring.select(scores, "resnet50_unet")).sum(axis=0)
    bone = 100 * counts[2, 2] / (counts[2].sum() + counts[:, 2].sum() - counts[2, 2])
    assert table.frame["bone"].iloc[-1] == pytest.approx(bone, abs=0.005)


def test_table4_takes_more_series_than_the_paper_has():
    counts = [np.diag([80, 15, 5])]
    parts = [made("unet", counts, f"s{number}") for number in range(7)]
    frame = tables.table4(pd.concat(parts), {}, Settings()).frame
    assert len(frame) == 8 and frame["mean_paper"].notna().sum() == 6


def test_validation_chooses_the_best_model(scores, results):
    histories = scoring.read_histories(results, MODELS)
    assert scoring.best_model(scores, SETTINGS, histories)[0] == "resnet50_unet"
    best = SETTINGS.epochs_long - 1
    histories["vgg_unet"].loc[best, "val_mean_iou"] = 0.99
    histories["unet"].loc[best + 1, "val_mean_iou"] = 1.0  # beyond the horizon of Table 3
    model, rule = scoring.best_model(scores, SETTINGS, histories)
    assert model == "vgg_unet" and "validation" in rule
    model, rule = scoring.best_model(scores, SETTINGS)
    assert model == "resnet50_unet" and "test series" in rule
    with pytest.raises(ValueError, match="no network has scores"):
        scoring.best_model(scores[scores["model"] == "threshold"], SETTINGS)


def test_slices_without_bone_are_left_out_and_counted():
    missed, absent = [[9, 0, 0], [0, 9, 0], [0, 4, 0]], np.diag([9, 9, 0])
    frame = tables.per_image_table(
        made("unet", [np.diag([9, 9, 9]), missed, absent]), Settings()
    ).frame
    row = frame.iloc[0]
    assert (row["images"], row["without_bone"]) == (2, 1)
    assert (row["minimum"], row["maximum"], row["mean"]) == (0, 100, 50)
    assert row["standard_deviation"] == 50
    assert row["mean_paper"] == 87.15


def test_native_scores_are_kept_apart(scores):
    changed = scores.copy()
    native = changed["resolution"] == "native"
    changed.loc[native, "n22"] = 0
    assert tables.table1(changed, SETTINGS).frame.equals(tables.table1(scores, SETTINGS).frame)
    frame = tables.native_table(changed, SETTINGS).frame
    assert (frame[frame["measure"] == "IoU"]["bone"] == 0).all()


def test_save_writes_three_formats(scores, records, tmp_path):
    table = tables.table3(scores, records, SETTINGS)
    tables.save(table, "table3", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table3.csv", "table3.md", "table3.tex",
    ]  # fmt: skip
    read = pd.read_csv(tmp_path / "table3.csv")
    assert read["bone"].tolist() == table.frame["bone"].tolist()
    latex = (tmp_path / "table3.tex").read_text()
    assert r"\toprule" in latex and r"\%" in latex
    assert latex.count("%") == latex.count(r"\%") + 1  # the first line is a comment
    bone = f"{table.frame['bone'].iloc[0]:.2f}"
    assert bone in latex and bone in (tmp_path / "table3.md").read_text()


def test_nothing_run_gives_tables_that_say_so(results, tmp_path):
    scores = scoring.read_scores(results, ["no_such_model"])
    for table in (
        tables.table1(scores, SETTINGS),
        tables.table2({}, SETTINGS),
        tables.table3(scores, {}, SETTINGS),
        tables.table4(scores, {}, SETTINGS),
        tables.per_image_table(scores, SETTINGS),
        tables.native_table(scores, SETTINGS),
    ):
        assert "not run" in table._repr_html_()
        tables.save(table, "empty", tmp_path)


def test_a_bone_model_needs_bone():
    rows = pd.DataFrame(
        {"model": ["unet", BASELINE], "epochs": [3, 0], "epoch": [3, 0], "resolution": "input",
         "series": "a", "slice": 0}
    )  # fmt: skip
    rows[[f"n{row}{column}" for row in range(3) for column in range(3)]] = 0
    rows[["n00", "n11", "n21"]] = 5
    found = rows.assign(n22=[1, 1])
    assert scoring.network_with_bone(found, SETTINGS)[0] == "unet"
    network, why = scoring.network_with_bone(rows.assign(n22=[0, 1]), SETTINGS)
    assert network is None and "next to no bone" in why


BONES = Settings(class_scheme="bones")


def six_classes():
    """Return the counts of two images: everything right, then hips for sacra and one for soft."""
    wrong = np.diag([10, 20, 0, 30, 0, 0])
    wrong[4, 3], wrong[1, 2] = 10, 5
    return [np.diag([100, 50, 5, 10, 20, 8]), wrong]


def test_each_class_of_a_scheme_has_its_column():
    table = tables.table1(made("unet", six_classes()), BONES)
    iou, dice, accuracy = (row for _, row in table.frame.iterrows())
    expected = {
        "background": 100, "patient": 100 * 70 / 75, "femur": 100 * 5 / 10,
        "hip bone": 100 * 40 / 50, "sacrum": 100 * 20 / 30, "vertebra": 100,
    }  # fmt: skip
    assert {name: iou[name] for name in expected} == pytest.approx(expected, abs=0.005)
    assert iou["mean"] == pytest.approx(np.mean(list(expected.values())), abs=0.005)
    assert dice["sacrum"] == pytest.approx(100 * 40 / 50, abs=0.005)
    assert accuracy["hip bone"] == pytest.approx(100 * 258 / 268, abs=0.005)
    assert "femur, hip bone, sacrum, vertebra" in table.caption
    assert not any("not run: Threshold" in note for note in table.notes)


def test_only_classes_that_the_paper_has_stand_beside_it():
    frame = tables.table1(made("unet", six_classes()), BONES).frame
    papers = {name for name in frame if name.endswith(("_paper", "_difference"))}
    assert papers == {
        "epoch_paper", "background_paper", "background_difference", "patient_paper",
        "patient_difference",
    }  # fmt: skip
    assert frame["patient_paper"].iloc[0] == published.TABLE1["unet"]["iou"][2]
    assert "bone" not in frame
    by_series = tables.table4(made("unet", six_classes()), {}, BONES)
    assert list(by_series.frame["vertebra"]) == [100, 100] and "mean_paper" not in by_series.frame
    assert "bones" in by_series.caption


def test_a_series_that_lacks_a_class_has_no_mean():
    one, other = ([counts] for counts in six_classes())
    table = tables.table4(
        pd.concat([made("unet", one, "s1"), made("unet", other, "s2")]), {}, BONES
    )
    assert list(table.frame["mean"].isna()) == [False, True, False]
    assert list(table.frame["femur"].round(2)) == [100, 0, 50]
    assert any("lacks" in note for note in table.notes)


def test_bone_of_single_slices_is_all_classes_of_bone():
    rows = made("unet", six_classes())
    assert scoring.bone_iou(rows) == pytest.approx([100, 100 * 40 / 45])
    frame = tables.per_image_table(rows, BONES).frame
    assert frame["minimum"].iloc[0] == pytest.approx(88.89, abs=0.005)


def test_more_classes_explain_more_parameters(records):
    notes = tables.table2(records, BONES).notes
    assert any("6 classes" in note for note in notes)
    assert not any("6 classes" in note for note in tables.table2(records, Settings()).notes)


def test_bone_of_any_class_makes_a_bone_model():
    found, nothing = six_classes()[0], np.diag([100, 50, 0, 0, 0, 0])
    nothing[3:, 1] = 9
    assert scoring.network_with_bone(made("unet", [found]), BONES)[0] == "unet"
    assert scoring.network_with_bone(made("unet", [nothing]), BONES)[0] is None


def test_pooled_scores_name_the_classes():
    frame = scoring.pooled_scores(made("unet", six_classes()), BONES)
    assert list(frame)[-7:] == ["mean", *BONES.class_names]
    assert frame["sacrum"].iloc[0] == pytest.approx(66.67, abs=0.005)
