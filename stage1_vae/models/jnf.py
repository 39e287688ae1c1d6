"""JNF: a joint encoder, and unimodal posteriors that are normalizing flows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import LOG_SCALE, Mixture, Normal
from postprior.stage1_vae.flows import ConditionalFlow, FlowMixture, FlowPosterior, FlowProduct
from postprior.stage1_vae.joint import JointVAE
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import Sizes
from postprior.stage1_vae.networks import encoder
from postprior.stage1_vae.networks.dense import DenseEncoder
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss, Phase
from postprior.stage1_vae.randomness import seeded


class JNF(JointVAE):
    """Joint normalizing flows (Senellart et al. 2023, arXiv 2305.11832).

    The first phase trains the joint encoder and the decoders. The second phase trains the unimodal posteriors
    q_m(z | x_m), which are flows around the normal distribution of an encoder, on draws of the frozen joint encoder:

        1.  E_{q(z|X)} Σ_m log p(x_m | z) − β KL(q(z | X) ‖ p),
        2.  Σ_m E_{q(z|X)} log q_m(z | x_m).

    The second objective equals −Σ_m KL(q(z | X) ‖ q_m) up to a constant. Over the data it has its maximum where q_m is
    the mean of the joint posteriors of all rows with the same x_m. Given several modalities, Π q_m / p^(|S|−1) is
    sampled by Hamiltonian Monte Carlo. With `dcca`, a phase between the two trains embeddings of the modalities to be
    correlated (Andrew et al. 2013, Deep canonical correlation analysis, ICML). The flows then read the embeddings
    instead of the data, and do not see what is specific to one modality.

    Args:
        beta: β.
        flow_blocks: number of pairs of a linear map and a coupling in each flow.
        flow_hidden: width of the networks of the couplings.
        dcca: dimension of the embeddings; 0 for no embeddings.
    """

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        beta: float = 1.0,
        flow_blocks: int = 2,
        flow_hidden: int = 64,
        dcca: int = 0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(modalities, **sizes)
        self.beta = positive("beta", beta)
        self.flow_blocks = positive("flow_blocks", flow_blocks)
        self.flow_hidden = positive("flow_hidden", flow_hidden)
        if self.latent < 2:
            raise ValueError("latent: found 1, expected at least 2, because a coupling splits the code in two")
        if dcca < 0:
            raise ValueError(f"dcca: found {dcca}, expected a whole number of at least 0")
        self.dcca = dcca
        with seeded(self.seed + 2):
            self.flows = nn.ModuleDict(
                {m.name: ConditionalFlow(self.latent, flow_hidden, flow_blocks) for m in self.modalities}
            )
            if dcca:
                for m in self.modalities:
                    embedding = encoder(m, dcca, self.width, self.networks.get(m.name))
                    self.encoders[m.name] = nn.Sequential(embedding, DenseEncoder((dcca,), 2 * self.latent, self.width))

    def phases(self) -> list[Phase]:
        embeddings = [p for network in self.embeddings() for p in network.parameters()]
        excluded = {id(p) for p in embeddings}
        unimodal = [p for module in (self.encoders, self.flows) for p in module.parameters() if id(p) not in excluded]
        excluded |= {id(p) for p in unimodal}
        joint = [p for p in self.parameters() if id(p) not in excluded]
        share = 1 / 3 if self.dcca else 1 / 2
        first = Phase("joint", joint, self.loss, complete=True, share=share)
        last = Phase("flows", unimodal, self.flow_loss, complete=True, share=share)
        if not self.dcca:
            return [first, last]
        middle = Phase("dcca", embeddings, self.dcca_loss, complete=True, scope="batch", share=share)
        return [first, middle, last]

    def embeddings(self) -> list[nn.Module]:
        """Return the embedding network of each modality, the lower part of its encoder; none without `dcca`."""
        networks: Any = [self.encoders[m.name] for m in self.modalities]
        return [network[0] for network in networks] if self.dcca else []

    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of the first phase, on complete rows."""
        _, likelihood, divergence = self.joint_terms(batch, generator)
        likelihood = likelihood.sum(-1)
        terms = {"reconstruction": -likelihood, "kl": divergence}
        return Loss(kl_weight * self.beta * divergence - likelihood, terms)

    def flow_loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of the last phase, on complete rows; `kl_weight` is ignored."""
        self.refuse_incomplete(batch)
        with torch.no_grad():
            z = self.joint_posterior(batch).rsample(generator=generator)
        surprisals = [-q.log_prob(z) for q in self.flow_posteriors(batch)]
        names = [f"log_loss_{m.name}" for m in self.modalities]
        return Loss(torch.stack(surprisals).sum(0), dict(zip(names, surprisals, strict=True)))

    def dcca_loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return −Σ over pairs of modalities of the total correlation of their embeddings, the same for every row."""
        self.refuse_incomplete(batch)
        values = [batch.encoder_input(m) for m in self.modalities]
        embeddings = [network(x) for network, x in zip(self.embeddings(), values, strict=True)]
        total = sum(total_correlation(one, other) for one, other in combinations(embeddings, 2))
        correlation = torch.as_tensor(total).to(next(self.parameters())).expand(len(batch))
        return Loss(-correlation, {"correlation": correlation})

    def flow_posteriors(self, batch: Batch) -> list[FlowPosterior]:
        """Return q_m(z | x_m) of each modality, batch shape (B,); meaningless in rows without the modality."""
        normals = self.unimodal(batch).shared
        return [self.flows[m.name](normals[:, index]) for index, m in enumerate(self.modalities)]

    def subset_posterior(self, batch: Batch, chosen: Tensor) -> Any:
        if bool(chosen.all()):
            return super().subset_posterior(batch, chosen)
        rows = torch.arange(len(batch), device=chosen.device).unsqueeze(1).expand(chosen.shape[:2])
        experts = FlowMixture(self.joint_posterior(batch), self.flow_posteriors(batch), chosen, rows)
        return FlowProduct(experts, self.shared_prior())

    def encode(self, batch: Batch, generator: torch.Generator, components: int = 32) -> Mixture:
        """Return the joint normal of complete rows; for incomplete rows a mixture of narrow normals around draws."""
        q = self.posterior(batch)
        if isinstance(q, Normal):
            return Mixture.single(q)
        complete, joint = batch.observed.all(1, keepdim=True), q.experts.joint
        first = torch.arange(components, device=complete.device) == 0
        loc = q.rsample((components,), generator).transpose(0, 1)  # (B, C, D)
        scale = torch.full_like(loc, LOG_SCALE[0]).exp()
        is_joint = (complete & first).unsqueeze(-1)  # (B, C, 1)
        components_of_rows = Normal(
            torch.where(is_joint, joint.loc.unsqueeze(1), loc),
            torch.where(is_joint, joint.scale.unsqueeze(1), scale),
        )
        return Mixture.uniform(components_of_rows, first | ~complete)

    def proposal(self, batch: Batch) -> Any:
        """Return the joint normal of complete rows; for incomplete rows the mixture of their flows, with equal weights.

        The density of this mixture is known, unlike that of the product of the flows.
        """
        q = self.posterior(batch)
        return Mixture.single(q) if isinstance(q, Normal) else q.experts


def total_correlation(one: Tensor, other: Tensor, ridge: float = 1e-3) -> Tensor:
    """Return the sum of the canonical correlations of two embeddings (B, K) of the same rows (Andrew et al. 2013).

    It is the trace norm of Σ₁₁^(−1/2) Σ₁₂ Σ₂₂^(−1/2), with `ridge` added to the diagonals of Σ₁₁ and Σ₂₂. Cholesky
    factors replace the matrix roots. The singular values are the same, and the gradient of the Cholesky factors is
    finite even if eigenvalues of a covariance coincide. The computation uses double precision.
    """
    one, other = (values.double() - values.double().mean(0) for values in (one, other))
    degrees = max(len(one) - 1, 1)
    root, other_root = (
        torch.linalg.cholesky(values.T @ values / degrees + ridge * torch.eye(values.shape[1]).to(values))
        for values in (one, other)
    )
    half = torch.linalg.solve_triangular(root, one.T @ other / degrees, upper=False)
    return torch.linalg.svdvals(torch.linalg.solve_triangular(other_root, half.T, upper=False)).sum()
