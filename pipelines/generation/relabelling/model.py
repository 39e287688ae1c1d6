"""Labels of synthetic rows, drawn given their values.

A density with labels draws a label y and a code z, and decoders draw each value given z alone. What a label and a value
have in common beyond z is lost: an indicator that excludes a label still occurs with it. With the values x of a row
drawn, and what it lacks, its label is therefore drawn anew from a classifier that learned from the training rows,

    x ~ Σ_y p(y) p(x | y),    y ~ softmax(s(x) + b),

where held-out rows say that it knows their labels better. b keeps the shares of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.missingness.units import Flags
from postprior.pipelines.generation.relabelling.trees import BoostedTrees
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.stage1_vae.networks.inputs import input_layer

PREFIX = "relabelling."  # of the names of stored arrays
ROUNDS = 50  # of the adjustment of shares


@dataclass(frozen=True, eq=False)
class Relabelling:
    """p(label | values) of rows of tables, which may lack some of them.

    Attributes:
        labels: (K,), the labels of the classes.
        classifier: the scores of the classes.
        offsets: b (K,), which are added to the scores.
        log_loss: of held-out training rows, by origin of the label: `values` (these trees), and `density` (trees that
            learned from samples and their labels).
    """

    labels: Ints
    classifier: BoostedTrees
    offsets: Floats
    log_loss: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.offsets.shape != self.labels.shape:
            raise ValueError("relabelling: expected an offset for each label")

    def probabilities(self, rows: Dataset) -> Floats:
        """Return p(label | values) (n, K) of rows."""
        return softmax(self.classifier.scores(features(rows)) + self.offsets)

    def draw(self, rows: Dataset, generator: torch.Generator, allowed: Flags | None = None) -> Ints:
        """Draw a label for each row given its values, of those that are allowed (n, K): (n,) int64."""
        probabilities = self.probabilities(rows)
        cumulative = (probabilities if allowed is None else probabilities * allowed).cumsum(1)
        uniform = torch.rand(len(cumulative), 1, generator=generator, dtype=torch.float64).numpy()
        drawn: Ints = self.labels[(uniform * cumulative[:, -1:] >= cumulative).sum(1)]
        return drawn

    @property
    def sentence(self) -> str:
        """Why labels are drawn given values, for readers."""
        values, density = (self.log_loss[origin] for origin in ("values", "density"))
        return (
            "labels of samples are drawn given their values, unless they are requested; held-out rows have a log loss "
            f"of {values:.3f} then, and of {density:.3f} with the labels of the density"
        )

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return named arrays and a plain description, the arguments of `from_state`."""
        arrays = {f"classifier.{name}": array for name, array in vars(self.classifier).items()}
        arrays |= {"labels": self.labels, "offsets": self.offsets}
        description = {"log_loss": dict(self.log_loss)}
        return {f"{PREFIX}{name}": array for name, array in arrays.items()}, description

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> Self:
        """Rebuild the labels from what `state` returned."""
        own = f"{PREFIX}classifier."
        trees = {name.removeprefix(own): np.array(x) for name, x in arrays.items() if name.startswith(own)}
        labels, offsets = (np.array(arrays[f"{PREFIX}{name}"]) for name in ("labels", "offsets"))
        return cls(labels, BoostedTrees(**trees), offsets, dict(description["log_loss"]))


def features(rows: Dataset) -> Floats:
    """Return what encoders read of rows that may lack any value, with a mask of those they have: (n, F)."""
    parts = []
    for m in rows.modalities:
        values = np.where(rows.missing(m.name), np.nan, rows.data[m.name][:]).astype(np.float32)
        parts.append(input_layer(replace(m, partial=True))(torch.from_numpy(values)).flatten(1).numpy())
    return np.concatenate(parts, 1, dtype=np.float64)


def softmax(scores: Floats) -> Floats:
    """Return the probabilities (n, K) of classes with these scores."""
    exp = np.exp(scores - scores.max(1, keepdims=True))
    probabilities: Floats = exp / exp.sum(1, keepdims=True)
    return probabilities


def offsets_for(scores: Floats, shares: Floats) -> Floats:
    """Return b (K,) such that softmax(s + b) has these means (K,) over rows with the scores s (n, K)."""
    offsets = np.zeros_like(shares)
    for _ in range(ROUNDS):  # iterative scaling
        offsets += np.log(shares / softmax(scores + offsets).mean(0))
    return offsets
