"""Base class of models whose posterior is a mixture of experts."""

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

    K draws from every expert are decoded into every modality. The objective is the `mixture_bound` of their log-weights

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
        """Family of the posteriors and the priors."""
        return FAMILIES[self.family]

    def aggregate(self, experts: Diagonal, subsets: Tensor) -> Mixture:
        return mixture_of_experts(experts, subsets)

    def experts_for_log_prob(self, experts: Diagonal) -> Diagonal:
        """Return the experts to be used in log q; for DReG their parameters are detached from the graph."""
        return experts.detach() if self.estimator == "dreg" else experts

    def draw_log_likelihood(self, codes: Tensor, batch: Batch) -> Tensor:
        """Return log p of the observed modalities of each row, given codes (B, M, K, ·) of each expert: (B, M, K)."""
        present = batch.observed.unsqueeze(-1).expand(codes.shape[:-1])  # experts of observed modalities
        wanted = (present.unsqueeze(-1) & batch.observed[:, None, None, :]).flatten(1, 2)
        if batch.complete:
            wanted = self.each_modality(wanted.shape[1])
        likelihood = self.log_likelihood(codes.flatten(1, 2), batch, wanted).sum(-1)
        return likelihood.reshape(present.shape)

    def divergence(self, experts: Diagonal, z: Tensor, batch: Batch) -> Tensor:
        """Return log q(z | X) − log p(z) of the shared codes (B, M, K, D) drawn from the experts: (B, M, K)."""
        q = self.aggregate(self.experts_for_log_prob(experts), batch.observed.unsqueeze(1))  # (B, 1)
        return q[:, :, None].log_prob(z) - self.shared_prior().log_prob(z)

    def bound_loss(self, likelihood: Tensor, divergence: Tensor, drawn: Tensor, batch: Batch, kl_weight: float) -> Loss:
        """Return the loss, given log p and log q/p of every draw, (B, M, K) each, and the draws (B, M, K, ·)."""
        log_weights = likelihood - kl_weight * self.beta * divergence
        bound = mixture_bound(log_weights, drawn, batch.observed, self.bound, self.estimator)
        terms = {
            "reconstruction": -masked_mean(likelihood.mean(-1), batch.observed),
            "kl": masked_mean(divergence.mean(-1), batch.observed),
        }
        return Loss(-bound, terms)
