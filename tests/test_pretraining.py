"""Tissue slabs -> samples of any appearance -> shipped weights."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import keras
import numpy as np
import pytest
import SimpleITK

from bonelib import __main__ as command
from bonelib import slices
from bonelib.errors import InputError
from bonelib.models import build_model, save_pretrained
from bonelib.paths import REPOSITORY
from bonelib.phantom.tissues import Tissue, draw_texture
from bonelib.pretrained import Network
from bonelib.pretraining import corpus_writer
from bonelib.pretraining.corpus import PIXEL_MM as CORPUS_PIXEL_MM
from bonelib.pretraining.corpus import random_slab
from bonelib.pretraining.corpus_writer import write_corpus
from bonelib.pretraining.pretrain import score_cases, shift_bone
from bonelib.settings import BACKGROUND, BONE, PATIENT, PRETRAINING
from bonelib.slices import read_table
from tests.test_headless import ABSENT

TINY = replace(PRETRAINING, image_size=64, batch_size=2, loader_workers=0)
PIXEL_MM = 1.0


@pytest.fixture(scope="module")
def texture():
    return draw_texture(np.random.default_rng(0))


@pytest.fixture(scope="module")
def trunk():
    """A disc of fat with a square of bone in the middle, 20 % of its area."""
    plane = np.full((300, 300), Tissue.AIR, np.uint8)
    cv2.circle(plane, (150, 150), 100, int(Tissue.FAT), -1)
    plane[110:190, 110:190] = Tissue.TRABECULAR
    return plane


def draw(plane, texture, seed):
    """Return the middle plane and the shares of a slab of three equal planes."""
    random = np.random.default_rng(seed)
    image, shares = random_slab(np.stack([plane] * 3), PIXEL_MM, texture, 64, 6.25, random)
    assert image.shape == (64, 64, 3)
    return image[..., 1], shares


def test_a_sample_depends_on_its_seed_only_and_leaves_the_plane_alone(trunk, texture):
    before = trunk.copy()
    first, again, other = (draw(trunk, texture, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(trunk, before)


def test_the_shares_of_bone_and_body_survive_and_what_is_added_is_never_bone(trunk, texture):
    shares = np.stack([draw(trunk, texture, seed)[1] for seed in range(40)])
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
    bone, body = shares[..., BONE].sum(axis=(1, 2)), shares[..., PATIENT:].sum(axis=(1, 2, 3))
    whole = body > 0.95 * np.median(body)  # not cut by the field
    assert np.median(bone[whole] / body[whole]) == pytest.approx(80**2 / (np.pi * 100**2), rel=0.05)
    none = np.where(trunk == Tissue.TRABECULAR, Tissue.FAT, trunk)
    assert not any(draw(none, texture, seed)[1][..., BONE].any() for seed in range(20))


def test_labels_lie_where_the_image_shows_them(trunk, texture):
    for seed in range(20):
        image, shares = draw(trunk, texture, seed)
        labels = np.where(shares.max(axis=-1) == 1, shares.argmax(axis=-1), -1)
        assert np.median(image[labels == BACKGROUND]) < -900
        if (labels == BONE).any():
            assert np.median(image[labels == BONE]) > np.median(image[labels == PATIENT])


def test_the_outer_channels_show_the_planes_beside(trunk, texture):
    """Bone in the plane above only brightens one outer channel and is not the slice's label."""
    without = np.where(trunk == Tissue.TRABECULAR, Tissue.FAT, trunk)
    slab = np.stack([without, without, trunk])
    differences = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        image, shares = random_slab(slab, PIXEL_MM, texture, 64, 6.25, random)
        assert not shares[..., BONE].any()
        outer = [np.median(image[28:36, 28:36, channel]) for channel in (0, 2)]
        differences.append(abs(outer[0] - outer[1]))
    assert np.median(differences) > 100


@pytest.fixture(scope="module", autouse=True)
def few():
    """Fewer slabs a patient and three series in the default data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_writer, "SLABS", 4)
        patch.setattr(corpus_writer, "VALIDATION_SLICES", 3)
        splits = (("train01", "train"), ("validation01", "validation"), ("test01", "test"))
        patch.setattr("bonelib.phantom.series.PAPER_SERIES", [(*pair, 40) for pair in splits])
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("run") / "corpus", [], TINY, 1, 1)


def test_a_corpus_shows_all_of_a_patient_and_is_written_once(corpus):
    files = [corpus.root / name for name in corpus.slabs()["file"]]
    slabs = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
    assert len(slabs) == 4 and all(slab.shape[2] == 3 for slab in slabs)
    bone_mm2 = [(slab[..., 1] >= Tissue.MARROW).sum() * CORPUS_PIXEL_MM**2 for slab in slabs]
    assert min(bone_mm2) > 500 and 4000 < max(bone_mm2) < 20_000
    table = read_table(corpus.validation.root)
    assert set(table["series"]) == {"train01", "validation01"}  # the test series tests
    images, labels = slices.load(corpus.validation.root, table)
    assert images.shape == (6, 64, 64, 3) and labels.max() == BONE
    written = files[0].stat().st_mtime_ns
    assert write_corpus(corpus.root, [], TINY, 1, 1) == corpus
    assert files[0].stat().st_mtime_ns == written


def test_batches_go_on_where_an_earlier_epoch_ended(corpus):
    short = replace(corpus, settings=replace(TINY, steps_per_epoch=2))
    from_start, from_second = (list(islice(short.batches(32, epoch), 3)) for epoch in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(from_start[2], from_second[0], strict=True))
    images, shares = from_start[0]
    assert images.shape == (2, 64, 64, 3) and shares.shape == (2, 32, 32, 3)
    assert images.dtype == np.uint8 and shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)


def test_a_damaged_slab_is_named(corpus, tmp_path):
    for name in ("slabs.csv", *corpus.slabs()["file"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    shutil.copy(corpus.table, tmp_path)
    with pytest.raises(InputError, match=r"\.png: missing or damaged"):
        next(replace(corpus, root=tmp_path).batches(32, 0))


def test_the_command_trains_and_goes_on(tmp_path, capsys):
    settings = [
        "image_size=64", "phantom_matrix=64", "phantom_slice_distance_mm=100", "batch_size=2",
        "steps_per_epoch=2", "epochs=1", "epochs_long=1", "loader_workers=0",
    ]  # fmt: skip
    first = tmp_path / "first"
    arguments = ["pretrain", "--phantoms", "1", "-o", str(first), "--workers", "1"]
    assert command.main([*arguments, "--set", *settings]) == 0
    assert (first / "models" / "unet25d" / "best_of_1.keras").exists()
    assert str(first / "weights") in capsys.readouterr().out
    assert command.main([*arguments, "--set", *settings]) == 0
    assert "trained already" in capsys.readouterr().out
    card = (first / "weights" / "unet25d.md").read_text()
    assert "1 made-up patients" in card and "test01" in card
    assert "{" not in card and "from weights" not in card
    arguments[arguments.index(str(first))] = str(tmp_path / "second")
    weights = str(first / "weights" / "unet25d.keras")
    still = [*settings, "learning_rate=0"]
    assert command.main([*arguments, "--weights", weights, "--set", *still]) == 0
    assert "from weights" in (tmp_path / "second" / "weights" / "unet25d.md").read_text()
    kernels = [
        Network("unet25d", tmp_path / run / "weights" / "unet25d.keras", TINY)
        .sized(64, 64).get_layer("scores").get_weights()[0]
        for run in ("first", "second")
    ]  # fmt: skip
    np.testing.assert_allclose(*kernels, rtol=2e-3, atol=1e-5)


def test_a_copied_corpus_trains_on_a_bare_machine(corpus, tmp_path):
    """With JAX, without the packages that read scans."""
    lines = [f"sys.modules[{name!r}] = None" for name in ABSENT]
    (tmp_path / "sitecustomize.py").write_text("\n".join(["import sys", *lines]))
    shutil.copytree(corpus.root, tmp_path / "corpus")
    settings = {"image_size": 64, "batch_size": 2, "steps_per_epoch": 1, "epochs_long": 1}
    settings |= {"loader_workers": 0, "batch_norm_slices": 0}
    command = [sys.executable, "-m", "bonelib.pretraining.train", "corpus", "out", "--set"]
    subprocess.run(
        [*command, *(f"{name}={value}" for name, value in settings.items())],
        cwd=tmp_path,
        env=os.environ
        | {"KERAS_BACKEND": "jax", "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
        | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        check=True,
    )
    assert (tmp_path / "out" / "models" / "unet25d" / "best_of_1.keras").exists()


@pytest.mark.parametrize("level", [-0.5, 0.3])
def test_the_margin_is_zero_where_it_was_the_chosen_level(level):
    keras.config.set_dtype_policy("float32")
    model = build_model("unet25d", 32)
    images = np.random.default_rng(1).normal(0, 40, (2, 32, 32, 3))
    before = model.predict_on_batch(images)
    shift_bone(model, level)
    after = model.predict_on_batch(images)
    two = before[..., BONE] / (before[..., BONE] + before[..., 0])  # of bone and background alone
    expected = 2 * two - 1 > level
    np.testing.assert_array_equal(after[..., BONE] > after[..., 0], expected)
    assert 0 < expected.mean() < 1 or level


def test_label_maps_that_are_missing_are_one_line(tmp_path, capsys):
    arguments = ["pretrain", "-o", str(tmp_path), "--label-maps", "nowhere"]
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere: there is no such folder" in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nowhere.keras", "other.keras"])
def test_weights_that_cannot_be_a_start_are_one_line(name, tmp_path, capsys):
    build_model("pspnet", 32).save(tmp_path / "other.keras")
    arguments = ["pretrain", "-o", str(tmp_path / "out"), "--weights", str(tmp_path / name)]
    assert command.main(arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()  # after what TensorFlow may log in a test
    assert line.startswith("bonelib: ") and name in line and not (tmp_path / "out").exists()


def test_weights_come_back_in_half_precision_and_at_any_size(tmp_path):
    keras.config.set_dtype_policy("float32")
    model = build_model("unet25d", 64)
    file = save_pretrained(model, "unet25d", tmp_path)
    assert file.stat().st_size < 20e6
    loaded = Network("unet25d", file, TINY).sized(96, 96)
    assert loaded.input_shape == (None, 96, 96, 3) and keras.config.dtype_policy().name == "float32"
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-6)


@dataclass(frozen=True)
class Drawn:
    """A case with a given label map."""

    series_id: str
    image: SimpleITK.Image
    split: str = "test"

    def scan(self):
        return self.image

    def annotation(self, scan):
        return scan, {BONE: "femur_left"}

    def label_map(self, scan, annotation):
        return self.image


def test_scores_are_those_of_simpleitk(make_image):
    """A reference of two boxes, a prediction that misses some of both."""
    reference, predicted = np.zeros((2, 2, 20, 20), np.uint8)
    reference[:, 2:18, 2:18], predicted[:, 2:18, 4:18] = PATIENT, PATIENT
    reference[:, 5:10, 5:10], predicted[:, 5:9, 5:11] = BONE, BONE
    image = make_image(reference)
    case = Drawn("a", image)
    row = score_cases([case], lambda scan: make_image(predicted)).iloc[0]
    for column, least in (("bone Dice", BONE), ("body Dice", PATIENT)):
        measure = SimpleITK.LabelOverlapMeasuresImageFilter()
        measure.Execute(
            *(make_image((x >= least).astype(np.uint8)) for x in (reference, predicted))
        )
        assert row[column] == pytest.approx(100 * measure.GetDiceCoefficient(1))
    assert row["femur, recall"] == pytest.approx(100 * 20 / 25) and np.isnan(row["sacrum, recall"])
    assert row["femur shaft, Dice"] == row["bone Dice"] and np.isnan(row["vertebra, Dice"])
