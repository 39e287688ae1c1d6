"""Format the texts that readers see: numbers, intervals, lists of names, findings and templates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprior.pipelines.report.rows import Estimate, Row

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROUNDING = 1e-12  # numbers up to this size are rounding errors of 0
MAX_LISTED = 4  # a sentence lists at most this many names with their numbers


@dataclass(frozen=True)
class Finding:
    """One or two sentences on a topic; `question` is the key of the question that they answer."""

    topic: str
    text: str
    question: str = ""


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
    """Format a number with a fixed number of decimals and a minus sign; zero is never negative."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


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
    """Format a value, multiplied by `scale`, with its unit and its 95 % confidence interval if it has one."""
    value = f"{number(scale * estimate.value, decimals)}{unit}"
    if estimate.low is None or estimate.high is None:
        return value
    low, high = (number(scale * end, decimals) for end in (estimate.low, estimate.high))
    interval = f"95\u202f% CI {low} to {high}"
    return f"{value}, {interval}" if nested else f"{value} ({interval})"
