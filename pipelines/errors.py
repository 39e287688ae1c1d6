"""The one error that is shown to a user."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can mend, in one sentence: the field or file, what was found and expected, a remedy."""


@contextmanager
def as_user_error(kinds: type[Exception] | tuple[type[Exception], ...], found: str, remedy: str) -> Iterator[None]:
    """A UserError in place of an error of these kinds: what was found, in brackets what the error says, a remedy."""
    try:
        yield
    except kinds as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{found} ({told}); {remedy}") from None
