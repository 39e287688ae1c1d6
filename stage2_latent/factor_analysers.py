"""Mixtures of factor analysers, one per class: low-rank plus diagonal covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from postprior.stage2_latent.gaussians import (
    FLOOR,
    TINY,
    Components,
    Gaussians,
    Statistics,
    covariance_factors,
    linear,
    log_normal,
    log_normalised,
    pooled_covariance,
    standard_normal,
)
from postprior.stage2_latent.moments import Whitening


@dataclass(frozen=True, eq=False)
class FactorAnalysers(Components):
    """K mixtures of T factor analysers, Σ = F Fᵀ + diag d (Ghahramani & Hinton 1996); diagonal if the rank R is 0.

    A component is x = μ + F h + √d ε with h and ε standard normal. Distances and determinants need no D × D matrix:
    with M = I + Fᵀ d⁻¹ F, Σ⁻¹ = d⁻¹ − d⁻¹ F M⁻¹ Fᵀ d⁻¹ (Woodbury) and |Σ| = |M| Π d.

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
        loadings: F, (K, T, D, R).
        variances: d, (K, T, D).
    """

    shapes: ClassVar = {"log_weights": "K T", "means": "K T D", "loadings": "K T D R", "variances": "K T D"}

    loadings: Tensor
    variances: Tensor

    def joint(self, x: Tensor) -> Tensor:
        scaled, root = self._precision()
        residual = (x.unsqueeze(1) - self.means.unsqueeze(2)) * self.variances.rsqrt().unsqueeze(2)
        explained = torch.linalg.solve_triangular(root, (residual @ scaled).mT, upper=False)  # (K, T, R, B)
        distances = residual.square().sum(-1) - explained.square().sum(-2)
        log_det = 0.5 * self.variances.log().sum(-1) + root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_normal(distances, self.log_weights - log_det, x.shape[-1])

    def deviations(self, component: Tensor, generator: torch.Generator) -> Tensor:
        loadings = self.loadings.flatten(0, 1)
        factors = standard_normal(len(component), loadings, generator)
        noise = standard_normal(len(component), self.means, generator)
        specific = self.variances.sqrt().flatten(0, 1)[component] * noise
        return linear(loadings, component, factors) + specific

    def unwhitened(self, whitening: Whitening) -> Gaussians:
        covariance = self.loadings @ self.loadings.mT + self.variances.diag_embed()
        full = Gaussians(self.log_weights, self.means, covariance_factors(covariance))
        return full.unwhitened(whitening)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> FactorMoments:
        """Return the sufficient statistics of points (K, B, D) and of their factors h under these mixtures."""
        B = x.shape[1]
        scaled, root = self._precision()
        gain = torch.cholesky_solve((scaled * self.variances.rsqrt().unsqueeze(-1)).mT, root)  # (K, T, R, D)
        spread = torch.cholesky_inverse(root)
        factors = (x.unsqueeze(1) - self.means.unsqueeze(2)) @ gain.mT  # (K, T, B, R)
        share = responsibilities.mT / B  # (K, T, B)
        weighted = share.unsqueeze(-1) * factors
        weight = share.sum(-1)
        return FactorMoments(
            weight=weight,
            first=share @ x,
            square=share @ x.square(),
            total=x.mT @ x / B,
            latent=weighted.sum(2),
            cross=weighted.mT @ x.unsqueeze(1),
            outer=weighted.mT @ factors + weight[..., None, None] * spread,
            gain=gain,
            spread=spread,
        )

    def _precision(self) -> tuple[Tensor, Tensor]:
        """Return d^−½ F, (K, T, D, R), and the Cholesky factor of M, (K, T, R, R)."""
        scaled = self.loadings * self.variances.rsqrt().unsqueeze(-1)
        eye = torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        return scaled, torch.linalg.cholesky(eye + scaled.mT @ scaled)


@dataclass(frozen=True, eq=False)
class FactorMoments(Statistics[FactorAnalysers]):
    """Statistics of points x and of their factors h, with E[h | x] = G (x − μ) and Cov[h | x] = V.

    Args:
        weight: responsibilities, (K, T).
        first, square: Σ r x and Σ r x², (K, T, D).
        total: Σ x xᵀ, (K, D, D).
        latent: Σ r E[h | x], (K, T, R).
        cross: Σ r E[h | x] xᵀ, (K, T, R, D).
        outer: Σ r E[h hᵀ | x], (K, T, R, R).
        gain: G, (K, T, R, D).
        spread: V, (K, T, R, R).
    """

    weight: Tensor
    first: Tensor
    square: Tensor
    total: Tensor
    latent: Tensor
    cross: Tensor
    outer: Tensor
    gain: Tensor
    spread: Tensor

    @staticmethod
    def of(x: Tensor, responsibilities: Tensor, rank: int) -> FactorMoments:
        """Return statistics under analysers whose factors are the leading eigenvectors of the class covariance S̄."""
        B, D = x.shape[1:]
        weight, first = responsibilities.mean(1), responsibilities.mT @ x / B
        covariance = pooled_covariance(x.mT @ x / B, first, weight, first.new_zeros(len(first)), 0.0)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        values, first_factor = values.clamp_min(FLOOR), D - min(rank, D - 1)
        rest = values[:, :first_factor].mean(-1, keepdim=True)
        loadings = vectors[..., first_factor:] * (values[:, first_factor:] - rest).sqrt().unsqueeze(1)  # (K, D, R)
        variances = rest.expand(-1, D)
        means = first / weight.clamp_min(TINY).unsqueeze(-1)
        T = means.shape[1]
        start = FactorAnalysers(
            log_normalised(weight),
            means,
            loadings.unsqueeze(1).expand(-1, T, -1, -1),
            variances.unsqueeze(1).expand(-1, T, -1),
        )
        return start.statistics(x, responsibilities)

    def maximise(self, shrinkage: Tensor, identity: float = 0.0) -> FactorAnalysers:
        """Return the mixture after one M-step, the regression of x on h.

        Shrinkage adds the statistics of rows from N(μ_t, S̄) to those of x and h.
        """
        weight = self.weight.clamp_min(TINY).unsqueeze(-1)  # (K, T, 1)
        strength = shrinkage.reshape(-1, 1, 1)
        mean = pooled_covariance(self.total, self.first, self.weight, shrinkage, identity)  # (K, D, D)
        pull = self.gain @ mean.unsqueeze(1)  # (K, T, R, D)
        within = self.square - self.first.square() / weight
        variances = within + strength * mean.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
        latent = self.latent / weight
        cross = self.cross - latent.unsqueeze(-1) * self.first.unsqueeze(-2)
        cross = cross + strength.unsqueeze(-1) * pull
        outer = self.outer - self.latent.unsqueeze(-1) * latent.unsqueeze(-2)
        outer = outer + strength.unsqueeze(-1) * (pull @ self.gain.mT + self.spread)
        outer.diagonal(dim1=-2, dim2=-1).add_(TINY)
        loadings = torch.linalg.solve(outer, cross)  # (K, T, R, D)
        variances = (variances - (loadings * cross).sum(-2)) / (weight + strength)
        means = self.first / weight - (latent.unsqueeze(-2) @ loadings).squeeze(-2)
        return FactorAnalysers(
            log_normalised(self.weight), means, loadings.mT.contiguous(), variances.clamp_min(0) + FLOOR
        )
