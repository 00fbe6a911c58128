import pytest

from bonelib import estimates, models
from bonelib.settings import BASELINE, MODEL_NAMES, get_settings


def test_more_work_takes_longer():
    quick, paper = get_settings("quick"), get_settings("paper")
    for model in MODEL_NAMES:
        seconds = estimates.training_seconds(model, quick, 100)
        assert estimates.training_seconds(model, paper, 100) > 20 * seconds
        assert estimates.training_seconds(model, quick, 50) > seconds
        assert estimates.evaluation_seconds(model, quick, 100) > estimates.evaluation_seconds(
            BASELINE, quick, 100
        )
    assert estimates.preparation_seconds(paper) > 3 * estimates.preparation_seconds(quick)


def test_this_machine_computes():
    assert estimates.gigaflops() > 1


@pytest.mark.parametrize("name", ["pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"])
def test_the_counted_work_is_that_of_the_networks(name):
    counted = models.multiply_adds(models.build_model(name, 128)) * (512 / 128) ** 2 / 1e9
    assert estimates.GIGA_MULTIPLY_ADDS[name] == pytest.approx(counted, rel=0.02)
