"""MHVAE: a hierarchy of latents in which the posterior of each level is a product of experts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.autoencoder import restrict
from postprior.stage1_vae.bounds import importance_bound
from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import numbered_subsets, product_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes, Unimodal
from postprior.stage1_vae.networks import scatter
from postprior.stage1_vae.networks.hierarchical import FINEST, Step, build_hierarchy
from postprior.stage1_vae.networks.patches import PatchDiscriminator
from postprior.stage1_vae.options import not_negative, one_of, positive
from postprior.stage1_vae.phases import Loss
from postprior.stage1_vae.randomness import seeded, uniform


@dataclass(frozen=True)
class Level:
    """One level: posterior and prior given the levels above, a draw from the posterior, and the state below it."""

    posterior: Normal
    prior: Normal
    z: Tensor
    state: Tensor


class MHVAE(MultimodalVAE):
    """Multi-modal hierarchical VAE (Dorent et al. 2023, arXiv 2309.08747).

    p(z) = p(z_L) Π_{l<L} p(z_l | z_>l). The posterior of every level is the normalised product

        q(z_L | x_S) ∝ p(z_L) Π_{m∈S} q_m(z_L),    q(z_l | x_S, z_>l) ∝ p(z_l | z_>l) Π_{m∈S} q_m(z_l | z_>l).

    The objective is the mean, over the non-empty subsets S of the observed modalities of a row, of

        ELBO_S = E_{q(z|x_S)} [Σ_m log p(x_m | z) − β Σ_l KL(q(z_l | x_S, z_>l) ‖ p(z_l | z_>l))].

    At β = 1 this is a lower bound on log p of the row, because every subset reconstructs all modalities of the row, as
    in the authors' code. The differences from that code are:

    - It runs all subsets of its two modalities. Here `subsets` of them are drawn per row and step, spread evenly over
      their numbers. Their mean is an unbiased estimate of the mean over all subsets, and equals it if `subsets` is the
      number of all subsets.
    - It adds inverse standard deviations. Here the product is that of densities, in which precisions are added.
    - Its levels and decoders read the nearest latent only. Here they read all latents above them, through a state to
      which every level adds.
    - Its adversarial loss is off by default. With a weight λ = `adversarial`, each image modality has a discriminator
      D_m (`PatchDiscriminator`), and ELBO_S has in addition −λ Σ_m H W (D_m(x̂_m) − 1)², where x̂_m is the mean of
      p(x_m | z). There only subsets of one modality have this term, and an optimiser with a learning rate of its own
      trains the discriminators after each step. Here AdamW, which treats every parameter by itself, trains all in one.

    The code is z_L, a vector. If every modality is an image, the levels below are feature maps. Otherwise all levels
    are vectors of `latent` dimensions. With one level this is a VAE whose posterior is a product of experts with the
    prior.

    Args:
        levels: number L of levels.
        channels: number of channels of every latent feature map.
        finest: `half` puts z_{L−1} on the coarsest grid, and every level below on a grid of twice the size, up to half
            the size of the images. `full` puts z_1 on the grid of the images, as in the paper, so that it carries their
            detail, and every level above on a grid of half the size.
        subsets: number of subsets per row and step.
        beta: weight of the divergences.
        adversarial: weight λ of the adversarial loss, for sharper and less exact images. 0: there are no
            discriminators.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        levels: int = 3,
        channels: int = 4,
        finest: str = "half",
        subsets: int = 2,
        beta: float = 1.0,
        adversarial: float = 0.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        self.levels, self.channels = positive("levels", levels), positive("channels", channels)
        self.finest = one_of("finest", finest, FINEST)
        self.subsets, self.beta = positive("subsets", subsets), positive("beta", beta)
        self.static = levels == 1 and not adversarial
        steps: list[Step] = []
        if levels == 1 and finest == "full":
            raise ValueError(
                "levels: found 1, expected at least 2 for finest: full, because z_1 is a map below the code"
            )
        if levels > 1:
            with seeded(self.seed):
                self.encoders, steps, self.decoders = build_hierarchy(
                    self.modalities, self.latent, self.width, levels, channels, finest, self.networks
                )
        self.steps: Sequence[Step] = nn.ModuleList(steps)  # type: ignore[assignment]
        self.adversarial = not_negative("adversarial", adversarial)
        if self.adversarial:
            networks = discriminators(self.modalities, self.width, self.seed)
            self.discriminators: Mapping[str, PatchDiscriminator] = networks  # type: ignore[assignment]

    def unimodal(self, batch: Batch) -> Unimodal:
        raw = torch.stack(self.outputs(batch), 1)
        return Unimodal(self.top(raw), Normal(raw[:, 0, :0], raw[:, 0, :0]))

    def top(self, outputs: Tensor) -> Normal:
        """Return the experts of z_L, batch shape (B, M), from the outputs of the encoders (B, M, ·)."""
        return Normal.from_raw(outputs[..., : 2 * self.latent])

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return product_of_experts(experts, subsets, self.shared_prior())

    def posterior_levels(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> list[Level]:
        """Draw every level from its posterior, from the top down, given each subset (B, S, M); batch shape (B, S)."""
        outputs = torch.stack(self.outputs(batch), 1)  # (B, M, ·)
        q = self.aggregate(self.top(outputs), subsets)
        z = q.rsample((), generator)
        levels = [Level(q, self.shared_prior(), z, z)]
        laterals = outputs[..., 2 * self.latent :].split([s.positions * s.hidden for s in self.steps], -1)
        for step, lateral in zip(self.steps, laterals, strict=True):
            levels.append(self.next_level(step, levels[-1].state, lateral, subsets, generator))
        return levels

    def next_level(
        self, step: Step, above: Tensor, lateral: Tensor, subsets: Tensor, generator: torch.Generator
    ) -> Level:
        """Return the level below the state `above` (B, S, ·), given lateral features (B, M, ·)."""
        rows, count, modalities = subsets.shape
        prior, hidden = step(above.flatten(0, 1))  # (B·S,)
        row, subset, modality = subsets.nonzero(as_tuple=True)  # factors exist only for modalities of the subset
        # index_select, because the gradient of indexing is summed in a random order on several threads.
        context = step.context(hidden).index_select(0, row * count + subset)
        features = lateral.flatten(0, 1).index_select(0, row * modalities + modality)
        factor = step.factor(context, features.unflatten(-1, (step.positions, step.hidden)))
        p = Normal(prior.loc.unflatten(0, (rows, count)), prior.scale.unflatten(0, (rows, count)))
        precision = factor.scale.pow(-2)
        total = p.scale.pow(-2) + scatter(precision, subsets).sum(2)  # (B, S, P·C)
        moment = p.loc * p.scale.pow(-2) + scatter(precision * factor.loc, subsets).sum(2)
        q = Normal(moment / total, total.rsqrt())
        z = q.rsample((), generator)
        return Level(q, p, z, step.state(hidden, z.flatten(0, 1)).unflatten(0, (rows, count)))

    def descend(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        state = z.flatten(0, -2)
        for step in self.steps:
            prior, hidden = step(state)
            state = step.state(hidden, prior.loc if generator is None else prior.rsample((), generator))
        return state.unflatten(0, z.shape[:-1])

    def infer(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> Tensor:
        return self.posterior_levels(batch, restrict(batch, subsets), generator)[-1].state

    def candidates(self, batch: Batch, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        levels = self.posterior_levels(batch, batch.observed.unsqueeze(1).expand(-1, draws, -1), generator)
        return levels[0].z, levels[-1].state

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        subsets = self.draw_subsets(batch.observed, generator)  # (B, S, M)
        levels = self.posterior_levels(batch, subsets, generator)
        likelihood = self.log_likelihood(levels[-1].state, batch, self.each_modality(self.subsets)).sum(-1).mean(-1)
        divergences = [kl_divergence(level.posterior, level.prior).mean(-1) for level in levels]
        divergence = torch.stack(divergences).sum(0)
        terms = {"reconstruction": -likelihood, "kl": divergence, "kl_top": divergences[0]}
        loss = kl_weight * self.beta * divergence - likelihood
        if not self.adversarial:
            return Loss(loss, terms)
        adversarial, discriminator = self.adversarial_terms(levels[-1].state, batch)
        # The loss of the discriminators adds its gradient, but no value: the model does not minimise it.
        loss = loss + self.adversarial * adversarial + (discriminator - discriminator.detach())
        return Loss(loss, terms | {"generator": adversarial, "discriminator": discriminator})

    def adversarial_terms(self, state: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the terms of the generator and the discriminators, both (B,), given the last states (B, S, ·)."""
        generator = discriminator = torch.zeros_like(state[:, 0, 0])
        for index, modality in enumerate(self.modalities):
            if modality.name in self.discriminators:
                rows = batch.observed[:, index]
                fakes = self.decode_one(modality, state[rows]).mean  # (n, S, *shape)
                own = self.discriminators[modality.name].terms(fakes, batch.data[modality.name][rows])
                generator, discriminator = generator + scatter(own[0], rows), discriminator + scatter(own[1], rows)
        return generator, discriminator

    def draw_subsets(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """Draw S subsets per row, (B, S, M) bool: one from each S-th of the numbers of its non-empty subsets."""
        count = 2.0 ** observed.sum(-1, keepdim=True) - 1  # (B, 1)
        places = uniform((len(observed), self.subsets), observed.double(), generator)
        strata = torch.arange(self.subsets, device=observed.device) + places
        numbers = (strata * count / self.subsets).long().minimum(count.long() - 1)
        return numbered_subsets(observed, 1 + numbers)

    @torch.no_grad()
    def log_evidence(self, batch: Batch, generator: torch.Generator, draws: int = 64) -> Tensor:
        """Estimate log p(x_S) of the observed modalities of each row by importance sampling of all levels: (B,).

        The estimate is log 1/K Σ_k p(x_S | z) Π_l p(z_l | z_>l) / q(z_l | x_S, z_>l), with the levels drawn from their
        posteriors, from the top down.
        """
        observed = batch.observed.unsqueeze(1).expand(-1, draws, -1)  # (B, K, M)
        levels = self.posterior_levels(batch, observed, generator)
        log_weights = self.log_prob(levels[-1].state, batch, self.each_modality(draws)).sum(-1)
        for level in levels:
            log_weights = log_weights + level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
        return importance_bound(log_weights, -1)


def discriminators(modalities: Sequence[Modality], width: int, seed: int) -> nn.ModuleDict:
    """Build a discriminator for each image modality whose likelihood has a mean.

    Raises:
        ValueError: there is no such modality.
    """
    images = [m for m in modalities if m.kind == "image" and m.likelihood != "categorical"]
    if not images:
        raise ValueError(
            "adversarial: found no modality that is an image with numbers, expected at least one; "
            "set vae.options.mhvae.adversarial to 0"
        )
    with seeded(seed):
        return nn.ModuleDict({m.name: PatchDiscriminator(m.shape, width) for m in images})
