"""Figures that answer whether synthetic data are faithful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD, Metric
from postprior.pipelines.report.figures import Figure, Mark, Theme
from postprior.pipelines.report.numbers import number
from postprior.pipelines.report.plots.drawing import (
    MISSING,
    grouped,
    height_of,
    height_of_groups,
    lines,
    point,
    reach,
    said,
    scale,
    score,
    with_legend,
    written,
)
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Looks = Mapping[str, Mark]

COHERENCE = ("joint_coherence", "pairwise_coherence", "label_entropy", "label_agreement")
PAIRINGS = ("pairing_auc", "incoherence", "canonical_preservation")
CONDITIONAL = {  # the title of a panel, by key in a row's scores
    "conditional_coherence": "Share that shows the row's label",
    "conditional_gain": "Difference to the plain posterior",
    "private_gain": "What private codes drawn given the others add",
}


def faithful(results: Results, look: Looks) -> Iterator[Figure]:
    """The figures, the most telling first."""
    yield from trade_off(results, look)
    yield from by_modality(results, look)
    yield from scores(
        "fidelity",
        "Likeness to real rows, in the judges' features",
        [m for m in LEADERBOARD if m.question == "faithful" and m.key not in COHERENCE + PAIRINGS],
        results,
        look,
    )
    yield from scores(
        "coherence",
        "Do the modalities of a sample belong together? By their labels",
        _named(COHERENCE),
        results,
        look,
    )
    yield from scores(
        "pairings", "Do they belong together? Without any label", _named(PAIRINGS), results, look
    )
    yield from conditional(results, look)


def _named(keys: Sequence[str]) -> list[Metric]:
    return [metric for metric in LEADERBOARD if metric.key in keys]


def trade_off(results: Results, look: Looks) -> Iterator[Figure]:
    """Joint coherence against Frechet distance: the two headline scores at once."""
    points = [
        (row, row.estimate("frechet_distance"), row.estimate("joint_coherence")) for row in results.rows
    ]
    complete = [(row, x, y) for row, x, y in points if x and y]
    if not complete:
        return

    def draw(axes: Axes, theme: Theme) -> None:
        for row, x, y in complete:
            mark = look[row.name]
            point(axes, x, y.value, mark, theme, size=7)
            axes.errorbar(x.value, y.value, reach([y]), color=mark.colour_in(theme), elinewidth=1.4)
        scale(axes, [x for _, x, _ in complete])
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="both")
        axes.set(xlabel="Frechet distance: nearer to real is to the left", ylabel="Joint coherence")

    yield Figure(
        "trade_off",
        "Coherent and real at once: up and left is better",
        "Joint coherence against Frechet distance: "
        + "; ".join(f"{row.title} {y.value:.3f} at {x.value:.2f}" for row, x, y in complete),
        ("score", "row", *INTERVAL),
        [
            (key, row.title, *written(e))
            for row, *both in complete
            for key, e in zip(HEADLINES[::-1], both, strict=True)
        ],
        with_legend([draw], {row.title: look[row.name] for row, _, _ in complete}),
        height=3.1 + 0.08 * len(complete),
        across=("score",),
    )


def by_modality(results: Results, look: Looks) -> Iterator[Figure]:
    """The Frechet distance of every row in every modality."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.scores.get("modalities", {})))
    values = {
        row: [row.estimate("modalities", name, "frechet_distance") or MISSING for name in names]
        for row in results.rows
    }
    if all(estimate is MISSING for estimates in values.values() for estimate in estimates):
        return
    best = results.densities[0]
    yield Figure(
        "frechet_by_modality",
        "Frechet distance in each modality",
        f"Frechet distance by modality; {best.title}: {said(dict(zip(names, values[best], strict=True)), 2)}",
        ("row", "modality", *INTERVAL),
        [
            (row.title, name, *written(estimate))
            for row, estimates in values.items()
            for name, estimate in zip(names, estimates, strict=True)
        ],
        with_legend([grouped("", names, values, look)], {row.title: look[row.name] for row in values}),
        height=max(3.6, height_of_groups(names, len(values))),
        across=("modality",),
    )


def scores(
    name: str, title: str, metrics: Sequence[Metric], results: Results, look: Looks
) -> Iterator[Figure]:
    """Scores of every row, a panel each; those that no row has are left out."""
    found = {
        metric: {row: estimate for row in results.rows if (estimate := row.estimate(*metric.keys))}
        for metric in metrics
    }
    shown = {metric: estimates for metric, estimates in found.items() if estimates}
    if not shown:
        return
    yield Figure(
        name,
        title,
        "; ".join(
            f"{metric.title}: " + said({row.title: e for row, e in estimates.items()}, metric.decimals)
            for metric, estimates in shown.items()
        ),
        ("score", "row", *INTERVAL),
        [
            (metric.key, row.title, *written(estimate))
            for metric, estimates in shown.items()
            for row, estimate in estimates.items()
        ],
        [score(metric, results.rows, look) for metric in shown],
        height=height_of(len(results.rows)),
        columns=side_by_side(len(shown)),
        across=("score",),
        aligned=True,
    )


def side_by_side(panels: int) -> int:
    """Panels side by side that leave the fewest places empty, the more the better."""
    return min((5, 4, 3), key=lambda columns: -panels % columns)


def conditional(results: Results, look: Looks) -> Iterator[Figure]:
    """Modalities generated from others, by how many are observed: by the plain posterior, and through each density."""
    found = {
        key: {row: some for row in (*results.densities, results.posterior) if (some := row.by_size(key))}
        for key in CONDITIONAL
    }
    shown = {key: values for key, values in found.items() if values}
    if not shown:
        return
    sizes = sorted({size for values in shown.values() for found in values.values() for size in found})
    rows = list(dict.fromkeys(row for values in shown.values() for row in values))
    panels = [
        lines(
            CONDITIONAL[key],
            sizes,
            {row.title: [found.get(size, MISSING) for size in sizes] for row, found in values.items()},
            [look[row.name] for row in values],
            "observed modalities",
            None if key == "conditional_coherence" else 0.0,
        )
        for key, values in shown.items()
    ]
    yield Figure(
        "conditional",
        "Modalities generated from those observed",
        "; ".join(
            f"{CONDITIONAL[key]}, from {sizes[0]} to {sizes[-1]} observed modalities: {row.title} "
            + ", ".join(number(estimate.value, 3) for estimate in found.values())
            for key, values in shown.items()
            for row, found in values.items()
        ),
        ("score", "row", "observed", *INTERVAL),
        [
            (key, row.title, size, *written(estimate))
            for key, values in shown.items()
            for row, found in values.items()
            for size, estimate in found.items()
        ],
        with_legend(panels, {row.title: look[row.name] for row in rows}),
        height=3.0,
        columns=max(len(panels), 2),
        across=("observed",),
        about=(
            "Missing modalities of held-out rows, generated from those observed. The plain posterior is the "
            "autoencoder's own, under its prior; a density in its place chooses among draws of it, and draws private "
            "codes where there are any. Differences are paired: the same rows, observed modalities and posterior draws."
        ),
    )
