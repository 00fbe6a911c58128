"""What is wrong with an input, in one line for a person: refused, or repaired with a warning."""


class InputError(ValueError):
    """One line that names the file, says what is wrong with it and what to do."""


class InputWarning(UserWarning):
    """One line, without a file's name, that says what was repaired or chosen."""
