"""Checks of options; each error message names the option, the value found and the values expected."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def integer(name: str, value: object, low: int = 1) -> int:
    """Return the value if it is an integer of at least `low`, otherwise raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"option {name}: found {value!r}, expected an integer of at least {low}")
    return value


def number(name: str, value: object, low: float = 0.0, high: float = float("inf")) -> float:
    """Return the value as a float if it is a number within [low, high], otherwise raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        limits = f"of at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"option {name}: found {value!r}, expected a number {limits}")
    return float(value)


def choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return the value if it is one of the strings in `choices`, otherwise raise ValueError."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"option {name}: found {value!r}, expected one of {', '.join(choices)}")
    return value


def candidates_of(name: str, value: object) -> Sequence[object]:
    """Return the candidates of an option that is one value or a list of values; raise ValueError for an empty list."""
    candidates = value if isinstance(value, list | tuple) else [value]
    if not candidates:
        raise ValueError(f"option {name}: found an empty list, expected at least one value")
    return candidates
