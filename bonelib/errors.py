"""Bad input, in one line for a person: refused, or repaired with a warning."""

import argparse
import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """One line that names the file, says what is wrong with it and what to do."""


class InputWarning(UserWarning):
    """One line, without a file's name, that reports a repair or a choice."""


def warn(text: str) -> None:
    """Report a repair or a choice as an InputWarning."""
    warnings.warn(text, InputWarning, stacklevel=3)


def unknown(kind: str, value: str, known: Iterable[str]) -> str:
    """Return the line that refuses an unknown name; it proposes the most similar known one."""
    similar = difflib.get_close_matches(value, list(known), n=1)
    proposal = f"did you mean '{similar[0]}'? " if similar else ""
    return f"unknown {kind} '{value}': {proposal}choose one of {', '.join(known)}"


def fail(program: str, message: object) -> int:
    """Print in one line what is wrong; return the exit code of bad input."""
    print(f"{program}: {message}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose errors are one line, with exit code 2."""

    def __init__(self, *arguments, **options):
        options |= {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*arguments, **options)

    def error(self, message):
        """Say what is wrong, and where the help is."""
        sys.exit(fail(self.prog, f"{message}; see {self.prog} --help"))

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            kind = action.dest.removesuffix("s")
            raise argparse.ArgumentError(None, unknown(kind, value, action.choices))


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collect the texts of InputWarnings, each once, instead of showing them."""
    notes = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        yield notes
    texts = (str(item.message) for item in caught if issubclass(item.category, InputWarning))
    notes += dict.fromkeys(texts)


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
