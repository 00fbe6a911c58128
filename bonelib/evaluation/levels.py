"""Names of a slice's bones -> the level of the pelvis at which it lies."""

from collections.abc import Sequence

import pandas as pd

from bonelib.labels.structures import class_of
from bonelib.settings import BONE, CLASS_SCHEMES

# From feet to head, by which of femur, hip bone, sacrum and vertebra a slice shows.
PELVIC_LEVELS = (
    "femur shaft",
    "femur and hip bone",
    "hip bone and sacrum",
    "hip bone and vertebra",
    "vertebra",
)
THIRDS = ("lower third", "middle third", "upper third")  # of a series whose bones have no names
LEVELS = (*PELVIC_LEVELS, *THIRDS)


def levels_of(table: pd.DataFrame) -> pd.Series:
    """Return the level, one of `LEVELS`, of each row of a table of slices.

    Where a series names its bones, they tell; a slice without a bone is at the level of its
    neighbour. Where it does not, the thirds of its height do. `table` has the columns
    series, position_mm and structures, names separated by spaces.
    """
    parts = [_levels_of_series(series) for _, series in table.groupby("series")]
    return pd.concat(parts).reindex(table.index) if parts else pd.Series(dtype=str)


def _levels_of_series(series: pd.DataFrame) -> pd.Series:
    series = series.sort_values("position_mm")
    named = series["structures"].fillna("").map(lambda names: _pelvic_level(names.split()))
    if named.notna().any():
        return named.ffill().bfill()
    position_mm = series["position_mm"]
    share = (position_mm - position_mm.min()) / (position_mm.max() - position_mm.min())
    return pd.cut(share.fillna(0), 3, labels=THIRDS).astype(str)


def _pelvic_level(names: Sequence[str]) -> str | None:
    schemes = dict(enumerate(CLASS_SCHEMES["bones"], BONE))
    bones = {schemes.get(class_of(name, "bones")) for name in names}
    pelvis = bones & {"hip bone", "sacrum"}
    if "vertebra" in bones:
        return "hip bone and vertebra" if pelvis else "vertebra"
    if "femur" in bones:
        return "femur and hip bone" if pelvis else "femur shaft"
    return "hip bone and sacrum" if pelvis else None
