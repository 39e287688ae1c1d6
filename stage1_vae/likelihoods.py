"""Decoder outputs as distributions: what a modality's likelihood is.

A decoder's output is unconstrained and has the shape of its modality; the likelihood alone says what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from stage1_vae.distributions import Diagonal, Laplace, Normal
from stage1_vae.modalities import Modality


class Bernoulli:
    """Independent Bernoulli variables with the given logits, (…, *event), summed over `event` dimensions."""

    def __init__(self, logits: Tensor, event: int) -> None:
        self.logits, self.event = logits, event

    @property
    def mean(self) -> Tensor:
        """Probability of 1, (…, *event)."""
        return self.logits.sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        """x·logit − log(1 + e^logit) summed over the event: (…). Values in [0, 1] give the cross-entropy."""
        return (value * self.logits - softplus(self.logits)).flatten(-self.event).sum(-1)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws in {0, 1}, (*shape, …, *event); no gradient passes through them."""
        like = self.logits
        size = (*shape, *like.shape)
        uniform = torch.rand(size, generator=generator, dtype=like.dtype, device=like.device)
        return (uniform < self.mean).to(like.dtype)


Likelihood = Diagonal | Bernoulli

LIKELIHOODS: dict[str, Callable[[Tensor, float, int], Likelihood]] = {
    "normal": lambda output, scale, event: Normal(output, output.new_tensor(scale), event),
    "laplace": lambda output, scale, event: Laplace(output, output.new_tensor(scale), event),
    "bernoulli": lambda output, scale, event: Bernoulli(output, event),
}
"""Name → distribution of a value given the decoder's output (…, *event), the scale and the event's dimensions."""


def likelihood(modality: Modality, output: Tensor, scale: float) -> Likelihood:
    """p(x | z) of one modality from its decoder's output (…, *shape)."""
    return LIKELIHOODS[modality.likelihood](output, scale, len(modality.shape))
