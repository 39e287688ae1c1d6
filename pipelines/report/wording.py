"""The words and numbers that readers see: of findings, of cells, of the lines of a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprior.pipelines.report.rows import Estimate, Row

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MANY = 4  # names that a sentence lists with their numbers


@dataclass(frozen=True)
class Finding:
    """A sentence or two under a word that says what they are about; `question` is what they help to answer."""

    about: str
    text: str
    question: str = ""


def template(name: str, known: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A template that stands here; `known` are names that all its macros know. A name that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = FileSystemLoader(Path(__file__).parent)
    options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, **options}
    environment = Environment(loader=here, **options)
    environment.globals |= known or {}
    return environment.get_template(name)


def text(value: Any) -> str:
    """A value for readers."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value).replace("_", " ")


def with_interval(spell: Callable[[Any], str], value: Any, low: Any, high: Any, unit: str = "") -> str:
    """A value and, where there is one, its interval in brackets."""
    told = f"{spell(value)}{unit}"
    return told if low is None or high is None else f"{told} ({spell(low)} to {spell(high)})"


def number(value: float, decimals: int) -> str:
    """A number with so many decimals and a minus sign, never a negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def percent(share: float, decimals: int = 1) -> str:
    """A share as a percentage."""
    return f"{number(100 * share, decimals)}\u202f%"  # a narrow space that does not break


def percent_with(estimate: Estimate) -> str:
    """A share as a percentage, with its interval where there is one."""
    return _with_interval(estimate, 1, 100, "\u202f%")


def number_with(estimate: Estimate, decimals: int) -> str:
    """A number with its interval where there is one."""
    return _with_interval(estimate, decimals)


def points(gain: Estimate) -> str:
    """A difference of shares in percentage points, with its interval where there is one."""
    return _with_interval(gain, 1, 100, " percentage points")


def against(gain: Estimate) -> str:
    """A paired difference, and whether its interval leaves 0 out, before the name of what it is set against."""
    if gain.above():
        return f"{points(gain)} above"
    return f"{points(-gain)} below" if gain.below() else f"not clearly apart, by {points(gain)}, from"


def count(number: int) -> str:
    """A number in words, up to nine."""
    return NUMBERS[number - 1] if 0 < number <= len(NUMBERS) else str(number)


def titles(rows: Iterable[Row]) -> str:
    """The names of rows."""
    return listed([row.title for row in rows])


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names with commas, and a word before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def each(found: Mapping[Row, Estimate], decimals: int, of: str) -> str:
    """The number of every row, after a word such as `of`; of the lowest and the highest where they are many."""
    told = {row: f"{number_with(estimate, decimals)} {of} {row.title}" for row, estimate in found.items()}
    if len(found) <= MANY:
        return listed(list(told.values()))
    order = sorted(found, key=lambda row: found[row].value)
    return f"{told[order[0]]} at the lowest and {told[order[-1]]} at the highest"


def _with_interval(estimate: Estimate, decimals: int, scale: float = 1.0, unit: str = "") -> str:
    """A value and its interval, in parts of a unit."""
    return with_interval(lambda end: number(scale * end, decimals), estimate.value, estimate.low, estimate.high, unit)
