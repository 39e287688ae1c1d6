"""The figures of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.report.figures import DENSITY_MARKS, OTHER_MARKS, Figure, Mark, Theme
from pipelines.report.results import METRICS, Estimate, Metric, Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 10.0  # a range of so many times its lower end is drawn on a logarithmic axis
INTERVAL = ("value", "low", "high")
CONDITIONAL = (  # key, title and first words of the alternative text
    (
        "conditional_coherence",
        "Modalities generated from those observed",
        "Share of generated modalities that show the row's label, from",
    ),
    (
        "conditional_gain",
        "What each density adds to the plain posterior",
        "Difference of that share to the plain posterior's, from",
    ),
    (
        "private_gain",
        "What private codes drawn given the others add",
        "Difference of that share to that with private codes from the prior, from",
    ),
)


def marks(densities: Sequence[str]) -> dict[str, Mark]:
    """The mark of every row; densities take theirs in the order of params.yaml, so that it stays when ranks change."""
    return OTHER_MARKS | {name: DENSITY_MARKS[i % len(DENSITY_MARKS)] for i, name in enumerate(densities)}


def comparison(results: Results, look: dict[str, Mark]) -> Iterator[Figure]:
    """Figures that set the rows against one another, the most telling first."""
    yield trade_off(results, look)
    yield by_modality(results, look)
    for metric in METRICS:
        estimates = [(row, row.estimate(metric.key)) for row in results.rows]
        yield scores(metric, [(row, estimate) for row, estimate in estimates if estimate], look)


def conditional(results: Results, look: dict[str, Mark]) -> Iterator[Figure]:
    """Figures of modalities that are generated from others: the plain posterior, and through each density."""
    for key, title, alt in CONDITIONAL:
        rows = (*results.densities, results.posterior)
        shown = {row: found for row in rows if (found := row.by_size(key))}
        if shown:
            yield by_observed(key, title, alt, shown, look)


def foundations(results: Results) -> Iterator[Figure]:
    """Figures of what the comparison rests on: the autoencoder and the judges."""
    if results.training:
        yield training(results.training)
    if by_name := results.judges.get("modalities"):
        yield judges({name: Estimate.of(value.get("accuracy")) for name, value in by_name.items()})


def trade_off(results: Results, look: dict[str, Mark]) -> Figure:
    """Joint coherence against Frechet distance: the two headline scores at once."""
    points = [
        (row, row.estimate("frechet_distance"), row.estimate("joint_coherence")) for row in results.rows
    ]
    complete = [(row, x, y) for row, x, y in points if x and y]

    def draw(axes: Axes, theme: Theme) -> None:
        for row, x, y in complete:
            colour = look[row.name].colour_in(theme)
            axes.errorbar(
                x.value,
                y.value,
                _reach(y),
                _reach(x),
                fmt=look[row.name].shape,
                color=colour,
                ms=7,
                elinewidth=1.2,
                label=row.title,
            )
        _scale(axes, [x for _, x, _ in complete])
        axes.set_ylim(-0.03, 1.03)
        _legend(axes, -0.2)
        axes.grid(axis="both")
        axes.set(xlabel="Frechet distance: nearer to real is to the left", ylabel="Joint coherence")

    return Figure(
        "trade_off",
        "Coherent and real at once: up and left is better",
        "Joint coherence against Frechet distance: "
        + "; ".join(f"{row.title} {y.value:.3f} at {x.value:.2f}" for row, x, y in complete),
        (
            "row",
            *(f"frechet_distance_{part}" for part in INTERVAL),
            *(f"joint_coherence_{part}" for part in INTERVAL),
        ),
        [(row.name, x.value, x.low, x.high, y.value, y.low, y.high) for row, x, y in complete],
        draw,
        height=3.8,
    )


def scores(metric: Metric, estimates: Sequence[tuple[Row, Estimate]], look: dict[str, Mark]) -> Figure:
    """One score of every row, with its interval."""

    def draw(axes: Axes, theme: Theme) -> None:
        colours = [look[row.name].colour_in(theme) for row, _ in estimates]
        shapes = [look[row.name].shape for row, _ in estimates]
        _dots(
            axes,
            theme,
            [row.title for row, _ in estimates],
            [e for _, e in estimates],
            colours,
            shapes,
            metric.decimals,
        )
        if metric.share:
            axes.set_xlim(-0.02, 1.02)
        else:
            _scale(axes, [estimate for _, estimate in estimates])

    better = {"higher": "higher is better", "lower": "lower is better"}.get(metric.better, "")
    return Figure(
        metric.key,
        f"{metric.title}: {better}",
        f"{metric.title}, {metric.about}: " + _said(estimates, metric.decimals),
        ("row", *INTERVAL),
        [(row.name, e.value, e.low, e.high) for row, e in estimates],
        draw,
        height=0.75 + 0.29 * len(estimates),
    )


def by_modality(results: Results, look: dict[str, Mark]) -> Figure:
    """The Frechet distance of every row in every modality."""
    names = list(results.row("normal").scores.get("modalities", {}))
    values = {
        row: [
            row.estimate("modalities", name, "frechet_distance") or Estimate(float("nan")) for name in names
        ]
        for row in results.rows
    }

    def draw(axes: Axes, theme: Theme) -> None:
        _groups(axes, theme, names, values, look)
        _scale(axes, [estimate for estimates in values.values() for estimate in estimates])

    best = results.densities[0]
    return Figure(
        "frechet_by_modality",
        "Frechet distance in each modality",
        f"Frechet distance by modality; {best.title}: "
        + ", ".join(
            f"{name} {estimate.value:.2f}" for name, estimate in zip(names, values[best], strict=True)
        ),
        ("row", "modality", *INTERVAL),
        [
            (row.name, name, e.value, e.low, e.high)
            for row, estimates in values.items()
            for name, e in zip(names, estimates, strict=True)
        ],
        draw,
        height=_height(names, values),
    )


def by_observed(
    key: str, title: str, alt: str, values: dict[Row, dict[int, Estimate]], look: dict[str, Mark]
) -> Figure:
    """A score of what is generated from other modalities, by how many of them are observed."""
    sizes = sorted({size for estimates in values.values() for size in estimates})
    missing = Estimate(float("nan"))

    def draw(axes: Axes, theme: Theme) -> None:
        lines = {row: [found.get(size, missing) for size in sizes] for row, found in values.items()}
        _groups(axes, theme, [f"{size} observed" for size in sizes], lines, look)
        if key == "conditional_coherence":
            lowest = min(_low(estimate) for found in values.values() for estimate in found.values())
            axes.set_xlim(max(0.0, lowest - 0.03), 1.01)
        else:
            axes.axvline(0, color=theme.muted, linewidth=1)

    said = [
        f"{row.title} " + ", ".join(f"{estimate.value:.3f}" for estimate in found.values())
        for row, found in values.items()
    ]
    return Figure(
        key,
        title,
        f"{alt} {', '.join(map(str, sizes))} observed modalities: " + "; ".join(said),
        ("row", "observed", *INTERVAL),
        [
            (row.name, size, e.value, e.low, e.high)
            for row, found in values.items()
            for size, e in found.items()
        ],
        draw,
        height=_height(sizes, values),
    )


def judges(accuracies: dict[str, Estimate | None]) -> Figure:
    """How well the classifiers that score read real, held-out data."""
    known = {name: estimate for name, estimate in accuracies.items() if estimate}

    def draw(axes: Axes, theme: Theme) -> None:
        colours = [DENSITY_MARKS[0].colour_in(theme)] * len(known)
        _dots(axes, theme, list(known), list(known.values()), colours, ["o"] * len(known), 3)
        lowest = min(map(_low, known.values()))
        axes.set_xlim(min(0.9, lowest - 0.02), 1.002)

    return Figure(
        "judges",
        "Accuracy of the judges on held-out real data",
        "Accuracy of the judges: " + ", ".join(f"{name} {e.value:.3f}" for name, e in known.items()),
        ("modality", *INTERVAL),
        [(name, e.value, e.low, e.high) for name, e in known.items()],
        draw,
        height=0.75 + 0.29 * len(known),
    )


def training(epochs: Sequence[dict[str, str]]) -> Figure:
    """The loss of the autoencoder, epoch by epoch."""
    curves = {
        name: [float(epoch[f"{name}_loss"] or "nan") for epoch in epochs]
        for name in ("train", "validation")
        if f"{name}_loss" in epochs[0]
    }
    starts = [i for i in range(1, len(epochs)) if epochs[i]["phase"] != epochs[i - 1]["phase"]]

    def draw(axes: Axes, theme: Theme) -> None:
        steps = range(1, len(epochs) + 1)
        for (name, values), mark in zip(curves.items(), DENSITY_MARKS, strict=False):
            axes.plot(steps, values, color=mark.colour_in(theme), linewidth=1.6, label=name)
        for start in starts:
            axes.axvline(start + 0.5, color=theme.muted, linewidth=0.8, linestyle=":")
        settled = [value for values in curves.values() for value in values[min(len(values) // 20, 3) :]]
        low, high = min(settled), max(settled)
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
        axes.grid(axis="both")
        axes.legend(loc="upper right")
        axes.set(xlabel="Epoch", ylabel="Loss a row, in nats")

    last = ", ".join(f"{name} {values[-1]:.1f}" for name, values in curves.items())
    return Figure(
        "training",
        "Training of the autoencoder",
        f"Loss by epoch, after {len(epochs)} epochs: {last}",
        ("epoch", "phase", *curves),
        [
            (epoch["epoch"], epoch["phase"], *(values[i] for values in curves.values()))
            for i, epoch in enumerate(epochs)
        ],
        draw,
    )


def _dots(
    axes: Axes,
    theme: Theme,
    names: Sequence[str],
    estimates: Sequence[Estimate],
    colours: Sequence[str],
    shapes: Sequence[str],
    decimals: int,
) -> None:
    """A line an estimate: its interval, its mark, and its value at the right margin."""
    for height, (estimate, colour, shape) in enumerate(zip(estimates, colours, shapes, strict=True)):
        axes.errorbar(
            estimate.value, height, xerr=_reach(estimate), fmt=shape, color=colour, ms=6, elinewidth=1.8
        )
        axes.annotate(
            f"{estimate.value:.{decimals}f}",
            (1.0, height),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=theme.muted,
        )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _groups(
    axes: Axes,
    theme: Theme,
    names: Sequence[str],
    values: dict[Row, list[Estimate]],
    look: dict[str, Mark],
) -> None:
    """Groups of estimates one below the other, the rows of each beneath one another, and a legend."""
    for place, (row, estimates) in enumerate(values.items()):
        shift = 0.62 * (place / (len(values) - 1) - 0.5) if len(values) > 1 else 0.0
        for height, estimate in enumerate(estimates):
            mark = look[row.name]
            axes.errorbar(
                estimate.value,
                height + shift,
                xerr=_reach(estimate),
                fmt=mark.shape,
                color=mark.colour_in(theme),
                ms=4,
                elinewidth=1,
                label=row.title if height == 0 else None,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _legend(axes, -0.38 / _height(names, values))


def _height(names: Sequence[object], values: dict[Row, Any]) -> float:
    """The height of such a figure, in inches."""
    return max(3.8, 1.35 + 0.09 * len(names) * len(values))


def _low(estimate: Estimate) -> float:
    return estimate.value if estimate.low is None else estimate.low


def _legend(axes: Axes, height: float) -> None:
    """A legend of the rows under the axes."""
    axes.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.45, height), handletextpad=0.2)


def _scale(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """A logarithmic axis with plain numbers where the values span more than it can show otherwise."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    values = [estimate.value for estimate in estimates if estimate.value == estimate.value]
    if values and min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_xscale("log")
        few_decades = max(values) < 300 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)


def _reach(estimate: Estimate) -> list[list[float]]:
    return _reach_all([estimate])


def _reach_all(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far intervals reach to either side of their values, never a negative way."""
    sides: list[Callable[[Estimate], float]] = [
        lambda e: 0.0 if e.low is None else max(e.value - e.low, 0.0),
        lambda e: 0.0 if e.high is None else max(e.high - e.value, 0.0),
    ]
    return [[side(estimate) for estimate in estimates] for side in sides]


def _said(estimates: Sequence[tuple[Row, Estimate]], decimals: int) -> str:
    return ", ".join(f"{row.title} {estimate.value:.{decimals}f}" for row, estimate in estimates)
