import pytest

from bonelib.settings import (
    BASELINE,
    DEVIATIONS,
    PAPER_SERIES,
    PROFILES,
    SPLITS,
    deviations,
    get_settings,
)


def test_the_paper_profile_is_the_protocol():
    paper = get_settings("paper")
    assert (paper.image_size, paper.pixel_spacing_mm) == (512, 1.5625)
    assert (paper.batch_size, paper.steps_per_epoch) == (2, 512)
    assert (paper.epochs, paper.epochs_long) == (10, 30)
    assert (paper.learning_rate, paper.rho, paper.epsilon) == (1.0, 0.95, 1e-7)
    assert not deviations(paper)


def test_the_split_is_the_papers():
    slices = {name: [n for _, split, n in PAPER_SERIES if split == name] for name in SPLITS}
    assert sum(slices["train"]) == 987 - 97 and len(slices["train"]) == 9
    assert slices["validation"] == [97] and slices["test"] == [85, 152, 124, 143, 226]


def test_overrides_are_cast_and_deviations_have_their_reasons():
    for settings in PROFILES.values():
        for row in deviations(settings):
            assert row["reason"] == DEVIATIONS[row["setting"]]
    settings = get_settings("paper", {"epochs": "4", "augment": "none", "rho": 0.9})
    assert (settings.epochs, settings.augment, settings.rho) == (4, "none", 0.9)
    assert {row["setting"] for row in deviations(settings)} == {"epochs", "augment", "rho"}


@pytest.mark.parametrize(
    ("profile", "overrides", "named"),
    [
        ("papper", {}, "'papper': did you mean 'paper'. choose one of smoke, quick, night, paper$"),
        ("paper", {"epoch": 3}, "did you mean 'epochs'.*epochs_long"),
        ("paper", {"epochs": "many"}, "int"),
        ("paper", {"augment": "perhaps"}, "'perhaps': choose one of imgaug, none$"),
        ("paper", {"allow_random_encoder": "perhaps"}, "bool"),
        ("paper", {"profile": "smoke"}, "unknown setting 'profile'"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_valid_ones(profile, overrides, named):
    with pytest.raises(ValueError, match=named):
        get_settings(profile, overrides)


def test_unet_is_evaluated_after_both_trainings():
    paper = get_settings("paper")
    assert paper.horizons("unet") == (10, 30)
    assert paper.horizons("segnet") == (10,)
    assert paper.horizons("vgg_unet") == (30,)
    assert get_settings("paper", {"epochs_long": 10}).horizons("unet") == (10,)
    assert paper.horizons(BASELINE) == (0,)
