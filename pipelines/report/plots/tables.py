"""Figures on the cells of tables and vectors, real beside synthetic."""

from collections.abc import Iterator, Mapping

from postprior.pipelines.report.cells import Cells
from postprior.pipelines.report.figures import Figure, Mark
from postprior.pipelines.report.plots.columns import columns
from postprior.pipelines.report.plots.correlations import correlations
from postprior.pipelines.report.plots.missingness import missingness
from postprior.pipelines.report.plots.vectors import vectors


def tables(cells: Cells | None, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield the figures; none without tables and vectors."""
    if cells is not None:
        yield from columns(cells, look)
        yield from correlations(cells)
        yield from missingness(cells, look)
        yield from vectors(cells, look)
