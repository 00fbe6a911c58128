"""A name, or a file of weights -> a trained network and what slices it takes."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import keras

from bonelib import models, provenance
from bonelib.errors import InputError
from bonelib.settings import PRETRAINING, Settings

TRAINING_RECORD = "training.json"  # lies beside the weights of a training


@dataclass(frozen=True)
class Network:
    """Trained weights, and slices of which window and pixels they are for."""

    name: str
    weights: Path
    settings: Settings
    note: str = ""  # what had to be assumed

    def sized(self, rows: int, columns: int) -> keras.Model:
        """Return the network for slices of (rows, columns), multiples of 32.

        Raises InputError for weights of another network.
        """
        model = models.build_model(
            self.name,
            (rows, columns),
            self.settings.num_classes,
            decoder_activation=self.settings.decoder_activation,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # of layers that stay random
                model.load_weights(self.weights)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            raise InputError(
                f"{self.weights}: holds no weights of the network '{self.name}' for "
                f"{self.settings.num_classes} classes; name the network that they are of"
            ) from error
        return model


def find_network(name: str, weights: Path | None = None) -> Network:
    """Return network `name` with the weights that the package ships, or those of a file.

    The settings of a file are those of its training's record beside it, or else those of the
    shipped weights. Raises InputError where there are no such weights.
    """
    if weights is None:
        shipped = models.pretrained_names()
        if name not in shipped:
            raise InputError(
                f"no weights of '{name}' are shipped, only of {', '.join(shipped)}; train it and "
                "give its best_of_<epochs>.keras as weights"
            )
        return Network(name, models.WEIGHTS / f"{name}.keras", PRETRAINING)
    if not weights.is_file():
        raise InputError(f"{weights}: there is no such file; check the path of the weights")
    record = provenance.read_json(weights.parent / TRAINING_RECORD)
    if "settings" in record:
        # Networks do not depend on how slices were augmented; older records say True.
        settings = record["settings"] | {"augment": PRETRAINING.augment}
        return Network(name, weights, Settings(**settings))
    note = (
        f"no {TRAINING_RECORD} lies beside the weights: they are taken for slices of "
        f"{PRETRAINING.pixel_spacing_mm:g} mm a pixel, as the shipped ones are"
    )
    return Network(name, weights, PRETRAINING, note)
