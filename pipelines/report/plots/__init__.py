"""The figures of the report, by the question that they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postprior.pipelines.report.figures import OTHER_MARKS, Figure, Mark, density_mark
from postprior.pipelines.report.plots.faithful import faithful
from postprior.pipelines.report.plots.leaks import leaks
from postprior.pipelines.report.plots.space import foundations, space
from postprior.pipelines.report.plots.useful import useful
from postprior.pipelines.report.results import Results

if TYPE_CHECKING:
    from postprior.pipelines.metrics.latent.code_map import CodeMap


GROUPS = {
    "faithful": (
        "How faithful",
        "Like real rows one by one, as varied as they are, and with modalities that belong together.",
    ),
    "useful": (
        "How useful",
        "What classifiers learn from synthetic rows, and what densities make of rows that lack something.",
    ),
    "leaks": (
        "What leaks",
        "Whether samples repeat training rows, or give away which rows were trained on. None of these tests is "
        "differential privacy.",
    ),
    "space": (
        "The space of codes",
        "What the autoencoder's codes hold, and how the densities fill their space.",
    ),
    "basis": (
        "What it rests on",
        "The autoencoder, whose decoders every density shares, and the judges that read its images.",
    ),
}


@dataclass(frozen=True)
class Group:
    """Figures that answer one question; `name` is that of its place in the page."""

    name: str
    title: str
    about: str
    figures: tuple[Figure, ...]


def marks(names: Sequence[str]) -> dict[str, Mark]:
    """The mark of every row, in the order given: that of params.yaml, so that marks stay when ranks change."""
    own = [name for name in dict.fromkeys(names) if name not in OTHER_MARKS]
    return OTHER_MARKS | {name: density_mark(i) for i, name in enumerate(own)}


def groups(results: Results, look: Mapping[str, Mark], points: CodeMap | None = None) -> Iterator[Group]:
    """The groups that have figures, in the order of the page."""
    found = {
        "faithful": faithful(results, look),
        "useful": useful(results, look),
        "leaks": leaks(results, look),
        "space": space(results, points, look),
        "basis": foundations(results),
    }
    for name, figures in found.items():
        if drawn := tuple(figures):
            yield Group(name, *GROUPS[name], drawn)
