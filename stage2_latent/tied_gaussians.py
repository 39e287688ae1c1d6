"""Mixtures of Gaussians whose components share one covariance a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stage2_latent.codes import Whitening
from stage2_latent.gaussians import (
    FLOOR,
    TINY,
    Components,
    Gaussians,
    Statistics,
    covariance_factors,
    inverse_factors,
    linear,
    log_normal,
    normalised,
    pooled,
    standard,
)


@dataclass(frozen=True, eq=False)
class TiedGaussians(Components):
    """K mixtures of T Gaussians, Σ_t w_kt N(μ_kt, (A_kᵀ A_k)⁻¹).

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
        factors: A, (K, D, D), lower triangular with a positive diagonal.
    """

    factors: Tensor

    def joint(self, x: Tensor) -> Tensor:
        places = (x @ self.factors.mT).unsqueeze(1)  # (K, 1, B, D)
        centres = (self.means @ self.factors.mT).unsqueeze(2)  # (K, T, 1, D)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)  # (K, 1)
        distances = (places - centres).square().sum(-1)
        return log_normal(distances, self.log_weights + log_det, x.shape[-1])

    def deviations(self, component: Tensor, generator: torch.Generator) -> Tensor:
        noise = standard(len(component), self.means, generator)
        return linear(inverse_factors(self.factors), component // self.means.shape[1], noise)

    def unwhitened(self, whitening: Whitening) -> Gaussians:
        T = self.means.shape[1]
        factors = self.factors.unsqueeze(1).expand(-1, T, -1, -1)
        return Gaussians(self.log_weights, self.means, factors).unwhitened(whitening)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> TiedMoments:
        return TiedMoments.of(x, responsibilities)


@dataclass(frozen=True, eq=False)
class TiedMoments(Statistics[TiedGaussians]):
    """Responsibilities (K, T), Σ r x (K, T, D) and Σ x xᵀ (K, D, D)."""

    weight: Tensor
    first: Tensor
    total: Tensor

    @classmethod
    def of(cls, x: Tensor, responsibilities: Tensor) -> Self:
        """Moments of (K, B, D) points with responsibilities (K, B, T)."""
        B = x.shape[1]
        return cls(responsibilities.mean(1), responsibilities.mT @ x / B, x.mT @ x / B)

    def maximise(self, shrinkage: Tensor) -> TiedGaussians:
        """The mixture that maximises the expected log-likelihood: S̄ is its covariance, whatever the shrinkage."""
        means = self.first / self.weight.clamp_min(TINY).unsqueeze(-1)
        covariance = pooled(self.total, self.first, self.weight, shrinkage)
        covariance.diagonal(dim1=-2, dim2=-1).add_(FLOOR)
        return TiedGaussians(normalised(self.weight), means, covariance_factors(covariance))
