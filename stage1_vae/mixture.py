"""Models whose posterior is a mixture of experts: what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

from torch import Tensor

from postprior.stage1_vae.bounds import BOUNDS, ESTIMATORS, masked_mean, mixture_bound
from postprior.stage1_vae.distributions import FAMILIES, Diagonal, Mixture
from postprior.stage1_vae.experts import mixture_of_experts
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.options import one_of, positive
from postprior.stage1_vae.phases import Loss


class MixtureVAE(MultimodalVAE):
    """Multimodal VAE with q(z | x_S) = 1/|S| Σ_{m∈S} q_m(z), trained on an importance-weighted bound.

    K draws of every expert are decoded into every modality, and the objective is `mixture_bound` of their log-weights

        log w_m^k = log p(X | ·) + β [log p(·) − log q(· | X)].
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        draws: int,
        estimator: str,
        bound: str,
        family: str,
        beta: float,
        private: int | Mapping[str, int] = 0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, private=private, **sizes)
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.bound, self.family = one_of("bound", bound, BOUNDS), one_of("family", family, FAMILIES)
        self.draws, self.beta = positive("draws", draws), positive("beta", beta)

    @property
    def experts_family(self) -> type[Diagonal]:  # type: ignore[override]
        """Family of posteriors and priors."""
        return FAMILIES[self.family]

    def aggregate(self, experts: Diagonal, subsets: Tensor) -> Mixture:
        return mixture_of_experts(experts, subsets)

    def experts_for_log_prob(self, experts: Diagonal) -> Diagonal:
        """The experts as log q reads them: DReG wants their parameters cut from the graph."""
        return experts.detach() if self.estimator == "dreg" else experts

    def draw_log_likelihood(self, codes: Tensor, batch: Batch) -> Tensor:
        """log p of all that a row has, given codes (B, M, K, ·) that each expert drew: (B, M, K)."""
        present = batch.observed.unsqueeze(-1).expand(codes.shape[:-1])  # experts that exist
        wanted = present.unsqueeze(-1) & batch.observed[:, None, None, :]
        found = self.log_likelihood(codes.flatten(1, 2), batch, wanted.flatten(1, 2)).sum(-1)
        return found.reshape(present.shape)

    def divergence(self, experts: Diagonal, z: Tensor, batch: Batch) -> Tensor:
        """log q(z | X) − log p(z) of shared codes (B, M, K, D) that the experts drew: (B, M, K)."""
        q = self.aggregate(self.experts_for_log_prob(experts), batch.observed.unsqueeze(1))  # (B, 1)
        return q[:, :, None].log_prob(z) - self.shared_prior().log_prob(z)

    def bound_loss(self, likelihood: Tensor, divergence: Tensor, drawn: Tensor, batch: Batch, kl_weight: float) -> Loss:
        """The loss from log p and log q/p of every draw, (B, M, K) each, and what the experts drew, (B, M, K, ·)."""
        log_weights = likelihood - kl_weight * self.beta * divergence
        bound = mixture_bound(log_weights, drawn, batch.observed, self.bound, self.estimator)
        terms = {
            "reconstruction": -masked_mean(likelihood.mean(-1), batch.observed),
            "kl": masked_mean(divergence.mean(-1), batch.observed),
        }
        return Loss(-bound, terms)
