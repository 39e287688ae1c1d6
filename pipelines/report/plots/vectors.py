"""Figures of vectors: distributions of features, and statistics of features and of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.tables.features import FeatureStatistics
from postprior.pipelines.report.cells import REAL, Cells
from postprior.pipelines.report.features import Features
from postprior.pipelines.report.figures import INK, MUTED, Figure, Mark, Panel, numbered
from postprior.pipelines.report.plots.distributions import HEIGHT, distribution, short, with_set_legend
from postprior.pipelines.report.wording import as_text, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_ZEROS = 0.01  # share of zeros in real rows from which on zeros are shown
LEAST = 0.02  # share of the features with the lowest means or variances that logarithmic axes leave out
POINTS = 3000  # features that are drawn


def vectors(cells: Cells, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield two figures per vector: the distributions of its features, and their statistics."""
    for vector in cells.vectors:
        yield features(vector, cells.densities, look)
        yield statistics(vector, cells.densities, look)


def features(vector: Features, densities: tuple[str, ...], look: Mapping[str, Mark]) -> Figure:
    """Plot the distributions of the hardest features, and of groups of features by mean."""
    best = densities[0]
    panels = [distribution(name, own, look, REAL, score) for name, (own, score) in vector.hardest.items()]
    panels += [distribution(title, own, look, REAL) for title, own in vector.groups.items()]
    every = {name: own for name, (own, _) in vector.hardest.items()} | dict(vector.groups)
    rest = f"The last panels pool all values of a quarter of the {vector.features} features." if vector.groups else ""
    return Figure(
        f"features_{vector.key}",
        f"Real and synthetic values of the features of {vector.title}",
        f"Distributions of features of {vector.title} in real rows and in samples of {best}. Scores of the hardest: "
        + ", ".join(f"{name} {number(score, 2)}" for name, (_, score) in vector.hardest.items()),
        ("feature", "from", "to", "rows", "share"),
        [
            (title, float(low), float(high), name, float(share))
            for title, own in every.items()
            if own.edges is not None
            for name, shares in own.shares.items()
            for low, high, share in zip(own.edges[:-1], own.edges[1:], shares, strict=True)
        ],
        with_set_legend(panels, {d: d for d in densities}, look, REAL),
        height=HEIGHT,
        columns=min(max(len(panels), 2), 4),
        about=(
            f"Look for lines that leave the grey area of real values. The hardest features for {best} come first, with "
            f"their scores: 1 is equal. {rest} The outermost bins also hold all values beyond them. "
            f"{vector.rows[REAL]} real rows of the reference set and {vector.rows[best]} samples are compared."
            f"{numbered(vector.hardest)}"
        ),
    )


def statistics(vector: Features, densities: tuple[str, ...], look: Mapping[str, Mark]) -> Figure:
    """Plot statistics of features: zeros, sums of rows and variance by mean of amounts, else means and spreads."""
    own = vector.statistics
    panels: list[Panel] = []
    sentences = ["One mark per feature."]
    zeros = vector.totals is not None and float(np.nanmean(own[REAL].zeros)) >= FEWEST_ZEROS
    if zeros:
        panels.append(_scatter("Share of zeros", {d: (own[REAL].zeros, own[d].zeros) for d in densities}, look))
        sentences.append("Features above the diagonal have more zeros than in real rows.")
    if vector.totals is not None:
        panels.append(distribution("Sum of a row (library size)", vector.totals, look, REAL))
        panels.append(_dispersion(own, densities, look))
        sentences.append(
            "Look for sums that vary less than real ones, and for variances below the grey marks of real rows."
        )
    else:
        for title, field in (("Mean", "means"), ("Standard deviation", "variances")):
            root = np.sqrt if field == "variances" else np.asarray
            values = {d: (root(getattr(own[REAL], field)), root(getattr(own[d], field))) for d in densities}
            panels.append(_scatter(title, values, look))
        sentences.append("Look for features off the diagonal.")
    return Figure(
        f"statistics_{vector.key}",
        f"Statistics of the features of {vector.title}",
        f"Statistics of the {vector.features} features of {vector.title}, means over features: "
        + "; ".join(f"{name} {_means(stats)}" for name, stats in own.items()),
        ("rows", "feature", "mean", "variance", "zeros"),
        [
            (name, j + 1, *map(float, values))
            for name, stats in own.items()
            for j, values in enumerate(zip(stats.means, stats.variances, stats.zeros, strict=True))
        ],
        with_set_legend(panels, {d: d for d in densities}, look, REAL),
        height=2.6,
        columns=max(len(panels), 2),
        about=" ".join(sentences),
    )


def _means(own: FeatureStatistics) -> str:
    """The means over features of means, variances and shares of zeros, for the alternative text."""
    parts = {"mean": own.means, "variance": own.variances, "zeros": own.zeros}
    return ", ".join(f"{title} {as_text(float(np.nanmean(values)))}" for title, values in parts.items())


def _scatter(title: str, pairs: Mapping[str, tuple[Floats, Floats]], look: Mapping[str, Mark]) -> Panel:
    """Draw statistics of samples against those of real rows, with the diagonal."""

    def draw(axes: Axes) -> None:
        for name, (real, made) in reversed([*pairs.items()]):
            chosen = _some(len(real))
            axes.plot(real[chosen], made[chosen], look[name].shape, color=look[name].colour, ms=2, alpha=0.5)
        low, high = _ends([values for pair in pairs.values() for values in pair], next(iter(pairs.values()))[0])
        axes.set(xlim=(low, high), ylim=(low, high))
        axes.axline((low, low), slope=1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        _frame(axes, title)
        axes.set(xlabel="real", ylabel="synthetic")

    return draw


def _dispersion(own: Mapping[str, FeatureStatistics], densities: tuple[str, ...], look: Mapping[str, Mark]) -> Panel:
    """Draw the variance of features against their mean, on logarithmic axes."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        names = [*reversed(densities), REAL]
        for name in names:
            stats = own[name]
            chosen = _some(len(stats.means))
            mark = None if name == REAL else look[name]
            colour, shape = (MUTED, "s") if mark is None else (mark.colour, mark.shape)
            axes.plot(stats.means[chosen], stats.variances[chosen], shape, color=colour, ms=2, alpha=0.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for limits, values in ((axes.set_xlim, own[REAL].means), (axes.set_ylim, own[REAL].variances)):
            if len(positive := values[values > 0]):
                limits(float(np.quantile(positive, LEAST)) / 2, 2 * float(positive.max()))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(numticks=5))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        _frame(axes, "Variance against mean")
        axes.set(xlabel="mean", ylabel="variance")

    return draw


def _ends(values: Sequence[Floats], real: Floats) -> tuple[float, float]:
    """Return the ends of axes for statistics of features: they hold all, but do not reach far beyond real ones."""
    low, high = float(np.nanmin(real)), float(np.nanmax(real))
    room = (high - low) or 1.0
    least, most = min(float(np.nanmin(own)) for own in values), max(float(np.nanmax(own)) for own in values)
    return max(least, low - room) - 0.03 * room, min(most, high + room) + 0.03 * room


def _some(features: int) -> np.ndarray:
    """Return the numbers of all features, or of evenly spaced ones of many."""
    return np.unique(np.linspace(0, features - 1, min(features, POINTS)).astype(int))


def _frame(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=8, color=INK)
    axes.tick_params(axis="both", length=0, labelsize=6.5)
    axes.grid(axis="both")
    axes.xaxis.label.set_fontsize(7.5)
    axes.yaxis.label.set_fontsize(7.5)
