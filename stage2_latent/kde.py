"""Kernel density estimate: the mixture of the posteriors of the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent.diagonal import DiagonalMixture
from postprior.stage2_latent.draws import Draws
from postprior.stage2_latent.options import candidates_of, number
from postprior.stage2_latent.task import Task


class KernelDensity(DiagonalMixture):
    """p(z | y) = 1/N_y Σ_n q_b(z | x_n) over the training rows n of the label, with posterior scales multiplied by b.

    At b = 1 it is the aggregated posterior, which among all priors has the highest ELBO on the training data (Tomczak &
    Welling 2018, arXiv 1705.07120), but hardly extends beyond the training codes; held-out rows need a larger b. A
    posterior that is a mixture contributes all its components. Codes that are points, without scales, get normal
    kernels whose scales are the standard deviations of the coordinates within the label times N_y^(−1/(D+4)) (Scott
    1992). Variances within a label are shrunk towards their mean over labels with the weight of one row.

    The density consists of the training codes and declares that it stores them.

    Args:
        bandwidth: b, or a list of candidates, from which the held-out log-likelihood selects.
    """

    name = "kde"
    stores_training_codes = True
    incomplete = False

    def __init__(
        self, *, bandwidth: float | Sequence[float] = (0.25, 0.5, 0.75, 1, 2, 4, 6, 8, 10, 12, 14, 16)
    ) -> None:
        super().__init__()
        self.candidates = [number("bandwidth", value, low=1e-6) for value in candidates_of("bandwidth", bandwidth)]

    @property
    def checks(self) -> int:
        return len(self.candidates)

    def _fit(self, task: Task) -> None:
        train, generator = task.train, task.generator
        weights, self.loc, scale = kernels(train)
        self.family = train.codes.posterior().components.name
        self.log_weights = weights.log()
        held_out = task.validation.repeated(1, generator)
        chosen = torch.randperm(len(train), generator=generator, device=train.rows.device)
        chosen = chosen[: len(task.validation)].sort().values
        train_draws = train.draw(generator, chosen), train.classes[chosen]
        best, self.scores = -torch.inf, {}
        for bandwidth in self.candidates:
            self.scale = bandwidth * scale
            score = self.mean_log_prob(*held_out)
            task.record(train=self.mean_log_prob(*train_draws), validation=score, bandwidth=bandwidth)
            self.scores[f"{bandwidth:g}"] = score
            if score > best:
                best, self.bandwidth = score, bandwidth
        self.scale = self.bandwidth * scale

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        super()._restore(tensors, learned)
        self.bandwidth = learned["bandwidth"]
        self.scores = dict(learned["held_out_log_likelihood"])

    def _learned(self) -> dict[str, Any]:
        learned = {"bandwidth": self.bandwidth, "held_out_log_likelihood": self.scores}
        return super()._learned() | learned


def kernels(train: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights (K, T), locations and scales (K, T, D) of the posteriors of the rows per class, not whitened.

    T is the number of components of the class with the most rows; other classes are padded with weight 0.
    """
    size = int(train.counts.max())
    real = torch.arange(size, device=train.rows.device) < train.counts.unsqueeze(-1)  # (K, size)
    places = train.rows[train.places(0, size)]
    weights = train.codes.weights[places] * (real / train.counts.unsqueeze(-1)).unsqueeze(-1)  # (K, size, C)
    weights, loc = weights.flatten(1), train.codes.loc[places].flatten(1, 2)
    if train.codes.scale is None:
        return weights, loc, _scott(weights, loc, train.counts)
    return weights, loc, train.codes.scale[places].flatten(1, 2)


def _scott(weights: Tensor, loc: Tensor, counts: Tensor) -> Tensor:
    """Return scales (K, T, D) of kernels around points (K, T, D), by Scott's rule per class and coordinate."""
    rows, shares, points = counts.double().unsqueeze(-1), weights.double(), loc.double()
    shares = shares / shares.sum(-1, keepdim=True)  # the rounding of their sum would shift the mean of far points
    mean = torch.einsum("kt,ktd->kd", shares, points)
    variance = torch.einsum("kt,ktd->kd", shares, (points - mean.unsqueeze(1)).square())
    rounding = (torch.finfo(loc.dtype).eps * mean).square()
    pooled = (rows * variance).sum(0) / rows.sum()
    constant = FLOOR * pooled.mean().clamp_min(torch.finfo(loc.dtype).eps)
    variance = torch.where(pooled > rounding.amax(0), (rows * variance + pooled) / (rows + 1), constant)
    scale = variance.sqrt() * rows ** (-1 / (loc.shape[-1] + 4))
    return scale.to(loc).unsqueeze(1).expand_as(loc).clone()


FLOOR = 1e-6
"""Variance assigned to a constant coordinate, as a share of the mean variance."""
