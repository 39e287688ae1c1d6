"""MMVAE+: a mixture of experts over shared codes, with private codes that are not used across modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

import torch
from torch import nn

from postprior.stage1_vae.distributions import Diagonal
from postprior.stage1_vae.mixture import MixtureVAE
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import Sizes
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss


class PrivateMixture(MixtureVAE):
    """Mixture of experts over shared codes, with private codes: MMVAE+ and CMVAE except for the prior p(z).

    q(z | x_S) = 1/|S| Σ_{m∈S} q_m(z). Every expert draws K times z ~ q_m and w_m ~ q(w_m | x_m). For every other
    modality w̃_n ~ r_n is drawn from its auxiliary prior, separately for each row, expert and draw. The log-weights are

        log p(x_m | z, w_m) + Σ_{n≠m} log p(x_n | z, w̃_n) + β [log p(z) p(w_m) − log q(z | X) q(w_m | x_m)].

    The private code of x_m therefore carries no information about x_n. r_n has location 0 and learned scales whose mean
    over the code is 1. It is used in training only: the model and all its samples use w_n ~ p(w_n). If r_n = p(w_n) and
    β = 1, the mean weight is an unbiased estimate of p(X).
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        draws: int = 1,
        estimator: str = "iwae",
        bound: str = "looser",
        family: str = "laplace",
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
        positive("private", len(self.owners))
        self.auxiliary = nn.ParameterDict(
            {str(block.owner): nn.Parameter(torch.zeros(block.size)) for block in self.blocks}
        )

    def auxiliary_prior(self) -> Diagonal:
        """Return r(w) of all private codes, concatenated, event (P,)."""
        scale = torch.cat([logits.softmax(0) * len(logits) for logits in self.auxiliary.values()])
        return self.experts_family(torch.zeros_like(scale), scale)

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        unimodal, count = self.unimodal(batch), len(self.modalities)
        z = unimodal.shared.rsample((self.draws,), generator).permute(1, 2, 0, 3)  # (B, M, K, D)
        w = unimodal.private.rsample((self.draws,), generator).transpose(0, 1)  # (B, K, P)
        # All posterior draws in one tensor, for the hook of DReG. w̃ is not part of it, because r is not an encoder.
        drawn = torch.cat([z, w.unsqueeze(1).expand(-1, count, -1, -1)], -1)  # (B, M, K, D + P)
        z, w = drawn.split([self.latent, len(self.owners)], -1)
        is_own = self.owners == torch.arange(count, device=self.owners.device).reshape(-1, 1, 1)  # (M, 1, P)
        auxiliary = self.auxiliary_prior().rsample(w.shape[:-1], generator)
        codes = torch.cat([z, torch.where(is_own, w, auxiliary)], -1)

        likelihood = self.draw_log_likelihood(codes, batch)
        divergence = self.divergence(unimodal.shared, z, batch)
        private = self.experts_for_log_prob(unimodal.private)[:, None, None]
        ratio = private.elementwise_log_prob(w) - self.private_prior().elementwise_log_prob(w)
        divergence = divergence + torch.where(is_own, ratio, 0).sum(-1)
        return self.bound_loss(likelihood, divergence, drawn, batch, kl_weight)


class MMVAEPlus(PrivateMixture):
    """MMVAE+ (Palumbo et al. 2023, ICLR, https://openreview.net/forum?id=sdQGxouELX).

    A mixture of experts over shared codes, with private codes that reconstruct their own modality only. p(z) and p(w_m)
    have location 0 and scale 1. With the weights D_m^k of `PrivateMixture` the objective is

        looser (as in the paper):  1/|S| Σ_m log 1/K Σ_k D_m^k         tight:  log 1/(|S| K) Σ_{m,k} D_m^k.

    The private code of a missing modality is drawn from p(w_m) when the modality is generated, as in the authors'
    evaluation. Their code uses one draw for every decoder; here each modality has its own draw.

    Args:
        draws: number K of draws per expert; the paper uses 1, and 10 with `dreg`.
        estimator: `iwae` or `dreg`; `MMVAE` documents when DReG is unbiased.
        bound: `looser` or `tight`.
        family: `laplace` (as in the paper) or `normal`, for posteriors and priors.
        beta: β; with β = 1 and r_n = p(w_n) the objective is a lower bound on the log-likelihood. The paper uses 2.5.
        private: dimension of the private codes, one for all modalities or by name; the paper uses 32.
    """
