"""Distributions of discrete values: binary values, classes and counts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from postprior.stage1_vae.randomness import uniform

LOG_MEAN = (-10.0, 15.0)
"""Interval to which the logarithm of a mean count is clamped."""
LOG_DISPERSION = (-7.0, 7.0)
"""Interval to which the logarithm of an inverse dispersion is clamped. Above it, counts below 1,000 are Poisson."""


class Independent(ABC):
    """Distribution with independent coordinates; an event has `event` dimensions."""

    event: int

    @abstractmethod
    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate of the values (…, *event): (…, *event)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) summed over the event: (…)."""
        return self.elementwise_log_prob(value).flatten(-self.event).sum(-1)


class Bernoulli(Independent):
    """Independent Bernoulli variables with the given logits, (…, *event), summed over `event` dimensions."""

    def __init__(self, logits: Tensor, event: int) -> None:
        self.logits, self.event = logits, event

    @property
    def mean(self) -> Tensor:
        """Probability of the value 1, (…, *event)."""
        return self.logits.sigmoid()

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return x·logit − log(1 + e^logit), (…, *event). For x in [0, 1] this is the negative cross-entropy."""
        return value * self.logits - softplus(self.logits)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return draws in {0, 1}, (*shape, …, *event), without a gradient."""
        return (uniform((*shape, *self.logits.shape), self.logits, generator) < self.mean).to(self.logits.dtype)


class Categorical(Independent):
    """Independent categorical variables with the given logits. Their values are indices 0 … K − 1, stored as floats.

    Args:
        logits: (…, K, *event), −∞ for a class that a variable does not have.
        event: number of dimensions of one value; `log_prob` sums over them.
    """

    def __init__(self, logits: Tensor, event: int) -> None:
        self.logits, self.event = logits, event
        self._class_dim = -event - 1

    @property
    def mean(self) -> Tensor:
        """The most probable class, (…, *event), because class indices have no mean."""
        return self.logits.argmax(self._class_dim).to(self.logits.dtype)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log softmax(logits)_x, (…, *event); −∞ where x is not a class."""
        class_dim, log_probs = self._class_dim, self.logits.log_softmax(self._class_dim)
        index = value.long().clamp(0, log_probs.shape[class_dim] - 1)
        log_probs, indices = torch.broadcast_tensors(log_probs, index.unsqueeze(class_dim))
        selected = log_probs.gather(class_dim, indices.narrow(class_dim, 0, 1)).squeeze(class_dim)
        return selected.masked_fill(index != value, -math.inf)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return class indices drawn by inversion, (*shape, …, *event), without a gradient."""
        cumulative = self.logits.softmax(self._class_dim).cumsum(self._class_dim)
        total = cumulative.narrow(self._class_dim, -1, 1)  # (…, 1, *event)
        level = uniform((*shape, *total.shape), total, generator) * total
        return (cumulative <= level).sum(self._class_dim).to(self.logits.dtype)


class NegativeBinomial(Independent):
    """Independent counts with mean μ and variance μ + μ²/θ, given log μ and log θ (…, *event), both clamped.

    p(x) = Γ(x + θ) / (Γ(θ) x!) · (θ/(θ + μ))^θ · (μ/(θ + μ))^x, where θ is the inverse dispersion.

    In float32, log p(x) is accurate to about 10⁻³ for counts below 1,000 and to 2·10⁻⁶ x above, because large terms
    cancel. Its gradient is accurate to 10⁻³ everywhere.
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor, event: int) -> None:
        self.log_mean, self.event = log_mean.clamp(*LOG_MEAN), event
        self.log_dispersion = log_dispersion.clamp(*LOG_DISPERSION)

    @property
    def mean(self) -> Tensor:
        """μ, (…, *event)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ + μ²/θ, (…, *event)."""
        return self.mean + (2 * self.log_mean - self.log_dispersion).exp()

    def times(self, log_factor: Tensor) -> NegativeBinomial:
        """Return the distribution with μ times exp(`log_factor`), which is broadcast, and the same θ."""
        return NegativeBinomial(self.log_mean + log_factor, self.log_dispersion, self.event)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate, (…, *event)."""
        theta, log_ratio = self.log_dispersion.exp(), self.log_mean - self.log_dispersion
        log_coefficient = (value + theta).lgamma() - theta.lgamma() - (value + 1).lgamma()
        return log_coefficient - theta * softplus(log_ratio) - value * softplus(-log_ratio)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return counts (*shape, …, *event), drawn from Poisson distributions with gamma rates, without a gradient."""
        with torch.no_grad():
            theta = self.log_dispersion.exp().expand((*shape, *self.log_dispersion.shape))
            rate = torch._standard_gamma(theta, generator=generator) * (self.mean / theta)
            return torch.poisson(rate, generator=generator)


class ZeroInflatedNegativeBinomial(Independent):
    """Counts that are 0 with probability π = σ(`dropout`), and otherwise follow `counts`; both (…, *event).

    p(x) = π [x = 0] + (1 − π) NB(x) (Lopez et al. 2018, scVI).
    """

    def __init__(self, counts: NegativeBinomial, dropout: Tensor) -> None:
        self.counts, self.dropout, self.event = counts, dropout, counts.event

    @property
    def mean(self) -> Tensor:
        """(1 − π) μ, (…, *event)."""
        return (-self.dropout).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """(1 − π) (μ + μ²/θ + π μ²), (…, *event)."""
        present = (-self.dropout).sigmoid()
        return present * (self.counts.variance + (1 - present) * self.counts.mean.square())

    def times(self, log_factor: Tensor) -> ZeroInflatedNegativeBinomial:
        """Return the distribution with μ times exp(`log_factor`), which is broadcast, and the same θ and π."""
        return ZeroInflatedNegativeBinomial(self.counts.times(log_factor), self.dropout)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate, (…, *event)."""
        log_prob_if_nonzero = logsigmoid(-self.dropout) + self.counts.elementwise_log_prob(value)
        log_prob_if_zero = torch.logaddexp(logsigmoid(self.dropout), log_prob_if_nonzero)
        return torch.where(value == 0, log_prob_if_zero, log_prob_if_nonzero)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return counts, (*shape, …, *event), without a gradient."""
        counts = self.counts.rsample(shape, generator)
        return counts * (uniform(counts.shape, counts, generator) >= self.dropout.sigmoid())


class NegativeBinomialMixture(Independent):
    """Counts that follow `first` with the probability π = σ(`logits`) and otherwise `second`, each coordinate alone.

    p(x) = π NB₁(x) + (1 − π) NB₂(x): the background and the foreground of proteins (Gayoso et al. 2021, totalVI).
    """

    def __init__(self, first: NegativeBinomial, second: NegativeBinomial, logits: Tensor) -> None:
        self.first, self.second, self.logits, self.event = first, second, logits, first.event

    @property
    def mean(self) -> Tensor:
        """π μ₁ + (1 − π) μ₂, (…, *event)."""
        return torch.lerp(self.second.mean, self.first.mean, self.logits.sigmoid())

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) of each coordinate, (…, *event)."""
        first, second = (part.elementwise_log_prob(value) for part in (self.first, self.second))
        return torch.logaddexp(logsigmoid(self.logits) + first, logsigmoid(-self.logits) + second)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return counts, (*shape, …, *event), without a gradient."""
        first, second = (part.rsample(shape, generator) for part in (self.first, self.second))
        return torch.where(uniform(first.shape, first, generator) < self.logits.sigmoid(), first, second)
