"""DMVAE: a product of experts over shared codes, with private codes, trained for cross-modal generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import product_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.options import not_negative, positive
from postprior.stage1_vae.phases import Loss
from postprior.stage1_vae.randomness import uniform


class DMVAE(MultimodalVAE):
    """Private-shared disentangled multimodal VAE (Lee & Pavlovic 2021, CVPR workshops, arXiv 2012.13024).

    q(z | x_S) ∝ p(z) Π_{m∈S} q_m(z) given two or more modalities, a product *with* the prior, and q(z | x_m) = q_m
    given one. The objective is the sum of M + 1 bounds, in which the shared code is drawn given all modalities or given
    one:

        Σ_q { E_q Σ_n log p(x_n | z, w_n) − β [KL(q(z) ‖ p) + Σ_n KL(q(w_n | x_n) ‖ p)] },
        q(z) ∈ {q(z | X), q_1, …, q_M}.

    In every bound the private code of a target is the same draw from its own posterior, as in the authors' code. It is
    drawn from the prior only if its modality is missing. The authors' code counts KL(q(z) ‖ p) once per target, and for
    two images it drops the reconstructions of the joint bound; here each of the M + 1 bounds is an ELBO. The paper's
    weights λ_n of the reconstructions are the option `rescaling`.

    With `bounds` k > 0, a step reconstructs from the joint code and from k of the codes of single modalities, drawn
    anew for every row and weighted by n/k for its n modalities: an unbiased estimate that decodes 1 + k codes of a row
    instead of 1 + n. All divergences are exact.

    Args:
        beta: weight of the divergences.
        bounds: bounds of single modalities that are reconstructed per row and step; 0: all of them.
        private: dimension of the private codes, one for all modalities or by name.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        beta: float = 1.0,
        bounds: int = 0,
        private: int | Mapping[str, int] = 4,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, private=private, **sizes)
        self.beta, self.bounds = positive("beta", beta), not_negative("bounds", bounds)
        self.static = not bounds

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        alone, together = (product_of_experts(experts, subsets, prior) for prior in (None, self.shared_prior()))
        single = subsets.sum(-1, keepdim=True) == 1
        return Normal(torch.where(single, alone.loc, together.loc), torch.where(single, alone.scale, together.scale))

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        subsets = torch.cat([batch.observed.unsqueeze(1), torch.diag_embed(batch.observed)], 1)
        present = subsets.any(-1)  # (B, 1 + M): bounds that exist for the row
        unimodal = self.unimodal(batch)
        q = self.aggregate(unimodal.shared, subsets)
        z = q.rsample((), generator)  # (B, 1 + M, D)
        w = unimodal.private.rsample((), generator).unsqueeze(1).expand(-1, z.shape[1], -1)
        weights = self.bound_weights(batch.observed, generator)
        wanted = (weights > 0).unsqueeze(-1) & batch.observed.unsqueeze(1)
        if batch.complete and not self.bounds:
            wanted = self.each_modality(wanted.shape[1])
        likelihoods = self.log_likelihood(torch.cat([z, w], -1), batch, wanted).sum(2)  # (B, 1 + M)
        likelihood = (weights * likelihoods).sum(1)
        private = kl_divergence(unimodal.private, self.private_prior()).unsqueeze(1)
        divergence = torch.where(present, kl_divergence(q, self.shared_prior()) + private, 0).sum(-1)
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * self.beta * divergence - likelihood, terms)

    def bound_weights(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """Return the weights (B, 1 + M) of the reconstructions in the bounds; they are 0 where a bound is left out."""
        count = observed.sum(-1, keepdim=True)
        kept = observed
        if self.bounds:
            keys = uniform(observed.shape, observed, generator).masked_fill(~observed, 2)
            kept = observed & (keys.argsort(-1).argsort(-1) < self.bounds)
        unimodal = kept * (count / kept.sum(-1, keepdim=True))
        return torch.cat([torch.ones_like(unimodal[:, :1]), unimodal], -1)
