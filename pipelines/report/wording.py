"""Format the texts that readers see: numbers, intervals, lists of names, findings and templates."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprior.pipelines.report.rows import Estimate, Row

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROUNDING = 1e-12  # numbers up to this size are rounding errors of 0
THOUSAND = 1000
MOST_DECIMALS = 6
LONG = 200  # characters of findings on a topic from which all but the first sentence are folded
MAX_LISTED = 4  # a sentence lists at most this many names with their numbers


@dataclass(frozen=True)
class Finding:
    """One or two sentences on a topic; `question` is the key of the question that they answer."""

    topic: str
    text: str
    question: str = ""


def folded(texts: Sequence[str]) -> tuple[str, str]:
    """Return the first sentence of texts, and their other sentences; these are "" if all together are not `LONG`.

    >>> folded(["A is 0.5.", "B is 1."])
    ('A is 0.5. B is 1.', '')
    """
    text = " ".join(texts)
    first, _, others = text.partition(". ")
    return (f"{first}.", others) if others and len(text) > LONG else (text, "")


def template(name: str, global_names: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Return the template with a file name in this folder.

    All its macros see `global_names`. A missing name raises an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, **options}
    environment = Environment(loader=loader, **options)
    environment.globals |= global_names or {}
    return environment.get_template(name)


def as_text(value: Any) -> str:
    """Format a value for readers; a missing value is a dash, and a rounding error is 0."""
    if value is None or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value).replace("_", " ")
    return f"{value:.4g}".replace("-", "−") if abs(value) > ROUNDING else "0"


def with_interval(formatted: Callable[[Any], str], value: Any, low: Any, high: Any) -> str:
    """Format a value for a table cell, with its interval in brackets if it has one."""
    return (
        formatted(value)
        if low is None or high is None
        else f"{formatted(value)} ({formatted(low)} to {formatted(high)})"
    )


def number(value: float, decimals: int) -> str:
    """Format a number with a number of decimals and a minus sign; zero is never negative.

    A number from a thousand on has no decimals, and from ten thousand on narrow spaces between its thousands.

    >>> number(43522.1687, 4), number(-0.0001, 2)
    ('43\u202f522', '0.00')
    """
    decimals = decimals if abs(value) < THOUSAND else 0
    text = f"{round(value, decimals) + 0.0:{',' if abs(value) >= 10 * THOUSAND else ''}.{decimals}f}"
    return text.replace("-", "−").replace(",", "\u202f")


def rounded(value: float, digits: int = 3) -> str:
    """Format a number with at least this many significant digits, and no exponent.

    >>> rounded(331.262), rounded(0.014109), rounded(2.0)
    ('331', '0.0141', '2.00')
    """
    size = math.floor(math.log10(abs(value))) if abs(value) > ROUNDING else 0
    return number(value, min(max(digits - 1 - size, 0), MOST_DECIMALS))


def number_cell(estimate: Estimate, decimals: int) -> str:
    """Format a number for a table cell, with its interval if it has one."""
    return with_interval(lambda end: number(end, decimals), estimate.value, estimate.low, estimate.high)


def p_value(p: float) -> str:
    """Format a p-value."""
    return "<\u202f0.001" if p < 0.001 else number(p, 3)


def percent(share: float, decimals: int = 1) -> str:
    """Format a share as a percentage."""
    return f"{number(100 * share, decimals)}\u202f%"  # a narrow no-break space


def percent_ci(share: Estimate) -> str:
    """Format a share as a percentage for a sentence, with its confidence interval if it has one."""
    return _with_ci(share, 1, 100, "\u202f%")


def number_ci(estimate: Estimate, decimals: int, nested: bool = False) -> str:
    """Format a number for a sentence, with its confidence interval if it has one; `nested` inside brackets."""
    return _with_ci(estimate, decimals, nested=nested)


def points_ci(difference: Estimate, nested: bool = False) -> str:
    """Format a difference of shares in percentage points for a sentence, with its confidence interval if any."""
    return _with_ci(difference, 1, 100, " percentage points", nested)


def compared(difference: Estimate, other: str) -> str:
    """Say how far a share lies above or below another one, or that the interval of the difference includes 0."""
    if difference.above():
        return f"{points_ci(difference)} higher than {other}"
    if difference.below():
        return f"{points_ci(-difference)} lower than {other}"
    return f"not clearly different from {other} (difference {points_ci(difference, nested=True)})"


def in_words(number: int) -> str:
    """Spell a number up to nine as a word."""
    return NUMBER_WORDS[number - 1] if 0 < number <= len(NUMBER_WORDS) else str(number)


def titles(rows: Iterable[Row]) -> str:
    """List the titles of rows."""
    return listed([row.title for row in rows])


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Join names with commas, and the last one with a conjunction."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {conjunction} {names[-1]}"


def number_by_row(estimates: Mapping[Row, Estimate], decimals: int) -> str:
    """List the number of each row; if there are more than `MAX_LISTED` rows, only the lowest and the highest."""
    phrases = {row: f"{number_ci(estimate, decimals)} for {row.title}" for row, estimate in estimates.items()}
    if len(estimates) <= MAX_LISTED:
        return listed(list(phrases.values()))
    order = sorted(estimates, key=lambda row: estimates[row].value)
    return f"between {phrases[order[0]]} and {phrases[order[-1]]}"


def _with_ci(estimate: Estimate, decimals: int, scale: float = 1.0, unit: str = "", nested: bool = False) -> str:
    """Format a value, multiplied by `scale`, with its unit and its 95 % confidence interval if it has one.

    An interval of one point is left out. A wide interval takes decimals away, and a narrow one adds some.
    """
    value, ends = scale * estimate.value, (estimate.low, estimate.high)
    low, high = (value if end is None else scale * end for end in ends)
    if None in ends or high - low <= ROUNDING * max(abs(low), abs(high)):
        return f"{number(value, decimals)}{unit}"
    decimals = _decimals(low, high, decimals)
    interval = f"95\u202f% CI {number(low, decimals)} to {number(high, decimals)}"
    text = f"{number(value, decimals)}{unit}"
    return f"{text}, {interval}" if nested else f"{text} ({interval})"


def _decimals(low: float, high: float, decimals: int) -> int:
    """Return the decimals of an interval: at most `decimals`, and two digits of its length; more if its ends are equal.

    >>> _decimals(63.49, 79.15, 2), _decimals(-12.04, -11.98, 0)
    (0, 2)
    """
    decimals = min(decimals, max(1 - math.floor(math.log10(high - low)), 0))
    while number(low, decimals) == number(high, decimals) and decimals < MOST_DECIMALS and abs(high) < THOUSAND:
        decimals += 1
    return decimals
