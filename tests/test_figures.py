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
from bonelib.evaluation import scoring, statistics
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


@pytest.fixture
def example(run):
    """Return a slice with all classes and an ignored part, and a wrong prediction."""
    labels = np.zeros((48, 48), np.uint8)
    labels[8:40, 4:44], labels[10:20, 8:14], labels[30:34, 20:24] = 1, 2, IGNORE
    predicted = np.where(labels == IGNORE, 2, labels)
    predicted[10:15, 8:14] = 1
    predictions = {"unet": predicted.astype(np.uint8)}
    read = pictures.read_example(run[0], pd.Series({"series": "test01", "slice": 2}))
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


def test_planes_are_upright_in_mm_and_cut_most_bone(make_image):
    image_hu = np.full((12, 30, 60), 40, np.int16)
    image_hu[8:11, 3:9, 6:18] = 1000  # to the head, to the front, on the patient's right
    scan = make_image(image_hu, (10, 4, 2))
    classes = (image_hu > 500).astype(np.uint8) + 1
    classes[0] = classes[:, 0] = classes[:, :, 0] = 0  # air around the patient
    label_map = make_image(classes, (10, 4, 2))
    for panel, (across, up) in zip(
        pictures.draw_planes(scan, label_map).axes, [(24, 24), (24, 95), (24, 95)], strict=True
    ):
        colours = [to_hex(one.get_edgecolor()[0]) for one in panel.collections]
        assert colours == [colour.lower() for colour in CLASS_COLOURS[1:3]]
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


@pytest.mark.parametrize("name", ["figure4", "figureS6_false_bone"])
def test_files_have_the_size_in_print_the_caption_and_the_pdf_vectors_and_fonts(
    made, name, tmp_path
):
    figures.save(made[name], name, tmp_path)
    pdf, image = (tmp_path / f"{name}.pdf").read_bytes(), Image.open(tmp_path / f"{name}.png")
    assert image.info["Description"] == figures.CAPTIONS[name]
    assert image.size == pytest.approx(300 * made[name].get_size_inches(), abs=1)
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


def test_what_has_no_files_is_skipped_with_one_note(run, made, tmp_path):
    assert list(made) == FIGURES and figures.summary(made) == "13 figures"
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
