"""Names that users give, looked up among those that are known."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from postprior.pipelines.errors import UserError

T = TypeVar("T")


def hint(name: str, known: Iterable[str]) -> str:
    """A question for the reader when `name` is close to a known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(names: Iterable[str]) -> str:
    """Names in alphabetical order, separated by commas."""
    return ", ".join(sorted(names)) or "none"


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that stands there twice, if one does."""
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)


def pick(table: Mapping[str, T], name: str, key: str, what: str) -> T:
    """The entry `name` of a table; a UserError lists the names that it has."""
    if name not in table:
        raise UserError(f"{key}: found '{name}', which is no {what}{hint(name, table)}; known: {listed(table)}")
    return table[name]
