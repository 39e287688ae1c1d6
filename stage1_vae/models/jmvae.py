"""JMVAE: a joint encoder, and unimodal encoders trained to match it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch

from postprior.stage1_vae.distributions import kl_divergence
from postprior.stage1_vae.joint import JointVAE
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import Sizes
from postprior.stage1_vae.options import not_negative, positive
from postprior.stage1_vae.phases import Loss, Phase


class JMVAE(JointVAE):
    """Joint multimodal VAE (Suzuki et al. 2016, arXiv 1611.01891), in its variant JMVAE-kl.

    The objective is the ELBO of a joint encoder minus the divergences between the joint and the unimodal posteriors,

        E_{q(z|X)} Σ_m log p(x_m | z) − β KL(q(z | X) ‖ p) − α Σ_m KL(q(z | X) ‖ q_m).

    At α = 0 and β = 1 it is a lower bound on log p(X). The last term also changes the joint posterior: for given
    experts and β = 1, the objective has its maximum at q ∝ [p(z | X) Π_m q_m^α]^(1/(1+Mα)).

    Args:
        alpha: α ≥ 0, the weight of the divergences from the unimodal posteriors.
        beta: β, the weight of the divergence from the prior.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        alpha: float = 0.1,
        beta: float = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        self.alpha, self.beta = not_negative("alpha", alpha), positive("beta", beta)

    def phases(self) -> list[Phase]:
        return [Phase("joint", list(self.parameters()), self.loss, complete=True)]

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        q, likelihood, joint = self.joint_terms(batch, generator)
        likelihood = likelihood.sum(-1)
        unimodal = kl_divergence(q[:, None], self.unimodal(batch).shared).sum(-1)
        terms = {"reconstruction": -likelihood, "kl": joint, "kl_to_unimodal": unimodal}
        return Loss(kl_weight * (self.beta * joint + self.alpha * unimodal) - likelihood, terms)
