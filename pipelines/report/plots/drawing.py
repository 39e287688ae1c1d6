"""What figures are made of: dots with intervals, groups of them, lines, legends and scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postprior.pipelines.report.figures import Figure, Mark, Panel, Theme
from postprior.pipelines.report.rows import INTERVAL, MISSING, Estimate, Row
from postprior.pipelines.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDER = 10.0  # a range of so many times its lower end is drawn on a logarithmic axis
ROW = 0.24  # inches of a line of dots
LETTER = 0.072  # inches of a letter of a legend
HEAD = 0.62  # inches of a panel beside its lines


@dataclass(frozen=True)
class Part:
    """A panel of dots, one line of a figure's rows each."""

    cells: tuple[str, ...]  # what its lines in the figure's table begin with
    title: str
    estimates: Mapping[str, Estimate]  # by line; a line without one has no dot
    said: str = ""  # what its numbers are, for those who cannot see them
    decimals: int = 3
    limits: tuple[float, float] | None = None  # of the horizontal axis; None: as the values need it
    reference_line: float | None = None  # where a line stands for comparison


def dotted(
    name: str, title: str, header: Sequence[str], parts: Sequence[Part], lines: Mapping[str, Mark], **layout: Any
) -> Figure:
    """A figure of panels whose lines are the same; `header` names the cells of a part, side by side, and the line."""
    return Figure(
        name,
        title,
        "; ".join(f"{part.said}: {said(part.estimates, part.decimals)}" for part in parts),
        *tabled(header, {(*part.cells, line): e for part in parts for line, e in part.estimates.items()}),
        [dots(part, lines) for part in parts],
        **{"height": height_of(len(lines)), "aligned": True, "across": tuple(header[:-1]), **layout},
    )


def tabled(
    header: Sequence[str], estimates: Mapping[tuple[Any, ...], Estimate]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Header and lines of a figure's table, of estimates by the cells before them."""
    return (*header, *INTERVAL), [(*cells, *written(estimate)) for cells, estimate in estimates.items()]


def marked(rows: Iterable[Row], look: Mapping[str, Mark]) -> dict[str, Mark]:
    """The marks of rows by their titles."""
    return {row.title: look[row.name] for row in rows}


def dots(part: Part, lines: Mapping[str, Mark]) -> Panel:
    """A line each: its interval, its mark, and its value at the right margin."""
    estimates = {line: part.estimates.get(line, MISSING) for line in lines}

    def draw(axes: Axes, theme: Theme) -> None:
        _frame(axes, theme, part.title, list(lines), list(estimates.values()), part.limits, part.reference_line)
        for height, (line, mark) in enumerate(lines.items()):
            if (estimate := estimates[line]) is MISSING:
                continue
            point(axes, estimate, height, mark, theme, size=5)
            axes.annotate(
                number(estimate.value, part.decimals),
                (1.0, height),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=theme.muted,
            )
        axes.set_ylim(len(lines) - 0.4, -0.6)

    return draw


def _frame(
    axes: Axes,
    theme: Theme,
    title: str,
    names: Sequence[str],
    estimates: Sequence[Estimate],
    limits: tuple[float, float] | None,
    reference_line: float | None,
) -> None:
    """Names down the left side, a title, a scale for the estimates, and a line where they are compared with it."""
    if reference_line is not None:
        axes.axvline(reference_line, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_title(title, loc="left", fontsize=8.5, color=theme.ink)
    if limits is None:
        scale(axes, estimates)
    else:
        axes.set_xlim(*limits)


def height_of(lines: int) -> float:
    """Inches of a panel of so many lines of dots."""
    return HEAD + ROW * lines


def grouped(
    title: str,
    names: Sequence[str],
    values: Mapping[Row, Mapping[str, Estimate]],
    look: Mapping[str, Mark],
    reference_line: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Panel:
    """Groups of estimates one below the other, the rows of each beneath one another; `values` are by row and group."""

    def draw(axes: Axes, theme: Theme) -> None:
        every = [estimate for estimates in values.values() for estimate in estimates.values()]
        _frame(axes, theme, title, names, every, limits, reference_line)
        for place, (row, estimates) in enumerate(values.items()):
            shift = 0.62 * (place / (len(values) - 1) - 0.5) if len(values) > 1 else 0.0
            for height, estimate in enumerate(estimates.values()):
                point(axes, estimate, height + shift, look[row.name], theme, size=4)
        axes.set_ylim(len(names) - 0.5, -0.5)
        for border in range(1, len(names)):
            axes.axhline(border - 0.5, color=theme.grid, linewidth=0.8)

    return draw


def height_of_groups(names: Sequence[object], rows: int) -> float:
    """Inches of a panel of groups of so many rows."""
    return max(2.6, HEAD + 0.09 * len(names) * (rows + 1))


def lines(
    title: str,
    places: Sequence[float],
    values: Mapping[str, Sequence[Estimate]],
    looks: Mapping[str, Mark],
    label: str,
    reference_line: float | None = None,
) -> Panel:
    """Estimates against numbers, a line a name, beside one another where they would cover each other.

    `places` are where the estimates stand on the horizontal axis, which has a label; `values` are by name and place.
    """

    def draw(axes: Axes, theme: Theme) -> None:
        if reference_line is not None:
            axes.axhline(reference_line, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        for line, (name, estimates) in enumerate(values.items()):
            shift = 0.3 * ((line + 0.5) / len(values) - 0.5)
            axes.errorbar(
                [place + shift for place in range(len(places))],
                [estimate.value for estimate in estimates],
                reach(estimates),
                fmt=looks[name].shape + "-",
                color=looks[name].colour_in(theme),
                ms=4.5,
                linewidth=1,
                elinewidth=1,
            )
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.tick_params(axis="x", labelcolor=theme.ink)
        axes.tick_params(axis="y", labelsize=7.5, labelcolor=theme.muted)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set_title(title, loc="left", fontsize=8.5, color=theme.ink)
        axes.set_xlabel(label)

    return draw


def with_legend(panels: Sequence[Panel], names: Mapping[str, Mark]) -> list[Panel]:
    """Panels, and under the whole figure, which the last one draws, a legend of their marks."""

    def draw(axes: Axes, theme: Theme) -> None:
        from matplotlib.lines import Line2D

        panels[-1](axes, theme)
        handles = [
            Line2D([], [], color=mark.colour_in(theme), marker=mark.shape, linestyle="", ms=5, label=name)
            for name, mark in names.items()
        ]
        canvas = axes.get_figure(root=True)
        if canvas is None:
            return
        widest = 0.4 + LETTER * max(map(len, names))
        columns = max(int(canvas.get_figwidth() / widest), 1)
        canvas.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=8, handletextpad=0.2)

    return [*panels[:-1], draw]


def point(axes: Axes, estimate: Estimate, height: float, mark: Mark, theme: Theme, size: float) -> None:
    """An estimate at some height."""
    colour = mark.colour_in(theme)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.4)
    axes.plot(estimate.value, height, mark.shape, color=colour, ms=size)


def scale(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """A logarithmic axis with plain numbers where the values span more than it can show otherwise."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    values = [estimate.value for estimate in estimates if estimate.value == estimate.value]
    if values and min(values) > 0 and max(values) > WIDER * min(values):
        axes.set_xscale("log")
        ends = [end for e in estimates for end in written(e) if end is not None and end > 0]
        span = max(ends) / min(ends)
        subs = (1, 2, 5) if span < 10 else (1, 3) if span < 30 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        if values and min(values) >= 0:
            ends = [end for e in estimates for end in written(e) if end is not None and end == end]
            top = max(ends) or 1.0
            axes.set_xlim(min(-0.03 * top, *ends), 1.04 * top)
        axes.xaxis.set_major_locator(MaxNLocator(3))


def reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far intervals reach to either side of their values, never a negative way."""
    low = [0.0 if e.low is None else max(e.value - e.low, 0.0) for e in estimates]
    return [low, [0.0 if e.high is None else max(e.high - e.value, 0.0) for e in estimates]]


def said(estimates: Mapping[str, Estimate], decimals: int = 3) -> str:
    """Names and values in words."""
    return ", ".join(
        f"{name} {number(estimate.value, decimals)}"
        for name, estimate in estimates.items()
        if estimate.value == estimate.value
    )


def written(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    """The value, low and high of a table, all None of what is missing."""
    return (None, None, None) if estimate is MISSING else (estimate.value, estimate.low, estimate.high)
