"""The trainings of an ablation, what they share with the run's own, and their table."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bonelib import augment, phantom, preparation, slices, training
from bonelib.datasets import find_cases
from bonelib.evaluation import evaluate, variants
from bonelib.paths import ResultFolder, SliceFolder
from bonelib.provenance import write_json
from bonelib.settings import MODEL_NAMES, get_settings, replaced
from bonelib.tables import ablation_table
from bonelib.workflow.runs import open_run
from bonelib.workflow.steps import Plan
from tests.synthetic_results import ellipses, write_scores, write_slices

NIGHT = get_settings("night")


def names(trainings):
    return [(training.model, training.name) for training in trainings]


def test_each_variant_is_trained_three_times_and_the_run_s_own_is_one(tmp_path):
    results = ResultFolder(tmp_path)
    trainings = variants.trainings(results, NIGHT, MODEL_NAMES)
    assert names(trainings)[:4] == [
        ("unet", "own-0"), ("unet", "own-1"), ("unet", "own-2"), ("unet", "relu_decoder-0"),
    ]  # fmt: skip
    assert len(trainings) == 5 * 3
    assert [training.is_own for training in trainings] == [True] + 14 * [False]
    folders = [training.results(results).root for training in trainings]
    assert folders[0] == results.root and len(set(folders)) == len(folders)
    chosen = [replaced(NIGHT, training.overrides(NIGHT)) for training in trainings]
    assert chosen[0] == NIGHT and len(set(chosen)) == len(chosen)


def test_a_variant_that_changes_nothing_is_left_out(tmp_path):
    settings = replace(NIGHT, augment="none", replicate=4)
    trainings = variants.trainings(ResultFolder(tmp_path), settings, ["unet"])
    assert "no_augmentation" not in {training.variant.name for training in trainings}
    assert [training.overrides(settings)["replicate"] for training in trainings[:3]] == [4, 5, 6]


@pytest.mark.parametrize(
    ("record", "allowed", "compared"),
    [("imagenet", True, True), ("random", False, False), (None, True, False), (None, False, True)],
)
def test_a_random_encoder_is_tried_where_the_run_s_own_is_from_imagenet(
    record, allowed, compared, tmp_path
):
    results, settings = ResultFolder(tmp_path), replace(NIGHT, allow_random_encoder=allowed)
    if record:
        write_json(results.training_record("vgg_unet"), {"encoder_weights": record})
    trainings = names(variants.trainings(results, settings, ["unet", "vgg_unet"]))
    expected = [("vgg_unet", f"{variant}-{number}")
                for variant in ("own", "random_encoder") for number in range(3)]  # fmt: skip
    assert [one for one in trainings if one[0] == "vgg_unet"] == (expected if compared else [])


def test_a_replicate_has_the_run_s_patients_and_slices(write_dataset, tmp_path):
    other = replace(get_settings("smoke"), replicate=1)
    assert phantom.series_seed("test01", other) == phantom.series_seed("test01", NIGHT)
    root = write_dataset()
    times = []
    for settings in (get_settings("smoke"), other):
        preparation.prepare(find_cases("folder", root, settings), tmp_path / "slices", settings)
        files = (tmp_path / "slices").rglob("*.png")
        times.append({path: path.stat().st_mtime_ns for path in files})
    assert times[0] == times[1] and times[0]


SMALL = {
    "image_size": 32, "steps_per_epoch": 1, "batch_size": 2, "epochs": 1, "epochs_long": 2,
    "batch_norm_slices": 0, "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run with slices, of which nothing is trained."""
    root = tmp_path_factory.mktemp("run")
    splits = dict(zip("abc", ("train", "validation", "test"), strict=True))
    volumes = {name: (split, ellipses(32, 4)) for name, split in splits.items()}
    write_slices(root / "slices", volumes, (5.0, 15.0, 15.0))
    write_json(SliceFolder(root / "slices").description, {"fingerprint": "made"})
    return open_run("smoke", results_dir=str(root / "results"), overrides=SMALL,
                    slices_dir=str(root / "slices"))  # fmt: skip


def test_a_replicate_has_other_weights_and_other_batches(small):
    table = slices.read_table(small.slices.root)
    files = [(small.slices.image("a", row.slice), small.slices.labels("a", row.slice))
             for row in table[table["split"] == "train"].itertuples()]  # fmt: skip
    batches = [
        next(augment.batches(files, 32, replace(small.settings, replicate=replicate), 0, 0))[0]
        for replicate in (0, 0, 1)
    ]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert (np.asarray(batches[0]) != np.asarray(batches[2])).any()


def test_the_steps_of_an_ablation_train_it_and_the_table_shows_it(small):
    steps = {step.name: step for step in Plan(small, ["unet"], SMALL).steps(True)}
    for name in ("unet", "unet-own-1"):
        trained, evaluated = steps[f"03_train_model-{name}"], steps[f"04_evaluate_model-{name}"]
        given = {"slices_dir": str(small.slices.root), "horizons": []} | evaluated.parameters
        model, horizons = given.pop("model"), given.pop("horizons")
        run = open_run(**given)
        training.train(model, run.slices, run.results, run.settings)
        scores = evaluate.evaluate(model, run.slices, run.results, run.settings, horizons)
        assert set(scores["epochs"]) == ({1, 2} if name == "unet" else {2})
        assert all(path.exists() for path in trained.outputs + evaluated.outputs)
    losses = [pd.read_csv(steps[f"03_train_model-unet{name}"].outputs[0])["loss"]
              for name in ("", "-own-1")]  # fmt: skip
    assert (losses[0] != losses[1]).all()
    found = variants.read_ablations(small.results, small.settings)
    assert found[["variant", "replicate", "resolution"]].to_numpy().tolist() == [
        ["own", number, resolution] for number in (0, 1) for resolution in ("input", "native")
    ]
    read = steps["05_tables"].inputs
    assert small.results.root / "ablations" / "own-1" / "scores" / "unet.csv" in read


def write_unet(results, right, native=None):
    """Write U-net's scores of one slice: of 100 pixels of bone so many right, 900 are patient."""
    rows = []
    for epochs in (NIGHT.epochs, NIGHT.epochs_long):
        for grid, found in (("input", right), ("native", native or right)):
            found = found if epochs == NIGHT.epochs_long else 1
            counts = [1000, 0, 0, 0, 900, 0, 0, 100 - found, found]
            rows.append(["unet", epochs, epochs, grid, "test01", 0, *counts])
    write_scores(results, "unet", rows)


@pytest.fixture
def made(tmp_path):
    """Three trainings of the run's own settings, and of two variants."""
    results = ResultFolder(tmp_path)
    right = {"own": (90, 92, 94), "relu_decoder": (90, 92, 97), "no_augmentation": (80, 82, 84)}
    for one in variants.trainings(results, NIGHT, ["unet"]):
        if one.variant.name in right:
            found = right[one.variant.name][one.replicate]
            write_unet(one.results(results), found, native=found - 1)
    return results


def test_the_table_has_means_spreads_and_differences(made):
    table = ablation_table(made, NIGHT)
    bone = table.frame[table.frame["measure"] == "IoU of bone"].set_index("setting")
    own, relu = bone.loc["as in Table 3"], bone.loc["ReLU in the decoder"]
    assert own[["training_1", "training_2", "training_3"]].tolist() == [90, 92, 94]
    assert (own["mean"], own["spread"], own["beyond_spread"]) == (92, 2, "")
    assert np.isnan(own["difference"])
    assert (relu["mean"], relu["spread"]) == (93, 3.61)  # of -3, -1, 4: the root of 26 / 2
    assert (relu["difference"], relu["beyond_spread"]) == (1, "no")
    without = bone.loc["no augmentation"]
    assert (without["difference"], without["beyond_spread"]) == (-10, "yes")
    native = bone.loc["scored on the native grid"]
    assert (native["mean"], native["difference"], native["beyond_spread"]) == (91, -1, "no")
    mean = table.frame[table.frame["measure"] == "mean IoU"].set_index("setting")
    # Of background 100, of patient 900 / (900 + 10), of bone 90.
    assert mean.loc["as in Table 3", "training_1"] == pytest.approx(
        (100 + 98.90 + 90) / 3, abs=0.01
    )
    assert any("ReLU in the decoder: Does it matter" in note for note in table.notes)


def test_networks_without_imagenet_weights_have_a_row_that_says_so(made):
    frame = ablation_table(made, NIGHT).frame
    rows = frame[frame["setting"] == "random encoder"]
    assert rows["name"].tolist() == ["VGG-U-net", "ResNet-U-net"]
    assert set(rows["measure"]) == {"not run: no ImageNet weights here"}
    assert rows["mean"].isna().all()
    write_json(made.training_record("vgg_unet"), {"encoder_weights": "imagenet"})
    frame = ablation_table(made, NIGHT).frame
    assert frame.loc[frame["setting"] == "random encoder", "name"].tolist() == ["ResNet-U-net"]


def test_without_variants_there_is_no_table(tmp_path):
    results = ResultFolder(tmp_path)
    write_unet(results, 90)
    table = ablation_table(results, NIGHT)
    assert table.frame.empty and "--ablations" in table.notes[0]


def test_a_single_training_has_no_spread_and_no_verdict(tmp_path):
    results = ResultFolder(tmp_path)
    for one in variants.trainings(results, NIGHT, ["unet"]):
        if one.replicate == 0 and one.variant.name in ("own", "relu_decoder"):
            write_unet(one.results(results), 90)
    rows = ablation_table(results, NIGHT).frame.set_index("setting").loc["ReLU in the decoder"]
    assert rows["spread"].isna().all() and set(rows["beyond_spread"]) == {""}
