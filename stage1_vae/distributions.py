"""Diagonal distributions and mixtures of them, sampled with an explicit generator.

The classes here hold tensors, not modules: parameters that are trained belong to the models. They replace
torch.distributions, which draws from the global generator and whose mixtures have no `rsample`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from postprior.stage1_vae.randomness import normal, uniform

LOG_SCALE = (-7.0, 5.0)
"""Interval to which a network's log-scale is clamped, so that no posterior collapses to a point or overflows."""


@dataclass(frozen=True)
class Block:
    """One block of a latent code: its name, its shape, and the modality that owns it (None if all share it)."""

    name: str
    shape: tuple[int, ...]
    owner: str | None = None

    @property
    def size(self) -> int:
        """Number of latent dimensions in the block."""
        return math.prod(self.shape)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description, the inverse of `from_description`."""
        return {"name": self.name, "shape": list(self.shape), "owner": self.owner}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Return the block with this description, which `describe` returned."""
        return cls(description["name"], tuple(description["shape"]), description["owner"])


def at_least_single(raw: Tensor) -> Tensor:
    """Return numbers in single precision if they are in half precision, in which sums of log-densities lose digits."""
    return raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw


class Diagonal(ABC):
    """Location–scale distribution with independent coordinates.

    Args:
        loc: (…, *event).
        scale: scale parameter of the family, broadcastable to `loc`, positive.
        event: number of trailing dimensions that form one event; `log_prob` sums over them.
    """

    name: ClassVar[str]
    deviation: ClassVar[float]
    """Standard deviation of the family at scale 1."""

    def __init__(self, loc: Tensor, scale: Tensor, event: int = 1) -> None:
        self.loc, self.scale, self.event = loc, scale, event

    @staticmethod
    @abstractmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None, dim: int = 0) -> Tensor:
        """Return draws at location 0 and scale 1, of the given size, with the type and device of `like`.

        `dim` is the dimension of the rows, as in `randomness.normal`.
        """

    @staticmethod
    @abstractmethod
    def energy(residual: Tensor) -> Tensor:
        """Return the negative log-density at location 0 and scale 1, without its constant."""

    @staticmethod
    @abstractmethod
    def likeliest_scale(residual: Tensor) -> Tensor:
        """Return the one scale, (), with the largest likelihood of residuals (…) at location 0."""

    constant: ClassVar[float]
    """Logarithm of the normalising constant at scale 1."""

    @classmethod
    def from_raw(cls, raw: Tensor) -> Self:
        """Return the distribution given by a network's output (…, 2·D): locations, then log-scales.

        Log-scales are clamped to `LOG_SCALE`. Outputs in half precision give a distribution in single precision.
        """
        loc, log_scale = at_least_single(raw).chunk(2, dim=-1)
        return cls(loc, log_scale.clamp(*LOG_SCALE).exp())

    @property
    def mean(self) -> Tensor:
        """Mean, (…, *event)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Variance, (…, *event)."""
        return (self.deviation * self.scale).square().expand_as(self.loc)

    def elementwise_log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each coordinate of the values (…, *event), broadcast against `loc`: (…, *event)."""
        return -self.energy((value - self.loc) / self.scale) - self.scale.log() - self.constant

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of the values (…, *event), broadcast against `loc`: (…)."""
        energy = self.energy((value - self.loc) / self.scale).flatten(-self.event).sum(-1)
        count = math.prod(self.loc.shape[-self.event :])
        if self.scale.numel() == 1:
            return -energy - count * (self.scale.log().reshape(()) + self.constant)
        return -energy - self.scale.log().expand_as(self.loc).flatten(-self.event).sum(-1) - count * self.constant

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return reparameterised draws, (*shape, …, *event).

        Rows are in the first dimension after `shape`, or in the first of `shape` if all rows share one distribution.
        """
        return self._drawn(shape, generator, len(shape) if self.loc.dim() > self.event else 0)

    def _drawn(self, shape: Sequence[int], generator: torch.Generator | None, dim: int) -> Tensor:
        return self.loc + self.scale * self.noise((*shape, *self.loc.shape), self.loc, generator, dim)

    def __getitem__(self, index: object) -> Self:
        """Return the distributions at `index` of the batch dimensions; the scale must have the shape of `loc`."""
        return type(self)(self.loc[index], self.scale[index], self.event)  # type: ignore[index]

    def marginal(self, kept: Tensor | slice) -> Self:
        """Return the marginal distribution of the coordinates `kept`, (D,) bool, of the last dimension."""
        return type(self)(self.loc[..., kept], self.scale.expand_as(self.loc)[..., kept], self.event)

    def widened(self, factor: Tensor) -> Self:
        """Return the same distribution with its scales multiplied by a factor (), at least 0."""
        return type(self)(self.loc, factor * self.scale, self.event)

    def detach(self) -> Self:
        """Return the same distribution with its parameters detached from the graph."""
        return type(self)(self.loc.detach(), self.scale.detach(), self.event)


class Normal(Diagonal):
    """Normal distribution N(loc, scale²) with independent coordinates."""

    name = "normal"
    deviation = 1.0
    constant = 0.5 * math.log(2 * math.pi)

    @staticmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None, dim: int = 0) -> Tensor:
        return normal(size, like, generator, dim)

    @staticmethod
    def energy(residual: Tensor) -> Tensor:
        return 0.5 * residual.square()

    @staticmethod
    def likeliest_scale(residual: Tensor) -> Tensor:
        return residual.square().mean().sqrt()


class Laplace(Diagonal):
    """Laplace distribution with independent coordinates; the standard deviation is √2·scale."""

    name = "laplace"
    deviation = math.sqrt(2.0)
    constant = math.log(2.0)

    @staticmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None, dim: int = 0) -> Tensor:
        centred = (2 * uniform(size, like, generator, dim) - 1).clamp_min(torch.finfo(like.dtype).eps - 1)
        return -centred.sign() * torch.log1p(-centred.abs())

    @staticmethod
    def energy(residual: Tensor) -> Tensor:
        return residual.abs()

    @staticmethod
    def likeliest_scale(residual: Tensor) -> Tensor:
        return residual.abs().mean()


FAMILIES: dict[str, type[Diagonal]] = {family.name: family for family in (Normal, Laplace)}


class Mixture:
    """Mixture Σ_c w_c p_c of C diagonal components per batch entry; the event is the last dimension.

    Args:
        weights: (…, C) probabilities; a component of weight 0 is absent and its parameters are ignored.
        components: batch shape (…, C), event (D,).
    """

    def __init__(self, weights: Tensor, components: Diagonal) -> None:
        self.weights, self.components = weights, components

    @classmethod
    def single(cls, component: Diagonal) -> Mixture:
        """Return the mixture whose only component is the given distribution."""
        weights = torch.ones_like(component.loc[..., :1])
        return cls(weights, type(component)(component.loc.unsqueeze(-2), component.scale.unsqueeze(-2)))

    @classmethod
    def uniform(cls, components: Diagonal, present: Tensor) -> Mixture:
        """Return the equal-weight mixture of the components marked in `present` (…, C) bool, at least one per row."""
        present = present.to(components.loc.dtype)
        return cls(present / present.sum(-1, keepdim=True), components)

    @classmethod
    def stack(cls, mixtures: Sequence[Mixture]) -> Mixture:
        """Concatenate mixtures of batch shapes (N_i,); mixtures with fewer components gain components of weight 0."""
        count = max(q.weights.shape[-1] for q in mixtures)

        def padded(tensors: Sequence[Tensor], fill: float) -> Tensor:
            lacking = [(t, (*[0, 0] * (t.dim() - 2), 0, count - t.shape[1])) for t in tensors]
            return torch.cat([pad(t, size, value=fill) if any(size) else t for t, size in lacking])  # pad copies

        loc, scale = (
            padded([getattr(q.components, name) for q in mixtures], fill)
            for name, fill in (("loc", 0.0), ("scale", 1.0))
        )
        weights = padded([q.weights for q in mixtures], 0.0)
        return cls(weights, type(mixtures[0].components)(loc, scale))

    @property
    def mean(self) -> Tensor:
        """Mean, (…, D)."""
        return torch.einsum("...c,...cd->...d", self.weights, self.components.loc)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, (…, D), within and between the components."""
        second_moment = self.components.variance + self.components.loc.square()
        return torch.einsum("...c,...cd->...d", self.weights, second_moment) - self.mean.square()

    def __getitem__(self, index: object) -> Mixture:
        """Return the mixtures at `index` of the batch dimensions."""
        return Mixture(self.weights[index], self.components[index])  # type: ignore[index]

    def marginal(self, kept: Tensor | slice) -> Mixture:
        """Return the marginal mixture of the coordinates `kept`, (D,) bool."""
        return Mixture(self.weights, self.components.marginal(kept))

    def detach(self) -> Mixture:
        """Return the same mixture with its parameters detached from the graph."""
        return Mixture(self.weights.detach(), self.components.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of the values (…, D), broadcast against the batch: (…)."""
        log_weights = self.weights.clamp_min(torch.finfo(self.weights.dtype).tiny).log()
        log_weights = log_weights.masked_fill(self.weights == 0, -math.inf)
        return (log_weights + self.components.log_prob(value.unsqueeze(-2))).logsumexp(-1)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return draws (*shape, …, D); each component is drawn by weight, the values within it are reparameterised."""
        index = choose(self.weights, uniforms(self.weights, shape, generator))
        return self.component(index)._drawn((), generator, len(shape))

    def stratified(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Return K stratified draws (K, …, D), spread evenly over the components by weight.

        A mean over the draws is an unbiased estimate of the mean under the mixture.
        """
        index = choose(self.weights, strata(self.weights, draws, generator))
        return self.component(index).rsample((), generator)

    def component(self, index: Tensor) -> Diagonal:
        """Return the components at `index` (*shape, …, 1), as distributions with batch shape (*shape, …)."""
        index = index.unsqueeze(-1)  # (*shape, …, 1, 1)

        def select(parameter: Tensor) -> Tensor:
            expanded = parameter.expand(*index.shape[:-2], *parameter.shape[-2:])
            return expanded.take_along_dim(index, -2).squeeze(-2)

        return type(self.components)(select(self.components.loc), select(self.components.scale))

    def thin(self, limit: int, generator: torch.Generator) -> Mixture:
        """Return a mixture of at most `limit` components per row, drawn without replacement.

        If the weights are equal, the expectation over draws of the generator is the full mixture. A row with at most
        `limit` components of positive weight keeps all of them, with their weights.
        """
        if self.weights.shape[-1] <= limit:
            return self
        noise = torch.rand(self.weights.shape, generator=generator, dtype=self.weights.dtype)
        # Weighted sampling without replacement keeps the largest log(u)/w (Efraimidis & Spirakis 2006).
        keys = noise.to(self.weights.device).log() / self.weights
        index = keys.topk(limit, dim=-1).indices  # (…, limit); a component of weight 0 has key −∞
        kept_weights = self.weights.gather(-1, index)
        too_many = (self.weights > 0).sum(-1, keepdim=True) > limit
        weights = torch.where(too_many, (kept_weights > 0).to(kept_weights.dtype) / limit, kept_weights)
        loc = self.components.loc.take_along_dim(index.unsqueeze(-1), -2)
        scale = self.components.scale.take_along_dim(index.unsqueeze(-1), -2)
        return Mixture(weights, type(self.components)(loc, scale))


def uniforms(weights: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Return uniform numbers (*shape, …, 1) with which `choose` selects components by weights (…, C)."""
    return uniform((*shape, *weights.shape[:-1], 1), weights, generator, len(shape))


def strata(weights: Tensor, draws: int, generator: torch.Generator | None) -> Tensor:
    """Return K stratified uniform numbers (K, …, 1) for `choose`, one in each K-th of the interval from 0 to 1."""
    low = torch.arange(draws, dtype=weights.dtype, device=weights.device).reshape(-1, *[1] * weights.dim())
    return (low + uniforms(weights, (draws,), generator)) / draws


def choose(weights: Tensor, numbers: Tensor) -> Tensor:
    """Return the index (*shape, …, 1) of the component, by weights (…, C), into which each number (*shape, …, 1) falls.

    A component of weight 0 is never chosen, even if a number is rounded to 1.
    """
    cumulative = weights.cumsum(-1)
    below = numbers.clamp_max(1 - torch.finfo(weights.dtype).eps)
    return (cumulative <= below * cumulative[..., -1:]).sum(-1, keepdim=True)


def side_by_side(first: Diagonal | Mixture, second: Diagonal) -> Any:
    """Return the product distribution over one vector: the coordinates of `first`, then those of `second`.

    Args:
        first: batch shape (…), event (D,). If it is a mixture, the result is a mixture.
        second: batch shape broadcastable to that of `first`, event (P,), of the same family.
    """
    if second.loc.shape[-1] == 0:
        return first
    if isinstance(first, Mixture):
        per_component = type(second)(second.loc.unsqueeze(-2), second.scale.unsqueeze(-2))
        return Mixture(first.weights, side_by_side(first.components, per_component))

    def join(one: Tensor, other: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(one.shape[:-1], other.shape[:-1])
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in (one, other)], -1)

    return type(first)(join(first.loc, second.loc), join(first.scale, second.scale))


def kl_divergence(q: Diagonal, p: Diagonal) -> Tensor:
    """Return KL(q ‖ p) of two diagonal normal distributions in nats, summed over the event: (…)."""
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        raise ValueError(f"KL divergence: found {q.name} and {p.name}, expected two normal distributions")
    ratio = (q.scale / p.scale).square()
    shift = ((q.loc - p.loc) / p.scale).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).flatten(-q.event).sum(-1)
