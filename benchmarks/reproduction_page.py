"""Writes the tables of docs/reproduction.md from the files that benchmarks/reproduction.py writes."""

from __future__ import annotations

import statistics
from typing import Any

from density_page import table
from missing import replace_block
from zoo import ROOT

PAGE = ROOT / "docs/reproduction.md"
MARKS = "<!-- numbers -->", "<!-- /numbers -->"
CONDITIONAL: dict[str, tuple[str, ...]] = {
    "mvtcae": (".59", ".77", ".83", ".86"),
    "mopoe": (".66", ".77", ".81", ".83"),
    "mmvaeplus": (".87 mean",),
    "jnf": (".68", ".85", ".91", ".92"),
    "cmvae": (".90 mean",),
}
"""Published conditional coherence with 1, 2, 3 and 4 observed modalities, or its mean."""
JOINT: dict[str, tuple[str, ...]] = {
    "mvtcae": (".008", ".19", ".47"),
    "mopoe": (".08", ".13", ".27"),
    "mmvaeplus": (".34",),
    "jnf": (".06", ".12", ".38"),
    "cmvae": (".78",),
}
"""Published joint coherence of the prior, a masked flow and a mixture of ten."""
SAMPLERS = ("prior", "masked flow", "mixture of 10", "best")
SIZES = ("1", "2", "3", "4")
LIBRARIES = ("postprior", "multivae")


def cell(scores: list[dict[str, Any] | None]) -> str:
    """Return the mean over seeds, with the interval if there is one seed; nothing without scores."""
    found = [score for score in scores if score is not None]
    if not found:
        return ""
    mean = f"{statistics.mean(score['value'] for score in found):.3f}"
    return mean if len(found) > 1 else f"{mean} ({found[0]['low']:.3f}–{found[0]['high']:.3f})"


def lines(runs: list[dict[str, Any]], key: str, columns: tuple[str, ...], published: dict[str, tuple[str, ...]]) -> Any:
    """Yield, for each model, the published figures and those of each library."""
    for name in published:
        same = [run for run in runs if run["model"] == name]
        if not same:
            continue
        figures = [*published[name], *[""] * len(columns)][: len(columns)]
        yield [f"`{name}`", "published", "", *figures]
        for library in LIBRARIES:
            own = [run for run in same if run["library"] == library]
            if own:
                yield ["", library, str(len(own)), *(cell([run[key].get(column) for run in own]) for column in columns)]


def text(runs: list[dict[str, Any]]) -> str:
    """Return both tables."""
    parts = []
    for title, key, columns, published in (
        ("Conditional coherence, by the number of observed modalities", "conditional", SIZES, CONDITIONAL),
        ("Joint coherence of samples", "joint", SAMPLERS, JOINT),
    ):
        parts.append(f"### {title}\n\n{table(['model', '', 'seeds', *columns], lines(runs, key, columns, published))}")
    budgets = [run["budget"] for run in runs]
    shown = "; ".join(f"{name} {value}" for name, value in budgets[0].items()) if budgets else ""
    return "\n\n".join([*parts, f"Budget: {shown}."])


def write_page(runs: list[dict[str, Any]]) -> None:
    """Replace the tables of the page."""
    replace_block(PAGE, *MARKS, text(runs))
