"""Nexus: one autoencoder per modality, and a top-level autoencoder of their codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes, Unimodal
from postprior.stage1_vae.networks import build_networks, decoder, encoder
from postprior.stage1_vae.networks.dense import DEPTH, DenseDecoder, DenseEncoder
from postprior.stage1_vae.options import positive, vector_like, weights_of
from postprior.stage1_vae.phases import Loss
from postprior.stage1_vae.randomness import seeded, uniform


class Nexus(MultimodalVAE):
    """Nexus (Vasco, Yin, Melo & Paiva 2022, Neural Networks 146, pp. 238–255).

    At the bottom level every modality has an autoencoder with its own code z_m and the prior N(0, I). At the top level
    each code sends a linear message, and q(z | x_S) reads the mean of the messages of S. The codes are reconstructed by
    p(z_m | z) = N(f_m(z), 1). The objective is the sum of

        bottom:  Σ_m E_{q(z_m|x_m)} log p(x_m | z_m) − β_m KL(q(z_m | x_m) ‖ p(z_m)),
        top:     E_{q(z|z_S)} Σ_m γ_m log p(z_m | z) − β KL(q(z | z_S) ‖ p(z)),

    over the observed modalities of a row. The top level treats the codes as constants: no gradient reaches the bottom
    level through it. Training uses forced perceptual dropout: with probability `dropout`, 1 to n − 1 of the n
    modalities of a row are left out of the mean. Their number is drawn uniformly, then the modalities. The top level
    still has to reconstruct the codes of all n modalities.

    The latent code of the model is z. `descend` returns the concatenated f_m(z), with or without a generator, as in the
    authors' code: the scale 1 at the top weighs a squared error, and noise of that size would hide the codes. The
    posterior of z reads the means of the bottom codes. There are two differences from the authors' code. It uses batch
    normalisation in the networks of the top level, which would make rows depend on one another. Its squared error has
    no factor ½, so its γ of 1 to 50 corresponds to 2 to 100 here. With γ = 2 the top level hardly learned the digits
    (conditional coherence 0.18 to 0.23 for 1 to 4 observed modalities after 1,000 steps of 32 rows); with 10 it reached
    0.43 to 0.58, and with 50 it reached 0.48 to 0.73.

    The objective is not a lower bound on the log-likelihood, and the bottom codes have two priors, N(0, I) and
    p(z_m | z).

    Args:
        bottom: dimension of the bottom code of each modality.
        dropout: probability of dropping modalities from the messages of a row.
        beta: β.
        bottom_beta: β_m, one for all modalities or by name.
        gamma: γ_m, one for all modalities or by name.
    """

    tractable = False

    GAMMA = 50.0
    """Default γ of all modalities, and of modalities that are not in a mapping."""

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        bottom: int = 32,
        dropout: float = 0.2,
        beta: float = 1.0,
        bottom_beta: float | Mapping[str, float] = 1.0,
        gamma: float | Mapping[str, float] = GAMMA,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: found {dropout}, expected a probability from 0 to 1")
        self.bottom, self.beta, self.dropout = positive("bottom", bottom), positive("beta", beta), dropout
        self.bottom_beta, self.gamma = bottom_beta, gamma
        names, hidden = [m.name for m in self.modalities], DEPTH * self.width
        self.bottom_betas = weights_of("bottom_beta", bottom_beta, self.modalities)
        self.gammas = weights_of("gamma", gamma, self.modalities, self.GAMMA)
        with seeded(self.seed):
            self.encoders, self.decoders = (
                build_networks(build, self.modalities, size, self.width, self.networks)
                for build, size in ((encoder, 2 * bottom), (decoder, bottom))
            )
            self.messages = nn.ModuleDict({name: nn.Linear(bottom, hidden) for name in names})
            self.listener = DenseEncoder((hidden,), 2 * self.latent, self.width)
            self.rebuilders = nn.ModuleDict({name: DenseDecoder((bottom,), self.latent, self.width) for name in names})

    def unimodal(self, batch: Batch) -> Unimodal:
        """Return the posteriors of the bottom codes, batch shape (B, M), in place of experts on z."""
        raw = torch.stack(self.outputs(batch), 1)
        return Unimodal(Normal.from_raw(raw), Normal(raw[:, 0, :0], raw[:, 0, :0]))

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return self.top_posterior(experts.loc, subsets)

    def top_posterior(self, codes: Tensor, subsets: Tensor) -> Normal:
        """Return q(z | z_S), batch shape (B, S), from bottom codes (B, M, ·) and the subsets S, (B, S, M) bool."""
        messages = [self.messages[m.name](codes[:, i]) for i, m in enumerate(self.modalities)]
        weights = subsets.to(codes.dtype)
        mean = weights / weights.sum(-1, keepdim=True) @ torch.stack(messages, 1)  # (B, S, ·)
        return Normal.from_raw(self.listener(mean.flatten(0, 1)).unflatten(0, subsets.shape[:2]))

    def drop_modalities(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """Return the observed modalities that remain after forced perceptual dropout, (B, M) bool."""
        count = observed.sum(-1)  # (B,)
        u, v = uniform((2, len(observed)), observed, generator, 1)
        dropped = torch.where(u < self.dropout, 1 + (v * (count - 1)).long(), 0).minimum(count - 1)
        keys = uniform(observed.shape, observed, generator)
        rank = keys.masked_fill(~observed, 2).argsort(-1).argsort(-1)  # missing modalities have the highest ranks
        return rank < (count - dropped).unsqueeze(-1)

    def descend(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        codes = [self.rebuilders[m.name](z.flatten(0, -2)) for m in self.modalities]
        return torch.cat(codes, -1).unflatten(0, z.shape[:-1])

    def decoder_input(self, modality: Modality, latents: Tensor) -> Tensor:
        start = self.bottom * [m.name for m in self.modalities].index(modality.name)
        return latents[..., start : start + self.bottom]

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        observed, q = batch.observed, self.unimodal(batch).shared
        codes = q.rsample((), generator)  # (B, M, ·)
        likelihood = self.log_likelihood(codes.flatten(1).unsqueeze(1), batch, self.each_modality()).sum((1, 2))
        weights = vector_like(codes, self.bottom_betas)
        bottom_kl = torch.where(observed, weights * kl_divergence(q, self._standard(self.bottom)), 0).sum(-1)
        codes = codes.detach()
        kept = self.drop_modalities(observed, generator) if self.training else observed
        top = self.top_posterior(codes, kept.unsqueeze(1))  # (B, 1)
        rebuilt = Normal(self.descend(top.rsample((), generator)).reshape_as(codes), codes.new_ones(()))
        weights = vector_like(codes, self.gammas)
        fit = torch.where(observed, weights * rebuilt.log_prob(codes), 0).sum(-1)
        top_kl = self.beta * kl_divergence(top, self.shared_prior())[:, 0]
        terms = {"reconstruction": -likelihood, "kl": bottom_kl + top_kl, "kl_top": top_kl, "rebuilding": -fit}
        return Loss(kl_weight * (bottom_kl + top_kl) - likelihood - fit, terms)

    def log_evidence(self, batch: Batch, generator: torch.Generator, draws: int = 64) -> Tensor:
        """Raise an error, because the log-likelihood of Nexus is not defined.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "log_evidence: found nexus, expected a model with a defined log-likelihood: the bottom codes of nexus have "
            "two priors"
        )
