"""Prepared 2-D slices on disk -> arrays.

A prepared folder holds 8-bit images, label maps of classes and 255 (ignore), a table with one
row per slice and a description; `bonelib.paths.SliceFolder` names the files.
"""

from pathlib import Path

import numpy as np
import pandas
from PIL import Image

from bonelib import provenance
from bonelib.errors import InputError
from bonelib.paths import SliceFolder
from bonelib.settings import BACKGROUND, IGNORE, Settings

SLICES_AT_ONCE = 16  # slices of a scan that are processed together, to save memory


def window(image_hu: np.ndarray, settings: Settings) -> np.ndarray:
    """Map the intensity window in HU to grey levels 0 to 255, uint8, of the same shape."""
    low, high = settings.window_hu
    grey = (np.asarray(image_hu, np.float32) - low) * (255 / (high - low))
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def read_table(directory: Path) -> pandas.DataFrame:
    """Return the table of a prepared folder, one row per slice.

    Raises InputError if the folder is not completely prepared.
    """
    folder = SliceFolder(directory)
    if not folder.description.exists():
        raise InputError(f"{directory}: holds no prepared slices; prepare the data first")
    text = dict.fromkeys(("series", "split", "spacing", "source", "structures"), str)
    return pandas.read_csv(folder.table, dtype=text, keep_default_na=False)


def read_notes(directory: Path) -> pandas.DataFrame:
    """Return the notes on choices and repairs made while reading, one row per note."""
    series = provenance.read_json(SliceFolder(directory).description)["series"]
    rows = [(name, note) for name, record in series.items() for note in record["notes"]]
    return pandas.DataFrame(rows, columns=["series", "note"])


def load(directory: Path, table: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and label maps of the table's rows, uint8 (slice, row, column)."""
    folder = SliceFolder(directory)
    keys = list(zip(table["series"], table["slice"], strict=True))
    images, classes = (
        np.stack([np.asarray(Image.open(name(*key))) for key in keys])
        for name in (folder.image, folder.labels)
    )
    return images, classes


def class_shares(directory: Path, table: pandas.DataFrame) -> pandas.DataFrame:
    """Return each split's percentages of background, patient and bones.

    They refer to the paper's field of view of 800 mm; the part that a smaller field of view
    leaves out counts as background.
    """
    description = provenance.read_json(SliceFolder(directory).description)
    classes = description["classes"]
    field_of_view_mm = description["settings"]["field_of_view_mm"]
    part = (field_of_view_mm / Settings().field_of_view_mm) ** 2
    rows = {}
    for split, slices in table.groupby("split", sort=False):
        _, labels = load(directory, slices)
        counts = np.bincount(labels[labels != IGNORE], minlength=len(classes))
        shares = 100 * part * counts / counts.sum()
        shares[BACKGROUND] += 100 * (1 - part)
        rows[split] = dict(zip(classes, shares, strict=True))
    return pandas.DataFrame(rows).T
