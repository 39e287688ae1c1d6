"""Figures of missing cells: how often each column is missing, and which are missing together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from postprior.pipelines.metrics.tables.patterns import Pattern
from postprior.pipelines.report.cells import REAL, Cells
from postprior.pipelines.report.figures import Figure, Mark, Panel, numbered
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.rows import Estimate
from postprior.pipelines.report.wording import percent
from postprior.pipelines.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTED = 20  # columns in the figure of rates
NAMED, LONGEST = 2, 11  # columns of a pattern that are named, and characters of a name
NONE = "nothing"
ROW = "real"  # the row of the leaderboard whose mark real rows have


def missingness(cells: Cells, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield the figures of rates and of patterns; none where no row lacks anything."""
    rates = cells.missing_rates
    if not rates:
        return
    best = cells.densities[0]
    order = sorted(rates, key=lambda name: (-abs(rates[name][best] - rates[name][REAL]), -rates[name][REAL]))
    left_out = len(order) - LISTED
    more = f" {left_out} columns with smaller differences are left out." if left_out > 0 else ""
    yield _figure(
        "missing_rates",
        "How often are cells missing?",
        "column",
        {name: rates[name] for name in order[:LISTED]},
        cells,
        look,
        "Look for marks of a density that lie apart from the square of real rows. Shares of rows that lack the column "
        f"or the modality, those that differ most for {best} first.{more}",
    )
    yield _figure(
        "missing_patterns",
        "What is missing together?",
        "missing",
        {title: pattern.shares for title, pattern in _titled(cells.missing_patterns, cells).items()},
        cells,
        look,
        f"Shares of rows that lack exactly these columns and modalities, the {len(cells.missing_patterns)} commonest "
        "patterns of real rows first. Look for patterns that a density never draws.",
    )


def _titled(patterns: Sequence[Pattern], cells: Cells) -> dict[str, Pattern]:
    """Return patterns by a name: what is missing; equal names get a number."""
    titled: dict[str, Pattern] = {}
    for pattern in patterns:
        names = [shortened(cells.names[part], LONGEST) for part in pattern.missing]
        more = f" + {len(names) - NAMED} more" if len(names) > NAMED else ""
        title = f"{', '.join(names[:NAMED])}{more}" if names else NONE
        number = sum(name == title or name.startswith(f"{title} (") for name in titled)
        titled[f"{title} ({number + 1})" if number else title] = pattern
    return titled


def _figure(
    name: str,
    title: str,
    heading: str,
    shares: Mapping[str, Mapping[str, float]],
    cells: Cells,
    look: Mapping[str, Mark],
    about: str,
) -> Figure:
    """Plot shares by line and set of rows."""
    marks = {row: look[ROW if row == REAL else row] for row in cells.rows}
    best = cells.densities[0]
    return Figure(
        name,
        title,
        f"Share in real rows and in samples of {best}: "
        + ", ".join(f"{line} {percent(own[REAL])} and {percent(own[best])}" for line, own in shares.items()),
        *drawing.tabled(
            ("rows", heading),
            {(row, line): Estimate(share) for line, own in shares.items() for row, share in own.items()},
        ),
        drawing.with_legend([_dots(shares, marks)], marks),
        height=drawing.height_of(len(shares)) + 0.25,
        across=("rows",),
        names={heading: {line: line for line in shares}, "rows": {row: row for row in cells.rows}},
        about=about + numbered(shares),
    )


def _dots(shares: Mapping[str, Mapping[str, float]], marks: Mapping[str, Mark]) -> Panel:
    """Draw the shares of a line beside each other, a mark for each set of rows."""

    def draw(axes: Axes) -> None:
        drawing.marks_by_line(axes, shares, marks)
        greatest = max(share for own in shares.values() for share in own.values())
        axes.set_xlim(-0.03 * greatest, 1.04 * greatest)
        drawing.as_percentages(axes.xaxis, 4)

    return draw
