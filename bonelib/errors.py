"""Bad input, in one line for a person: refused, or repaired with a warning."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """One line that names the file, says what is wrong with it and what to do."""


class InputWarning(UserWarning):
    """One line, without a file's name, that reports a repair or a choice."""


def warn(text: str) -> None:
    """Report a repair or a choice as an InputWarning."""
    warnings.warn(text, InputWarning, stacklevel=3)


@contextmanager
def refusing_damage(file: Path, advice: str) -> Iterator[None]:
    """Turn what libraries raise for a damaged file, of many types, into an InputError.

    Their warnings are silenced, since they quote values, which are private; those of a file
    cut short count as damage.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", InputWarning)  # our own ones pass
            warnings.filterwarnings("error", message="(?i).*end of (file|input)")
            yield
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(f"{file}: may not be read; check its rights") from error
    except Exception as error:
        raise InputError(f"{file}: {advice}") from error
