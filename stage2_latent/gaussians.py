"""Mixtures of full-covariance Gaussians, one a class, and their online EM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stage2_latent.codes import Whitening
from stage2_latent.picks import pick, pick_given

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Gaussians:
    """K mixtures of T Gaussians in D dimensions, Σ_t w_kt N(μ_kt, (A_ktᵀ A_kt)⁻¹).

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
        factors: A, (K, T, D, D), lower triangular with a positive diagonal: A (x − μ) is standard normal.
    """

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def joint(self, x: Tensor) -> Tensor:
        """log w_kt + log N(x | k, t) of as many points for each class, (K, B, D): (K, B, T)."""
        residual = (x.unsqueeze(1) - self.means.unsqueeze(2)) @ self.factors.mT  # (K, T, B, D)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (K, T)
        constant = self.log_weights + log_det - 0.5 * x.shape[-1] * LOG_2PI
        return (constant.unsqueeze(-1) - 0.5 * residual.square().sum(-1)).mT

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x | k) of (K, B, D) points: (K, B)."""
        return self.joint(x).logsumexp(-1)

    def sample(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """A draw for each class index in `classes` (n,): (n, D)."""
        component = pick(self.log_weights.exp(), classes, generator)
        shape = (len(classes), self.means.shape[-1])
        noise = torch.randn(shape, generator=generator, dtype=self.means.dtype, device=self.means.device)
        parts = [
            _place(self.means[k, t], self.factors[k, t], eps)
            for k, t, eps in zip(classes.split(4096), component.split(4096), noise.split(4096), strict=True)
        ]
        return torch.cat(parts)

    def unwhitened(self, whitening: Whitening) -> Self:
        """The same mixtures over codes z instead of whitened x = L⁻¹(z − m): A (x − μ) = A L⁻¹ (z − m − L μ)."""
        means = whitening.loc + self.means @ whitening.root.T
        factors = torch.linalg.solve_triangular(whitening.root, self.factors, upper=False, left=False)
        return type(self)(self.log_weights, means, factors)

    def complete(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draws (n, D) from p(· | z[known]), and the classes of the components they come from (n,).

        A component is drawn by its responsibility for the known coordinates; within it, with precision Λ = AᵀA and r
        the unknown coordinates, z_r ~ N(μ_r − Λ_rr⁻¹ Λ_rg (z_g − μ_g), Λ_rr⁻¹).

        Args:
            z: (n, D), read where known.
            known: (D,) bool.
            classes: (n,) the class of each row, or None: drawn as well, when `log_weights` include p(class).
        """
        precision = self.factors.mT @ self.factors  # (K, T, D, D)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        roots = torch.linalg.cholesky(covariance[..., known, :][..., known])
        eye = torch.eye(roots.shape[-1], dtype=z.dtype, device=z.device).expand_as(roots)
        marginal_factors = torch.linalg.solve_triangular(roots, eye, upper=False)
        marginal = type(self)(self.log_weights, self.means[..., known], marginal_factors)
        joint = marginal.joint(z[:, known].expand(len(self.means), -1, -1))  # (K, n, T)
        k, t = pick_given(joint.transpose(0, 1), classes, generator)
        rows = precision[..., ~known, :][k, t]  # (n, r, D)
        offset = (z - self.means[k, t])[:, known].unsqueeze(-1)
        factor = torch.linalg.cholesky(rows[..., ~known]).mT  # Λ_rr = Uᵀ U
        shift = torch.cholesky_solve(rows[..., known] @ offset, factor, upper=True)
        noise = torch.randn(shift.shape, generator=generator, dtype=z.dtype, device=z.device)
        spread = torch.linalg.solve_triangular(factor, noise, upper=True)
        drawn = z.clone()
        drawn[:, ~known] = self.means[k, t][:, ~known] + (spread - shift).squeeze(-1)
        return drawn, k

    def select(self, index: int) -> Self:
        """The mixture of one class, K = 1."""
        rows = slice(index, index + 1)
        return type(self)(self.log_weights[rows], self.means[rows], self.factors[rows])

    def detach(self) -> Self:
        """The same mixtures, cut from the graph."""
        return type(self)(self.log_weights.detach(), self.means.detach(), self.factors.detach())


def _place(means: Tensor, factors: Tensor, noise: Tensor) -> Tensor:
    """μ + A⁻¹ ε, (n, D)."""
    return means + torch.linalg.solve_triangular(factors, noise.unsqueeze(-1), upper=False).squeeze(-1)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sufficient statistics of K mixtures, averages over points: responsibilities (K, T), Σ r x and Σ r x xᵀ."""

    weight: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, x: Tensor, responsibilities: Tensor) -> Self:
        """Moments of (K, B, D) points with responsibilities (K, B, T)."""
        K, B, D = x.shape
        scaled = responsibilities.mT.unsqueeze(-1) * x.unsqueeze(1)  # (K, T, B, D)
        second = scaled.transpose(1, 2).reshape(K, B, -1).mT @ x  # (K, T·D, D)
        return cls(responsibilities.mean(1), scaled.mean(2), second.reshape(K, -1, D, D) / B)

    def towards(self, other: Moments, step: float) -> Moments:
        """(1 − step) of these and step of the others."""
        return Moments(
            self.weight.lerp(other.weight, step),
            self.first.lerp(other.first, step),
            self.second.lerp(other.second, step),
        )

    def maximise(self, shrinkage: Tensor) -> Gaussians:
        """The mixture that maximises the expected log-likelihood, covariances shrunk towards their mean in the class.

        Σ_t ← (w_t S_t + s S̄) / (w_t + s), the mode under an inverse-Wishart prior centred on S̄ = Σ_t w_t S_t, where
        `shrinkage` s (K,) is its strength as a share of the class's points.
        """
        weight = self.weight.clamp_min(1e-8)  # (K, T)
        means = self.first / weight.unsqueeze(-1)
        within = self.second - self.first.unsqueeze(-1) * means.unsqueeze(-2)  # (K, T, D, D), w_t S_t
        strength = shrinkage.unsqueeze(-1)
        pooled = within.sum(1, keepdim=True) * strength[..., None, None]
        covariance = (within + pooled) / (weight + strength)[..., None, None]
        eye = torch.eye(means.shape[-1], dtype=means.dtype, device=means.device)
        roots = torch.linalg.cholesky(covariance + FLOOR * eye)
        factors = torch.linalg.solve_triangular(roots, eye.expand_as(roots), upper=False)
        return Gaussians((weight / weight.sum(-1, keepdim=True)).log(), means, factors)


FLOOR = 1e-4
"""Added to the variances of components, in units of the whitened codes."""


def online_em(
    start: Moments, draw: Callable[[int], Tensor], passes: int, shrinkage: Tensor
) -> Iterator[tuple[Gaussians, Tensor]]:
    """Online EM (Cappé & Moulines 2009, arXiv 0712.4273): statistics of fresh points, averaged with a decaying step.

    Args:
        start: statistics of the first mixture.
        draw: pass → fresh points (K, B, D).
        passes: number of passes; over the first third the step is 1, then it decays as t^−0.6.
        shrinkage: see `Moments.maximise`.

    Yields:
        After every pass the mixture, and the log-likelihood (K,) of the pass's points under the one before.
    """
    moments, warm = start, passes // 3
    mixture = moments.maximise(shrinkage)
    for turn in range(passes):
        x = draw(turn)
        joint = mixture.joint(x)
        fresh = Moments.of(x, joint.softmax(-1))
        moments = moments.towards(fresh, max(1, turn - warm + 1) ** -0.6)
        mixture = moments.maximise(shrinkage)
        yield mixture, joint.logsumexp(-1).mean(-1)


def seed_moments(x: Tensor, components: int, seed: int) -> Moments:
    """Statistics of scikit-learn's k-means clusters of the points (K, B, D) of each class."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # One thread: the order in which threads add up would change the last bits from run to run.
    with threadpool_limits(limits=1):
        cluster = KMeans(min(components, x.shape[1]), n_init=1, random_state=seed)
        labels = [torch.from_numpy(cluster.fit_predict(points.numpy())) for points in x]
    hard = torch.nn.functional.one_hot(torch.stack(labels).long(), components).to(x.dtype)
    return Moments.of(x, hard)
