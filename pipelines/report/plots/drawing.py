"""Elements of figures: dots with intervals, groups of dots, lines, legends and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postprior.pipelines.report.figures import GRID, INK, MUTED, Figure, Mark, Panel, drawable
from postprior.pipelines.report.rows import INTERVAL, MISSING, Estimate, Row
from postprior.pipelines.report.wording import number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LOG_RATIO = 10.0  # values whose largest is more than this many times the smallest get a logarithmic axis
ROW = 0.24  # inches per line of dots
LETTER = 0.072  # inches per letter of a legend
HEAD = 0.62  # inches of a panel without its lines
INTERVALS = "Lines are 95\u202f% confidence intervals."  # ends the caption of a figure with intervals


@dataclass(frozen=True)
class DotPanel:
    """A panel of dots with one estimate per line."""

    cells: tuple[str, ...]  # first cells of its lines in the figure's table
    title: str
    estimates: Mapping[str, Estimate]  # by name of the line; a line without an estimate has no dot
    alt: str = ""  # name of the numbers in the alternative text
    decimals: int = 3
    limits: tuple[float, float] | None = None  # of the horizontal axis; None fits them to the values
    reference_line: float | None = None  # position of a dashed vertical line


def dotted(
    name: str, title: str, header: Sequence[str], panels: Sequence[DotPanel], lines: Mapping[str, Mark], **layout: Any
) -> Figure:
    """Return a figure of panels with the same lines; `header` names the cells of a panel, then the line."""
    return Figure(
        name,
        title,
        "; ".join(f"{panel.alt}: {values_as_text(panel.estimates, panel.decimals)}" for panel in panels),
        *tabled(header, {(*panel.cells, line): e for panel in panels for line, e in panel.estimates.items()}),
        [dots(panel, lines) for panel in panels],
        **{"height": height_of(len(lines)), "aligned": True, "across": tuple(header[:-1]), **layout},
    )


def tabled(
    header: Sequence[str], estimates: Mapping[tuple[Any, ...], Estimate]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return header and lines of a figure's table; `estimates` are by the cells to their left."""
    return (*header, *INTERVAL), [(*cells, *fields(estimate)) for cells, estimate in estimates.items()]


def marked(rows: Iterable[Row], look: Mapping[str, Mark]) -> dict[str, Mark]:
    """Return the marks of rows by their titles."""
    return {row.title: look[row.name] for row in rows}


def dots(panel: DotPanel, lines: Mapping[str, Mark]) -> Panel:
    """Draw on each line an interval and a mark, and the value at the right margin."""
    estimates = {line: panel.estimates.get(line, MISSING) for line in lines}

    def draw(axes: Axes) -> None:
        frame(axes, panel.title, list(lines), list(estimates.values()), panel.limits, panel.reference_line)
        for height, (line, mark) in enumerate(lines.items()):
            if (estimate := estimates[line]) is MISSING:
                continue
            point(axes, estimate, height, mark, size=5)
            axes.annotate(
                number(estimate.value, panel.decimals),
                (1.0, height),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=MUTED,
            )
        axes.set_ylim(len(lines) - 0.4, -0.6)

    return draw


def frame(
    axes: Axes,
    title: str,
    names: Sequence[str],
    estimates: Sequence[Estimate],
    limits: tuple[float, float] | None,
    reference_line: float | None,
) -> None:
    """Set names on the left, a title, a scale for the estimates, and a reference line if given."""
    if reference_line is not None:
        axes.axvline(reference_line, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(names)), list(drawable(names).values()))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_title(title, loc="left", fontsize=8.5, color=INK)
    if limits is None:
        scale(axes, estimates)
    else:
        axes.set_xlim(*limits)


def marks_by_line(axes: Axes, values: Mapping[str, Mapping[str, float]], look: Mapping[str, Mark]) -> None:
    """Draw on the line of each name the marks of several rows; `values` are by name and row."""
    frame(axes, "", list(values), [], None, None)
    for place, by_row in enumerate(values.values()):
        axes.axhline(place, color=GRID, linewidth=0.6, zorder=0)
        for row, value in reversed([*by_row.items()]):
            axes.plot(value, place, look[row].shape, color=look[row].colour, ms=5, clip_on=False)
    axes.set_ylim(len(values) - 0.4, -0.6)


def as_percentages(axis: Axis, most: int) -> None:
    """Write shares on an axis as percentages, at `most` so many and one more."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}\u202f%"))


def height_of(lines: int) -> float:
    """Return the height in inches of a panel with a number of lines of dots."""
    return HEAD + ROW * lines


def grouped(
    title: str,
    names: Sequence[str],
    values: Mapping[Row, Mapping[str, Estimate]],
    look: Mapping[str, Mark],
    reference_line: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Panel:
    """Draw groups of estimates below each other, with all rows in each group; `values` are by row and group."""

    def draw(axes: Axes) -> None:
        every = [estimate for estimates in values.values() for estimate in estimates.values()]
        frame(axes, title, names, every, limits, reference_line)
        for place, (row, estimates) in enumerate(values.items()):
            shift = 0.62 * (place / (len(values) - 1) - 0.5) if len(values) > 1 else 0.0
            for height, estimate in enumerate(estimates.values()):
                point(axes, estimate, height + shift, look[row.name], size=4)
        axes.set_ylim(len(names) - 0.5, -0.5)
        for border in range(1, len(names)):
            axes.axhline(border - 0.5, color=GRID, linewidth=0.8)

    return draw


def height_of_groups(names: Sequence[object], rows: int) -> float:
    """Return the height in inches of a panel of groups with a number of rows each."""
    return max(2.6, HEAD + 0.09 * len(names) * (rows + 1))


def lines(
    title: str,
    places: Sequence[float],
    values: Mapping[str, Sequence[Estimate]],
    looks: Mapping[str, Mark],
    label: str,
    reference_line: float | None = None,
) -> Panel:
    """Draw estimates against numbers, one line per name, slightly shifted so that they do not overlap.

    `places` are the numbers on the horizontal axis, `label` names the axis, and `values` are by name and place.
    """

    def draw(axes: Axes) -> None:
        if reference_line is not None:
            axes.axhline(reference_line, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        for line, (name, estimates) in enumerate(values.items()):
            shift = 0.3 * ((line + 0.5) / len(values) - 0.5)
            axes.errorbar(
                [place + shift for place in range(len(places))],
                [estimate.value for estimate in estimates],
                error_bars(estimates),
                fmt=looks[name].shape + "-",
                color=looks[name].colour,
                ms=4.5,
                linewidth=1,
                elinewidth=1,
            )
        axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.tick_params(axis="x", labelcolor=INK)
        axes.tick_params(axis="y", labelsize=7.5, labelcolor=MUTED)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set_title(title, loc="left", fontsize=8.5, color=INK)
        axes.set_xlabel(label)

    return draw


def with_legend(panels: Sequence[Panel], names: Mapping[str, Mark]) -> list[Panel]:
    """Add a legend of marks below the whole figure; the last panel draws it."""
    shown = drawable(names)

    def handles() -> list[Artist]:
        from matplotlib.lines import Line2D

        return [
            Line2D([], [], color=mark.colour, marker=mark.shape, linestyle="", ms=5, label=shown[name])
            for name, mark in names.items()
        ]

    return with_handles(panels, handles, 0.2)


def with_handles(panels: Sequence[Panel], handles: Callable[[], list[Artist]], pad: float = 0.6) -> list[Panel]:
    """Add a legend of these handles below the whole figure; the last panel draws it."""

    def draw(axes: Axes) -> None:
        panels[-1](axes)
        canvas = axes.get_figure(root=True)
        if canvas is None:
            return
        found = handles()
        widest = 0.4 + LETTER * max(len(str(handle.get_label())) for handle in found)
        columns = max(int(canvas.get_figwidth() / widest), 1)
        canvas.legend(handles=found, loc="outside lower left", ncols=columns, fontsize=8, handletextpad=pad)

    return [*panels[:-1], draw]


def point(axes: Axes, estimate: Estimate, height: float, mark: Mark, size: float) -> None:
    """Draw an estimate with its interval at a height."""
    colour = mark.colour
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.4)
    axes.plot(estimate.value, height, mark.shape, color=colour, ms=size)


def scale(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """Scale the horizontal axis to estimates: logarithmic with plain numbers if they span a large range."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    values = [estimate.value for estimate in estimates if estimate.value == estimate.value]
    if values and min(values) > 0 and max(values) > LOG_RATIO * min(values):
        axes.set_xscale("log")
        ends = [end for e in estimates for end in fields(e) if end is not None and end > 0]
        span = max(ends) / min(ends)
        subs = (1, 2, 5) if span < 10 else (1, 3) if span < 30 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        if values and min(values) >= 0:
            ends = [end for e in estimates for end in fields(e) if end is not None and end == end]
            top = max(ends) or 1.0
            axes.set_xlim(min(-0.03 * top, *ends), 1.04 * top)
        axes.xaxis.set_major_locator(MaxNLocator(3))


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Return the lengths of intervals below and above their values, never negative."""
    low = [0.0 if e.low is None else max(e.value - e.low, 0.0) for e in estimates]
    return [low, [0.0 if e.high is None else max(e.high - e.value, 0.0) for e in estimates]]


def values_as_text(estimates: Mapping[str, Estimate], decimals: int = 3) -> str:
    """List names and values for the alternative text of a figure."""
    return ", ".join(
        f"{name} {number(estimate.value, decimals)}"
        for name, estimate in estimates.items()
        if estimate.value == estimate.value
    )


def fields(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    """Return value, low and high of an estimate, all None if it is missing."""
    return (None, None, None) if estimate is MISSING else (estimate.value, estimate.low, estimate.high)
