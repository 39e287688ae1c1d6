"""TELBO: a joint encoder with decoders, then unimodal encoders for the same decoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

import torch

from postprior.stage1_vae.distributions import kl_divergence
from postprior.stage1_vae.experts import full_product
from postprior.stage1_vae.joint import JointVAE
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import Sizes
from postprior.stage1_vae.options import vector_like, weights_of
from postprior.stage1_vae.phases import Loss, Phase


class TELBO(JointVAE):
    """Model with the triple ELBO (Vedantam et al. 2018, arXiv 1705.10762), for any number of modalities.

    The first phase trains the joint encoder and the decoders. The second phase trains the unimodal encoders while the
    others are frozen:

        1.  E_{q(z|X)} Σ_m λ_m log p(x_m | z) − KL(q(z | X) ‖ p),
        2.  Σ_m [γ_m E_{q_m} log p(x_m | z) − KL(q_m ‖ p)].

    The sum of the two is the objective of the paper, which also trains in two steps. q_m does not depend on the other
    modalities, so the second phase also uses incomplete rows. With weights of 1, each term is a lower bound on a
    log-likelihood, log p(X) or log p(x_m).

    Args:
        joint_weights: λ, one for all modalities or by name (1 for modalities that are not in a mapping).
        unimodal_weights: γ, likewise.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        joint_weights: float | Mapping[str, float] = 1.0,
        unimodal_weights: float | Mapping[str, float] = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        self.joint_weights, self.unimodal_weights = joint_weights, unimodal_weights
        self.lambdas = weights_of("joint_weights", joint_weights, self.modalities)
        self.gammas = weights_of("unimodal_weights", unimodal_weights, self.modalities)

    def phases(self) -> list[Phase]:
        unimodal = list(self.encoders.parameters())
        unimodal_ids = {id(parameter) for parameter in unimodal}
        joint = [parameter for parameter in self.parameters() if id(parameter) not in unimodal_ids]
        return [
            Phase("joint", joint, self.loss, complete=True, share=0.5),
            Phase("unimodal", unimodal, self.unimodal_loss, share=0.5),
        ]

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of the first phase, on complete rows."""
        _, likelihood, divergence = self.joint_terms(batch, generator)
        likelihood = full_product(likelihood, vector_like(likelihood, self.lambdas))
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * divergence - likelihood, terms)

    def unimodal_loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of the second phase, on rows with any pattern of observed modalities."""
        experts = self.unimodal(batch).shared  # (B, M)
        likelihood = self.log_likelihood(experts.rsample(generator=generator), batch, self.own_modality()).sum(-1)
        likelihood = full_product(likelihood, vector_like(likelihood, self.gammas))
        divergence = kl_divergence(experts, self.shared_prior())
        divergence = torch.where(batch.observed, divergence, 0).sum(-1)
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * divergence - likelihood, terms)
