"""Write the mean of weights of the shipped network, as its model card describes.

    python benchmarks/mean_weights.py FOLDER FILE FILE [FILE...]

FOLDER gets `unet25d.keras`.
"""

import argparse
from pathlib import Path

import numpy as np

from bonelib.models import save_pretrained
from bonelib.pretrained import find_network
from bonelib.settings import SHIPPED_MODEL, SIZE_STEP


def main() -> None:
    """Write the mean of the files given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    networks = [
        find_network(SHIPPED_MODEL, file).sized(SIZE_STEP, SIZE_STEP) for file in options.files
    ]
    weights = [network.get_weights() for network in networks]
    networks[0].set_weights([np.mean(same, axis=0) for same in zip(*weights, strict=True)])
    print(save_pretrained(networks[0], SHIPPED_MODEL, options.folder))


if __name__ == "__main__":
    main()
