"""The distribution of values that are often exactly 0 and otherwise positive: expressions, fractions, amounts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from postprior.stage1_vae.discrete import LOG_MEAN, Independent
from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.randomness import uniform


class HurdleLogNormal(Independent):
    """Independent values that are 0 with probability π = σ(`absence`), and otherwise log-normal.

    p(0) = π and p(x) = (1 − π) N(log x; m, s²) / x for x > 0 (a hurdle model: Cragg 1971,
    https://doi.org/10.2307/1909582). Densities are with respect to the Lebesgue measure plus a unit mass at 0.

    Args:
        logarithm: m, (…, *event), clamped to `LOG_MEAN`.
        scale: s, broadcastable to m, positive.
        absence: the logit of π, (…, *event).
        event: number of dimensions of one value.
    """

    def __init__(self, logarithm: Tensor, scale: Tensor, absence: Tensor, event: int) -> None:
        self.positive = Normal(logarithm.clamp(*LOG_MEAN), scale, event)
        self.absence, self.event = absence, event

    @property
    def mean(self) -> Tensor:
        """(1 − π) exp(m + s²/2), (…, *event)."""
        exponent = self.positive.loc + self.positive.scale.square() / 2
        return (-self.absence).sigmoid() * exponent.clamp_max(LOG_MEAN[1]).exp()

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate, (…, *event); −∞ where x is negative."""
        logarithm = value.where(value > 0, 1).log()
        present = logsigmoid(-self.absence) + self.positive.elementwise_log_prob(logarithm) - logarithm
        absent = logsigmoid(self.absence).expand_as(present).masked_fill(value < 0, -math.inf)
        return present.where(value > 0, absent)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return values (*shape, …, *event); only positive ones have a gradient."""
        values = self.positive.rsample(shape, generator).exp()
        return values * (uniform(values.shape, values, generator) >= self.absence.sigmoid())
