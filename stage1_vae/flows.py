"""Normalizing flows as posteriors: the one file of this stage that knows normflows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Diagonal, Normal, choose, strata, uniforms
from postprior.stage1_vae.experts import divided_product
from postprior.stage1_vae.hmc import hamiltonian_draws
from postprior.stage1_vae.randomness import normal, uniform


class Coupling(nf.flows.Flow):
    """u₂ ← (u₂ − t)·exp(−s) with (s, t) a network of u₁ and a context (Dinh et al. 2017, arXiv 1605.08803).

    The context comes as its share of the first hidden layer, so that what depends on it alone is computed once however
    many points are mapped. Nearly the identity at first.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.kept = features // 2
        self.first = nn.Linear(self.kept, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 2 * (features - self.kept))
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Base to codes: (n, D), given the context (n, H)."""
        log_scale, shift = self._affine(z, context)
        moved = z[:, self.kept :] * log_scale.exp() + shift
        return torch.cat([z[:, : self.kept], moved], 1), log_scale.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to base."""
        log_scale, shift = self._affine(z, context)
        moved = (z[:, self.kept :] - shift) * (-log_scale).exp()
        return torch.cat([z[:, : self.kept], moved], 1), -log_scale.sum(-1)

    def _affine(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.functional.silu(self.first(z[:, : self.kept]) + context)
        raw, shift = self.last(nn.functional.silu(self.second(hidden))).chunk(2, -1)
        return 2 * torch.tanh(raw / 2), shift  # a step's scale stays within e^±2: the density's tails are normal


class ConditionalFlow(nn.Module):
    """A family of densities on R^D around normals: z = μ + σ·f(u), u ~ N(0, I), where f too depends on (μ, log σ).

    Layers alternate a linear map (a fixed permutation and a learned LU factorisation) and a coupling. At first they
    do little but permute, so that the density is nearly the normal itself. Both directions take one pass, in full
    precision whatever the rest of the model runs in, for a log-density is a sum of many terms.

    Args:
        features: D, 2 at least.
        hidden: width of the couplings' networks.
        blocks: pairs of a linear map and a coupling.
    """

    def __init__(self, features: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.context = nn.Linear(2 * features, blocks * hidden)
        self.mixers: Any = nn.ModuleList([nf.flows.LULinearPermute(features) for _ in range(blocks)])
        self.couplings: Any = nn.ModuleList([Coupling(features, hidden) for _ in range(blocks)])

    def forward(self, normal: Normal) -> FlowPosterior:
        """The densities around normals of batch shape (B,)."""
        loc, scale = (parameter.to(self.context.weight.dtype) for parameter in (normal.loc, normal.scale))
        with torch.autocast(loc.device.type, enabled=False):
            given = self.context(torch.cat([loc, scale.log()], -1))  # (B, blocks·H)
            maps = [(unpermuted(mixer), mixer.linear.bias, mixer.linear.logabsdet()) for mixer in self.mixers]
        return FlowPosterior(self, maps, Normal(loc, scale), given.unflatten(-1, (len(self.couplings), -1)))


def unpermuted(mixer: Any) -> Tensor:
    """The matrix W (D, D) of the linear map that takes codes towards the base: x → W x + b."""
    return mixer.linear.weight()[:, mixer.permutation._inverse_permutation]


class FlowPosterior:
    """Densities of a `ConditionalFlow`, batch shape (B,), event (D,).

    Args:
        flow: the layers.
        maps: matrix, offset and log-determinant of each linear map, made once for all points.
        normal: what the densities are built around.
        context: (B, blocks, H).
    """

    def __init__(
        self,
        flow: ConditionalFlow,
        maps: list[tuple[Tensor, Tensor, Tensor]],
        normal: Normal,
        context: Tensor,
    ) -> None:
        self.flow, self.maps, self.normal, self.context = flow, maps, normal, context

    def __getitem__(self, index: Tensor) -> FlowPosterior:
        """The densities at `index` of the batch."""
        return FlowPosterior(self.flow, self.maps, self.normal[index], self.context[index])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of one point each, (B, D) → (B,)."""
        with torch.autocast(z.device.type, enabled=False):
            u = (z - self.normal.loc) / self.normal.scale
            total = -self.normal.scale.log().sum(-1)
            for index, (coupling, (matrix, offset, linear)) in enumerate(
                zip(self.flow.couplings, self.maps, strict=True)
            ):
                u = nn.functional.linear(u, matrix, offset)
                u, log_det = coupling.inverse(u, self.context[:, index])
                total = total + linear + log_det
            return Normal(torch.zeros_like(u[:1]), u.new_ones(1)).log_prob(u) + total

    def push(self, u: Tensor) -> Tensor:
        """The codes that standard normal noise (B, D) becomes."""
        for index in reversed(range(len(self.maps))):
            u, _ = self.flow.couplings[index](u, self.context[:, index])
            u, _ = self.flow.mixers[index](u)
        return self.normal.loc + self.normal.scale * u

    def rsample(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, (K, B, D)."""
        noise = normal((draws, *self.normal.loc.shape), self.normal.loc, generator)
        rows = torch.arange(noise.shape[1], device=noise.device).repeat(draws)
        return self[rows].push(noise.flatten(0, 1)).reshape(noise.shape)


class FlowMixture:
    """The equal mixture of the flows of what is chosen of a row, or the joint normal where that is everything.

    Args:
        joint: q(z | X), batch shape (B,).
        flows: q_m of each modality, batch shape (B,).
        chosen: (…, M) bool, of which each entry has one at least.
        rows: (…), the row of the B that each entry is of.
    """

    def __init__(self, joint: Normal, flows: Sequence[FlowPosterior], chosen: Tensor, rows: Tensor) -> None:
        self.joint, self.flows, self.chosen, self.rows = joint, flows, chosen, rows
        whole = chosen.all(-1, keepdim=True)
        present = torch.cat([whole, chosen & ~whole], -1).to(joint.loc.dtype)
        self.weights = present / present.sum(-1, keepdim=True)  # (…, 1 + M)

    def __getitem__(self, index: Any) -> FlowMixture:
        """The mixtures at `index` of the batch dimensions."""
        return FlowMixture(self.joint, self.flows, self.chosen[index], self.rows[index])

    def at(self, where: Tensor) -> FlowMixture:
        """The mixtures of the n entries marked in `where` (*shape, …) bool, batch shape (n,)."""
        chosen, rows = self.chosen.expand(*where.shape, -1), self.rows.expand(where.shape)
        return FlowMixture(self.joint, self.flows, chosen[where], rows[where])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of points (*shape, …, D): (*shape, …)."""
        rows, weights = self.rows.expand(z.shape[:-1]), self.weights.expand(*z.shape[:-1], -1)
        terms = []
        experts: list[Any] = [self.joint, *self.flows]
        for index, q in enumerate(experts):
            here = weights[..., index] > 0
            found = q[rows[here]].log_prob(z[here]) + weights[..., index][here].log()
            terms.append(torch.full_like(z[..., 0], -torch.inf).masked_scatter(here, found))
        return torch.stack(terms).logsumexp(0)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws (*shape, …, D), through which no gradient passes."""
        return self._draw(uniforms(self.weights, shape, generator), generator)

    def stratified(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (K, …, D) spread evenly over the components, as those of a `Mixture`."""
        return self._draw(strata(self.weights, draws, generator), generator)

    @torch.no_grad()
    def _draw(self, uniform: Tensor, generator: torch.Generator | None) -> Tensor:
        index = choose(self.weights, uniform).squeeze(-1)  # (*shape, …)
        rows = self.rows.expand(index.shape)
        noise = normal((*index.shape, self.joint.loc.shape[-1]), self.joint.loc, generator)
        z = self.joint.loc[rows] + self.joint.scale[rows] * noise
        for number, q in enumerate(self.flows, 1):
            here = index == number
            z[here] = q[rows[here]].push(noise[here])
        return z


class FlowProduct:
    """Π_{m∈S} q_m(z) / p̃(z)^(|S|−1) of flows q_m, or the joint normal where S is everything.

    p̃ is the prior with coordinates clipped to ±`CLIP`. The tails of a flow are normal and of any width, so that their
    product divided by the prior itself may have no integral; p̃ is bounded from below, by which it always has one.

    Args:
        experts: the mixture of what is multiplied, batch shape (…).
        prior: p, normal, event (D,).
    """

    CLIP = 6.0
    CHAINS = 8
    """Most chains an entry; where more draws are asked for, some are successive states of one."""
    CANDIDATES = 16
    """Points among which the start of a chain is chosen."""
    MOMENT_DRAWS = 64

    def __init__(self, experts: FlowMixture, prior: Diagonal) -> None:
        self.experts, self.prior = experts, prior

    def __getitem__(self, index: Any) -> FlowProduct:
        """The distributions at `index` of the batch dimensions."""
        return FlowProduct(self.experts[index], self.prior)

    @torch.no_grad()
    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws (*shape, …, D), through which no gradient passes.

        Exact where S is one modality or all; elsewhere states of Markov chains, which move in the coordinates of the
        product of normals with the flows' moments, and start at draws of it.
        """
        count = math.prod(shape)
        chains = min(count, self.CHAINS)
        states = -(-count // chains)
        z = self.experts.rsample((states, chains), generator)  # (states, chains, …, D)
        chosen = self.experts.chosen
        run = ((chosen.sum(-1) > 1) & ~chosen.all(-1)).expand(z.shape[1:-1])  # (chains, …)
        if bool(run.any()):
            metric, target = self.metric(generator), self.target(run)
            loc, scale = (part.expand_as(z[0])[run] for part in (metric.loc, metric.scale))
            moved = hamiltonian_draws(
                lambda v: target(loc + scale * v),
                (self.start(metric, run, generator) - metric.loc) / metric.scale,
                generator,
                draws=states,
                run=run,
            )
            z[:, run] = loc + scale * moved
        return z.flatten(0, 1)[:count].reshape(*shape, *z.shape[2:])

    def metric(self, generator: torch.Generator | None) -> Normal:
        """The (guarded) product of normals that have the moments of the flows, batch shape (…)."""
        draws = torch.stack([q.rsample(self.MOMENT_DRAWS, generator) for q in self.experts.flows], 2)  # (K, B, M, D)
        normals = Normal(draws.mean(0), draws.std(0))[self.experts.rows.flatten()]
        q = divided_product(normals, self.experts.chosen.flatten(0, -2).unsqueeze(1), self.prior)
        size = (*self.experts.rows.shape, -1)
        return Normal(q.loc.reshape(size), q.scale.reshape(size))

    def start(self, metric: Normal, run: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws of the metric, each one of several by the ratio of the densities (Rubin 1988): (chains, …, D)."""
        z = metric.rsample((self.CANDIDATES, len(run)), generator)
        every = run.expand(z.shape[:-1])
        keys = -(
            -uniform(z.shape[:-1], z, generator).log()
        ).log()  # Gumbel noise: the largest sum with log-weights is a draw by weight
        keys[every] += self.target(every)(z[every]) - metric.log_prob(z)[every]
        return z.take_along_dim(keys.argmax(0)[None, ..., None], 0)[0]

    def target(self, run: Tensor) -> Callable[[Tensor], Tensor]:
        """Log-density (n, D) → (n,), up to a constant, of the n entries marked in `run` (*shape, …) bool."""
        experts = self.experts.at(run)
        places = [column.nonzero()[:, 0] for column in experts.chosen.T]
        flows = [q[experts.rows[place]] for place, q in zip(places, experts.flows, strict=True)]
        times = experts.chosen.sum(-1) - 1

        def log_density(z: Tensor) -> Tensor:
            total = -times * self.prior.log_prob(z.clamp(-self.CLIP, self.CLIP))
            for place, q in zip(places, flows, strict=True):
                total = total.index_add(0, place, q.log_prob(z[place]))
            return total

        return log_density
