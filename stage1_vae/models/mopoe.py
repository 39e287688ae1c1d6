"""MoPoE: a mixture of the products of experts over all subsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor

from stage1_vae.bounds import masked_mean
from stage1_vae.distributions import Mixture, Normal, all_subsets, kl_divergence, product_of_experts
from stage1_vae.modalities import Batch, Modality
from stage1_vae.model import Loss, MultimodalVAE, Sizes, positive


class MoPoE(MultimodalVAE):
    """Mixture-of-products-of-experts VAE (Sutter et al. 2021, arXiv 2105.02470).

    With q_S ∝ Π_{m∈S} q_m and q = mean of the q_S over the 2^|X| − 1 non-empty subsets of what a row has, the
    objective (eq. 5, its divergence bounded by the mean as in lemma 1) is

        E_{q(z|X)} Σ_m log p(x_m | z) − β · mean_S KL(q_S ‖ p).

    No product has the prior as an expert: the paper defines none, its code adds one to the full subset only, which
    would make the same row's posterior depend on whether a modality is missing or was never there. Every draw takes
    its subset by itself, row by row.

    Args:
        draws: draws of the posterior a row and step.
        beta: weight of the divergences.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        draws: int = 1,
        beta: float = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        self.draws, self.beta = positive("draws", draws), positive("beta", beta)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Mixture:
        products, inside = self.products(experts, subsets)
        size = (*inside.shape, self.latent)  # (B, S, P, D)
        loc, scale = (parameter.unsqueeze(1).expand(size) for parameter in (products.loc, products.scale))
        return Mixture.uniform(Normal(loc, scale), inside)

    def products(self, experts: Normal, subsets: Tensor) -> tuple[Normal, Tensor]:
        """The products over all P subsets, batch shape (B, P), and which lie inside each given one, (B, S, P) bool."""
        every = all_subsets(len(self.modalities), subsets.device)  # (P, M)
        return product_of_experts(experts, every), ~(every & ~subsets.unsqueeze(2)).any(-1)

    def loss(self, batch: Batch, generator: torch.Generator, warmth: float = 1.0) -> Loss:
        products, inside = self.products(self.experts(batch), batch.observed.unsqueeze(1))
        inside = inside[:, 0]  # (B, P)
        z = Mixture.uniform(products, inside).rsample((self.draws,), generator).transpose(0, 1)  # (B, K, D)
        wanted = batch.observed.unsqueeze(1).expand(-1, self.draws, -1)
        likelihood = self.log_likelihood(z, batch, wanted).sum(-1).mean(-1)
        divergence = masked_mean(kl_divergence(products, self.prior()), inside)
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(warmth * self.beta * divergence - likelihood, terms)
