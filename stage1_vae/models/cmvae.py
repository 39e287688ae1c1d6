"""CMVAE: MMVAE+ with a clustered prior of the shared codes."""

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

    MMVAE+ with the learned prior p(z) = Σ_c π_c p(z | c), p(z | c) = N(μ_c, diag σ_c²). The objective also contains the
    posterior of the cluster, which has a closed form. With it the terms of the cluster reduce to log p(z):

        q(c | z) = π_c p(z | c) / p(z)   ⇒   E_{q(c|z)} log [π_c p(z | c) / q(c | z)] = log p(z).

    The log-weights are therefore those of MMVAE+ with this p(z). `prune` removes unused clusters after training. The
    refiner of stage 2 takes the place of the paper's diffusion model, which refines the decoded images.

    Args:
        clusters: number C of clusters, at least the expected number of classes; `prune` finds how many are used.
        draws: number K of draws per expert.
        estimator: `iwae` or `dreg`; `MMVAE` documents when DReG is unbiased.
        bound: `looser` (as in the paper) or `tight`.
        family: `normal` or `laplace`, for posteriors, clusters and private priors.
        beta: β; with β = 1 and r_n = p(w_n) the objective is a lower bound on the log-likelihood. The paper uses 2.5.
        private: dimension of the private codes, one for all modalities or by name; the paper uses 32.
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
        """Return p(z), event (D,): the mixture of the clusters marked in `alive`, with renormalised weights."""
        scale = self.cluster_log_scales.clamp(*LOG_SCALE).exp()
        return Mixture(self.weights_of(self.alive), self.experts_family(self.cluster_locations, scale))

    def weights_of(self, alive: Tensor) -> Tensor:
        """Return π restricted to the clusters marked in `alive`, (C,); a `Mixture` ignores clusters of weight 0."""
        return self.cluster_logits.masked_fill(~alive, -math.inf).softmax(0)

    def membership(self, z: Tensor) -> Tensor:
        """Return q(c | z), (…, C), of shared codes (…, D)."""
        prior = self.shared_prior()
        return (prior.weights.log() + prior.components.log_prob(z.unsqueeze(-2))).softmax(-1)

    @torch.no_grad()
    def prune(self, batches: Iterable[Batch], generator: torch.Generator) -> dict[int, float]:
        """Keep only the clusters that the data use, and return the criterion by number of clusters.

        The cluster with the smallest mass Σ q(c | z_m) is removed repeatedly, until two are left. The number of
        clusters with the smallest penalised entropy of the paper is kept. The penalised entropy with C' clusters is the
        mean over rows, their modalities and z_m ~ q_m of

            β · H[q(c | z_m)] / log C' − log p(z_m) / D.

        `alive` marks the clusters that are kept; it is part of the state. All other clusters have weight 0 in the
        prior. Parameters and shapes do not change.
        """
        densities, observed = [], []
        for batch in batches:
            z = self.unimodal(batch).shared.rsample((), generator)  # (B, M, D)
            densities.append(self.shared_prior().components.log_prob(z.unsqueeze(-2)))
            observed.append(batch.observed)
        density, present = torch.cat(densities), torch.cat(observed)  # (N, M, C), (N, M)
        alive, best = self.alive.clone(), self.alive.clone()
        criteria: dict[int, float] = {}
        for count in range(int(alive.sum()), 1, -1):
            log_joint = density + self.weights_of(alive).log()
            membership = log_joint.softmax(-1)
            entropy = torch.special.entr(membership).sum(-1) / math.log(count)
            penalised = self.beta * entropy - log_joint.logsumexp(-1) / self.latent
            criterion = float(masked_mean(penalised, present).mean())
            if criterion < min(criteria.values(), default=math.inf):
                best = alive.clone()
            criteria[count] = criterion
            mass = masked_mean(membership, present.unsqueeze(-1), 1).sum(0)  # (C,)
            alive[mass.masked_fill(~alive, math.inf).argmin()] = False
        self.alive.copy_(best)
        return criteria
