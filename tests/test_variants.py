"""The trainings of an ablation, what they share with the run's own, and their table."""

from dataclasses import replace

import numpy as np
import pytest

from bonelib.evaluation import variants
from bonelib.paths import ResultFolder
from bonelib.phantom.series import series_seed
from bonelib.settings import MODEL_NAMES, get_settings, replaced
from bonelib.tables import ablation_table
from tests.synthetic_results import score_rows, write_text

NIGHT = get_settings("night")


def test_each_variant_is_trained_three_times_and_the_runs_own_is_one(tmp_path):
    results = ResultFolder(tmp_path)
    trainings = variants.ablations(NIGHT)
    names = [training.name for training in trainings]
    assert names[:4] == ["unet", "unet-own-1", "unet-own-2", "unet-relu_decoder-0"]
    every = list(variants.trainings(NIGHT, MODEL_NAMES))
    assert every == [*MODEL_NAMES, *names[1:]]
    assert len(trainings) == 5 * 3
    assert [training.is_own for training in trainings] == [True] + 14 * [False]
    folders = [training.results(results).root for training in trainings]
    assert folders[0] == results.root and len(set(folders)) == len(folders)
    chosen = [replaced(NIGHT, training.overrides(NIGHT)) for training in trainings]
    assert chosen[0] == NIGHT and len(set(chosen)) == len(chosen)


def test_a_variant_that_changes_nothing_is_left_out_and_replicates_have_the_same_patients():
    settings = replace(NIGHT, augment="none", replicate=4)
    assert series_seed("test01", settings) == series_seed("test01", NIGHT)
    trainings = variants.ablations(settings)
    assert "no_augmentation" not in {training.variant.name for training in trainings}
    assert [training.overrides(settings)["replicate"] for training in trainings[1:3]] == [5, 6]


def write_variants(results, **right):
    """Write U-net's scores of replicates: of 100 pixels of bone, so many are `right`."""
    for one in variants.ablations(NIGHT):
        for found in right.get(one.variant.name, ())[one.replicate :][:1]:
            counts = [[1000, 0, 0], [0, 900, 0], [0, 100 - found, found]]
            rows = score_rows({"test01": [counts]}, "unet", NIGHT.epochs_long)
            write_text(one.results(results).scores("unet"), rows.to_csv(index=False))
    return results


def test_the_table_has_means_spreads_and_differences(tmp_path):
    results = write_variants(
        ResultFolder(tmp_path),
        own=(90, 92, 94), relu_decoder=(90, 92, 97), no_augmentation=(80, 82, 84),
    )  # fmt: skip
    table = ablation_table(results, NIGHT)
    bone = table.frame[table.frame["measure"] == "IoU of bone"].set_index("setting")
    own = bone.loc["as in Table 3"]
    assert own[["training_1", "training_2", "training_3"]].tolist() == [90, 92, 94]
    found = bone[["mean", "spread", "difference", "beyond_spread"]].T.to_dict("list")
    assert np.isnan(found.pop("as in Table 3")[2]) and own["spread"] == 2
    assert found["ReLU in the decoder"] == [93, 3.61, 1, "no"]  # of -3, -1, 4: root of 26 / 2
    assert found["no augmentation"] == [82, 2, -10, "yes"]
    mean = table.frame[table.frame["measure"] == "mean IoU"].set_index("setting")
    # Of background 100, of patient 900 / (900 + 10), of bone 90.
    expected = (100 + 98.90 + 90) / 3
    assert mean.loc["as in Table 3", "training_1"] == pytest.approx(expected, abs=0.01)
    assert any("'ReLU in the decoder': Does it matter" in note for note in table.notes)


def test_trainings_may_be_missing(tmp_path):
    results = write_variants(ResultFolder(tmp_path), own=(90,))
    table = ablation_table(results, NIGHT)
    assert table.frame.empty and "--ablations" in table.notes[0]
    write_variants(results, own=(90,), relu_decoder=(91,))  # one training has no spread
    rows = ablation_table(results, NIGHT).frame.set_index("setting").loc["ReLU in the decoder"]
    assert rows["spread"].isna().all() and set(rows["beyond_spread"]) == {""}
