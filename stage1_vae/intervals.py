"""Normal distributions of values of which some are known only to lie in an interval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.special import log_ndtr

from postprior.stage1_vae.discrete import Independent
from postprior.stage1_vae.distributions import Normal

NARROW = -1e-6
"""Greatest log-ratio of the two ends' probabilities; nearer ends would have the same probability in float32."""


class IntervalNormal(Independent):
    """Independent normal variables of which some values stand for an interval: log p = log (Φ(b) − Φ(a)).

    Their density would grow without bound as the scale shrinks, and draws around one point of an interval would not
    have the interval's share. Elsewhere, log p is the log-density (Tobin 1958, https://doi.org/10.2307/1907382).

    Args:
        normal: the distribution, event (n,).
        low: where the intervals of each variable begin, (n, K), +∞ if a variable has fewer than K.
        high: where they end, (n, K), −∞ likewise.
    """

    event = 1

    def __init__(self, normal: Normal, low: Tensor, high: Tensor) -> None:
        self.normal, self.low, self.high = normal, low, high

    @property
    def mean(self) -> Tensor:
        """Mean, (…, n)."""
        return self.normal.mean

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the interval, or the log-density, of each of the values (…, n): (…, n)."""
        within = (value.unsqueeze(-1) >= self.low) & (value.unsqueeze(-1) <= self.high)  # (…, n, K)
        found = within.any(-1)
        low = torch.where(within, self.low, -torch.inf).amax(-1).masked_fill(~found, -1)
        high = torch.where(within, self.high, torch.inf).amin(-1).masked_fill(~found, 1)
        loc, scale = self.normal.loc, self.normal.scale
        mass = log_mass((low - loc) / scale, (high - loc) / scale)
        return torch.where(found, mass, self.normal.elementwise_log_prob(value))

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return reparameterised draws, (*shape, …, n); they lie anywhere in an interval."""
        return self.normal.rsample(shape, generator)


def log_mass(a: Tensor, b: Tensor) -> Tensor:
    """Return log (Φ(b) − Φ(a)) for a < b, also far from 0.

    >>> [round(x, 3) for x in log_mass(torch.tensor([-1.0, 30.0]), torch.tensor([1.0, 31.0])).tolist()]
    [-0.382, -454.321]
    """
    above = a > 0
    a, b = torch.where(above, -b, a), torch.where(above, -a, b)
    upper = log_ndtr(b)
    return upper + torch.log(-torch.expm1((log_ndtr(a) - upper).clamp_max(NARROW)))
