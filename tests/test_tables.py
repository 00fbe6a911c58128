import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bonelib import metrics, published, tables
from bonelib.evaluation import scoring, statistics
from bonelib.paths import ResultFolder
from bonelib.settings import BASELINE, CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from bonelib.tables.comparisons import comparison_table
from bonelib.tables.error_tables import calibration_table, false_bone_table, level_table
from bonelib.tables.surfaces import surface_series_table, surface_table
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


def test_all_published_dice_values_follow_from_the_iou():
    pairs = [
        pair
        for row in (*published.TABLE1.values(), *published.TABLE3.values())
        for pair in zip(row["iou"][1:], row["dice"][1:], strict=True)
    ]
    assert len(pairs) == 24
    for iou, dice in pairs:
        assert 200 * iou / (100 + iou) == pytest.approx(dice, abs=0.0101)


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


def test_scores_stand_beside_their_intervals(scores):
    frame = tables.table1(scores, SETTINGS).frame
    row = frame[(frame["name"] == "U-net") & (frame["measure"] == "IoU")].iloc[0]
    rows = scoring.select(scores, "unet", SETTINGS.epochs)
    for name, limits in statistics.intervals(rows, "iou").items():
        assert (row[f"{name}_low"], row[f"{name}_high"]) == limits
        assert limits[0] <= row[name] <= limits[1]
    table = tables.table1(scores, SETTINGS)
    assert any("95 % intervals" in note and "too narrow" in note for note in table.notes)
    html = table._repr_html_()
    assert f"{row['bone_low']:.2f}–{row['bone_high']:.2f}" in html


def test_series_have_intervals_of_their_slices(scores, records):
    frame = tables.table4(scores, records, SETTINGS).frame
    rows = scoring.select(scores, "resnet50_unet")
    first = statistics.intervals(rows[rows["series"] == "test01"], "iou")
    assert (frame["bone_low"][0], frame["bone_high"][0]) == first["bone"]


def test_save_writes_three_formats(scores, records, tmp_path):
    table = tables.table3(scores, records, SETTINGS)
    tables.save(table, "table3", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table3.csv", "table3.md", "table3.tex",
    ]  # fmt: skip
    read = pd.read_csv(tmp_path / "table3.csv")
    assert read["bone"].tolist() == table.frame["bone"].tolist()
    latex = (tmp_path / "table3.tex").read_text()
    assert r"\toprule" in latex and r"\caption{IoU, Dice" in latex
    bone = f"{table.frame['bone'].iloc[0]:.2f}"
    assert bone in latex and bone in (tmp_path / "table3.md").read_text()


def small_table(**columns):
    return tables.Table(pd.DataFrame(columns), "A caption.", best={"score": max, "error": min})


def bold_of(table, tmp_path):
    """Return what is bold in each format."""
    tables.save(table, "bold", tmp_path)
    html = re.findall("<td><b>(.*?)</b>", table._repr_html_())
    markdown = re.findall(r"\*\*(\d.*?)\*\*", (tmp_path / "bold.md").read_text())
    latex = re.findall(r"\\textbf{(.*?)}", (tmp_path / "bold.tex").read_text())
    assert html == markdown == latex
    return html


def test_the_best_of_a_column_is_bold_unless_it_is_printed_twice(tmp_path):
    table = small_table(name=["a", "b"], score=[1.5, 2.5], error=[0.25, 0.75])
    assert bold_of(table, tmp_path) == ["0.25", "2.50"]
    equal = small_table(name=["a", "b", "c"], score=[2.501, 2.502, 1], error=[np.nan, 5, 6])
    assert bold_of(equal, tmp_path) == ["5.00"]
    assert bold_of(small_table(name=["a"], score=[1.0], error=[0.5]), tmp_path) == []


def test_the_best_is_chosen_in_each_block(tmp_path):
    frame = pd.DataFrame({"of": list("xxyy"), "name": list("abab"), "score": [1.0, 2, 4, 3]})
    table = tables.Table(frame, "A caption.", blocks="of", best={"score": max})
    assert bold_of(table, tmp_path) == ["2.00", "4.00"]
    assert table._repr_html_().count('class="block"') == 2


def test_a_difference_beyond_the_interval_is_marked_in_words_and_colour(tmp_path):
    columns = {"name": ["a", "b", "c"], "score": [5.0] * 3, "score_low": [4.0] * 3,
               "score_high": [6.0] * 3, "score_paper": [4.0, 3.0, 7.0],
               "score_difference": [1.0, 2.0, -2.0]}  # fmt: skip
    table = tables.Table(pd.DataFrame(columns), "A caption.")
    found = re.findall('<td class="aside( beyond)?">(.*?)</td>', table._repr_html_())
    assert [pair for pair in found if "(" in pair[1]] == [
        ("", "(+1.00)"), (" beyond", "(+2.00↑)"), (" beyond", "(−2.00↓)"),
    ]  # fmt: skip
    tables.save(table, "marked", tmp_path)
    assert r"($-$2.00$\downarrow$)" in (tmp_path / "marked.tex").read_text()
    assert "7.00 (−2.00↓)" in (tmp_path / "marked.md").read_text()
    assert "5.00 [4.00–6.00]" in (tmp_path / "marked.md").read_text()


def test_text_is_escaped_in_every_format(tmp_path):
    sign = "50 % & 1_000 #$ {x} ~ ^ \\ --flag <b>"
    table = tables.Table(pd.DataFrame({"name": [sign], "a|b": ["x|y"]}), sign, (sign,))
    tables.save(table, "signs", tmp_path)
    latex = (tmp_path / "signs.tex").read_text()
    escaped = (
        r"50 \% \& 1\_000 \#\$ \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"-{}-flag \textless{}b\textgreater{}"
    )
    assert latex.count(escaped) == 2
    html = table._repr_html_()
    assert "<b>A" not in html and html.count("&lt;b&gt;") == 3
    assert (tmp_path / "signs.md").read_text().count(r"x\|y") == 1


def test_all_tables_compile_and_fit_the_page(made_tables, tmp_path):
    """Of the article class, whose text is 345 points wide; without LaTeX, braces must match."""
    for name, table in made_tables.items():
        tables.save(table, name, tmp_path)
        latex = (tmp_path / f"{name}.tex").read_text()
        found = re.findall(r"\\(begin|end){(\w+)}", latex)
        stack = []
        for kind, environment in found:
            if kind == "begin":
                stack.append(environment)
            else:
                assert stack.pop() == environment
        bare = re.sub(r"\\[{}\\]", "", latex)
        assert not stack and bare.count("{") == bare.count("}")
        assert latex.isascii()
    if not shutil.which("pdflatex"):
        return
    inputs = "".join(rf"\input{{{name}}}\clearpage" + "\n" for name in made_tables)
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,longtable}\begin{document}"
        + "\n" + inputs + r"\end{document}"
    )  # fmt: skip
    for _ in range(3):  # widths of long tables settle from run to run
        run = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-2000:]
    assert not re.findall("Overfull.*|Float too large.*|.*undefined.*", run.stdout)


@pytest.fixture(scope="module")
def made_tables(results):
    return tables.all_tables(results, MODELS, SETTINGS, "About the data.")


def test_all_tables_are_there_and_say_what_the_data_is(made_tables):
    assert list(made_tables) == [
        "table1", "table2", "table3", "table4", "per_image", "native", "comparisons", "surfaces",
        "surfaces_series", "levels", "calibration", "false_bone", "ablations",
    ]  # fmt: skip
    assert all(table.notes[-1] == "About the data." for table in made_tables.values())
    empty = {name for name, table in made_tables.items() if table.frame.empty}
    assert empty == {"ablations"}


def test_nothing_run_gives_tables_that_say_so(tmp_path):
    for name, table in tables.all_tables(ResultFolder(tmp_path), MODELS, SETTINGS).items():
        assert "not run" in table._repr_html_()
        assert any("ot run" in note for note in table.notes) or name == "table2"
        tables.save(table, "empty", tmp_path)
        assert "not run" in (tmp_path / "empty.tex").read_text()
        assert "not run" in pd.read_csv(tmp_path / "empty.csv").to_string()


def test_pairs_are_better_only_by_test_and_interval(scores, made_tables):
    table = made_tables["comparisons"]
    assert len(table.frame) == 9 * 8 / 2  # U-net is in Tables 1 and 3
    pairs = statistics.comparisons(scores, scoring.methods(scores))
    assert table.frame["p_holm"].tolist() == pairs["p_holm"].tolist()
    assert any("36 pairs" in note for note in table.notes)
    assert any("series won" in note for note in table.notes)
    many = pd.concat([scores.assign(series=scores["series"] + str(copy)) for copy in range(5)])
    frame = comparison_table(many, SETTINGS).frame
    certain = frame[frame["result"] != "unclear"]
    assert {"better", "worse"} == set(certain["result"]) and (certain["p_holm"] < 0.05).all()
    better = certain["result"] == "better"
    assert (certain["difference_low"][better] > 0).all()
    assert (certain["difference_high"][~better] < 0).all()


SURFACES = pd.DataFrame(
    [
        ["unet", 10, "a", "bone", "found", 1.0, 4.0, 0.5, 0.75],
        ["unet", 10, "b", "bone", "missed", 99.0, 99.0, 0.0, 0.0],
        ["unet", 10, "c", "bone", "absent", np.nan, np.nan, np.nan, np.nan],
    ],
    columns=scoring.SURFACE_COLUMNS,
)


def test_a_missed_structure_stays_in_the_mean_of_surfaces():
    row = surface_table(SURFACES).frame.iloc[0]
    assert (row["assd_mm"], row["hd95_mm"]) == (50, 51.5)
    assert (row["nsd_1mm"], row["nsd_2mm"]) == (25, 37.5)
    assert (row["series"], row["missed"], row["invented"]) == (2, 1, 0)
    frame = surface_series_table(SURFACES, "unet", "U-net").frame
    assert frame["state"].tolist() == ["found", "missed", "absent"]
    assert frame["nsd_2mm"][0] == 75


def test_levels_pool_their_own_slices():
    scores = made("unet", [np.diag([9, 9, 6]), [[9, 0, 0], [0, 9, 0], [0, 3, 1]]])
    slices = pd.DataFrame({"series": "s1", "slice": [0, 1], "level": ["femur shaft", "sacrum"]})
    slices["level"] = pd.Categorical(slices["level"], ["femur shaft", "sacrum"], ordered=True)
    table = level_table(scores, slices, Settings())
    row = table.frame.iloc[0]
    assert (row["femur shaft"], row["sacrum"], row["all"]) == (100, 25, 70)
    assert any("femur shaft 1, sacrum 1" in note for note in table.notes)


def test_the_calibration_error_as_worked_by_hand():
    """80 pixels said 2 of 80, 4 came; 20 said 15 of 20, 12 came: (2 + 3) / 100."""
    rows = pd.DataFrame(
        [["unet", 10, "a", "bone", 0, 50, 1.0, 3], ["unet", 10, "b", "bone", 0, 30, 1.0, 1],
         ["unet", 10, "a", "bone", 15, 20, 15.0, 12]],
        columns=scoring.RELIABILITY_COLUMNS,
    )  # fmt: skip
    others = [rows.assign(**{"class": name, "positive": rows["probability"]})
              for name in ("background", "patient")]  # fmt: skip
    row = calibration_table(pd.concat([rows, *others]), Settings()).frame.iloc[0]
    assert row["bone"] == 5 and row["bone_beyond_first_bin"] == 15
    assert row["ece"] == pytest.approx(5 / 3, abs=0.001)


def false_bone(spacing):
    scores = pd.concat([made("unet", [np.diag([9, 9, 9])]), made("fcn8", [np.diag([9, 9, 9])])])
    wrong = pd.DataFrame(
        [["unet", 10, "s1", 0, "beside bone", 30], ["unet", 10, "s1", 0, "soft tissue", 10]],
        columns=scoring.FALSE_BONE_COLUMNS,
    )
    slices = pd.DataFrame({"series": ["s1"], "slice": [0], "spacing": [spacing]})
    return false_bone_table(wrong, scores, slices).frame.set_index("name")


def test_false_bone_is_shared_out_among_its_causes():
    frame = false_bone("10.0 5.0 2.0")
    assert frame.loc["U-net", "ml"] == 4  # 40 pixels of 0.1 ml
    assert frame.loc["U-net", "beside bone"] == 75
    assert frame.loc["U-net", "soft tissue"] == 25
    assert frame.loc["FCN8", "ml"] == 0 and np.isnan(frame.loc["FCN8", "soft tissue"])


def test_false_bone_counts_pixels_where_there_is_no_spacing():
    assert false_bone(None).loc["U-net", "pixels"] == 40


def test_a_bone_model_needs_bone():
    rows = pd.DataFrame(
        {"model": ["unet", BASELINE], "epochs": [3, 0], "epoch": [3, 0], "resolution": "input",
         "series": "a", "slice": 0}
    )  # fmt: skip
    rows[[f"n{row}{column}" for row in range(3) for column in range(3)]] = 0
    rows[["n00", "n11", "n21"]] = 5
    found = rows.assign(n22=[5, 5])
    assert scoring.network_with_bone(found, SETTINGS)[0] == "unet"
    network, why = scoring.network_with_bone(rows.assign(n12=9, n22=[1, 1]), SETTINGS)
    assert network is None and "little of the bone" in why


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
