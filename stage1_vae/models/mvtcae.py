"""MVTCAE: a product of experts trained on a bound on the total correlation."""

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


class MVTCAE(MultimodalVAE):
    """Multi-view total-correlation autoencoder (Hwang et al. 2021, NeurIPS).

    q(z | x_S) ∝ Π_{m∈S} q_m(z), a product *without* the prior. For a row with M modalities the objective is

        (M − α)/M · E_q Σ_m log p(x_m | z) − β [(1 − α) KL(q ‖ p) + α/M Σ_m KL(q ‖ q_m)].

    The last sum keeps every unimodal posterior close to the joint posterior, which makes cross-modal generation work.
    With α = 1 the objective is the bound on the total correlation alone; with α = 0 it is that of a β-VAE.

    Args:
        alpha: α ∈ [0, 1].
        beta: β. The paper uses 2.5; at a likelihood scale of 0.1, a value of 1 uses more of the code.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        alpha: float = 5 / 6,
        beta: float = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: found {alpha}, expected a number from 0 to 1")
        self.alpha, self.beta = alpha, positive("beta", beta)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return product_of_experts(experts, subsets)

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        experts = self.unimodal(batch).shared
        count = batch.observed.sum(-1).to(experts.loc.dtype)  # (B,)
        q = self.aggregate(experts, batch.observed.unsqueeze(1))  # (B, 1)
        likelihood = self.log_likelihood(q.rsample(generator=generator), batch, self.each_modality()).sum((1, 2))
        joint = kl_divergence(q, self.shared_prior())[:, 0]
        unimodal = torch.where(batch.observed, kl_divergence(q, experts), 0).sum(-1)
        penalty = (1 - self.alpha) * joint + self.alpha / count * unimodal
        terms = {"reconstruction": -likelihood, "kl": joint, "kl_to_unimodal": unimodal}
        return Loss(kl_weight * self.beta * penalty - (count - self.alpha) / count * likelihood, terms)
