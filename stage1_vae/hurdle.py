"""Distributions of values that are often exactly 0 and otherwise positive: expressions, fractions, amounts.

A value is 0 with probability π = σ(`absence`), and otherwise a function g of a normal variable n ~ N(m, s²):

    p(0) = π,   p(x) = (1 − π) N(n; m, s²) / g′(n),   n = g⁻¹(x),   for x > 0

These are hurdle models (Cragg 1971, https://doi.org/10.2307/1909582). Densities are with respect to the Lebesgue
measure plus a unit mass at 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from postprior.stage1_vae.discrete import Independent
from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.randomness import uniform

LOC = (-15.0, 30.0)
"""Interval to which the mean m is clamped, so that values and their mean are finite."""
NODES, WEIGHTS = (torch.from_numpy(part.astype(np.float64)) for part in np.polynomial.hermite_e.hermegauss(15))
"""Nodes and weights of the Gauss–Hermite quadrature of a standard normal variable; the weights sum to √(2π)."""


class Hurdle(Independent):
    """Independent values that are 0 with probability σ(`absence`), and otherwise g of a normal variable.

    Args:
        loc: m, (…, *event), clamped to `LOC`.
        scale: s, broadcastable to m, positive.
        absence: the logit of π, (…, *event).
        event: number of dimensions of one value.
    """

    def __init__(self, loc: Tensor, scale: Tensor, absence: Tensor, event: int) -> None:
        self.normal = Normal(loc.clamp(*LOC), scale, event)
        self.absence, self.event = absence, event

    @staticmethod
    @abstractmethod
    def value(n: Tensor) -> Tensor:
        """Return g(n) > 0."""

    @staticmethod
    @abstractmethod
    def inverse(value: Tensor) -> Tensor:
        """Return n with g(n) = x for x > 0."""

    @staticmethod
    @abstractmethod
    def log_slope(n: Tensor) -> Tensor:
        """Return log g′(n)."""

    @property
    @abstractmethod
    def positive_mean(self) -> Tensor:
        """E[g(n)], (…, *event)."""

    @property
    def mean(self) -> Tensor:
        """(1 − π) E[g(n)], (…, *event)."""
        return (-self.absence).sigmoid() * self.positive_mean

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate, (…, *event); −∞ where x is negative."""
        n = self.inverse(value.where(value > 0, 1))
        positive = logsigmoid(-self.absence) + self.normal.elementwise_log_prob(n) - self.log_slope(n)
        zero = logsigmoid(self.absence).expand_as(positive).masked_fill(value < 0, -math.inf)
        return positive.where(value > 0, zero)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return values (*shape, …, *event); only positive ones have a gradient."""
        values = self.value(self.normal.rsample(shape, generator))
        return values * (uniform(values.shape, values, generator) >= self.absence.sigmoid())


class HurdleLogNormal(Hurdle):
    """g(n) = exp(n): amounts, whose logarithms are normal."""

    @staticmethod
    def value(n: Tensor) -> Tensor:
        return n.exp()

    @staticmethod
    def inverse(value: Tensor) -> Tensor:
        return value.log()

    @staticmethod
    def log_slope(n: Tensor) -> Tensor:
        return n

    @property
    def positive_mean(self) -> Tensor:
        """exp(m + s²/2), (…, *event)."""
        return (self.normal.loc + self.normal.scale.square() / 2).clamp_max(LOC[1]).exp()


class HurdleSoftplus(Hurdle):
    """g(n) = log(1 + eⁿ): logarithms log(1 + a) of amounts a whose logarithms are normal."""

    @staticmethod
    def value(n: Tensor) -> Tensor:
        return softplus(n)

    @staticmethod
    def inverse(value: Tensor) -> Tensor:
        return value + (-torch.expm1(-value)).log()

    @staticmethod
    def log_slope(n: Tensor) -> Tensor:
        return logsigmoid(n)

    @property
    def positive_mean(self) -> Tensor:
        """E[log(1 + eⁿ)], (…, *event), by quadrature."""
        nodes, weights = (part.to(self.normal.loc) for part in (NODES, WEIGHTS))
        n = self.normal.loc.unsqueeze(-1) + self.normal.scale.unsqueeze(-1) * nodes
        return softplus(n) @ weights / math.sqrt(2 * math.pi)
