"""A DICOM file -> its dataset, with pydicom's many kinds of errors made into one line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from bonelib.errors import InputError


def read_dataset(path: Path) -> Dataset:
    """Read a whole DICOM file, even one without a preamble; raise InputError where damaged."""
    with refusing_damage(path):
        return pydicom.dcmread(path, force=True)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turn what pydicom raises, and its warning of a file cut short, into an InputError.

    Its values are converted when they are asked for, so that is to happen in here as well.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break the standard but mean no harm
            warnings.filterwarnings("error", message="(?i).*end of (file|input)")
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pydicom's are of many types
        raise InputError(
            f"{path}: the DICOM file is damaged or incomplete; export it again"
        ) from error
