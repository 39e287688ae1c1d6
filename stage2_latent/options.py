"""Checks of options: each names the option, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def integer(name: str, value: object, low: int = 1) -> int:
    """An integer no smaller than `low`, or a ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"option {name}: found {value!r}, expected an integer of {low} at least")
    return value


def number(name: str, value: object, low: float = 0.0, high: float = float("inf")) -> float:
    """A number within [low, high], or a ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        limits = f"{low:g} at least" if high == float("inf") else f"{low:g} to {high:g}"
        raise ValueError(f"option {name}: found {value!r}, expected a number of {limits}")
    return float(value)


def choice(name: str, value: object, known: Collection[str]) -> str:
    """One of some words, or a ValueError."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"option {name}: found {value!r}, expected one of {', '.join(known)}")
    return value


def candidates_of(name: str, value: object) -> Sequence[object]:
    """The candidates of an option that is one value or a list of them, or a ValueError."""
    candidates = value if isinstance(value, list | tuple) else [value]
    if not candidates:
        raise ValueError(f"option {name}: found an empty list, expected one value at least")
    return candidates
