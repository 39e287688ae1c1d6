"""Figures that answer whether synthetic data are faithful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD, of_family
from postprior.pipelines.report.figures import Figure, Mark, Theme
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import MISSING, estimates
from postprior.pipelines.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Looks = Mapping[str, Mark]

SCORES = {  # the title of a figure and the groups of columns that it shows, by its name
    "fidelity": ("Likeness to real rows, in the evaluators' features", ("Distance", "Overlap")),
    "coherence": ("Do the modalities of a sample belong together? By their labels", ("Coherence",)),
    "pairings": ("Do they belong together? Without any label", ("Pairing",)),
}
CONDITIONAL = {
    key: of_family("coherence")[key] for key in ("conditional_coherence", "conditional_gain", "private_gain")
}


def faithful(results: Results, look: Looks) -> Iterator[Figure]:
    """The figures, the most telling first."""
    yield from trade_off(results, look)
    yield from by_modality(results, look)
    for name in SCORES:
        yield from scores(name, results, look)
    yield from conditional(results, look)


def trade_off(results: Results, look: Looks) -> Iterator[Figure]:
    """Joint coherence against Frechet distance: the two headline scores at once."""
    points = {row: [row.estimate(key) for key in reversed(HEADLINES)] for row in results.rows}
    complete = [(row, x, y) for row, (x, y) in points.items() if x and y]
    if not complete:
        return

    def draw(axes: Axes, theme: Theme) -> None:
        for row, x, y in complete:
            mark = look[row.name]
            drawing.point(axes, x, y.value, mark, theme, size=7)
            axes.errorbar(x.value, y.value, drawing.reach([y]), color=mark.colour_in(theme), elinewidth=1.4)
        drawing.scale(axes, [x for _, x, _ in complete])
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="both")
        axes.set(xlabel="Frechet distance: nearer to real is to the left", ylabel="Joint coherence")

    yield Figure(
        "trade_off",
        "Coherent and real at once: up and left is better",
        "Joint coherence against Frechet distance: "
        + "; ".join(f"{row.title} {y.value:.3f} at {x.value:.2f}" for row, x, y in complete),
        *drawing.tabled(
            ("score", "row"),
            {(key, row.title): e for row, *both in complete for key, e in zip(reversed(HEADLINES), both, strict=True)},
        ),
        drawing.with_legend([draw], drawing.marked((row for row, _, _ in complete), look)),
        height=3.1 + 0.08 * len(complete),
        across=("score",),
    )


def by_modality(results: Results, look: Looks) -> Iterator[Figure]:
    """The Frechet distance of every row in every modality."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.scores.get("modalities", {})))
    values = {
        row: {name: row.estimate("modalities", name, "frechet_distance") or MISSING for name in names}
        for row in results.rows
    }
    if all(estimate is MISSING for found in values.values() for estimate in found.values()):
        return
    best = results.densities[0]
    yield Figure(
        "frechet_by_modality",
        "Frechet distance in each modality",
        f"Frechet distance by modality; {best.title}: {drawing.said(values[best], 2)}",
        *drawing.tabled(
            ("row", "modality"), {(row.title, name): e for row, found in values.items() for name, e in found.items()}
        ),
        drawing.with_legend([drawing.grouped("", names, values, look)], drawing.marked(values, look)),
        height=max(3.6, drawing.height_of_groups(names, len(values))),
        across=("modality",),
    )


def scores(name: str, results: Results, look: Looks) -> Iterator[Figure]:
    """Scores of every row, a panel each; those that no row has are left out."""
    title, groups = SCORES[name]
    parts = [
        drawing.Part(
            (metric.key,),
            metric.heading,
            {row.title: estimate for row, estimate in found.items()},
            metric.title,
            metric.decimals,
            (-0.03, 1.03) if metric.share else None,
        )
        for metric in LEADERBOARD
        if metric.group in groups and (found := estimates(results.rows, *metric.keys))
    ]
    if parts:
        yield drawing.dotted(
            name,
            title,
            ("score", "row"),
            parts,
            drawing.marked(results.rows, look),
            columns=min((5, 4, 3), key=lambda columns: -len(parts) % columns),  # the fewest places are empty
        )


def conditional(results: Results, look: Looks) -> Iterator[Figure]:
    """Modalities generated from others, by how many are observed: by the plain posterior, and through each density."""
    rows = (*results.densities, results.posterior)
    found = {key: {row: some for row in rows if (some := row.by_size(key))} for key in CONDITIONAL}
    shown = {key: values for key, values in found.items() if values}
    if not shown:
        return
    every = {
        (key, row.title, size): e
        for key, values in shown.items()
        for row, some in values.items()
        for size, e in some.items()
    }
    sizes = sorted({size for _, _, size in every})
    looks = drawing.marked(dict.fromkeys(row for values in shown.values() for row in values), look)
    panels = [
        drawing.lines(
            CONDITIONAL[key].title,
            sizes,
            {row.title: [some.get(size, MISSING) for size in sizes] for row, some in values.items()},
            looks,
            "observed modalities",
            None if CONDITIONAL[key].share else 0.0,
        )
        for key, values in shown.items()
    ]
    yield Figure(
        "conditional",
        "Modalities generated from those observed",
        "; ".join(
            f"{CONDITIONAL[key].title}, from {sizes[0]} to {sizes[-1]} observed modalities: {row.title} "
            + ", ".join(number(estimate.value, 3) for estimate in some.values())
            for key, values in shown.items()
            for row, some in values.items()
        ),
        *drawing.tabled(("score", "row", "observed"), every),
        drawing.with_legend(panels, looks),
        height=3.0,
        columns=max(len(panels), 2),
        across=("observed",),
        about=(
            "Missing modalities of held-out rows, generated from those observed. The plain posterior is the "
            "autoencoder's own, under its prior; a density in its place chooses among draws of it, and draws private "
            "codes where there are any. Differences are paired: the same rows, observed modalities and posterior draws."
        ),
    )
