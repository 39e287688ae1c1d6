"""Figures of the columns of tables: the score of every column, and the distributions of the hardest ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from postprior.pipelines.report.cells import HARDEST, REAL, Cells, Column
from postprior.pipelines.report.figures import Figure, Mark, Panel, numbered
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.plots.distributions import HEIGHT, class_shares, distribution, with_set_legend
from postprior.pipelines.report.rows import TITLES, Estimate
from postprior.pipelines.report.wording import as_text, number, percent
from postprior.pipelines.texts import enumerated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTED, FEW = 20, 6  # columns in the figure of scores, and up to which it has one panel
HELD_OUT = "real"  # the row of the leaderboard with other real rows
RARE = 0.005  # difference of shares that the alternative text does not tell


def columns(cells: Cells, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield the figure of scores and the figure of distributions; none without tables."""
    if cells.columns:
        yield scores(cells, look)
        yield distributions(cells, look)


def scores(cells: Cells, look: Mapping[str, Mark]) -> Figure:
    """Plot the score of each of the hardest columns for real held-out rows and each density."""
    shown, rest = cells.columns[:LISTED], cells.columns[LISTED:]
    rows = {HELD_OUT: TITLES[HELD_OUT], **{name: name for name in cells.densities}}
    best = cells.densities[0]
    own = {column.title: {row: column.shapes[row] for row in rows if row in column.shapes} for column in shown}
    others = [column.shapes[best] for column in rest if best in column.shapes]
    hidden = f" Not drawn: {enumerated(cells.not_shown)}." if cells.not_shown else ""
    more = f" The other {len(rest)} columns have {number(min(others), 2)} or more for {best}." if others else ""
    marks = {title: look[row] for row, title in rows.items()}
    half = -(-len(own) // 2) if len(own) > FEW else len(own)
    parts = [dict(list(own.items())[start : start + half]) for start in range(0, len(own), half)]
    lowest = min((value for values in own.values() for value in values.values()), default=0.0)
    return Figure(
        "column_shapes",
        "Similarity of the distribution of each column, the hardest first",
        f"Score of each column for {best}: "
        + ", ".join(f"{title} {number(values[best], 2)}" for title, values in own.items() if best in values),
        *drawing.tabled(
            ("row", "column"),
            {(rows[row], title): Estimate(value) for title, values in own.items() for row, value in values.items()},
        ),
        drawing.with_legend([_dots(part, look, lowest) for part in parts], marks),
        height=drawing.height_of(half) + 0.25,
        columns=len(parts),
        across=("row",),
        names={"column": {column.title: column.title for column in shown}},
        about=(
            "Look for columns whose marks lie far left of those of real held-out rows: their synthetic values are "
            "distributed differently. 1 is equal; see column shapes under Method."
            f"{more}{hidden}{numbered(column.title for column in shown)}"
        ),
    )


def distributions(cells: Cells, look: Mapping[str, Mark]) -> Figure:
    """Plot the distributions of the hardest columns."""
    shown = [column for column in cells.columns if column.marginal is not None]
    best, left_out = cells.densities[0], len(cells.columns) - len(shown)
    sentences = [
        f"The {HARDEST} hardest of {len(cells.columns)} columns." if left_out else "All columns, the hardest first.",
        "Look for lines that leave the grey area of real values, and for marks that are not at the ends of the bars.",
        f"The number is the score of {best}. The outermost bins also hold all values beyond them.",
        f"{cells.rows[REAL]} real rows of the reference set and {cells.rows[best]} samples of {best} are compared.",
    ]
    return Figure(
        "columns",
        "Real and synthetic values of each column",
        f"Distributions in real rows and in samples of {best}: "
        + "; ".join(_described(column, best) for column in shown),
        ("column", "from", "to", "class", "rows", "share"),
        [line for column in shown for line in _lines(column)],
        with_set_legend([_panel(column, best, look) for column in shown], {d: d for d in cells.densities}, look, REAL),
        height=HEIGHT,
        columns=min(max(len(shown), 2), 4),
        about=" ".join(sentences) + numbered(column.title for column in shown),
    )


def _panel(column: Column, best: str, look: Mapping[str, Mark]) -> Panel:
    assert column.marginal is not None
    score = column.shapes.get(best)
    if column.marginal.edges is None:
        return class_shares(column.title, column.marginal, column.texts, look, REAL, score)
    return distribution(column.title, column.marginal, look, REAL, score, column.ticks)


def _lines(column: Column) -> Iterator[tuple[object, ...]]:
    """Yield the lines of the table: ends of a bin or a class, the set of rows, and its share."""
    marginal = column.marginal
    assert marginal is not None
    for name, shares in marginal.shares.items():
        if marginal.edges is not None:
            for low, high, share in zip(marginal.edges[:-1], marginal.edges[1:], shares, strict=True):
                yield column.title, float(low), float(high), None, name, float(share)
        else:
            texts = [*column.texts, *([f"{marginal.others} more"] if marginal.others else [])]
            for text, share in zip(texts, shares, strict=True):
                yield column.title, None, None, text, name, float(share)


def _described(column: Column, best: str) -> str:
    """Describe the greatest difference between two distributions for readers who do not see them."""
    marginal = column.marginal
    assert marginal is not None
    real, made = marginal.shares[REAL], marginal.shares[best]
    if not len(real) or not abs(made - real).max() > RARE:
        return f"{column.title} hardly differs"
    place = int(abs(made - real).argmax())
    if marginal.edges is not None:
        where = f"from {as_text(float(marginal.edges[place]))} to {as_text(float(marginal.edges[place + 1]))}"
    else:
        where = column.texts[place] if place < len(column.texts) else f"{marginal.others} more classes"
    return f"{column.title} differs most in {where}, {percent(float(real[place]))} and {percent(float(made[place]))}"


def _dots(values: Mapping[str, Mapping[str, float]], look: Mapping[str, Mark], lowest: float) -> Panel:
    """Draw the scores of a column on one line, a mark for each row of the leaderboard; `values` are by column."""

    def draw(axes: Axes) -> None:
        drawing.marks_by_line(axes, values, look)
        axes.set_xlim(max(lowest - 0.05, 0), 1.0)

    return draw
