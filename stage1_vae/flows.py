"""Normalizing flows as posteriors. This is the only module of stage 1 that imports normflows."""

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
    """u₂ ← (u₂ − t)·exp(−s), with (s, t) a network of u₁ and a context (Dinh et al. 2017, arXiv 1605.08803).

    The context is added to the first hidden layer. The part of that layer that depends on the context alone is thus
    computed once for any number of points. Before training the layer is nearly the identity.
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
        """Map base values (n, D) to codes (n, D), given the context (n, H); also return the log-determinant (n,)."""
        log_scale, shift = self._affine(z, context)
        moved = z[:, self.kept :] * log_scale.exp() + shift
        return torch.cat([z[:, : self.kept], moved], 1), log_scale.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes (n, D) to base values, given the context (n, H); also return the log-determinant (n,)."""
        log_scale, shift = self._affine(z, context)
        moved = (z[:, self.kept :] - shift) * (-log_scale).exp()
        return torch.cat([z[:, : self.kept], moved], 1), -log_scale.sum(-1)

    def _affine(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.functional.silu(self.first(z[:, : self.kept]) + context)
        raw, shift = self.last(nn.functional.silu(self.second(hidden))).chunk(2, -1)
        return 2 * torch.tanh(raw / 2), shift  # scale within e^±2, so that the tails of the density stay normal


class ConditionalFlow(nn.Module):
    """A flow around normal distributions: z = μ + σ·f(u), u ~ N(0, I), where f also depends on (μ, log σ).

    Linear maps (a fixed permutation and a learned LU factorisation) and couplings alternate. Before training the layers
    do little more than permute, so the density is nearly the normal density. Both directions take one pass. They run
    in full precision even if the rest of the model does not, because a log-density is a sum of many terms.

    Args:
        features: dimension D, at least 2.
        hidden: width of the networks of the couplings.
        blocks: number of pairs of a linear map and a coupling.
    """

    def __init__(self, features: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.context = nn.Linear(2 * features, blocks * hidden)
        self.mixers: Any = nn.ModuleList([nf.flows.LULinearPermute(features) for _ in range(blocks)])
        self.couplings: Any = nn.ModuleList([Coupling(features, hidden) for _ in range(blocks)])

    def forward(self, normal: Normal) -> FlowPosterior:
        """Return the densities around normal distributions of batch shape (B,)."""
        loc, scale = (parameter.to(self.context.weight.dtype) for parameter in (normal.loc, normal.scale))
        with torch.autocast(loc.device.type, enabled=False):
            context = self.context(torch.cat([loc, scale.log()], -1))  # (B, blocks·H)
            maps = [(linear_matrix(mixer), mixer.linear.bias, mixer.linear.logabsdet()) for mixer in self.mixers]
        return FlowPosterior(self, maps, Normal(loc, scale), context.unflatten(-1, (len(self.couplings), -1)))


def linear_matrix(mixer: Any) -> Tensor:
    """Return the matrix W (D, D) of the linear map x → W x + b in the direction from codes to the base."""
    return mixer.linear.weight()[:, mixer.permutation._inverse_permutation]


class FlowPosterior:
    """Densities of a `ConditionalFlow`, batch shape (B,), event (D,).

    Args:
        flow: the layers.
        maps: matrix, offset and log-determinant of each linear map, computed once for all points.
        normal: the normal distributions around which the flow is built.
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
        """Return the densities at `index` of the batch."""
        return FlowPosterior(self.flow, self.maps, self.normal[index], self.context[index])

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density of one point per density, (B, D) → (B,)."""
        with torch.autocast(z.device.type, enabled=False):
            u = (z - self.normal.loc) / self.normal.scale
            total = -self.normal.scale.log().sum(-1)
            for index, (coupling, (matrix, offset, linear_log_det)) in enumerate(
                zip(self.flow.couplings, self.maps, strict=True)
            ):
                u = nn.functional.linear(u, matrix, offset)
                u, log_det = coupling.inverse(u, self.context[:, index])
                total = total + linear_log_det + log_det
            return Normal(torch.zeros_like(u[:1]), u.new_ones(1)).log_prob(u) + total

    def push(self, u: Tensor) -> Tensor:
        """Map standard normal noise (B, D) to codes (B, D)."""
        for index in reversed(range(len(self.maps))):
            u, _ = self.flow.couplings[index](u, self.context[:, index])
            u, _ = self.flow.mixers[index](u)
        return self.normal.loc + self.normal.scale * u

    def rsample(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Return reparameterised draws, (K, B, D)."""
        noise = normal((draws, *self.normal.loc.shape), self.normal.loc, generator)
        rows = torch.arange(noise.shape[1], device=noise.device).repeat(draws)
        return self[rows].push(noise.flatten(0, 1)).reshape(noise.shape)


class FlowMixture:
    """Mixture with equal weights of the flows of the chosen modalities, or the joint normal if all are chosen.

    Args:
        joint: q(z | X), batch shape (B,).
        flows: q_m of each modality, batch shape (B,).
        chosen: (…, M) bool; each entry holds at least one modality.
        rows: (…), index among the B rows to which each entry belongs.
    """

    def __init__(self, joint: Normal, flows: Sequence[FlowPosterior], chosen: Tensor, rows: Tensor) -> None:
        self.joint, self.flows, self.chosen, self.rows = joint, flows, chosen, rows
        complete = chosen.all(-1, keepdim=True)
        present = torch.cat([complete, chosen & ~complete], -1).to(joint.loc.dtype)
        self.weights = present / present.sum(-1, keepdim=True)  # (…, 1 + M)

    def __getitem__(self, index: Any) -> FlowMixture:
        """Return the mixtures at `index` of the batch dimensions."""
        return FlowMixture(self.joint, self.flows, self.chosen[index], self.rows[index])

    def at(self, where: Tensor) -> FlowMixture:
        """Return the mixtures of the n entries marked in `where` (*shape, …) bool, batch shape (n,)."""
        chosen, rows = self.chosen.expand(*where.shape, -1), self.rows.expand(where.shape)
        return FlowMixture(self.joint, self.flows, chosen[where], rows[where])

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density of points (*shape, …, D): (*shape, …)."""
        rows, weights = self.rows.expand(z.shape[:-1]), self.weights.expand(*z.shape[:-1], -1)
        terms = []
        components: list[Any] = [self.joint, *self.flows]
        for index, q in enumerate(components):
            mask = weights[..., index] > 0
            log_probs = q[rows[mask]].log_prob(z[mask]) + weights[..., index][mask].log()
            terms.append(torch.full_like(z[..., 0], -torch.inf).masked_scatter(mask, log_probs))
        return torch.stack(terms).logsumexp(0)

    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return draws (*shape, …, D), without a gradient."""
        return self._draw(uniforms(self.weights, shape, generator), generator)

    def stratified(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Return K stratified draws (K, …, D), spread evenly over the components as by `Mixture.stratified`."""
        return self._draw(strata(self.weights, draws, generator), generator)

    @torch.no_grad()
    def _draw(self, uniform: Tensor, generator: torch.Generator | None) -> Tensor:
        index = choose(self.weights, uniform).squeeze(-1)  # (*shape, …)
        rows = self.rows.expand(index.shape)
        noise = normal((*index.shape, self.joint.loc.shape[-1]), self.joint.loc, generator)
        z = self.joint.loc[rows] + self.joint.scale[rows] * noise
        for component, q in enumerate(self.flows, 1):
            mask = index == component
            z[mask] = q[rows[mask]].push(noise[mask])
        return z


class FlowProduct:
    """Π_{m∈S} q_m(z) / p̃(z)^(|S|−1) of flows q_m, or the joint normal if S holds all modalities.

    p̃(z) is the prior density at coordinates clipped to ±`CLIP`. The tails of a flow are normal but can have any width,
    so the product divided by the prior itself may not be integrable. p̃ is bounded from below, so the product divided
    by p̃ is always integrable.

    Args:
        experts: the mixture of the factors of the product, batch shape (…).
        prior: p, normal, event (D,).
    """

    CLIP = 6.0
    """Bound of the coordinates at which the prior is evaluated."""
    CHAINS = 8
    """Maximum number of chains per entry. For more draws, several successive states of a chain are used."""
    CANDIDATES = 16
    """Number of points from which the start of a chain is drawn."""
    MOMENT_DRAWS = 64
    """Number of draws per flow from which its mean and scale are estimated."""

    def __init__(self, experts: FlowMixture, prior: Diagonal) -> None:
        self.experts, self.prior = experts, prior

    def __getitem__(self, index: Any) -> FlowProduct:
        """Return the distributions at `index` of the batch dimensions."""
        return FlowProduct(self.experts[index], self.prior)

    @torch.no_grad()
    def rsample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Return draws (*shape, …, D), without a gradient.

        Draws are exact if S is one modality or all modalities. Otherwise they are states of Markov chains. The chains
        run in coordinates standardised by the product of normals with the moments of the flows (`metric`), and start
        at draws from that product.
        """
        count = math.prod(shape)
        chains = min(count, self.CHAINS)
        states = -(-count // chains)
        z = self.experts.rsample((states, chains), generator)  # (states, chains, …, D)
        chosen = self.experts.chosen
        run = ((chosen.sum(-1) > 1) & ~chosen.all(-1)).expand(z.shape[1:-1])  # (chains, …), where chains are needed
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
        """Return the `divided_product` of normals with the moments of the flows, batch shape (…)."""
        draws = torch.stack([q.rsample(self.MOMENT_DRAWS, generator) for q in self.experts.flows], 2)  # (K, B, M, D)
        normals = Normal(draws.mean(0), draws.std(0))[self.experts.rows.flatten()]
        q = divided_product(normals, self.experts.chosen.flatten(0, -2).unsqueeze(1), self.prior)
        size = (*self.experts.rows.shape, -1)
        return Normal(q.loc.reshape(size), q.scale.reshape(size))

    def start(self, metric: Normal, run: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return start points (chains, …, D), resampled from draws of the metric by density ratio (Rubin 1988)."""
        z = metric.rsample((self.CANDIDATES, len(run)), generator)
        run_candidates = run.expand(z.shape[:-1])
        # Gumbel noise: the candidate with the largest sum of noise and log-weight is a draw by weight.
        keys = -(-uniform(z.shape[:-1], z, generator).log()).log()
        keys[run_candidates] += self.target(run_candidates)(z[run_candidates]) - metric.log_prob(z)[run_candidates]
        return z.take_along_dim(keys.argmax(0)[None, ..., None], 0)[0]

    def target(self, run: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the log-density (n, D) → (n,), up to a constant, of the n entries marked in `run` (*shape, …) bool."""
        experts = self.experts.at(run)
        entries = [column.nonzero()[:, 0] for column in experts.chosen.T]  # entries that use each modality
        flows = [q[experts.rows[entry]] for entry, q in zip(entries, experts.flows, strict=True)]
        divisions = experts.chosen.sum(-1) - 1

        def log_density(z: Tensor) -> Tensor:
            total = -divisions * self.prior.log_prob(z.clamp(-self.CLIP, self.CLIP))
            for entry, q in zip(entries, flows, strict=True):
                total = total.index_add(0, entry, q.log_prob(z[entry]))
            return total

        return log_density
