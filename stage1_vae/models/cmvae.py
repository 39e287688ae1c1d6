"""CMVAE: MMVAE+ whose shared codes form clusters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.bounds import masked_mean
from postprior.stage1_vae.distributions import LOG_SCALE, Mixture
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import Sizes
from postprior.stage1_vae.models.mmvaeplus import PrivateMixture
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.randomness import seeded


class CMVAE(PrivateMixture):
    """Clustering multimodal VAE (Palumbo et al. 2024, ICLR, https://openreview.net/forum?id=k5THrhXDV3).

    MMVAE+ with the prior p(z) = Σ_c π_c p(z | c), p(z | c) = N(μ_c, diag σ_c²), all of it learned. The objective has a
    posterior of the cluster too, in closed form, with which its terms collapse:

        q(c | z) = π_c p(z | c) / p(z)   ⇒   E_{q(c|z)} log [π_c p(z | c) / q(c | z)] = log p(z),

    so that the log-weights are those of MMVAE+ with this p(z). Clusters that no data use are pruned afterwards. The
    diffusion model that refines the decoders' images is left out.

    Args:
        clusters: number C of clusters, at least that of the classes expected; `prune` finds how many are used.
        draws: number K of draws an expert.
        estimator: `iwae` or `dreg`; see `MMVAE` for when DReG is unbiased.
        bound: `looser` (the paper's) or `tight`.
        family: `normal` or `laplace`, of posteriors, clusters and private priors.
        beta: β; 1 and r_n = p(w_n) give a bound on the evidence, the paper has 2.5.
        private: dimension of the private codes, one for all modalities or by name; the paper has 32.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        clusters: int = 20,
        draws: int = 1,
        estimator: str = "iwae",
        bound: str = "looser",
        family: str = "normal",
        beta: float = 1.0,
        private: int | Mapping[str, int] = 8,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(
            modalities,
            draws=draws,
            estimator=estimator,
            bound=bound,
            family=family,
            beta=beta,
            private=private,
            **sizes,
        )
        self.clusters = positive("clusters", clusters)
        with seeded(self.seed):
            self.cluster_locations = nn.Parameter(2 * torch.rand(clusters, self.latent) - 1)
        self.cluster_log_scales = nn.Parameter(torch.zeros(clusters, self.latent))
        self.cluster_logits = nn.Parameter(torch.zeros(clusters))
        self.alive: Tensor
        self.register_buffer("alive", torch.ones(clusters, dtype=torch.bool))

    def shared_prior(self) -> Mixture:
        """p(z), event (D,): the mixture of the clusters that are alive, their weights renormalised."""
        scale = self.cluster_log_scales.clamp(*LOG_SCALE).exp()
        return Mixture(self.weights_of(self.alive), self.experts_family(self.cluster_locations, scale))

    def weights_of(self, alive: Tensor) -> Tensor:
        """π restricted to some clusters, (C,); the others have weight 0, which a `Mixture` takes for absent."""
        return self.cluster_logits.masked_fill(~alive, -math.inf).softmax(0)

    def membership(self, z: Tensor) -> Tensor:
        """q(c | z) of shared codes (…, D), (…, C)."""
        prior = self.shared_prior()
        return (prior.weights.log() + prior.components.log_prob(z.unsqueeze(-2))).softmax(-1)

    @torch.no_grad()
    def prune(self, batches: Iterable[Batch], generator: torch.Generator) -> dict[int, float]:
        """Keep only the clusters that the data use, and tell the criterion by number of clusters.

        The cluster of the least mass Σ q(c | z_m) is taken away, one after the other, down to two. The number stays for
        which the paper's penalised entropy is least: over rows, their modalities and z_m ~ q_m, with C' clusters left,
        the mean of

            β · H[q(c | z_m)] / log C' − log p(z_m) / D.

        `alive` tells which were kept. It is part of the state, and a cluster that is not has weight 0 in the prior:
        parameters and shapes stay as they are.
        """
        densities, observed = [], []
        for batch in batches:
            z = self.unimodal(batch).shared.rsample((), generator)  # (B, M, D)
            densities.append(self.shared_prior().components.log_prob(z.unsqueeze(-2)))
            observed.append(batch.observed)
        density, present = torch.cat(densities), torch.cat(observed)  # (N, M, C), (N, M)
        alive, kept = self.alive.clone(), self.alive.clone()
        criteria: dict[int, float] = {}
        for count in range(int(alive.sum()), 1, -1):
            log_joint = density + self.weights_of(alive).log()
            membership = log_joint.softmax(-1)
            entropy = torch.special.entr(membership).sum(-1) / math.log(count)
            penalised = self.beta * entropy - log_joint.logsumexp(-1) / self.latent
            criterion = float(masked_mean(penalised, present).mean())
            if criterion < min(criteria.values(), default=math.inf):
                kept = alive.clone()
            criteria[count] = criterion
            mass = masked_mean(membership, present.unsqueeze(-1), 1).sum(0)  # (C,)
            alive[mass.masked_fill(~alive, math.inf).argmin()] = False
        self.alive.copy_(kept)
        return criteria
