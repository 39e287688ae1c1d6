"""Mixtures of Gaussians whose components share one covariance per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from postprior.stage2_latent.gaussians import (
    FLOOR,
    TINY,
    Components,
    Gaussians,
    Statistics,
    covariance_factors,
    inverse_factors,
    linear,
    log_normal,
    log_normalised,
    pooled_covariance,
    standard_normal,
)
from postprior.stage2_latent.moments import Whitening


@dataclass(frozen=True, eq=False)
class TiedGaussians(Components):
    """K mixtures of T Gaussians in G consecutive groups of T / G; the components of a group share Σ = (AᵀA)⁻¹.

    EM fits one group per class; the average of several such mixtures has one group per mixture.

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
        factors: A, (K, G, D, D), lower triangular with a positive diagonal.
    """

    shapes: ClassVar = {"log_weights": "K T", "means": "K T D", "factors": "K G D D"}

    factors: Tensor

    def joint(self, x: Tensor) -> Tensor:
        places = (x.unsqueeze(1) @ self.factors.mT).unsqueeze(2)  # (K, G, 1, B, D)
        centres = (self.means.unflatten(1, (self.factors.shape[1], -1)) @ self.factors.mT).unsqueeze(3)
        distances = (places - centres).square().sum(-1).flatten(1, 2)  # (K, T, B)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (K, G)
        constant = self.log_weights + log_det.repeat_interleave(self._size, dim=1)
        return log_normal(distances, constant, x.shape[-1])

    def deviations(self, component: Tensor, generator: torch.Generator) -> Tensor:
        noise = standard_normal(len(component), self.means, generator)
        return linear(inverse_factors(self.factors).flatten(0, 1), component // self._size, noise)

    def unwhitened(self, whitening: Whitening) -> Gaussians:
        factors = self.factors.repeat_interleave(self._size, dim=1)
        return Gaussians(self.log_weights, self.means, factors).unwhitened(whitening)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> TiedMoments:
        return TiedMoments.of(x, responsibilities)

    @property
    def _size(self) -> int:
        """Number of components in a group."""
        return self.means.shape[1] // self.factors.shape[1]


@dataclass(frozen=True, eq=False)
class TiedMoments(Statistics[TiedGaussians]):
    """Responsibilities (K, T), Σ r x (K, T, D) and Σ x xᵀ (K, D, D)."""

    weight: Tensor
    first: Tensor
    total: Tensor

    @classmethod
    def of(cls, x: Tensor, responsibilities: Tensor) -> Self:
        """Return the moments of points (K, B, D) with responsibilities (K, B, T)."""
        B = x.shape[1]
        return cls(responsibilities.mean(1), responsibilities.mT @ x / B, x.mT @ x / B)

    def maximise(self, shrinkage: Tensor, identity: float = 0.0) -> TiedGaussians:
        """Return the mixture that maximises the expected log-likelihood; its covariance is `pooled_covariance`."""
        means = self.first / self.weight.clamp_min(TINY).unsqueeze(-1)
        covariance = pooled_covariance(self.total, self.first, self.weight, shrinkage, identity)
        covariance.diagonal(dim1=-2, dim2=-1).add_(FLOOR)
        return TiedGaussians(log_normalised(self.weight), means, covariance_factors(covariance).unsqueeze(1))
