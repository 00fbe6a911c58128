"""Bad input, in one line for a person: refused, or repaired with a warning."""

import warnings


class InputError(ValueError):
    """One line that names the file, says what is wrong with it and what to do."""


class InputWarning(UserWarning):
    """One line, without a file's name, that reports a repair or a choice."""


def warn(text: str) -> None:
    """Report a repair or a choice as an InputWarning."""
    warnings.warn(text, InputWarning, stacklevel=3)
