"""Panels of distributions: real values as a filled area or as bars, each density as a line or as marks over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from postprior.pipelines.metrics.tables.marginals import Marginal
from postprior.pipelines.report.figures import INK, MUTED, Mark, Panel, drawable
from postprior.pipelines.report.plots.drawing import as_percentages, with_handles
from postprior.pipelines.report.wording import as_text, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 1.55  # inches of a panel
STYLES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
)  # of the lines of densities, the best first
AREA = 0.3  # opacity of the area or the bars of real values
LONGEST = 16  # characters of the name of a class
Ticks = Sequence[tuple[float, str]]


def distribution(
    title: str, marginal: Marginal, look: Mapping[str, Mark], real: str, score: float | None = None, ticks: Ticks = ()
) -> Panel:
    """Draw the distribution of numbers: the area of the set `real`, and one line for each of the others.

    The score stands at the right end of the title; `ticks` replace numbers on the axis.
    """

    def draw(axes: Axes) -> None:
        assert marginal.edges is not None
        axes.stairs(marginal.shares[real], marginal.edges, fill=True, color=MUTED, alpha=AREA, linewidth=0)
        others = [name for name in marginal.shares if name != real]
        for place, name in reversed([*enumerate(others)]):
            axes.stairs(
                marginal.shares[name],
                marginal.edges,
                baseline=None,
                color=look[name].colour,
                linewidth=1.5 if place == 0 else 1.0,
                linestyle=STYLES[place % len(STYLES)],
            )
        if marginal.logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(marginal.edges[0], marginal.edges[-1])
        axes.set_ylim(0)
        _frame(axes, title, score)
        _number_axes(axes, ticks, marginal.logarithmic)

    return draw


def class_shares(
    title: str,
    marginal: Marginal,
    texts: Sequence[str],
    look: Mapping[str, Mark],
    real: str,
    score: float | None = None,
) -> Panel:
    """Draw the shares of classes: a bar of the set `real`, and a mark for each of the others."""
    names = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts]
    names = [*drawable(names).values()] if len({*names}) == len(names) else names
    names += [f"{marginal.others} more"] if marginal.others else []

    def draw(axes: Axes) -> None:
        places = range(len(names))
        axes.barh(places, marginal.shares[real], height=0.7, color=MUTED, alpha=AREA)
        others = [name for name in marginal.shares if name != real]
        for name in reversed(others):
            axes.plot(marginal.shares[name], places, look[name].shape, color=look[name].colour, ms=4, clip_on=False)
        axes.set_yticks(places, names, fontsize=6.5)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0)
        _frame(axes, title, score)
        as_percentages(axes.xaxis, 2)

    return draw


def with_set_legend(
    panels: Sequence[Panel], names: Mapping[str, str], look: Mapping[str, Mark], real: str
) -> list[Panel]:
    """Add a legend below the whole figure: the area of the set `real`, a line with a mark for each of the others."""

    def handles() -> list[Any]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        found: list[Any] = [Patch(color=MUTED, alpha=AREA, linewidth=0, label=real)]
        for place, (name, shown) in enumerate(drawable(names.values()).items()):
            mark = look[next(key for key, title in names.items() if title == name)]
            style, colour = STYLES[place % len(STYLES)], mark.colour
            found.append(Line2D([], [], color=colour, marker=mark.shape, ms=4, linestyle=style, label=shown))
        return found

    return with_handles(panels, handles)


def _frame(axes: Axes, title: str, score: float | None) -> None:
    shown = drawable([title])[title]
    axes.set_title(shown, loc="left", fontsize=8, color=INK)
    if score is not None and score == score:
        axes.set_title(number(score, 2), loc="right", fontsize=8, color=MUTED)
    axes.tick_params(axis="both", length=0)
    axes.tick_params(axis="x", labelsize=6.5)


def _number_axes(axes: Axes, ticks: Ticks, logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.grid(visible=False, axis="x")
    axes.grid(axis="y")
    axes.tick_params(axis="y", labelsize=6.5)
    as_percentages(axes.yaxis, 2)
    if ticks:
        axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
        for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=False):
            label.set(horizontalalignment=side)
        return
    if logarithmic:
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """Format a number for an axis: 20k, 1.5M."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{as_text(float(value / (1e3 if sign == 'k' else unit)))}{sign}"
    return as_text(float(value))
