"""Operations on one channel, and the faster ones, beside imgaug's own."""

import numpy as np
import pytest
from scipy import ndimage, stats

from bonelib.augment import policy
from bonelib.augment.imgaug_fast import SegmentationMapsOnImage, iaa, iap
from tests.test_augment import OPERATIONS, pelvis

RNG = iap.iarandom.RNG
SIZE = 60
DRAWS = 250


@pytest.fixture(autouse=True, scope="module")
def full_ranges():
    """Make ranges in pixels those of the paper's slices, so that there is something to see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "PAPER_SIZE", SIZE)
        yield


def phantom():
    """Return a textured image and its labels, two discs of their own label in an ellipse."""
    labels = pelvis(SIZE)
    labels[:, SIZE // 2 :][labels[:, SIZE // 2 :] == 2] = 3
    texture = np.random.default_rng(0).normal(0, 6, labels.shape)
    image = np.float64([0, 90, 200, 160])[labels] + (labels > 0) * texture
    return image.clip(0, 255).astype(np.uint8), labels


def seen(image, labels, original):
    """Return numbers that tell how an augmented slice looks and where its labels are."""
    grey = image.astype(float)
    air = image[labels > 0] == 0
    numbers = {
        "mean": grey.mean(), "deviation": grey.std(), "air within": air.mean(),
        "air within all": air.all(axis=1).mean(), "white": (image == 255).mean(),
        "change": np.abs(grey - original[..., None]).mean(),
        "roughness": np.abs(np.diff(grey, axis=1)).mean(), "colour": np.ptp(grey, axis=2).mean(),
    }  # fmt: skip
    for label in (1, 2, 3):
        there = labels == label
        row, column = ndimage.center_of_mass(there) if there.any() else (-1, -1)
        numbers |= {f"share {label}": there.mean(), f"row {label}": row, f"column {label}": column}
    return numbers


# How much the same draw may differ: shares and pixels; the rest are grey levels.
ROUNDING = {"air": 0.002, "white": 0.002, "share": 0.002, "row": 0.05, "column": 0.05}


def assert_same_distribution(ours, theirs, original):
    """Compare two samples of augmented slices by the numbers that `seen` returns."""
    tables = [[seen(*pair, original) for pair in sample] for sample in (ours, theirs)]
    for name in tables[0][0]:
        values = np.array([[row[name] for row in table] for table in tables])
        # OpenCV's fixed-point arithmetic rounds differently.
        rounding = ROUNDING.get(name.split()[0], 0.25)
        from_middle = np.abs(values - np.median(values[1]))  # tells ranges of other widths apart
        for one, other in (values, from_middle):
            for shift, alternative in ((rounding, "greater"), (-rounding, "less")):
                test = stats.ks_2samp(one + shift, other, alternative, method="asymp")
                assert test.pvalue > 5e-4, f"{name}: {values.mean(axis=1)} +- {values.std(axis=1)}"


# imgaug's own operations, which `imgaug_fast` replaces.
IMGAUG = {
    "edges": lambda: iaa.BlendAlphaSimplexNoise(
        [iaa.OneOf([iaa.EdgeDetect((0.5, 1.0)), iaa.DirectedEdgeDetect((0.5, 1.0))])]
    ),
    "noise": lambda: iaa.AdditiveGaussianNoise(scale=(0.0, 0.05 * 255), per_channel=0.5),
    "pixel_removal": lambda: iaa.OneOf(
        [
            iaa.Dropout((0.01, 0.1), per_channel=0.5),
            iaa.CoarseDropout((0.03, 0.1), size_percent=(0.02, 0.05), per_channel=0.2),
        ]
    ),
    "brightness": lambda: iaa.Multiply((0.9, 1.1), per_channel=0.5),
    "contrast": lambda: iaa.LinearContrast((0.5, 2.0), per_channel=0.5),
    "local_moves": lambda: iaa.ElasticTransformation((0.5, 3.5), 0.25, mode="constant"),
    "local_affine": lambda: iaa.PiecewiseAffine((0.01, 0.05), mode="constant"),
}


def by_imgaug(augmenter, image, labels, seed):
    """Return one draw on three channels from the start, as imgaug is meant to be used."""
    augmenter.seed_(np.random.SeedSequence(seed))
    channels = np.stack([image] * 3, axis=-1)
    label_map = SegmentationMapsOnImage(labels, shape=channels.shape)
    channels, label_map = augmenter(image=channels, segmentation_maps=label_map)
    return channels, label_map.get_arr()


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - set(IMGAUG)))
def test_one_channel_gives_what_three_do(name):
    image, labels = phantom()
    ours, theirs = (policy.operations(SIZE)[name].augmenter for _ in range(2))
    for seed in range(15):
        for mine, imgaugs in zip(
            policy.apply_operation(ours, image, labels, seed),
            by_imgaug(theirs, image, labels, seed),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, imgaugs)


@pytest.mark.parametrize("name", sorted(set(IMGAUG) - {"local_affine"}))  # it is on every draw
def test_a_faster_operation_agrees_with_imgaugs_own_in_distribution(name):
    image, labels = phantom()
    ours = policy.operations(SIZE)[name].augmenter
    theirs = IMGAUG[name]()
    assert_same_distribution(
        (policy.apply_operation(ours, image, labels, [1, n]) for n in range(DRAWS)),
        (by_imgaug(theirs, image, labels, [2, n]) for n in range(DRAWS)),
        image,
    )


def test_local_affine_is_imgaugs_own_on_the_same_draws():
    image, labels = phantom()
    pair = policy.operations(SIZE)["local_affine"].augmenter, IMGAUG["local_affine"]()
    for seed in range(15):
        samples = [augmenter.seed_(seed) or augmenter for augmenter in pair]
        results = [by_imgaug(augmenter, image, labels, seed) for augmenter in samples]
        (ours, our_labels), (theirs, their_labels) = results
        # OpenCV knows 32 positions between two pixels.
        assert np.abs(ours - theirs.astype(float)).mean() < 0.6
        assert (our_labels == their_labels).mean() > 0.999
