"""The error that is shown to the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """An error that the user can mend.

    Its message is one sentence: the field or file, what was found, what was expected, and how to mend it.
    """


@contextmanager
def as_user_error(kinds: type[Exception] | tuple[type[Exception], ...], problem: str, remedy: str) -> Iterator[None]:
    """Turn errors of the given kinds into a UserError: the problem, the error's own message in brackets, the remedy."""
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{problem} ({reason}); {remedy}") from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to an OSError that names no file: reading, writing and flushing an open file raise such errors."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
