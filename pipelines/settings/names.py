"""Look up names that users give among the known names."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import enumerated

T = TypeVar("T")
MOST = 20
"""Number of names in a list of known names."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return a suggestion if `name` is similar to a known name, else an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return the names in alphabetical order, separated by commas; only the first of many."""
    return enumerated(sorted(names), MOST) or "none"


def is_count(text: str) -> bool:
    """Whether a text is a whole number of at least 0 with at most 18 digits, as an index of an array has."""
    return text.isdecimal() and len(text) <= 18


def first_duplicate(names: Iterable[str]) -> str | None:
    """Return the first name that occurs more than once, or None."""
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)


def pick(table: Mapping[str, T], name: str, key: str, what: str) -> T:
    """Return the entry `name` of a table; an unknown name raises a UserError that lists the known ones."""
    if name not in table:
        raise UserError(
            f"{key}: found '{name}', which is not a known {what}{hint(name, table)}; known: {listed(table)}"
        )
    return table[name]
