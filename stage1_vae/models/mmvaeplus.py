"""MMVAE+: a mixture of experts over shared codes, with private codes that take no part in translation."""

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
    """Mixture of experts over shared codes beside private ones: all of MMVAE+ and CMVAE but the prior p(z).

    q(z | x_S) = 1/|S| Σ_{m∈S} q_m(z). K draws z ~ q_m and w_m ~ q(w_m | x_m) of every expert, and w̃_n ~ r_n of the
    auxiliary prior of every other modality, separately for each row, expert and draw, give the log-weights

        log p(x_m | z, w_m) + Σ_{n≠m} log p(x_n | z, w̃_n) + β [log p(z) p(w_m) − log q(z | X) q(w_m | x_m)],

    so that nothing private to x_m helps to tell what x_n is. r_n has location 0 and learned scales whose mean over the
    code is 1. It serves in training alone: the model, and all that is drawn from it, have w_n ~ p(w_n), and where r_n
    = p(w_n) and β = 1 the mean weight is an unbiased estimate of p(X).
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
        """r(w) of all private codes side by side, event (P,)."""
        scale = torch.cat([logits.softmax(0) * len(logits) for logits in self.auxiliary.values()])
        return self.experts_family(torch.zeros_like(scale), scale)

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        unimodal, count = self.unimodal(batch), len(self.modalities)
        z = unimodal.shared.rsample((self.draws,), generator).permute(1, 2, 0, 3)  # (B, M, K, D)
        w = unimodal.private.rsample((self.draws,), generator).transpose(0, 1)  # (B, K, P)
        # What the posteriors drew, in one tensor for the hook of DReG; w̃ stays outside of it, as r is not an encoder.
        drawn = torch.cat([z, w.unsqueeze(1).expand(-1, count, -1, -1)], -1)  # (B, M, K, D + P)
        z, w = drawn.split([self.latent, len(self.owners)], -1)
        own = self.owners == torch.arange(count, device=self.owners.device).reshape(-1, 1, 1)  # (M, 1, P)
        other = self.auxiliary_prior().rsample(w.shape[:-1], generator)
        codes = torch.cat([z, torch.where(own, w, other)], -1)

        likelihood = self.draw_log_likelihood(codes, batch)
        divergence = self.divergence(unimodal.shared, z, batch)
        private = self.experts_for_log_prob(unimodal.private)[:, None, None]
        ratio = private.elementwise_log_prob(w) - self.private_prior().elementwise_log_prob(w)
        divergence = divergence + torch.where(own, ratio, 0).sum(-1)
        return self.bound_loss(likelihood, divergence, drawn, batch, kl_weight)


class MMVAEPlus(PrivateMixture):
    """MMVAE+ (Palumbo et al. 2023, ICLR, https://openreview.net/forum?id=sdQGxouELX).

    A mixture of experts over shared codes, p(z) and p(w_m) of location 0 and scale 1, and private codes that
    reconstruct their own modality alone. With the weights D_m^k of `PrivateMixture` the objective is

        looser (the paper's):  1/|S| Σ_m log 1/K Σ_k D_m^k         tight:  log 1/(|S| K) Σ_{m,k} D_m^k.

    A modality that is missing has its private code from p(w_m) when it is generated, as in the authors' evaluation.
    Their code then feeds one draw of it to every decoder; here each modality has its own.

    Args:
        draws: number K of draws an expert; the paper uses 1, and 10 with `dreg`.
        estimator: `iwae` or `dreg`; see `MMVAE` for when DReG is unbiased.
        bound: `looser` or `tight`.
        family: `laplace` (the paper's) or `normal`, of posteriors and priors.
        beta: β; 1 and r_n = p(w_n) give a bound on the evidence, the paper has 2.5.
        private: dimension of the private codes, one for all modalities or by name; the paper has 32.
    """
