"""CRMVAE: a product of experts whose unimodal posteriors also reconstruct their own modality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import product_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss


class CRMVAE(MultimodalVAE):
    """Coordination-based multimodal VAE with unimodal reconstructions (Suzuki & Matsuo 2023, OpenReview Rn8u4MYgeNJ).

    q(z | x_S) ∝ Π_{m∈S} q_m(z), a product *without* the prior. For a row with M modalities the objective is the mean of
    M + 1 bounds: the joint bound, and one bound per modality that conditions on it and uses q_m as the prior,

        E_q log p(X | z) − β KL(q ‖ p),        E_q Σ_{n≠m} log p(x_n | z) − β KL(q ‖ q_m) + E_{q_m} log p(x_m | z).

    In their mean, reconstructions from q have weight M/(M + 1), reconstructions of x_m from q_m have weight 1/(M + 1),
    and every divergence has weight β/(M + 1). Without the unimodal reconstructions this is MVTCAE at α = M/(M + 1).

    Args:
        beta: β; the paper uses 2.5, see `MVTCAE`.
    """

    def __init__(self, modalities: Iterable[Modality], *, beta: float = 1.0, **sizes: Unpack[Sizes]) -> None:
        super().__init__(modalities, **sizes)
        self.beta = positive("beta", beta)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return product_of_experts(experts, subsets)

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        experts, observed = self.unimodal(batch).shared, batch.observed
        count = observed.sum(-1).to(experts.loc.dtype)  # (B,)
        q = self.aggregate(experts, observed.unsqueeze(1))  # (B, 1)
        posteriors = Normal(torch.cat([q.loc, experts.loc], 1), torch.cat([q.scale, experts.scale], 1))
        # The joint posterior reconstructs all observed modalities, the unimodal ones their own: (1 + M, M).
        wanted = torch.cat([self.each_modality(), self.own_modality()])
        likelihood = self.log_likelihood(posteriors.rsample(generator=generator), batch, wanted).sum(-1)
        joint, unimodal = likelihood[:, 0], likelihood[:, 1:].sum(-1)
        to_prior = kl_divergence(q, self.shared_prior())[:, 0]
        to_unimodal = torch.where(observed, kl_divergence(q, experts), 0).sum(-1)
        gain = (count * joint + unimodal) / (count + 1)
        penalty = (to_prior + to_unimodal) / (count + 1)
        terms = {
            "reconstruction": -joint,
            "unimodal_reconstruction": -unimodal,
            "kl": to_prior,
            "kl_to_unimodal": to_unimodal,
        }
        return Loss(kl_weight * self.beta * penalty - gain, terms)
