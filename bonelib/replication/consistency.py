"""Does the paper agree with itself? Its Dice coefficients, from its IoU."""

import pandas as pd

from bonelib import published
from bonelib.settings import CLASS_NAMES

HALF_DIGIT = 0.005  # what rounding to two decimals hides


def dice_check() -> pd.DataFrame:
    """Return each printed Dice coefficient beside 2 IoU / (1 + IoU), a row a class and network.

    Only counts that are pooled over all pixels fit: a mean over images would not. `agrees`
    allows for both printed values being rounded.
    """
    rows = [
        (table, published.METHOD_NAMES[model], name, row["iou"][place], row["dice"][place])
        for table, models in ((1, published.TABLE1), (3, published.TABLE3))
        for model, row in models.items()
        for place, name in enumerate(CLASS_NAMES, 1)
    ]
    frame = pd.DataFrame(rows, columns=["table", "name", "class", "iou", "dice"])
    frame["computed"] = _dice(frame["iou"])
    frame["difference"] = frame["dice"] - frame["computed"]
    low, high = (_dice(frame["iou"] + half) for half in (-HALF_DIGIT, HALF_DIGIT))
    frame["agrees"] = frame["dice"].between(low - HALF_DIGIT, high + HALF_DIGIT)
    return frame


def _dice(iou: pd.Series) -> pd.Series:
    return 200 * iou / (100 + iou)
