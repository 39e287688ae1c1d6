"""Figures on the question whether synthetic data is faithful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from postprior.pipelines.metrics.registry import LEADERBOARD, of_family
from postprior.pipelines.report.figures import Figure, Mark, numbered
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import MISSING, estimates
from postprior.pipelines.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Looks = Mapping[str, Mark]

SCORES = {  # title of a figure, groups of leaderboard columns that it shows, and caption, by name of the figure
    "fidelity": (
        "Similarity to real rows, in the features of the evaluators",
        ("Distance", "Overlap"),
        "Arrows show whether higher or lower is better.",
    ),
    "coherence": (
        "Do the modalities of a sample belong together? Measured with labels",
        ("Coherence",),
        "The label classifiers predict the label of each modality of a sample. Higher is better.",
    ),
    "pairings": (
        "Do the modalities of a sample belong together? Measured without labels",
        ("Pairing",),
        "The pairing AUC should be close to that of real rows. Arrows show whether higher or lower is better.",
    ),
    "tables": (
        "Similarity to real rows, in the cells of tables and vectors",
        ("Tables",),
        "Arrows show whether higher or lower is better. Values of real held-out rows are the target.",
    ),
}
TRADE_OFF = ("frechet_distance", "joint_coherence")
TITLES = {metric.key: metric.title for metric in LEADERBOARD}
CONDITIONAL = {
    key: of_family("coherence")[key] for key in ("conditional_coherence", "conditional_gain", "private_gain")
}


def faithful(results: Results, look: Looks) -> Iterator[Figure]:
    """Yield the figures, the most important first."""
    yield from trade_off(results, look)
    yield from by_modality(results, look)
    for name in SCORES:
        yield from scores(name, results, look)
    yield from conditional(results, look)


def trade_off(results: Results, look: Looks) -> Iterator[Figure]:
    """Plot joint coherence against Frechet distance."""
    points = {row: [row.estimate(key) for key in TRADE_OFF] for row in results.rows}
    complete = [(row, x, y) for row, (x, y) in points.items() if x and y]
    if not complete:
        return

    def draw(axes: Axes) -> None:
        for row, x, y in complete:
            mark = look[row.name]
            drawing.point(axes, x, y.value, mark, size=7)
            axes.errorbar(x.value, y.value, drawing.error_bars([y]), color=mark.colour, elinewidth=1.4)
        drawing.scale(axes, [x for _, x, _ in complete])
        axes.set_ylim(-0.03, 1.03)
        axes.grid(axis="both")
        axes.set(xlabel="Frechet distance to real rows (lower is better)", ylabel="Joint coherence (higher is better)")

    yield Figure(
        "trade_off",
        "Coherence and distance: top left is best",
        "Joint coherence against Frechet distance: "
        + "; ".join(f"{row.title} {y.value:.3f} at {x.value:.2f}" for row, x, y in complete),
        *drawing.tabled(
            ("score", "row"),
            {(key, row.title): e for row, *both in complete for key, e in zip(TRADE_OFF, both, strict=True)},
        ),
        drawing.with_legend([draw], drawing.marked((row for row, _, _ in complete), look)),
        height=3.1 + 0.08 * len(complete),
        across=("score",),
        names={"score": TITLES},
        about=f"One mark per row of the table. {drawing.INTERVALS}",
    )


def by_modality(results: Results, look: Looks) -> Iterator[Figure]:
    """Plot the Frechet distance of each row in each modality."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.scores.get("modalities", {})))
    values = {
        row: {name: row.estimate("modalities", name, "frechet_distance") or MISSING for name in names}
        for row in results.rows
    }
    if all(estimate is MISSING for by_name in values.values() for estimate in by_name.values()):
        return
    best = results.densities[0]
    yield Figure(
        "frechet_by_modality",
        "Frechet distance per modality",
        f"Frechet distance by modality; {best.title}: {drawing.values_as_text(values[best], 2)}",
        *drawing.tabled(
            ("row", "modality"),
            {(row.title, name): e for row, by_name in values.items() for name, e in by_name.items()},
        ),
        drawing.with_legend([drawing.grouped("", names, values, look)], drawing.marked(values, look)),
        height=max(3.6, drawing.height_of_groups(names, len(values))),
        across=("modality",),
        names={"modality": {name: name for name in names}},
        about=f"Lower is better. {drawing.INTERVALS}{numbered(names)}",
    )


def scores(name: str, results: Results, look: Looks) -> Iterator[Figure]:
    """Plot scores of all rows, one panel per score; scores that no row has are left out."""
    title, groups, about = SCORES[name]
    panels = [
        drawing.DotPanel(
            (metric.key,),
            metric.heading,
            {row.title: estimate for row, estimate in by_row.items()},
            metric.title,
            metric.decimals,
            (-0.03, 1.03) if metric.share else None,
        )
        for metric in LEADERBOARD
        if metric.group in groups and (by_row := estimates(results.rows, *metric.keys))
    ]
    if panels:
        yield drawing.dotted(
            name,
            title,
            ("score", "row"),
            panels,
            drawing.marked(results.rows, look),
            columns=min((5, 4, 3), key=lambda columns: -len(panels) % columns),  # leaves the fewest empty places
            names={"score": TITLES},
            about=f"{about} {drawing.INTERVALS}",
        )


def conditional(results: Results, look: Looks) -> Iterator[Figure]:
    """Plot scores of conditional generation by number of observed modalities, per density and for the posterior."""
    rows = (*results.densities, results.posterior)
    values = {key: {row: by_size for row in rows if (by_size := row.by_size(key))} for key in CONDITIONAL}
    shown = {key: by_row for key, by_row in values.items() if by_row}
    if not shown:
        return
    cells = {
        (key, row.title, size): e
        for key, by_row in shown.items()
        for row, by_size in by_row.items()
        for size, e in by_size.items()
    }
    sizes = sorted({size for _, _, size in cells})
    looks = drawing.marked(dict.fromkeys(row for by_row in shown.values() for row in by_row), look)
    panels = [
        drawing.lines(
            CONDITIONAL[key].title,
            sizes,
            {row.title: [by_size.get(size, MISSING) for size in sizes] for row, by_size in by_row.items()},
            looks,
            "number of observed modalities",
            None if CONDITIONAL[key].share else 0.0,
        )
        for key, by_row in shown.items()
    ]
    yield Figure(
        "conditional",
        "Conditional generation",
        "; ".join(
            f"{CONDITIONAL[key].title}, from {sizes[0]} to {sizes[-1]} observed modalities: {row.title} "
            + ", ".join(number(estimate.value, 3) for estimate in by_size.values())
            for key, by_row in shown.items()
            for row, by_size in by_row.items()
        ),
        *drawing.tabled(("score", "row", "observed"), cells),
        drawing.with_legend(panels, looks),
        height=3.0,
        columns=max(len(panels), 2),
        across=("observed",),
        names={
            "score": {key: metric.title for key, metric in CONDITIONAL.items()},
            "observed": {size: f"{size} given" for size in sizes},
        },
        about=(
            "Missing modalities of held-out rows are generated from the observed ones. The plain posterior is "
            "that of the autoencoder with its own prior. A density reweights draws from this posterior, and draws the "
            "private codes if the model has any. Differences are paired: they use the same rows, observed modalities "
            f"and posterior draws. Higher is better. {drawing.INTERVALS}"
        ),
    )
