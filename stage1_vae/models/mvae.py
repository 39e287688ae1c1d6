"""MVAE: a product of experts trained on the ELBOs of subsets of modalities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import numbered_subsets, product_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss
from postprior.stage1_vae.randomness import uniform


class MVAE(MultimodalVAE):
    """Multimodal VAE (Wu & Goodman 2018, arXiv 1802.05335).

    q(z | x_S) ∝ p(z) Π_{m∈S} q_m(z), a product *with* the prior as an expert (section 2.1). The objective (eq. 4) is

        ELBO(X) + Σ_m ELBO(x_m) + Σ_{j≤k} ELBO(x_{S_j}),
        ELBO(x_S) = E_{q(z|x_S)} Σ_{m∈S} log p(x_m | z) − β KL(q(z | x_S) ‖ p),

    where the S_j are drawn per row, uniformly from the non-empty subsets of its observed modalities. A subset
    reconstructs only its own modalities.

    Args:
        subsets: number k of random subsets per row and step.
        beta: weight of the divergences.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        subsets: int = 1,
        beta: float = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        if subsets < 0:
            raise ValueError(f"subsets: found {subsets}, expected a whole number of at least 0")
        self.subsets, self.beta = subsets, positive("beta", beta)
        self.static = not subsets

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return product_of_experts(experts, subsets, self.shared_prior())

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        subsets = self.draw_subsets(batch.observed, generator)  # (B, 1 + k + M, M)
        present = subsets.any(-1)
        q = self.aggregate(self.unimodal(batch).shared, subsets)
        z = q.rsample(generator=generator)
        known = batch.complete and not self.subsets  # random subsets are known to the device only
        wanted = torch.cat([self.each_modality(), self.own_modality()]) if known else subsets
        likelihood = self.log_likelihood(z, batch, wanted).sum((-2, -1))
        divergence = torch.where(present, kl_divergence(q, self.shared_prior()), 0).sum(-1)
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * self.beta * divergence - likelihood, terms)

    def draw_subsets(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """Return the subsets of the bounds of each row, (B, 1 + k + M, M) bool.

        These are all observed modalities, k random subsets, and the single modalities (empty if missing).
        """
        count = observed.sum(-1, keepdim=True)  # (B, 1)
        place = uniform((len(observed), self.subsets), observed.double(), generator)
        numbers = 1 + (place * (2.0**count - 1)).long()  # (B, k)
        drawn = numbered_subsets(observed, numbers)
        return torch.cat([observed.unsqueeze(1), drawn, torch.diag_embed(observed)], 1)
