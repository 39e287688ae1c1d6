"""The figures of the report, by the question that they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from postprior.pipelines.report.figures import OTHER_MARKS, Figure, Mark, density_mark
from postprior.pipelines.report.plots.faithful import faithful
from postprior.pipelines.report.plots.leaks import leaks
from postprior.pipelines.report.plots.space import foundations, space
from postprior.pipelines.report.plots.useful import useful
from postprior.pipelines.report.results import Results

if TYPE_CHECKING:
    from postprior.pipelines.metrics.latent.code_map import CodeMap


def marks(names: Sequence[str]) -> dict[str, Mark]:
    """The mark of every row, in the order given: that of params.yaml, so that marks stay when ranks change."""
    own = [name for name in dict.fromkeys(names) if name not in OTHER_MARKS]
    return OTHER_MARKS | {name: density_mark(i) for i, name in enumerate(own)}


def figures(results: Results, look: Mapping[str, Mark], points: CodeMap | None = None) -> dict[str, tuple[Figure, ...]]:
    """The figures by the section of the page that they stand in, of the sections that have any."""
    found = {
        "faithful": faithful(results, look),
        "useful": useful(results, look),
        "leaks": leaks(results, look),
        "space": space(results, points, look),
        "basis": foundations(results),
    }
    return {name: drawn for name, some in found.items() if (drawn := tuple(some))}
