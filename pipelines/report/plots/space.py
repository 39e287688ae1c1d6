"""Figures of the latent space, and of what the comparison rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.report.figures import Figure, Mark, Panel, Theme, density_mark
from postprior.pipelines.report.plots.drawing import Part, dotted, height_of
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from postprior.pipelines.metrics.latent.code_map import CodeMap

COLLAPSED = 0.01  # nats of KL under which a dimension carries nothing


def space(results: Results, points: CodeMap | None, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """The map of codes, what they know of labels, and what each dimension carries."""
    if points is not None:
        yield code_map(points, look)
    if known := results.latent.get("representation"):
        yield from representation(known)
    if divergences := results.latent.get("health", {}).get("kl_per_dimension"):
        yield divergence(divergences)


def foundations(results: Results) -> Iterator[Figure]:
    """Figures of what the comparison rests on: the autoencoder and the evaluators."""
    if results.training:
        yield training(results.training)
    accuracies = {
        name: estimate
        for name, value in results.evaluators.get("modalities", {}).items()
        if (estimate := Estimate.of(value.get("accuracy")))
    }
    if accuracies:
        yield evaluator_accuracy(accuracies)


def code_map(points: CodeMap, look: Mapping[str, Mark]) -> Figure:
    """Training codes, and over them held-out ones or those drawn from a density."""
    over: dict[str, tuple[np.ndarray, Mark | None]] = {"Held out": (points.held_out, None)}
    over |= {name: (drawn, look[name]) for name, drawn in points.drawn.items()}
    everything = np.concatenate([points.train, *(cloud for cloud, _ in over.values())])
    margin = 0.03 * np.ptp(everything, axis=0)
    low, high = everything.min(0) - margin, everything.max(0) + margin

    def panel(title: str) -> Panel:
        cloud, mark = over[title]

        def draw(axes: Axes, theme: Theme) -> None:
            colour = mark.colour_in(theme) if mark else theme.ink
            axes.scatter(points.train[:, 0], points.train[:, 1], s=5, color=theme.muted, alpha=0.35, linewidths=0)
            axes.scatter(cloud[:, 0], cloud[:, 1], s=5, color=colour, linewidths=0)
            axes.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.set_aspect("equal", adjustable="box")
            axes.set_title(title, loc="left", fontsize=8.5, color=theme.ink)
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)

        return draw

    plane = (
        "laid out by UMAP"
        if points.explained is None
        else f"on the two directions of most variance ({100 * points.explained:.0f} % of it)"
    )
    sets = {"train": points.train, "held_out": points.held_out, **points.drawn}
    return Figure(
        "code_map",
        "The map of codes",
        f"Codes {plane}: {len(points.train)} of training rows in grey, and over them, panel by panel, "
        + ", ".join(f"{len(cloud)} {title}" for title, (cloud, _) in over.items()),
        ("set", "x", "y"),
        [(name, f"{x:.3f}", f"{y:.3f}") for name, cloud in sets.items() for x, y in cloud],
        [panel(title) for title in over],
        height=2.1,
        columns=min(max(len(over), 2), 5),
        about=f"Codes {plane}. Grey: training rows; coloured: held-out rows, and draws from each density. A density "
        "that has learned the distribution covers the grey as held-out codes do.",
    )


def representation(known: Mapping[str, Any]) -> Iterator[Figure]:
    """What codes know of the labels, by classifiers and by clusters; nothing where no score could be computed."""
    scores = {metric.title: Estimate.of(known.get(key)) for key, metric in of_family("latent").items()}
    if found := {title: estimate for title, estimate in scores.items() if estimate}:
        yield _one(
            "representation",
            "What the codes know of the labels",
            "score",
            Part((), "", found, "Scores of the joint codes", limits=(-0.02, 1.02)),
            "A linear probe and nearest neighbours read held-out codes; k-means, mutual information and Rand index "
            "say how far clusters of codes are the labels.",
        )


def divergence(divergences: Sequence[float]) -> Figure:
    """What each dimension of the codes carries, the most telling first."""
    ordered = sorted(divergences, reverse=True)
    silent = sum(value < COLLAPSED for value in ordered)

    def draw(axes: Axes, theme: Theme) -> None:
        axes.bar(range(1, len(ordered) + 1), ordered, color=density_mark(0).colour_in(theme), width=0.8)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="Latent dimension, the most telling first", ylabel="KL to the prior, nats a row")

    return Figure(
        "divergence",
        "What each latent dimension carries",
        f"Divergence of posteriors from the prior by dimension: {len(ordered)} dimensions, from {ordered[0]:.2f} down "
        f"to {ordered[-1]:.3f} nats a row; {silent} under {COLLAPSED}",
        ("rank", "kl"),
        list(enumerate(ordered, 1)),
        [draw],
        height=2.4,
        about="Dimensions near 0 carry nothing: their posterior is the prior whatever the row.",
    )


def evaluator_accuracy(accuracies: Mapping[str, Estimate]) -> Figure:
    """How well the classifiers that score read real, held-out data."""
    lowest = min(e.value if e.low is None else e.low for e in accuracies.values())
    limits = (min(0.9, lowest - 0.02), 1.002)
    part = Part((), "", accuracies, "Accuracy of the label classifiers", limits=limits)
    return _one("evaluators", "Accuracy of the label classifiers on held-out real data", "modality", part)


def _one(name: str, title: str, key: str, part: Part, about: str = "") -> Figure:
    """A figure of one panel, whose lines of dots are of no row of the leaderboard."""
    height = max(height_of(len(part.estimates)), 2.4)
    marks = dict.fromkeys(part.estimates, density_mark(0))
    return dotted(name, title, (key,), [part], marks, height=height, about=about)


def training(epochs: Sequence[Mapping[str, str]]) -> Figure:
    """The loss of the autoencoder, epoch by epoch."""
    curves = {
        name: [float(epoch[f"{name}_loss"] or "nan") for epoch in epochs]
        for name in ("train", "validation")
        if epochs[0].get(f"{name}_loss")
    }
    starts = [i for i in range(1, len(epochs)) if epochs[i]["phase"] != epochs[i - 1]["phase"]]

    def draw(axes: Axes, theme: Theme) -> None:
        steps = range(1, len(epochs) + 1)
        for i, (name, values) in enumerate(curves.items()):
            axes.plot(steps, values, color=density_mark(i).colour_in(theme), linewidth=1.6, label=name)
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
        [draw],
        height=2.4,
    )
