"""Figures of the latent space, of the training of the autoencoder and of the label classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.report.figures import INK, MUTED, Figure, Mark, Panel, density_mark, numbered
from postprior.pipelines.report.plots.drawing import INTERVALS, DotPanel, dotted, height_of
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from postprior.pipelines.metrics.latent.code_map import CodeMap

COLLAPSED = 0.01  # nats of KL below which a latent dimension carries no information


def latent_space(results: Results, points: CodeMap | None, look: Mapping[str, Mark]) -> Iterator[Figure]:
    """Yield the map of codes, their information on the labels, and the KL divergence of each dimension."""
    if points is not None:
        yield code_map(points, look)
    if scores := results.latent.get("representation"):
        yield from representation(scores)
    if divergences := results.latent.get("health", {}).get("kl_per_dimension"):
        yield divergence(divergences)


def reliability(results: Results) -> Iterator[Figure]:
    """Yield the loss curve of the autoencoder and the accuracy of the label classifiers."""
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
    """Plot training codes, and over them held-out codes or codes drawn from a density."""
    clouds: dict[str, tuple[np.ndarray, Mark | None]] = {"Held out": (points.held_out, None)}
    clouds |= {name: (drawn, look[name]) for name, drawn in points.drawn.items()}
    all_points = np.concatenate([points.train, *(cloud for cloud, _ in clouds.values())])
    margin = 0.03 * np.ptp(all_points, axis=0)
    low, high = all_points.min(0) - margin, all_points.max(0) + margin

    def panel(title: str) -> Panel:
        cloud, mark = clouds[title]

        def draw(axes: Axes) -> None:
            colour = mark.colour if mark else INK
            axes.scatter(points.train[:, 0], points.train[:, 1], s=5, color=MUTED, alpha=0.35, linewidths=0)
            axes.scatter(cloud[:, 0], cloud[:, 1], s=5, color=colour, linewidths=0)
            axes.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            axes.set_aspect("equal", adjustable="box")
            axes.set_title(title, loc="left", fontsize=8.5, color=INK)
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)

        return draw

    plane = (
        "in two dimensions by UMAP"
        if points.explained is None
        else f"on their first two principal components ({100 * points.explained:.0f} % of the variance)"
    )
    sets = {"train": points.train, "held_out": points.held_out, **points.drawn}
    return Figure(
        "code_map",
        "Map of the codes",
        f"Codes {plane}: {len(points.train)} codes of training rows in grey, and over them, one panel each, "
        + ", ".join(f"{len(cloud)} {title}" for title, (cloud, _) in clouds.items()),
        ("set", "x", "y"),
        [(name, f"{x:.3f}", f"{y:.3f}") for name, cloud in sets.items() for x, y in cloud],
        [panel(title) for title in clouds],
        height=2.1,
        columns=min(max(len(clouds), 2), 5),
        about=f"Codes {plane}. Grey: training rows. Coloured: held-out rows, or draws from one density. Draws from a "
        "good density cover the grey codes in the same way as the held-out codes do.",
    )


def representation(scores: Mapping[str, Any]) -> Iterator[Figure]:
    """Plot how well labels can be predicted from codes and match clusters of codes; no figure without scores."""
    estimates = {metric.title: Estimate.of(scores.get(key)) for key, metric in of_family("latent").items()}
    if shown := {title: estimate for title, estimate in estimates.items() if estimate}:
        yield _one_panel(
            "representation",
            "Label information in the codes",
            "score",
            DotPanel((), "", shown, "Scores of the joint codes", limits=(-0.02, 1.02)),
            "Linear probe and nearest neighbours: accuracy of labels predicted from held-out codes. k-means accuracy, "
            "mutual information and adjusted Rand index: agreement of clusters of codes with the labels. Higher is "
            f"better. {INTERVALS}",
        )


def divergence(divergences: Sequence[float]) -> Figure:
    """Plot the KL divergence of each latent dimension, the largest first."""
    ordered = sorted(divergences, reverse=True)
    collapsed = sum(value < COLLAPSED for value in ordered)

    def draw(axes: Axes) -> None:
        axes.bar(range(1, len(ordered) + 1), ordered, color=density_mark(0).colour, width=0.8)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="Latent dimension, sorted by KL divergence", ylabel="KL divergence, nats per row")

    return Figure(
        "divergence",
        "Information in each latent dimension",
        f"KL divergence of the posterior from the prior by dimension: {len(ordered)} dimensions, from "
        f"{ordered[0]:.2f} down to {ordered[-1]:.3f} nats per row; {collapsed} below {COLLAPSED}",
        ("rank", "kl"),
        list(enumerate(ordered, 1)),
        [draw],
        height=2.4,
        headings={"kl": "KL divergence, nats per row"},
        about="Mean KL divergence of the posterior from the prior. Dimensions near 0 carry no information: their "
        "posterior equals the prior for every row.",
    )


def evaluator_accuracy(accuracies: Mapping[str, Estimate]) -> Figure:
    """Plot the accuracy of the label classifiers on held-out real data."""
    lowest = min(e.value if e.low is None else e.low for e in accuracies.values())
    limits = (min(0.9, lowest - 0.02), 1.002)
    panel = DotPanel((), "", accuracies, "Accuracy of the label classifiers", limits=limits)
    title = "Accuracy of the label classifiers on held-out real data"
    about = f"One label classifier per modality. Higher is better. {INTERVALS}{numbered(accuracies)}"
    return _one_panel("evaluators", title, "modality", panel, about)


def _one_panel(name: str, title: str, key: str, panel: DotPanel, about: str = "") -> Figure:
    """Return a figure of one panel whose lines are not rows of the leaderboard."""
    height = max(height_of(len(panel.estimates)), 2.4)
    marks = dict.fromkeys(panel.estimates, density_mark(0))
    return dotted(name, title, (key,), [panel], marks, height=height, about=about)


def training(epochs: Sequence[Mapping[str, str]]) -> Figure:
    """Plot the loss of the autoencoder by epoch."""
    curves = {
        name: [float(epoch[f"{name}_loss"] or "nan") for epoch in epochs]
        for name in ("train", "validation")
        if epochs[0].get(f"{name}_loss")
    }
    starts = [i for i in range(1, len(epochs)) if epochs[i]["phase"] != epochs[i - 1]["phase"]]

    def draw(axes: Axes) -> None:
        steps = range(1, len(epochs) + 1)
        for i, (name, values) in enumerate(curves.items()):
            axes.plot(steps, values, color=density_mark(i).colour, linewidth=1.6, label=name)
        for start in starts:
            axes.axvline(start + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
        settled = [value for values in curves.values() for value in values[min(len(values) // 20, 3) :]]
        low, high = min(settled), max(settled)
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
        axes.grid(axis="both")
        axes.legend(loc="upper right")
        axes.set(xlabel="Epoch", ylabel="Loss, nats per row")

    last = ", ".join(f"{name} {values[-1]:.1f}" for name, values in curves.items())
    return Figure(
        "training",
        "Training of the autoencoder",
        f"Loss by epoch; after {len(epochs)} epochs: {last}",
        ("epoch", "phase", *curves),
        [
            (epoch["epoch"], epoch["phase"], *(values[i] for values in curves.values()))
            for i, epoch in enumerate(epochs)
        ],
        [draw],
        height=2.4,
        headings={"train": "training loss", "validation": "validation loss"},
        about="Mean loss per row on training and validation data. Dotted lines separate the training phases.",
    )
