"""The table behind a figure as readers see it: a value with its interval a cell, one key across."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from postprior.pipelines.report.figures import Figure
from postprior.pipelines.report.rows import INTERVAL

MOST_LINES = 24  # of a curve or a cloud; a longer one stands beside the page alone


def readable(figure: Figure) -> tuple[list[str], list[list[str]]] | None:
    """Header and lines; None for curves and clouds of more points than one reads."""
    keys = [name for name in figure.header if name not in INTERVAL]
    if len(keys) < len(figure.header):
        header, lines = _across(figure, keys)
    elif len(figure.table) <= MOST_LINES:
        header, lines = keys, [[text(value) for value in told] for told in figure.table]
    else:
        return None
    return [text(name) for name in header], lines


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


def _across(figure: Figure, keys: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The lines of a figure's table, those that differ in the key `across` alone put side by side."""
    places = [figure.header.index(key) for key in keys if key not in figure.across]
    turned = [figure.header.index(key) for key in keys if key in figure.across]
    value = figure.header.index(INTERVAL[0])
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    titles: dict[str, None] = {}
    for told in figure.table:
        title = ", ".join(text(told[place]) for place in turned) or INTERVAL[0]
        titles[title] = None
        written = with_interval(text, *told[value : value + len(INTERVAL)])
        cells.setdefault(tuple(text(told[place]) for place in places), {})[title] = written
    lines = [[*line, *(found.get(title, "–") for title in titles)] for line, found in cells.items()]
    return [*(figure.header[place] for place in places), *titles], lines
