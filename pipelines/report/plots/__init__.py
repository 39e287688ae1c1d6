"""The figures of the report, by the question that they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from postprior.pipelines.report.cells import Cells
from postprior.pipelines.report.figures import BASELINE_MARKS, Figure, Mark, density_mark
from postprior.pipelines.report.plots.faithful import faithful
from postprior.pipelines.report.plots.latent import latent_space, reliability
from postprior.pipelines.report.plots.leaks import leaks
from postprior.pipelines.report.plots.tables import tables
from postprior.pipelines.report.plots.useful import useful
from postprior.pipelines.report.results import Results

if TYPE_CHECKING:
    from postprior.pipelines.metrics.latent.code_map import CodeMap


def marks(names: Sequence[str]) -> dict[str, Mark]:
    """Return the mark of each row.

    Densities get marks in the order of `names`, which is that of params.yaml, so that marks do not depend on ranks.
    """
    densities = [name for name in dict.fromkeys(names) if name not in BASELINE_MARKS]
    return BASELINE_MARKS | {name: density_mark(i) for i, name in enumerate(densities)}


def figures(
    results: Results, look: Mapping[str, Mark], points: CodeMap | None = None, cells: Cells | None = None
) -> dict[str, tuple[Figure, ...]]:
    """Return the figures by section of the page; sections without figures are left out."""
    sections = {
        "faithful": faithful(results, look),
        "tables": tables(cells, look),
        "useful": useful(results, look),
        "leaks": leaks(results, look),
        "latent": latent_space(results, points, look),
        "reliability": reliability(results),
    }
    return {name: drawn for name, section in sections.items() if (drawn := tuple(section))}
