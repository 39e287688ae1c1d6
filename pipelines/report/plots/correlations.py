"""The figure of the associations of columns: real rows, samples, and the differences between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.report.cells import REAL, Associations, Cells
from postprior.pipelines.report.figures import COLOURS, GRID, INK, MUTED, Figure, Panel, drawable, numbered
from postprior.pipelines.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WRITTEN = 7  # columns up to which numbers stand in the cells
CELL, LABELS = 0.13, 1.25  # inches of a cell, and of the names below a panel
ENDS, LEVELS = 1.0, 21  # limits and number of the colours: each tenth has its own
WEAK, STRONG = COLOURS[1], COLOURS[0]  # of −1 and 1: people with colour blindness can distinguish them
SCALE = [(0, WEAK), (0.5, f"{WEAK}00"), (0.5, f"{STRONG}00"), (1, STRONG)]  # the paper shows through at 0


def correlations(cells: Cells) -> Iterator[Figure]:
    """Yield one figure: a matrix of associations per set of rows, and those of the differences."""
    found = cells.associations
    if found is None:
        return
    best = cells.densities[0]
    apart = {name: found.matrices[name] - found.matrices[REAL] for name in cells.densities}
    panels = {REAL: found.matrices[REAL], best: found.matrices[best]}
    panels |= {f"{name} − {REAL.lower()}": matrix for name, matrix in apart.items()}
    size = len(found.titles)
    yield Figure(
        "associations",
        "Do columns hang together as in real rows?",
        _described(found, best, apart[best]),
        ("rows", "column", "other", "association"),
        list(_lines(found)),
        _with_scale([_panel(title, matrix, found.titles) for title, matrix in panels.items()]),
        height=max(2.4, LABELS + CELL * size),
        columns=3,
        aligned=True,
        about=(
            "Look for colour in the differences: those columns hang together more (blue) or less (orange) than in real "
            "rows. Pairs of numbers have Pearson's correlation, all others Cramér's V, which is at least 0 and higher "
            f"by chance with few rows.{_left_out(found)}{numbered(found.titles)}"
        ),
    )


def _left_out(found: Associations) -> str:
    if not found.left_out:
        return ""
    most = f"the {len(found.titles)} columns whose associations differ most"
    return f" These are {most}; {found.left_out} others are left out."


def _described(found: Associations, best: str, apart: Floats) -> str:
    """Name the pair of columns whose association differs most."""
    known = np.nan_to_num(np.abs(apart))
    m, n = np.unravel_index(int(known.argmax()), known.shape)
    real, made = (number(float(found.matrices[name][m, n]), 2) for name in (REAL, best))
    return (
        f"Associations of {len(found.titles)} columns. The largest difference of {best} to real rows is that of "
        f"{found.titles[m]} and {found.titles[n]}: {made}, {real} in real rows."
    )


def _lines(found: Associations) -> Iterator[tuple[object, ...]]:
    for name, matrix in found.matrices.items():
        for m, n in zip(*np.triu_indices(len(found.titles), 1), strict=True):
            value = float(matrix[m, n])
            yield name, found.titles[m], found.titles[n], value if value == value else None


def _panel(title: str, matrix: Floats, titles: Sequence[str]) -> Panel:
    shown = list(drawable(titles).values())

    def draw(axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("associations", SCALE, LEVELS, bad=GRID)
        axes.imshow(np.ma.masked_invalid(matrix), cmap=colours, vmin=-ENDS, vmax=ENDS, aspect="auto")
        size = 7.5 if len(shown) <= 12 else 5.5
        axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(len(shown)), shown, fontsize=size)
        axes.tick_params(axis="both", length=0)
        axes.tick_params(axis="x", labelcolor=INK)
        axes.grid(visible=False)
        axes.set_title(drawable([title])[title], loc="left", fontsize=8.5, color=INK)
        for (m, n), value in np.ndenumerate(matrix) if len(shown) <= WRITTEN else ():
            if value == value:
                axes.text(n, m, number(float(value), 2), ha="center", va="center", fontsize=6, color=INK)

    return draw


def _with_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Add the scale of the colours below the whole figure; the last panel draws it."""

    def draw(axes: Axes) -> None:
        panels[-1](axes)
        canvas = axes.get_figure(root=True)
        if canvas is None:
            return
        every: Any = [drawn for drawn in canvas.axes if drawn.get_images()]
        scale = canvas.colorbar(
            axes.get_images()[0], ax=every, location="bottom", fraction=0.03, aspect=45, shrink=0.5, ticks=[-1, 0, 1]
        )
        scale.ax.tick_params(length=0, labelsize=6.5, labelcolor=MUTED)
        scale.outline.set_visible(False)

    return [*panels[:-1], draw]
