import re
from dataclasses import replace
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from skimage.color import rgb2lab

from bonelib import figures
from bonelib.evaluation import error_analysis, scoring, statistics
from bonelib.figures import paper, pictures, style
from bonelib.figures.style import CLASS_COLOURS
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.settings import CLASS_NAMES, IGNORE, get_settings
from tests.synthetic_results import MODELS, small_results

matplotlib.use("agg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    encoders = ("vgg_unet", "resnet50_unet")
    return small_results(tmp_path_factory.mktemp("run"), random_encoders=encoders)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def history(run):
    return scoring.read_histories(run[1], ["unet"])["unet"]


def at(series, index):
    return pd.Series({"series": series, "slice": index})


def test_levels_follow_the_anatomy_from_head_to_feet_or_are_evenly_spaced(run):
    levels = ["femur_left femur_right", "hip_left femur_left", "hip_left sacrum"]
    table = pd.DataFrame({"structures": np.repeat(levels, 4), "slice": range(12)})
    table = table.assign(series="train01", split="train", bone_pixels=9)
    chosen = pictures.choose_levels(table)
    assert chosen["slice"].is_monotonic_decreasing
    assert list(chosen["structures"]) == [levels[2], levels[2], levels[1], levels[0]]
    unnamed = pictures.choose_levels(pd.read_csv(run[0].table))
    assert set(unnamed["series"]) == {"train01"}
    assert unnamed["slice"].tolist() == [5, 3, 2, 0]  # the seventh slice has no bone


def test_quartiles_go_from_best_to_worst(run):
    scores = scoring.read_scores(run[1], MODELS)
    chosen = pictures.choose_quartiles(scores, "unet")
    everything = scoring.bone_iou(scoring.select(scores, "unet"))
    assert len(chosen) == 4 and chosen["bone_iou"].is_monotonic_decreasing
    assert chosen["bone_iou"].iloc[0] == np.nanmax(everything)
    assert chosen["bone_iou"].iloc[-1] == np.nanmin(everything)
    assert set(chosen["epochs"]) == {scores["epochs"].max()}
    figure = figures.best_to_worst(*run, scores, "unet")
    for panel, row in zip(figure.axes[1::2], chosen.itertuples(), strict=True):
        assert f"bone IoU {row.bone_iou:.1f} %" in panel.get_title()


def test_figure6_scores_what_it_shows(run):
    row = pictures.choose_compared(scoring.read_scores(run[1], MODELS))
    example = pictures.read_example(run[0], row, run[1], [*MODELS, "not_run"])
    assert (example.labels == 2).any() and list(example.predictions) == list(MODELS)
    example.predictions["vgg_unet"] = example.labels
    figure, axes = pictures.picture_canvas([example], 3, 2 + len(MODELS))
    paper.figure6(example, axes, records={"vgg_unet": {"encoder_weights": "random"}})
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == 2 + len(MODELS) and "reference" in titles
    assert "VGG-U-net\n(random encoder)\nbone IoU 100.0 %" in titles
    assert "(mm)" in figure.get_supxlabel()


def test_save_writes_both_formats_and_the_caption(tmp_path, history):
    figure, axes = figures.canvas(1, 1, 76.2, 101.6)
    paper.figure5(history, axes[0, 0])
    figures.save(figure, "figure5", tmp_path)
    assert (tmp_path / "figure5.pdf").read_bytes().startswith(b"%PDF")
    image = Image.open(tmp_path / "figure5.png")
    assert image.size == (1200, 900)  # 300 dpi
    assert image.info["Description"] == figures.CAPTIONS["figure5"]


@pytest.fixture
def example(run):
    """An example with all classes and an ignored part, and a wrong prediction."""
    labels = np.zeros((48, 48), np.uint8)
    labels[8:40, 4:44], labels[10:20, 8:14], labels[30:34, 20:24] = 1, 2, IGNORE
    predicted = np.where(labels == IGNORE, 2, labels)
    predicted[10:15, 8:14] = 1
    predictions = {"unet": predicted.astype(np.uint8)}
    read = pictures.read_example(run[0], at("test01", 2))
    return replace(read, labels=labels, predictions=predictions)


def test_slices_are_drawn_and_scored_but_for_ignored_pixels(example):
    mean, bone = paper.image_scores(example, example.predictions["unet"])
    patient = (example.labels == 1).sum()
    assert bone == 50
    assert mean == pytest.approx(100 * (1 + patient / (patient + 30) + 0.5) / 3)
    figure, axes = figures.canvas(1, 3, 60)
    paper.figure6(example, axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*CLASS_NAMES, "not scored"]
    drawn = axes[0, 1].images[0].get_array()
    colours = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert len(set(colours)) == 4
    for label, colour in zip([*range(3), IGNORE], colours, strict=True):
        assert to_hex(drawn[example.labels == label][0]) == colour


def test_a_class_without_pixels_has_a_curve_marked_absent(history):
    _, axes = figures.canvas(1, 1, 60)
    paper.figure4(history.assign(val_iou_bone=np.nan), axes[0, 0])
    lines = axes[0, 0].lines
    assert [line.get_label() for line in lines] == ["background", "patient", "bone (absent)"]
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3
    assert lines[1].get_ydata() == pytest.approx(100 * history["val_iou_patient"])


def test_pictures_and_planes_outline_every_class(example, make_image):
    labels = np.stack([example.labels] * 6)
    labels[labels == IGNORE] = 0
    scan = make_image(np.zeros(labels.shape, np.int16), (10, 4, 2))
    planes = pictures.draw_planes(scan, make_image(labels, (10, 4, 2)))
    for figure in (pictures.draw_gallery({"draw": (example.image, labels[0])}), planes):
        colours = {to_hex(one.get_edgecolor()[0]) for one in figure.axes[0].collections}
        assert colours == {colour.lower() for colour in CLASS_COLOURS[1:3]}


def test_planes_are_upright_in_mm_and_cut_most_bone(make_image):
    image_hu = np.full((12, 30, 60), 40, np.int16)
    image_hu[8:11, 3:9, 6:18] = 1000  # to the head, to the front, on the patient's right
    scan = make_image(image_hu, (10, 4, 2))
    label_map = make_image((image_hu > 500).astype(np.uint8) + 1, (10, 4, 2))
    for panel, (across, up) in zip(pictures.draw_planes(scan, label_map).axes, [
        (24, 24), (24, 95), (24, 95),
    ], strict=True):  # fmt: skip
        outline = panel.collections[-1].get_paths()[0].vertices
        assert outline.mean(axis=0) == pytest.approx([across, up], abs=3)
        left, right = panel.get_xlim()
        bottom, top = panel.get_ylim()
        assert abs(right - left) == abs(top - bottom) == 120
        assert (bottom > top) == (panel.get_title() == "axial")  # the front, and the head, are up
        assert "(mm)" in panel.get_xlabel() and "(mm)" in panel.get_ylabel()


# Print


@pytest.fixture(scope="module")
def made(run):
    """Every figure of a run that has all files."""
    slices, results = run
    slices.description.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 20)
        drawn = figures.all_figures(slices, results, get_settings("smoke"), MODELS[:-1])
    yield drawn
    for figure in drawn.values():
        plt.close(figure)


FIGURES = [name for name in figures.CAPTIONS if name.startswith("figure")]


def tick_labels(panel):
    """The labels that are drawn: Matplotlib keeps some of ticks outside the limits, too."""
    for axis, number in ((panel.xaxis, 0), (panel.yaxis, 1)):
        low, high = sorted(axis.get_view_interval())
        for label in axis.get_ticklabels():
            if label.get_visible() and low <= label.get_position()[number] <= high:
                yield label


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_fits_a_journal_and_no_text_lies_on_another(made, name):
    figure = made[name]
    width_mm, height_mm = 25.4 * figure.get_size_inches()
    assert width_mm == pytest.approx(style.COLUMN_MM if name[-1] in "345" else style.PAGE_MM)
    assert height_mm < 240  # a page less its margins and a caption
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= style.SMALL_POINTS
    figure.draw_without_rendering()
    box = figure.get_tightbbox()  # inches: nothing is cut off
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= width_mm / 25.4 and box.y1 <= height_mm / 25.4
    boxes = [
        (text.get_text(), text.get_window_extent())
        for panel in figure.axes
        for text in (panel.title, *panel.texts, *tick_labels(panel))
        if text.get_text()
    ]
    for (one, box), (other, beside) in combinations(boxes, 2):
        overlap = Bbox.intersection(box, beside)
        assert overlap is None or min(overlap.size) < 1, (one, other)


@pytest.mark.parametrize("name", ["figure4", "figureS4_confusion", "figureS6_false_bone"])
def test_a_pdf_is_vectors_at_its_size_with_its_fonts(made, name, tmp_path):
    figures.save(made[name], name, tmp_path)
    pdf = (tmp_path / f"{name}.pdf").read_bytes()
    width, height = 72 * made[name].get_size_inches()
    left, bottom, right, top = map(float, re.search(rb"/MediaBox \[ (.*?) \]", pdf)[1].split())
    assert (right - left, top - bottom) == pytest.approx((width, height), abs=0.01)
    assert b"/Subtype /Image" not in pdf and b"/Subtype /Type3" not in pdf
    assert 0 < len(re.findall(rb"/Type /FontDescriptor", pdf)) == pdf.count(b"/FontFile2")


# Machado et al. 2009: what who lacks the receptors for green sees, in linear RGB.
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])


def as_deuteranope(rgb):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ DEUTERANOPIA.T).clip(0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("colours", [CLASS_COLOURS, style.PAIR_COLOURS, paper.CAUSE_COLOURS])
def test_colours_differ_in_grey_and_to_colour_blind_readers(colours):
    rgb = np.array([to_rgb(colour) for colour in colours])
    lightness = rgb2lab(rgb)[:, 0]
    seen = rgb2lab(as_deuteranope(rgb))
    for one, other in combinations(range(len(colours)), 2):
        assert abs(lightness[one] - lightness[other]) > 6
        assert np.linalg.norm(seen[one] - seen[other]) > 12


# What a run's files allow


def test_every_figure_is_drawn_in_the_order_of_the_captions(made):
    assert list(made) == FIGURES
    assert figures.summary(made) == "13 figures"


def test_what_has_no_files_is_skipped_with_one_note(run, tmp_path):
    _, results = run
    absent, kept, settings = SliceFolder(tmp_path), ResultFolder(tmp_path), get_settings("smoke")
    assert figures.all_figures(absent, kept, settings, ["unet"]) == {}
    for path in (results.scores("unet"), results.history("unet"), results.scored_slices):
        copied = tmp_path / path.relative_to(results.root)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    made = figures.all_figures(absent, kept, settings, ["unet"])
    assert list(made) == FIGURES[2:5] + FIGURES[7:11]  # U-net after 2 and after 4 epochs
    assert figures.summary(made) == (
        "7 figures; skipped, for want of slices, predictions or scores: figure1, figure2, "
        "figure6, figure7, figureS5_reliability, figureS6_false_bone"
    )


# The supplement


@pytest.fixture(scope="module")
def scored(run):
    """Score rows of all methods on the input grid with their places, and the names."""
    scores = scoring.read_scores(run[1], MODELS)
    names = scoring.method_names(scores)
    rows = paper.by_method(scores[scores["resolution"] == "input"], names)
    return rows.merge(scoring.read_slices(run[1]), on=["series", "slice"]), names


def test_figure_s1_draws_each_difference_with_its_interval(scored, monkeypatch):
    rows, names = scored
    monkeypatch.setattr(statistics, "RESAMPLES", 20)
    pairs = paper.pairwise(rows, names)
    assert len(pairs) == 36 and (pairs["difference"] >= 0).all()
    pairs["p_holm"] = [0.01, *[0.2] * 35]
    _, axes = figures.canvas(1, 1, 170)
    paper.figureS1(pairs, axes[0, 0])
    bars = axes[0, 0].containers
    assert len(bars) == 36
    labels = dict(zip(axes[0, 0].get_yticks(), axes[0, 0].get_yticklabels(), strict=True))
    for bar, row in zip(bars, pairs.itertuples(), strict=True):
        mark, _, (line,) = bar.lines
        (low, place), (high, _) = line.get_segments()[0]
        assert mark.get_xdata() == [row.difference]
        assert (low, high) == pytest.approx((row.difference_low, row.difference_high))
        assert (to_hex(mark.get_markerfacecolor()) != "#ffffff") == (row.p_holm < 0.05)
        assert labels[place].get_text() == row.against
    assert "percentage points" in axes[0, 0].get_xlabel()
    first = axes[0, 0].get_yticklabels()[0]
    assert first.get_text() == f"{pairs['first'][0]}, minus" and first.get_fontweight() == "bold"


def test_figure_s4_prints_the_shares_of_each_row():
    counts = {"n00": 90, "n01": 10, "n11": 3, "n12": 1, "n21": 1, "n22": 1}
    columns = dict.fromkeys(scoring.COUNT_COLUMNS, 0) | counts
    rows = pd.DataFrame([columns, columns]).assign(model="unet", epochs=30)
    rows = paper.by_method(rows, scoring.method_names(rows))
    _, axes = figures.canvas(1, 1, 60)
    paper.figureS4(rows, axes)
    cells = {text.get_position(): text.get_text() for text in axes[0, 0].texts}
    printed = [[cells[column, row] for column in range(3)] for row in range(3)]
    assert printed == [["90.0", "10.0", "0"], ["0", "75.0", "25.0"], ["0", "50.0", "50.0"]]
    bottom, top = axes[0, 0].get_ylim()
    assert bottom > top  # the first class of the reference is the highest row
    assert axes[0, 0].get_xlabel() == "predicted" and axes[0, 0].get_ylabel() == "reference"


def test_figure_s6_stacks_the_causes(run, scored):
    rows, names = scored
    false_bone = paper.by_method(scoring.read_scores(run[1], MODELS, "false_bone"), names)
    _, axes = figures.canvas(1, 2, 80)
    paper.figureS6(false_bone[false_bone["model"] != "fcn8"], rows, axes)
    left, right = axes[0]
    methods = [label.get_text() for label in left.get_yticklabels()]
    place, part = methods.index("PSPNet, 2 epochs"), rows[rows["model"] == "pspnet"]
    bone = part[["n20", "n21", "n22"]].sum().sum()
    widths = {bars.get_label(): bars[place].get_width() for bars in left.containers}
    assert list(widths) == list(error_analysis.CAUSES)
    assert sum(widths.values()) == pytest.approx(100 * part[["n02", "n12"]].sum().sum() / bone)
    assert widths["outside the patient"] == pytest.approx(100 * part["n02"].sum() / bone)
    assert sum(bars[place].get_width() for bars in right.containers) == pytest.approx(100)
    assert len({bars[0].get_hatch() for bars in left.containers}) == len(error_analysis.CAUSES)
    (none,) = left.texts
    assert none.get_text().strip() == "none"
    assert methods[none.get_position()[1]] == "FCN8, 2 epochs"
