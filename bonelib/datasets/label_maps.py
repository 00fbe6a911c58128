"""Annotated anatomy without a CT -> cases rendered from it."""

from pathlib import Path

from bonelib import paths
from bonelib.datasets import folder
from bonelib.datasets.case import Case
from bonelib.errors import InputError
from bonelib.settings import Settings


def cases(directory: Path | None, settings: Settings, workers: int) -> list[Case]:
    """Return the cases rendered from the label maps; they are made where missing."""
    from bonelib.pretraining.annotated_patient import render_label_maps  # upwards: to be a command

    read_label_maps(directory, settings)
    rendered = paths.raw_label_maps(directory, settings.profile)
    render_label_maps(directory, rendered, settings.renderings, settings.seed, workers)
    return folder.cases(rendered)


def read_label_maps(directory: Path | None, settings: Settings) -> tuple[list, dict[int, str]]:
    """Return the subjects and the tissues' names by id."""
    from bonelib.pretraining.annotation import read_subjects

    if settings.renderings < 1:
        raise InputError(f"setting renderings is {settings.renderings}; give at least 1")
    return read_subjects(directory)
