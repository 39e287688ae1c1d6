"""Diagonal distributions and their mixtures, sampled with a generator.

Everything here is a function of tensors: parameters live in modules, probability lives here. Torch's own
distributions draw from the global generator and its mixtures have no `rsample`, hence these thin classes.
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
"""Interval that a network's log-scale is clamped to: no posterior collapses to a point or overflows."""


@dataclass(frozen=True)
class Block:
    """One block of a latent code: its name, shape, and the modality that owns it (None: shared by all)."""

    name: str
    shape: tuple[int, ...]
    owner: str | None = None

    @property
    def size(self) -> int:
        """Number of latent dimensions in the block."""
        return math.prod(self.shape)

    def describe(self) -> dict[str, Any]:
        """JSON-able description, the inverse of `from_description`."""
        return {"name": self.name, "shape": list(self.shape), "owner": self.owner}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The block as `describe` gave it."""
        return cls(description["name"], tuple(description["shape"]), description["owner"])


class Diagonal(ABC):
    """Location–scale distribution with independent coordinates.

    Args:
        loc: (…, *event).
        scale: the family's own parameter, broadcastable to `loc`, positive.
        event: number of trailing dimensions that form one event; `log_prob` sums over them.
    """

    name: ClassVar[str]
    deviation: ClassVar[float]
    """Standard deviation of the family at scale 1."""

    def __init__(self, loc: Tensor, scale: Tensor, event: int = 1) -> None:
        self.loc, self.scale, self.event = loc, scale, event

    @staticmethod
    @abstractmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws at location 0 and scale 1, of the given size, with the type and device of `like`."""

    @staticmethod
    @abstractmethod
    def energy(residual: Tensor) -> Tensor:
        """−log density at location 0 and scale 1, without its constant."""

    constant: ClassVar[float]
    """Logarithm of the normalising constant at scale 1."""

    @classmethod
    def from_raw(cls, raw: Tensor) -> Self:
        """Distribution from a network's output (…, 2·D): locations, then log-scales, clamped to `LOG_SCALE`."""
        loc, log_scale = raw.chunk(2, dim=-1)
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
        """Log-density of each coordinate of (…, *event) values, broadcast against `loc`: (…, *event)."""
        return -self.energy((value - self.loc) / self.scale) - self.scale.log() - self.constant

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of (…, *event) values, broadcast against `loc`: (…)."""
        energy = self.energy((value - self.loc) / self.scale).flatten(-self.event).sum(-1)
        count = math.prod(self.loc.shape[-self.event :])
        if self.scale.numel() == 1:
            return -energy - count * (self.scale.log().reshape(()) + self.constant)
        return -energy - self.scale.log().expand_as(self.loc).flatten(-self.event).sum(-1) - count * self.constant

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, (*shape, …, *event)."""
        return self.loc + self.scale * self.noise((*shape, *self.loc.shape), self.loc, generator)

    def __getitem__(self, index: object) -> Self:
        """The distributions at `index` of the batch dimensions; the scale must have the shape of `loc`."""
        return type(self)(self.loc[index], self.scale[index], self.event)  # type: ignore[index]

    def marginal(self, kept: Tensor | slice) -> Self:
        """The distribution of some coordinates (D,) bool of the last dimension."""
        return type(self)(self.loc[..., kept], self.scale.expand_as(self.loc)[..., kept], self.event)

    def detach(self) -> Self:
        """The same distribution, its parameters cut from the graph."""
        return type(self)(self.loc.detach(), self.scale.detach(), self.event)


class Normal(Diagonal):
    """N(loc, scale²), independent coordinates."""

    name = "normal"
    deviation = 1.0
    constant = 0.5 * math.log(2 * math.pi)

    @staticmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
        return normal(size, like, generator)

    @staticmethod
    def energy(residual: Tensor) -> Tensor:
        return 0.5 * residual.square()


class Laplace(Diagonal):
    """Laplace(loc, scale), independent coordinates; the standard deviation is √2·scale."""

    name = "laplace"
    deviation = math.sqrt(2.0)
    constant = math.log(2.0)

    @staticmethod
    def noise(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
        centred = (2 * uniform(size, like, generator) - 1).clamp_min(torch.finfo(like.dtype).eps - 1)
        return -centred.sign() * torch.log1p(-centred.abs())

    @staticmethod
    def energy(residual: Tensor) -> Tensor:
        return residual.abs()


FAMILIES: dict[str, type[Diagonal]] = {family.name: family for family in (Normal, Laplace)}


class Mixture:
    """Σ_c w_c p_c with C diagonal components a batch entry; the event is the last dimension.

    Args:
        weights: (…, C) probabilities; a component of weight 0 is absent, whatever its parameters.
        components: batch shape (…, C), event (D,).
    """

    def __init__(self, weights: Tensor, components: Diagonal) -> None:
        self.weights, self.components = weights, components

    @classmethod
    def single(cls, component: Diagonal) -> Mixture:
        """The mixture whose only component is a given distribution."""
        weights = torch.ones_like(component.loc[..., :1])
        return cls(weights, type(component)(component.loc.unsqueeze(-2), component.scale.unsqueeze(-2)))

    @classmethod
    def uniform(cls, components: Diagonal, present: Tensor) -> Mixture:
        """Equal weights over the components marked in `present` (…, C) bool, of which each row has one at least."""
        present = present.to(components.loc.dtype)
        return cls(present / present.sum(-1, keepdim=True), components)

    @classmethod
    def stack(cls, mixtures: Sequence[Mixture]) -> Mixture:
        """Mixtures of batch shapes (N_i,) one below the other; the shorter ones gain components of weight 0."""
        width = max(q.weights.shape[-1] for q in mixtures)

        def rows(tensors: Sequence[Tensor], fill: float) -> Tensor:
            return torch.cat([pad(t, (*[0, 0] * (t.dim() - 2), 0, width - t.shape[1]), value=fill) for t in tensors])

        loc, scale = (
            rows([getattr(q.components, name) for q in mixtures], fill) for name, fill in (("loc", 0.0), ("scale", 1.0))
        )
        weights = rows([q.weights for q in mixtures], 0.0)
        return cls(weights, type(mixtures[0].components)(loc, scale))

    @property
    def mean(self) -> Tensor:
        """Mean, (…, D)."""
        return torch.einsum("...c,...cd->...d", self.weights, self.components.loc)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, (…, D): within the components and between them."""
        second = self.components.variance + self.components.loc.square()
        return torch.einsum("...c,...cd->...d", self.weights, second) - self.mean.square()

    def __getitem__(self, index: object) -> Mixture:
        """The mixtures at `index` of the batch dimensions."""
        return Mixture(self.weights[index], self.components[index])  # type: ignore[index]

    def marginal(self, kept: Tensor | slice) -> Mixture:
        """The mixture of some coordinates, (D,) bool."""
        return Mixture(self.weights, self.components.marginal(kept))

    def detach(self) -> Mixture:
        """The same mixture, its parameters cut from the graph."""
        return Mixture(self.weights.detach(), self.components.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of (…, D) values, broadcast against the batch: (…)."""
        log_weights = self.weights.clamp_min(torch.finfo(self.weights.dtype).tiny).log()
        log_weights = log_weights.masked_fill(self.weights == 0, -math.inf)
        return (log_weights + self.components.log_prob(value.unsqueeze(-2))).logsumexp(-1)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws (*shape, …, D): a component for each by its weight, reparameterised within it."""
        index = choose(self.weights, uniforms(self.weights, shape, generator))
        return self.component(index).rsample((), generator)

    def stratified(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (K, …, D) whose components are spread evenly by weight; each mean over draws is that of the mixture."""
        index = choose(self.weights, strata(self.weights, draws, generator))
        return self.component(index).rsample((), generator)

    def component(self, index: Tensor) -> Diagonal:
        """The components chosen by `index` (*shape, …, 1), as distributions with batch shape (*shape, …)."""
        index = index.unsqueeze(-1)  # (*shape, …, 1, 1)

        def pick(parameter: Tensor) -> Tensor:
            full = parameter.expand(*index.shape[:-2], *parameter.shape[-2:])
            return full.take_along_dim(index, -2).squeeze(-2)

        return type(self.components)(pick(self.components.loc), pick(self.components.scale))

    def thin(self, limit: int, generator: torch.Generator) -> Mixture:
        """A mixture of at most `limit` components: each row keeps that many, drawn without replacement.

        Over draws of the generator its expectation is the full mixture when the weights are equal. Rows with no
        more than `limit` components of positive weight keep them all, with their weights.
        """
        if self.weights.shape[-1] <= limit:
            return self
        numbers = torch.rand(self.weights.shape, generator=generator, dtype=self.weights.dtype)
        # Weighted sampling without replacement (Efraimidis & Spirakis 2006): the largest log(u)/w.
        keys = numbers.to(self.weights.device).log() / self.weights
        index = keys.topk(limit, dim=-1).indices  # (…, limit); weight 0 has key −∞
        kept = self.weights.gather(-1, index)
        crowded = (self.weights > 0).sum(-1, keepdim=True) > limit
        weights = torch.where(crowded, (kept > 0).to(kept.dtype) / limit, kept)
        loc = self.components.loc.take_along_dim(index.unsqueeze(-1), -2)
        scale = self.components.scale.take_along_dim(index.unsqueeze(-1), -2)
        return Mixture(weights, type(self.components)(loc, scale))


def uniforms(weights: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Numbers from 0 to 1 to `choose` components by weights (…, C) with: (*shape, …, 1)."""
    return uniform((*shape, *weights.shape[:-1], 1), weights, generator)


def strata(weights: Tensor, draws: int, generator: torch.Generator | None) -> Tensor:
    """The same, (K, …, 1), one in each K-th of the interval."""
    low = torch.arange(draws, dtype=weights.dtype, device=weights.device).reshape(-1, *[1] * weights.dim())
    return (low + uniforms(weights, (draws,), generator)) / draws


def choose(weights: Tensor, numbers: Tensor) -> Tensor:
    """Component of weights (…, C) in which each of the numbers (*shape, …, 1) falls: (*shape, …, 1).

    Never one of weight 0, though a number be rounded to 1.
    """
    cumulative = weights.cumsum(-1)
    below = numbers.clamp_max(1 - torch.finfo(weights.dtype).eps)
    return (cumulative <= below * cumulative[..., -1:]).sum(-1, keepdim=True)


def side_by_side(first: Diagonal | Mixture, second: Diagonal) -> Any:
    """The product distribution over one vector: the coordinates of `first`, then those of `second`.

    Args:
        first: batch shape (…), event (D,); a mixture stays one.
        second: batch shape broadcastable to that of `first`, event (P,), of the same family.
    """
    if second.loc.shape[-1] == 0:
        return first
    if isinstance(first, Mixture):
        alike = type(second)(second.loc.unsqueeze(-2), second.scale.unsqueeze(-2))
        return Mixture(first.weights, side_by_side(first.components, alike))

    def join(one: Tensor, other: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(one.shape[:-1], other.shape[:-1])
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in (one, other)], -1)

    return type(first)(join(first.loc, second.loc), join(first.scale, second.scale))


def kl_divergence(q: Diagonal, p: Diagonal) -> Tensor:
    """KL(q ‖ p) of two diagonal normals in nats, summed over the event: (…)."""
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        raise ValueError(f"KL divergence: found {q.name} and {p.name}, expected two normal distributions")
    ratio = (q.scale / p.scale).square()
    shift = ((q.loc - p.loc) / p.scale).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).flatten(-q.event).sum(-1)
