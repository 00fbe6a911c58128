"""The numbers that the paper prints, under the names that published.toml gives them."""

import tomllib
from pathlib import Path

_PAPER = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
globals().update(_PAPER)

INCONSISTENCIES = [text.format(**_PAPER) for text in _PAPER["INCONSISTENCIES"]]
