import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bonelib import published, tables
from bonelib.evaluation import scoring, statistics
from bonelib.paths import ResultFolder
from bonelib.settings import CLASS_NAMES, TABLE1_MODELS, TABLE3_MODELS, Settings
from tests.synthetic_results import MODELS, SETTINGS, score_rows, small_results

PAPER = Settings()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return small_results(tmp_path_factory.mktemp("run"), random_encoders=("vgg_unet",))[1]


@pytest.fixture(scope="module")
def scores(results):
    return scoring.read_scores(results, MODELS)


@pytest.fixture(scope="module")
def made(results):
    """All tables of seven networks and the baseline."""
    return tables.all_tables(results, MODELS, SETTINGS, "About the data.")


def row_of(table, name, measure="IoU"):
    rows = table.frame[(table.frame["name"] == name) & (table.frame["measure"] == measure)]
    return rows.iloc[0]


def test_published_values_are_consistent():
    rows = [*published.TABLE1.values(), *published.TABLE3.values()]
    for row in rows:
        for measure in published.MEASURE_NAMES:
            assert np.mean(row[measure][1:]) == pytest.approx(row[measure][0], abs=0.0101)
        for iou, dice in zip(row["iou"][1:], row["dice"][1:], strict=True):
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


def test_all_tables_are_there_describe_the_data_and_are_written(made, tmp_path):
    assert list(made) == [
        "table1", "table2", "table3", "table4", "per_image", "native", "comparisons", "surfaces",
        "surfaces_series", "levels", "calibration", "false_bone", "ablations",
    ]  # fmt: skip
    assert all(table.notes[-1] == "About the data." for table in made.values())
    assert [name for name, table in made.items() if table.frame.empty] == ["ablations"]
    tables.save(made["table3"], "table3", tmp_path)
    bone = made["table3"].frame["bone"].tolist()
    assert pd.read_csv(tmp_path / "table3.csv")["bone"].tolist() == bone
    for name, heading in (("table3.tex", r"\caption{IoU, Dice"), ("table3.md", "**Table 3. IoU")):
        text = (tmp_path / name).read_text()
        assert heading in text and f"{bone[0]:.2f}" in text


def test_tables_of_an_empty_run_say_so(tmp_path):
    for table in tables.all_tables(ResultFolder(tmp_path), MODELS, SETTINGS).values():
        assert "not run" in table._repr_html_() and table.notes[0].startswith("Not run")
        tables.save(table, "empty", tmp_path)
        assert "not run" in (tmp_path / "empty.tex").read_text()
        assert "not run" in pd.read_csv(tmp_path / "empty.csv").to_string()


def test_pixels_are_pooled_before_classes_are_averaged():
    counts = [np.diag([80, 15, 5]), [[0, 0, 0], [0, 50, 0], [0, 50, 0]]]
    iou = row_of(tables.table1(score_rows({"a": counts}), PAPER), "U-net")
    expected = [100.0, 100 * 65 / 115, 100 * 5 / 55]  # the mean over images would be 50 for bone
    assert [iou[name] for name in CLASS_NAMES] == pytest.approx(expected, abs=0.005)
    assert iou["mean"] == pytest.approx(np.mean(expected), abs=0.005)
    assert iou["epoch"] == iou["epoch_paper"] == 10


def test_rows_carry_ours_the_papers_and_the_difference(made, scores):
    frame = made["table1"].frame
    assert len(frame) == 3 * (len(TABLE1_MODELS) + 1)
    row = row_of(made["table1"], "FCN8", "Dice coeff.")
    assert row["bone_paper"] == 89.47
    assert row["bone_difference"] == pytest.approx(row["bone"] - 89.47)
    baseline = frame[frame["name"].str.contains("baseline")]
    assert len(baseline) == 3 and baseline.filter(like="_paper").isna().all(axis=None)
    rows = scoring.select(scores, "unet", SETTINGS.epochs)
    row = row_of(made["table1"], "U-net")
    for name, limits in statistics.intervals(rows, "iou").items():
        assert (row[f"{name}_low"], row[f"{name}_high"]) == limits
        assert limits[0] <= row[name] <= limits[1]
    notes = " ".join(made["table1"].notes)
    assert "95 % intervals" in notes and "14 test slices of 2 series" in notes
    assert f"{row['bone_low']:.2f}–{row['bone_high']:.2f}" in made["table1"]._repr_html_()
    long = row_of(made["table3"], "U-net")
    assert (row["mean_paper"], long["mean_paper"]) == (93.91, 94.64)
    assert row["mean"] != long["mean"]


def test_random_encoders_and_missing_models_are_named(made, scores):
    assert {"VGG-U-net (random encoder)", "ResNet-U-net"} < set(made["table3"].frame["name"])
    assert any("VGG-U-net: started from a random" in note for note in made["table3"].notes)
    table = tables.table1(scores[scores["model"].isin(["unet", "fcn8"])], SETTINGS)
    assert set(table.frame["name"]) == {"U-net", "FCN8"}
    assert any("Not run: FCN32, PSPNet, SegNet" in note for note in table.notes)


def test_table4_pairs_series_by_order(made, scores):
    frame = made["table4"].frame
    assert list(frame["series"]) == ["test01", "test02", "Combined"]
    assert list(frame["images"]) == [7, 7, 14]
    assert list(frame["images_paper"]) == [85, 152, 730]
    assert list(frame["bone_paper"]) == [92.83, 93.10, 92.87]
    rows = scoring.select(scores, "resnet50_unet")  # with the best history
    assert frame["bone"].iloc[-1] == scoring.pooled(rows, "iou")[3]
    seven = score_rows({f"s{number}": [np.diag([80, 15, 5])] for number in range(7)})
    frame = tables.table4(seven, {}, "unet").frame  # the paper has five
    assert len(frame) == 8 and frame["mean_paper"].notna().sum() == 6


def test_slices_without_bone_are_left_out_and_counted():
    missed, absent = [[9, 0, 0], [0, 9, 0], [0, 4, 0]], np.diag([9, 9, 0])
    rows = score_rows({"a": [np.diag([9, 9, 9]), missed, absent]})
    row = tables.per_image_table(rows, PAPER, {}).frame.iloc[0]
    assert (row["images"], row["without_bone"]) == (2, 1)
    assert (row["minimum"], row["maximum"], row["mean"]) == (0, 100, 50)
    assert row["standard_deviation"] == 50 and row["mean_paper"] == 87.15


def test_a_pair_is_better_by_both_test_and_interval(scores, made):
    assert len(made["comparisons"].frame) == 9 * 8 / 2  # U-net is in Tables 1 and 3
    few = scores[scores["model"].isin(["unet", "fcn32", "threshold"])]
    many = pd.concat([few.assign(series=few["series"] + str(copy)) for copy in range(5)])
    frame = tables.comparison_table(many, {}).frame
    certain = frame[frame["result"] != "unclear"]
    assert {"better", "worse"} == set(certain["result"]) and (certain["p_holm"] < 0.05).all()
    better = certain["result"] == "better"
    assert (certain["difference_low"][better] > 0).all()
    assert (certain["difference_high"][~better] < 0).all()


def test_a_missed_structure_stays_in_the_mean_of_surfaces():
    surfaces = pd.DataFrame(
        [
            ["unet", 10, "a", "bone", "found", 1.0, 4.0, 0.5, 0.75],
            ["unet", 10, "b", "bone", "missed", 99.0, 99.0, 0.0, 0.0],
            ["unet", 10, "c", "bone", "absent", np.nan, np.nan, np.nan, np.nan],
        ],
        columns=scoring.COLUMNS["surfaces"],
    )
    row = tables.surface_table(surfaces, {}).frame.iloc[0]
    assert (row["assd_mm"], row["hd95_mm"]) == (50, 51.5)
    assert (row["nsd_1mm"], row["nsd_2mm"]) == (25, 37.5)
    assert (row["series"], row["missed"], row["invented"]) == (2, 1, 0)
    frame = tables.surface_series_table(surfaces, "unet").frame
    assert frame["state"].tolist() == ["found", "missed", "absent"]
    assert frame["nsd_2mm"][0] == 75


def test_levels_pool_their_own_slices():
    scores = score_rows({"a": [np.diag([9, 9, 6]), [[9, 0, 0], [0, 9, 0], [0, 3, 1]]]})
    slices = pd.DataFrame({"series": "a", "slice": [0, 1], "level": ["femur shaft", "sacrum"]})
    slices["level"] = pd.Categorical(slices["level"], ["femur shaft", "sacrum"], ordered=True)
    table = tables.level_table(scores, slices, {})
    row = table.frame.iloc[0]
    assert (row["femur shaft"], row["sacrum"], row["all"]) == (100, 25, 70)
    assert any("femur shaft 1, sacrum 1" in note for note in table.notes)


def test_the_calibration_error_as_worked_by_hand():
    """80 pixels said 2 of 80, 4 came; 20 said 15 of 20, 12 came: (2 + 3) / 100."""
    rows = pd.DataFrame(
        [["unet", 10, "a", "bone", 0, 50, 1.0, 3], ["unet", 10, "b", "bone", 0, 30, 1.0, 1],
         ["unet", 10, "a", "bone", 15, 20, 15.0, 12]],
        columns=scoring.COLUMNS["reliability"],
    )  # fmt: skip
    others = [rows.assign(**{"class": name, "positive": rows["probability"]})
              for name in ("background", "patient")]  # fmt: skip
    table = tables.calibration_table(pd.concat([rows, *others]), {})
    row = table.frame.iloc[0]
    assert row["bone"] == 5 and row["bone_beyond_first_bin"] == 15
    assert row["ece"] == pytest.approx(5 / 3, abs=0.001)


def test_false_bone_is_shared_out_among_its_causes():
    right = {"a": [np.diag([9, 9, 9])]}
    scores = pd.concat([score_rows(right), score_rows(right, "fcn8")])
    wrong = pd.DataFrame(
        [["unet", 10, "a", 0, "beside bone", 30], ["unet", 10, "a", 0, "soft tissue", 10]],
        columns=scoring.COLUMNS["false_bone"],
    )
    slices = pd.DataFrame({"series": ["a"], "slice": [0], "spacing": ["10.0 5.0 2.0"]})
    frame = tables.false_bone_table(wrong, scores, slices, {}).frame.set_index("name")
    assert frame.loc["U-net", "ml"] == 4  # 40 pixels of 0.1 ml
    assert tuple(frame.loc["U-net", ["beside bone", "soft tissue"]]) == (75, 25)
    assert frame.loc["FCN8", "ml"] == 0 and np.isnan(frame.loc["FCN8", "soft tissue"])


@pytest.mark.parametrize(
    ("columns", "bold"),
    [
        ({"name": list("ab"), "score": [1.5, 2.5], "error": [0.25, 0.75]}, ["0.25", "2.50"]),
        ({"name": list("abc"), "score": [2.501, 2.502, 1], "error": [np.nan, 5, 6]}, ["5.00"]),
        ({"name": ["a"], "score": [1.0], "error": [0.5]}, []),
        ({"of": list("xyxy"), "name": list("abab"), "score": [1.0, 4, 2, 3]}, ["2.00", "4.00"]),
    ],
)
def test_the_best_of_a_column_and_block_is_bold_unless_it_is_printed_twice(columns, bold):
    frame = pd.DataFrame({"error": np.nan} | columns)
    blocks = "of" if "of" in columns else ""
    table = tables.Table(frame, "", blocks=blocks, best={"score": max, "error": min})
    assert re.findall("<td[^>]*><b>(.*?)</b>", table._repr_html_()) == bold
    assert re.findall(r"\*\*(\d.*?)\*\*", table.markdown()) == bold
    assert re.findall(r"\\textbf{(.*?)}", table.latex("bold")) == bold


def test_a_paper_value_outside_the_interval_is_marked():
    columns = {"name": ["a", "b", "c"], "score": [5.0] * 3, "score_low": [4.0] * 3,
               "score_high": [6.0] * 3, "score_paper": [4.0, 3.0, 7.0],
               "score_difference": [1.0, 2.0, -2.0]}  # fmt: skip
    table = tables.Table(pd.DataFrame(columns), "A caption.")
    small = re.findall("<small>(.*?)</small>", table._repr_html_())
    assert small[::2] == ["4.00–6.00"] * 3
    assert small[1::2] == ["(+1.00)", "(+2.00↑)", "(−2.00↓)"]
    assert r"($-$2.00$\downarrow$)" in table.latex("marked")
    assert "7.00 (−2.00↓)" in table.markdown() and "5.00 [4.00–6.00]" in table.markdown()


def test_text_is_escaped_in_every_format():
    sign = "50 % & 1_000 #$ {x} ~ ^ \\ --flag <b>"
    table = tables.Table(pd.DataFrame({"name": [sign], "other": ["x|y"]}), sign, (sign,))
    escaped = (
        r"50 \% \& 1\_000 \#\$ \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"-{}-flag \textless{}b\textgreater{}"
    )
    assert table.latex("signs").count(escaped) == 3
    html = table._repr_html_()
    assert "<b>A" not in html and html.count("&lt;b&gt;") == 3
    assert table.markdown().count(r"x\|y") == 1


def test_all_tables_compile_and_fit_the_page(made, tmp_path):
    """Without LaTeX, braces and environments must match."""
    for name, table in made.items():
        latex = table.latex(name)
        (tmp_path / f"{name}.tex").write_text(latex)
        bare = re.sub(r"\\[{}\\]", "", latex)
        assert bare.count("{") == bare.count("}") and latex.isascii()
        begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", latex) for word in ("begin", "end"))
        assert sorted(begun) == sorted(ended)
    if not shutil.which("pdflatex"):
        return
    inputs = "".join(rf"\input{{{name}}}\clearpage" for name in made)
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{adjustbox,booktabs}\begin{document}"
        rf"{inputs}\end{{document}}"
    )
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:]
    assert not re.findall("Overfull.*", run.stdout)
