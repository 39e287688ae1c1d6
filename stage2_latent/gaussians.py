"""Mixtures of Gaussians, one per class, and the sufficient statistics that they are fitted to."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from postprior.stage1_vae.randomness import normal
from postprior.stage2_latent.categorical import draw_class_and_component, draw_component
from postprior.stage2_latent.moments import Whitening

LOG_2PI = math.log(2 * math.pi)

FLOATS = 2**24
"""Maximum number of floats in a temporary tensor."""

SMALL = 8
"""Dimensions up to which one product for all components takes less time than one for each of them."""

FLOOR = 1e-4
"""Added to the variances of components, in units of whitened codes."""


@dataclass(frozen=True, eq=False)
class Components(ABC):
    """K mixtures of T Gaussians in D dimensions, Σ_t w_kt N(μ_kt, Σ_kt); a final class sets the structure of Σ.

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
    """

    shapes: ClassVar[dict[str, str]]
    """Shapes of the parameters, as `check_shapes` expects them."""

    log_weights: Tensor
    means: Tensor

    @abstractmethod
    def joint(self, x: Tensor) -> Tensor:
        """Return log w_kt + log N(x | k, t), shape (K, B, T), of B points for each class, (K, B, D)."""

    @abstractmethod
    def deviations(self, component: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from N(0, Σ) for each component (n,), an index into the flattened (K, T); shape (n, D)."""

    @abstractmethod
    def unwhitened(self, whitening: Whitening) -> Gaussians:
        """Return the mixtures over codes z instead of whitened x = L⁻¹(z − m): means m + L μ, covariances L Σ Lᵀ."""

    @abstractmethod
    def statistics(self, x: Tensor, responsibilities: Tensor) -> Statistics[Any]:
        """Return the statistics of points (K, B, D) with responsibilities (K, B, T): the E-step."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x | k) of points (K, B, D); shape (K, B)."""
        return self.joint(x).logsumexp(-1)

    def sample(self, classes: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw (n, D), one row per class index in `classes` (n,); the temperature multiplies deviations from μ."""
        component = classes * self.means.shape[1] + draw_component(self.log_weights.exp(), classes, generator)
        return self.means.flatten(0, 1)[component] + temperature * self.deviations(component, generator)

    def select(self, index: int) -> Self:
        """Return the mixture of one class, K = 1."""
        return type(self)(*(value[index : index + 1] for value in self.tensors().values()))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the mixtures with the parameters in `tensors`, by name."""
        return cls(*(tensors[field.name] for field in fields(cls)))

    @classmethod
    def average(cls, mixtures: Sequence[Self]) -> Self:
        """Return the mean of several densities: all components, with weights divided by the number of densities."""
        parameters = [mixture.tensors() for mixture in mixtures]
        joined = {name: torch.cat([tensors[name] for tensors in parameters], dim=1) for name in parameters[0]}
        return cls.of(joined | {"log_weights": joined["log_weights"] - math.log(len(parameters))})

    def detach(self) -> Self:
        """Return the same mixtures, detached from the graph."""
        return type(self)(*(value.detach() for value in self.tensors().values()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class Gaussians(Components):
    """Mixtures of components with full covariances, Σ_kt = (A_ktᵀ A_kt)⁻¹.

    Args:
        log_weights: (K, T), normalised over T.
        means: μ, (K, T, D).
        factors: A, (K, T, D, D), lower triangular with a positive diagonal: A (x − μ) is standard normal.
    """

    shapes: ClassVar = {"log_weights": "K T", "means": "K T D", "factors": "K T D D"}

    factors: Tensor

    def joint(self, x: Tensor) -> Tensor:
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (K, T)
        return log_normal(self._distances(x), self.log_weights + log_det, x.shape[-1])

    def _distances(self, x: Tensor) -> Tensor:
        """Return ‖A_kt (x − μ_kt)‖² of points (K, B, D), shape (K, T, B)."""
        K, T, D = self.means.shape
        if D > SMALL:
            return ((x.unsqueeze(1) - self.means.unsqueeze(2)) @ self.factors.mT).square().sum(-1)
        centres = (self.factors @ self.means.unsqueeze(-1)).squeeze(-1).mT  # A μ, (K, D, T)
        roots = self.factors.permute(0, 3, 2, 1).reshape(K, D, D * T)  # of all components, side by side
        residual = torch.baddbmm(centres.reshape(K, 1, D * T), x, roots, beta=-1)  # (K, B, D·T)
        return residual.square().unflatten(-1, (D, T)).sum(2).mT

    def deviations(self, component: Tensor, generator: torch.Generator) -> Tensor:
        noise = standard_normal(len(component), self.means, generator)
        return linear(inverse_factors(self.factors).flatten(0, 1), component, noise)

    def unwhitened(self, whitening: Whitening) -> Gaussians:
        """Return the mixtures over codes z instead of whitened x = L⁻¹(z − m): A (x − μ) = A L⁻¹ (z − m − L μ)."""
        means = whitening.loc + self.means @ whitening.root.T
        factors = torch.linalg.solve_triangular(whitening.root, self.factors, upper=False, left=False)
        return Gaussians(self.log_weights, means, factors)

    def statistics(self, x: Tensor, responsibilities: Tensor) -> Moments:
        return Moments.of(x, responsibilities)

    def marginal(self, known: Tensor) -> Gaussians:
        """Return the marginal mixtures of the coordinates marked in `known` (D,) bool."""
        roots = inverse_factors(self.factors)[..., known, :]  # (K, T, g, D), Σ_gg = R Rᵀ
        return Gaussians(self.log_weights, self.means[..., known], covariance_factors(roots @ roots.mT))

    def log_marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        """Return log p of the coordinates of z (n, D) marked in `known` (D,), shape (n,).

        It is conditional on `classes` (n,), or summed over all classes if `classes` is None. `log_weights` must include
        p(class), which is divided out if the classes are given.
        """
        marginal = self.marginal(known)
        given = z[:, known].unsqueeze(0)
        values = torch.cat([marginal.select(index).log_prob(given) for index in range(len(self.means))])  # (K, n)
        if classes is None:
            return values.logsumexp(0)
        values = values - self.log_weights.logsumexp(-1, keepdim=True)
        return values.gather(0, classes.unsqueeze(0)).squeeze(0)

    def class_probabilities(self, z: Tensor, known: Tensor) -> Tensor:
        """Return p(class | the coordinates of z (n, D) marked in `known` (D,)), (n, K).

        `log_weights` must include p(class).
        """
        marginal, classes = self.marginal(known), range(len(self.means))
        chunks = z[:, known].unsqueeze(0).split(max(1, FLOATS // marginal.means[0].numel()), dim=1)
        joint = [torch.cat([marginal.select(k).log_prob(chunk) for chunk in chunks], 1).squeeze(0) for k in classes]
        return torch.stack(joint, -1).softmax(-1)

    def complete(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw (n, D) from p(· | z[known]); also return the classes (n,) of the components that were drawn.

        A component is drawn with its responsibility for the known coordinates g. Within the component, with precision
        Λ = AᵀA, the unknown coordinates r follow z_r ~ N(μ_r − Λ_rr⁻¹ Λ_rg (z_g − μ_g), Λ_rr⁻¹).

        Args:
            z: (n, D), of which only the known coordinates are read.
            known: (D,) bool.
            classes: (n,), the class of each row; None draws it too, which requires that `log_weights` include p(class).
        """
        marginal, given = self.marginal(known), z[:, known]
        rows = max(1, FLOATS // marginal.means.numel())
        joint = torch.cat([marginal.joint(chunk.expand(len(self.means), -1, -1)) for chunk in given.split(rows)], 1)
        k, t = draw_class_and_component(joint.transpose(0, 1), classes, generator)
        component = k * self.means.shape[1] + t
        below = (self.factors.mT @ self.factors)[..., ~known, :]  # (K, T, r, D), rows of Λ
        upper = torch.linalg.cholesky(below[..., ~known]).mT  # Λ_rr = Uᵀ U
        gain = -torch.cholesky_solve(below[..., known], upper, upper=True).flatten(0, 1)
        eye = torch.eye(upper.shape[-1], dtype=z.dtype, device=z.device).expand_as(upper)
        roots = torch.linalg.solve_triangular(upper, eye, upper=True).flatten(0, 1)  # U⁻¹
        means = self.means.flatten(0, 1)
        offset = linear(gain, component, given - means[:, known][component])
        spread = linear(roots, component, standard_normal(len(z), means[:, ~known], generator))
        drawn = z.clone()
        drawn[:, ~known] = means[:, ~known][component] + offset + spread
        return drawn, k


def log_normal(distances: Tensor, constant: Tensor, dimensions: int) -> Tensor:
    """Return log N of squared Mahalanobis distances (K, T, B) plus a constant (K, T), shape (K, B, T).

    The constant includes log |Σ|^−½.
    """
    return ((constant - 0.5 * dimensions * LOG_2PI).unsqueeze(-1) - 0.5 * distances).mT


def standard_normal(rows: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise of shape (rows, D), where D is the last dimension of `like`."""
    return normal((rows, like.shape[-1]), like, generator)


def inverse_factors(factors: Tensor) -> Tensor:
    """Return R = A⁻¹, a root of the covariance: Σ = R Rᵀ."""
    eye = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device).expand_as(factors)
    return torch.linalg.solve_triangular(factors, eye, upper=False)


def covariance_factors(covariance: Tensor) -> Tensor:
    """Return the lower triangular A with Σ = (AᵀA)⁻¹."""
    return inverse_factors(torch.linalg.cholesky(covariance))


BLOCK = 64
"""Number of vectors in a block, which share one copy of their matrix in `linear`."""


def linear(matrices: Tensor, index: Tensor, vectors: Tensor) -> Tensor:
    """Return matrices[index[n]] @ vectors[n], shape (n, E), of (C, E, D), (n,) and (n, D).

    The vectors of one matrix are grouped into blocks of `BLOCK` vectors, the last block padded. All products are then
    matrix products, and a matrix is copied once per block instead of once per row.
    """
    counts = torch.bincount(index, minlength=len(matrices))
    blocks = (counts + BLOCK - 1) // BLOCK  # number of blocks per matrix
    owner = torch.arange(len(matrices), device=index.device).repeat_interleave(blocks)
    order = index.argsort(stable=True)
    rank = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index[order]]
    place = torch.empty_like(index)
    place[order] = (blocks.cumsum(0) - blocks)[index[order]] * BLOCK + rank
    grouped = vectors.new_zeros(len(owner) * BLOCK, vectors.shape[-1]).index_copy(0, place, vectors)
    chunk = 1 + FLOATS // (1 + matrices[0].numel() + BLOCK * sum(matrices.shape[1:]))
    products = [
        part @ matrices[part_owner].mT
        for part, part_owner in zip(grouped.unflatten(0, (-1, BLOCK)).split(chunk), owner.split(chunk), strict=True)
    ]
    return torch.cat(products).flatten(0, 1)[place]


C = TypeVar("C", bound=Components)


@dataclass(frozen=True, eq=False)
class Statistics(ABC, Generic[C]):
    """Sufficient statistics of K mixtures, as averages over points."""

    def towards(self, other: Statistics[C], step: float) -> Self:
        """Return the weighted mean of the statistics, (1 − step) of these and step of the others."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return type(self)(*(before.lerp(after, step) for before, after in pairs))

    @abstractmethod
    def maximise(self, shrinkage: Tensor, identity: float = 0.0) -> C:
        """Return the mixture that maximises the expected log-likelihood, with shrunk covariances: the M-step.

        Σ_t ← (w_t S_t + s S̄) / (w_t + s) is the mode under an inverse-Wishart prior centred on S̄ = Σ_t w_t S_t, the
        mean covariance of the class; see `pooled_covariance`.

        Args:
            shrinkage: s, (K,), the weight of the prior as a share of the class's points.
            identity: weight of the scaled identity in the mean over classes.
        """


TINY = 1e-8
"""Smallest weight of a component."""


def pooled_covariance(total: Tensor, first: Tensor, weight: Tensor, shrinkage: Tensor, identity: float) -> Tensor:
    """Return the mean covariance of the components of each class, shrunk towards the mean over classes, (K, D, D).

    S̄_k = Σ x xᵀ − Σ_t w_kt μ_kt μ_ktᵀ ← (S̄_k + s_k mean_k S̄_k) / (1 + s_k), of which the share `identity` is replaced
    by the scaled identity, mean_k tr S̄_k / D · I (Ledoit & Wolf 2004).
    """
    within = total - first.mT @ (first / weight.clamp_min(TINY).unsqueeze(-1))
    strength, mean = shrinkage.reshape(-1, 1, 1), within.mean(0)
    pooled = (1 - identity) / (1 + strength) * (within + strength * mean)
    pooled.diagonal(dim1=-2, dim2=-1).add_(identity * mean.diagonal().mean())
    return pooled


@dataclass(frozen=True, eq=False)
class Moments(Statistics[Gaussians]):
    """Responsibilities (K, T), Σ r x (K, T, D) and Σ r x xᵀ (K, T, D, D)."""

    weight: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, x: Tensor, responsibilities: Tensor) -> Self:
        """Return the moments of points (K, B, D) with responsibilities (K, B, T)."""
        K, B, D = x.shape
        scaled = responsibilities.mT.unsqueeze(-1) * x.unsqueeze(1)  # (K, T, B, D)
        second = scaled.transpose(1, 2).reshape(K, B, -1).mT @ x  # (K, T·D, D)
        return cls(responsibilities.mean(1), scaled.mean(2), second.reshape(K, -1, D, D) / B)

    def maximise(self, shrinkage: Tensor, identity: float = 0.0) -> Gaussians:
        weight = self.weight.clamp_min(TINY)  # (K, T)
        means = self.first / weight.unsqueeze(-1)
        within = self.second - self.first.unsqueeze(-1) * means.unsqueeze(-2)  # (K, T, D, D), w_t S_t
        strength = shrinkage.reshape(-1, 1, 1, 1)
        mean = pooled_covariance(self.second.sum(1), self.first, weight, shrinkage, identity).unsqueeze(1)
        covariance = (within + strength * mean) / (weight[..., None, None] + strength)
        covariance.diagonal(dim1=-2, dim2=-1).add_(FLOOR)
        return Gaussians(log_normalised(weight), means, covariance_factors(covariance))


def log_normalised(weight: Tensor) -> Tensor:
    """Return the logarithms of weights (K, T), normalised to sum to 1."""
    return weight.clamp_min(TINY).log().log_softmax(-1)
