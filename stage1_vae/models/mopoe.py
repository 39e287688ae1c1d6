"""MoPoE: a mixture of the products of experts over all subsets of modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

import torch
from torch import Tensor

from postprior.stage1_vae.bounds import masked_mean
from postprior.stage1_vae.distributions import Mixture, Normal, kl_divergence, side_by_side
from postprior.stage1_vae.experts import all_subsets, mixture_of_experts, product_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss


class MoPoE(MultimodalVAE):
    """Mixture-of-products-of-experts VAE (Sutter et al. 2021, arXiv 2105.02470).

    Let q_S ∝ Π_{m∈S} q_m, and let q be the mean of the q_S over the 2^|X| − 1 non-empty subsets of the observed
    modalities of a row. The objective (eq. 5, with its divergence bounded by the mean as in lemma 1) is

        E_{q(z|X)} Σ_m log p(x_m | z) − β · mean_S KL(q_S ‖ p).

    No product has the prior as an expert. The paper defines none; the authors' code adds one to the full subset only,
    which would make the posterior of a row depend on whether a modality is missing or is not part of the data at all.
    Every draw selects its own subset, per row. With private codes (Sutter et al. 2020, arXiv 2006.08242) each decoder
    reads z and w_m ~ q(w_m | x_m), and β Σ_m KL(q(w_m | x_m) ‖ p(w_m)) is subtracted.

    Args:
        draws: number of posterior draws per row and step.
        beta: weight of the divergences.
        private: dimension of the private codes, one for all modalities or by name.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        draws: int = 1,
        beta: float = 1.0,
        private: int | Mapping[str, int] = 0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, private=private, **sizes)
        self.draws, self.beta = positive("draws", draws), positive("beta", beta)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Mixture:
        products, inside = self.products(experts, subsets)
        return mixture_of_experts(products, inside)

    def products(self, experts: Normal, subsets: Tensor) -> tuple[Normal, Tensor]:
        """Return the products over all P subsets, batch shape (B, P), and which are inside each given subset.

        The second output is (B, S, P) bool.
        """
        candidates = all_subsets(len(self.modalities), subsets.device)  # (P, M)
        return product_of_experts(experts, candidates), ~(candidates & ~subsets.unsqueeze(2)).any(-1)

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        unimodal = self.unimodal(batch)
        products, inside = self.products(unimodal.shared, batch.observed.unsqueeze(1))
        inside = inside[:, 0]  # (B, P)
        q = side_by_side(Mixture.uniform(products, inside), unimodal.private)
        z = q.rsample((self.draws,), generator).transpose(0, 1)  # (B, K, D + P)
        likelihood = self.log_likelihood(z, batch, self.each_modality(self.draws)).sum(-1).mean(-1)
        shared = masked_mean(kl_divergence(products, self.shared_prior()), inside)
        divergence = shared + kl_divergence(unimodal.private, self.private_prior())
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * self.beta * divergence - likelihood, terms)
