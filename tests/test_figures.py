from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image

from bonelib import figures, previews, scoring, training
from bonelib.figures import CLASS_COLOURS
from bonelib.settings import CLASS_SCHEMES, IGNORE, get_settings
from tests.synthetic_results import MODELS, small_results

matplotlib.use("agg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_results(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def history(run):
    return scoring.read_histories(run[1], ["unet"])["unet"]


def slice_rows(structures):
    return pd.DataFrame(
        {
            "series": "train01",
            "slice": range(len(structures)),
            "split": "train",
            "bone_pixels": 9,
            "structures": structures,
        }
    )


def test_levels_follow_the_anatomy_from_head_to_feet():
    shaft, joint = ["femur_left femur_right"] * 4, ["hip_left femur_left"] * 4
    chosen = figures.choose_levels(slice_rows([*shaft, *joint, *["hip_left sacrum"] * 4]))
    assert list(chosen["level"]) == list("abcd")
    assert chosen["slice"].is_monotonic_decreasing
    named = chosen["structures"].str
    assert list(named.contains("sacrum")) == [True, True, False, False]
    assert list(named.contains("femur")) == [False, False, True, True]
    assert list(named.contains("hip")) == [True, True, True, False]


def test_levels_without_structures_are_evenly_spaced_in_a_training_series(run):
    table = pd.read_csv(run[0].table)
    chosen = figures.choose_levels(table)
    assert set(chosen["series"]) == {"train01"} and len(chosen) == 4
    assert chosen["slice"].tolist() == [5, 3, 2, 0]  # the seventh slice has no bone


def test_quartiles_go_from_best_to_worst(run):
    scores = scoring.read_scores(run[1], MODELS)
    chosen = figures.choose_quartiles(scores, "unet")
    everything = scoring.bone_iou(scoring.select(scores, "unet"))
    assert len(chosen) == 4 and chosen["bone_iou"].is_monotonic_decreasing
    assert chosen["bone_iou"].iloc[0] == np.nanmax(everything)
    assert chosen["bone_iou"].iloc[-1] == np.nanmin(everything)
    assert chosen["epochs"].nunique() == 1 and chosen["epochs"].iloc[0] == scores["epochs"].max()
    with pytest.raises(ValueError, match="segnet has no scores"):
        figures.choose_quartiles(scores[scores["model"] == "unet"], "segnet")


def test_compared_slice_shows_bone(run):
    row = figures.choose_compared(scoring.read_scores(run[1], MODELS))
    assert (figures.read_example(run[0], row).labels == 2).any()
    with pytest.raises(ValueError, match="no network has scores"):
        figures.choose_compared(scoring.read_scores(run[1], ["threshold"]))


def test_example_is_read_in_its_spacing(run):
    row = pd.Series({"series": "test01", "slice": 2})
    example = figures.read_example(run[0], row)
    assert example.spacing_mm == (7.5, 7.5) and example.image.shape == example.labels.shape
    with pytest.raises(ValueError, match="no slice 99 of series test01"):
        figures.read_example(run[0], pd.Series({"series": "test01", "slice": 99}))


def test_classes_keep_their_colours_and_the_background_is_white(run, history):
    example = figures.read_example(run[0], pd.Series({"series": "test01", "slice": 2}))
    _, axes = figures.canvas(1, 3)
    figures.draw_labels(example, example.labels, axes[0, 0])
    figures.draw_slice(example, axes[0, 1])
    figures.figure4(history, axes[0, 2])
    picture = axes[0, 0].images[0].get_array()
    lines = {line.get_label(): to_hex(line.get_color()) for line in axes[0, 2].lines}
    assert to_hex(picture[example.labels == 2][0]) == lines["bone"]
    assert to_hex(picture[example.labels == 1][0]) == lines["patient"]
    for panel in axes[0, :2]:
        shown = panel.images[0].get_array()[example.labels == 0]
        assert (shown / shown.max() == 1).all()
    assert len(set(lines.values())) == 3


def test_curves_show_the_history_in_percent(history):
    _, axes = figures.canvas(1, 3)
    figures.figure3(history, axes[0, 0], "segnet")
    figures.figure4(history, axes[0, 1])
    figures.figure5(history, axes[0, 2])
    assert axes[0, 0].get_title() == "SegNet"
    values = {line.get_label(): line.get_ydata() for line in axes[0, 0].lines}
    assert values["training"] == pytest.approx(100 * history["accuracy"])
    assert values["validation"] == pytest.approx(100 * history["val_accuracy"])
    bone = axes[0, 1].lines[2].get_ydata()
    assert bone == pytest.approx(100 * history["val_iou_bone"])
    for panel in axes.flat:
        assert panel.get_xlabel() == "epoch" and "%" in panel.get_ylabel()


def test_figure6_scores_what_it_shows(run):
    row = pd.Series({"series": "test01", "slice": 3})
    example = figures.read_example(run[0], row)
    predictions = figures.read_predictions(run[1], [*MODELS, "not_run"], row)
    assert list(predictions) == list(MODELS)
    predictions["unet"] = example.labels
    figure, axes = figures.canvas(4, 3)
    figures.figure6(example, predictions, axes)
    titles = [panel.get_title() for panel in figure.axes]
    assert "U-net\nbone IoU 100.0 %" in titles and "reference" in titles
    assert len(figure.axes) == 2 + len(MODELS)


def test_figure7_has_a_row_a_slice(run):
    rows = figures.choose_quartiles(scoring.read_scores(run[1], ["unet"]), "unet")
    examples = [figures.read_example(run[0], row) for row in rows.itertuples()]
    predictions = [
        figures.read_predictions(run[1], ["unet"], row)["unet"] for row in rows.itertuples()
    ]
    figure, axes = figures.canvas(4, 2)
    figures.figure7(examples, predictions, axes, "unet")
    for panel, row in zip(axes[:, 1], rows.itertuples(), strict=True):
        assert f"bone IoU {row.bone_iou:.1f} %" in panel.get_title()


def test_figures_1_and_2_draw_their_examples(run):
    levels = figures.choose_levels(pd.read_csv(run[0].table))
    examples = [figures.read_example(run[0], row) for row in levels.itertuples()]
    _, axes = figures.canvas(2, 2)
    figures.figure1(examples, axes)
    assert axes[1, 1].get_title() == "d)  train01, slice 0"
    figure, axes = figures.canvas(2, 2)
    figures.figure2(examples, axes)
    assert axes[0, 0].get_title() == "a)  original"
    assert "(mm)" in figure.get_supxlabel()


def test_save_writes_both_formats_and_the_caption(tmp_path, history):
    figure, axes = figures.canvas(1, 1, width=4, height=3)
    figures.figure5(history, axes[0, 0])
    figures.save(figure, "figure5", tmp_path, "Of U-net.")
    assert (tmp_path / "figure5.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "figure5.png").size == (1200, 900)  # 300 dpi
    caption = figures.read_caption(tmp_path / "figure5.png")
    assert caption == f"{figures.CAPTIONS['figure5']} Of U-net."


def test_augmented_examples_differ_from_the_original_and_repeat(run):
    original = figures.read_example(run[0], pd.Series({"series": "train01", "slice": 2}))
    first, again = (figures.augmented_examples(original, seed=3, count=3) for _ in range(2))
    assert len(first) == 3
    assert all((a.image == b.image).all() for a, b in zip(first, again, strict=True))
    assert any((example.image != original.image).any() for example in first)
    assert all(example.image.shape == example.labels.shape == (48, 48) for example in first)


def test_the_longest_test_series_is_chosen(run):
    series = figures.choose_series(pd.read_csv(run[0].table))
    assert set(series["series"]) == {"test01"} and list(series["slice"]) == list(range(7))
    with pytest.raises(ValueError, match="no test series"):
        figures.choose_series(series.assign(split="train"))


def test_unet_stands_for_the_networks_where_it_was_run():
    assert figures.choose_model(["fcn8", "unet"]) == "unet"
    assert figures.choose_model(["segnet", "fcn8"]) == "segnet"


CLASS_NAMES = get_settings("smoke", {"class_scheme": "bones"}).class_names


@pytest.fixture
def six(run):
    """An example with all classes of a scheme and an ignored part, and a wrong prediction."""
    example = figures.read_example(run[0], pd.Series({"series": "test01", "slice": 2}))
    labels = np.zeros((48, 48), np.uint8)
    labels[8:40, 4:44] = 1
    for label in range(2, 6):
        labels[10:20, 8 * label - 8 : 8 * label - 2] = label
    labels[30:34, 20:24] = IGNORE
    predicted = np.where(labels == 4, 3, np.where(labels == IGNORE, 2, labels))
    return replace(example, labels=labels), predicted.astype(np.uint8)


def test_slices_of_any_scheme_are_drawn_and_scored(six):
    example, predicted = six
    mean, bone = figures.image_scores(example, predicted, CLASS_NAMES)
    assert bone == 100  # sacrum taken for hip bone is bone all the same, and ignored is ignored
    assert mean == pytest.approx(100 * (1 + 1 + 1 + 0.5 + 0 + 1) / 6)
    for width in (2.4, 9.0):
        figure, axes = figures.canvas(1, 3, width)
        figures.figure6(example, {"unet": predicted}, axes, CLASS_NAMES)
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [*CLASS_NAMES, "not scored"]
        drawn = axes[0, 1].images[0].get_array()
        colours = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
        assert len(set(colours)) == 7
        for label, colour in zip([*range(6), IGNORE], colours, strict=True):
            assert to_hex(drawn[example.labels == label][0]) == colour
    figure, axes = figures.canvas(1, 2)
    figures.figure7([example], [predicted], axes, "unet", CLASS_NAMES)
    assert axes[0, 1].get_title() == f"mean IoU {mean:.1f} %, bone IoU 100.0 %"


@pytest.mark.parametrize("scheme", CLASS_SCHEMES)
def test_there_is_a_colour_for_every_class(scheme):
    assert get_settings("smoke", {"class_scheme": scheme}).num_classes <= len(CLASS_COLOURS)


def test_curves_of_any_scheme(history):
    counts = np.diag([9, 8, 7, 6, 5, 4])
    scores = pd.DataFrame([training.validation_scores(counts, CLASS_NAMES)]).assign(epoch=1)
    _, axes = figures.canvas(1, 1)
    figures.figure4(scores, axes[0, 0])
    assert [line.get_label() for line in axes[0, 0].lines] == list(CLASS_NAMES)
    assert len({line.get_color() for line in axes[0, 0].lines}) == 6
    assert len({line.get_marker() for line in axes[0, 0].lines}) == 6
    _, axes = figures.canvas(1, 1)
    figures.figure4(scores.assign(val_iou_sacrum=np.nan), axes[0, 0])
    assert "sacrum (absent)" in {line.get_label() for line in axes[0, 0].lines}


def test_previews_outline_every_class(six):
    example, _ = six
    figure = previews.policy_draws(example, seed=1, count=2)
    colours = {
        to_hex(contour.get_edgecolor()[0]) for panel in figure.axes for contour in panel.collections
    }
    assert colours == {colour.lower() for colour in CLASS_COLOURS[1:]}
