"""Distributions of discrete values: bits, classes and counts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from postprior.stage1_vae.randomness import uniform

LOG_MEAN = (-10.0, 15.0)
"""Interval that the logarithm of a mean count is clamped to."""
LOG_DISPERSION = (-7.0, 7.0)
"""Interval that the logarithm of an inverse dispersion is clamped to: above it, counts below a thousand are Poisson."""


class Independent(ABC):
    """Independent coordinates, of which an event has `event` dimensions."""

    event: int

    @abstractmethod
    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each coordinate of (…, *event) values: (…, *event)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) summed over the event: (…)."""
        return self.elementwise_log_prob(value).flatten(-self.event).sum(-1)


class Bernoulli(Independent):
    """Independent Bernoulli variables with the given logits, (…, *event), summed over `event` dimensions."""

    def __init__(self, logits: Tensor, event: int) -> None:
        self.logits, self.event = logits, event

    @property
    def mean(self) -> Tensor:
        """Probability of 1, (…, *event)."""
        return self.logits.sigmoid()

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """x·logit − log(1 + e^logit), (…, *event). Values in [0, 1] give the cross-entropy."""
        return value * self.logits - softplus(self.logits)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws in {0, 1}, (*shape, …, *event); no gradient passes through them."""
        return (uniform((*shape, *self.logits.shape), self.logits, generator) < self.mean).to(self.logits.dtype)


class Categorical(Independent):
    """Independent categorical variables with the given logits, whose values are indices 0 … K − 1 held as floats.

    Args:
        logits: (…, K, *event), −∞ for a class that a variable lacks.
        event: number of dimensions of one value; `log_prob` sums over them.
    """

    def __init__(self, logits: Tensor, event: int) -> None:
        self.logits, self.event = logits, event
        self._classes = -event - 1

    @property
    def mean(self) -> Tensor:
        """The most probable class, (…, *event): indices have no mean."""
        return self.logits.argmax(self._classes).to(self.logits.dtype)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """log softmax(logits)_x, (…, *event); −∞ where a value is no class."""
        classes, log_probs = self._classes, self.logits.log_softmax(self._classes)
        index = value.long().clamp(0, log_probs.shape[classes] - 1)
        log_probs, wanted = torch.broadcast_tensors(log_probs, index.unsqueeze(classes))
        chosen = log_probs.gather(classes, wanted.narrow(classes, 0, 1)).squeeze(classes)
        return chosen.masked_fill(index != value, -math.inf)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Indices drawn by inversion, (*shape, …, *event); no gradient passes through them."""
        cumulative = self.logits.softmax(self._classes).cumsum(self._classes)
        total = cumulative.narrow(self._classes, -1, 1)  # (…, 1, *event)
        level = uniform((*shape, *total.shape), total, generator) * total
        return (cumulative <= level).sum(self._classes).to(self.logits.dtype)


class NegativeBinomial(Independent):
    """Independent counts of mean μ and variance μ + μ²/θ, from log μ and log θ (…, *event), clamped.

    p(x) = Γ(x + θ) / (Γ(θ) x!) · (θ/(θ + μ))^θ · (μ/(θ + μ))^x, θ being the inverse dispersion.

    In float32, log p(x) is good to about 10⁻³ for counts below a thousand and to 2·10⁻⁶ x above, as large terms cancel;
    its gradient is good to 10⁻³ everywhere.
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor, event: int) -> None:
        self.log_mean, self.event = log_mean.clamp(*LOG_MEAN), event
        self.log_dispersion = log_dispersion.clamp(*LOG_DISPERSION)

    @property
    def mean(self) -> Tensor:
        """μ, (…, *event)."""
        return self.log_mean.exp()

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each coordinate, (…, *event)."""
        theta, gap = self.log_dispersion.exp(), self.log_mean - self.log_dispersion
        ways = (value + theta).lgamma() - theta.lgamma() - (value + 1).lgamma()
        return ways - theta * softplus(gap) - value * softplus(-gap)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Counts, (*shape, …, *event), Poisson with gamma rates; no gradient passes through them."""
        with torch.no_grad():
            theta = self.log_dispersion.exp().expand((*shape, *self.log_dispersion.shape))
            rate = torch._standard_gamma(theta, generator=generator) * (self.mean / theta)
            return torch.poisson(rate, generator=generator)


class ZeroInflatedNegativeBinomial(Independent):
    """Counts that are 0 with probability π = σ(logit), and else drawn from `counts`; all (…, *event).

    p(x) = π [x = 0] + (1 − π) NB(x) (Lopez et al. 2018, scVI).
    """

    def __init__(self, counts: NegativeBinomial, dropout: Tensor) -> None:
        self.counts, self.dropout, self.event = counts, dropout, counts.event

    @property
    def mean(self) -> Tensor:
        """(1 − π) μ, (…, *event)."""
        return (-self.dropout).sigmoid() * self.counts.mean

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each coordinate, (…, *event)."""
        drawn = logsigmoid(-self.dropout) + self.counts.elementwise_log_prob(value)
        zero = torch.logaddexp(logsigmoid(self.dropout), drawn)
        return torch.where(value == 0, zero, drawn)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Counts, (*shape, …, *event); no gradient passes through them."""
        drawn = self.counts.rsample(shape, generator)
        return drawn * (uniform(drawn.shape, drawn, generator) >= self.dropout.sigmoid())
