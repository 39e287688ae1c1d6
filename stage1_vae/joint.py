"""Models with a joint encoder q(z | X) beside the unimodal ones: what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import divided_product
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes, restrict
from postprior.stage1_vae.networks import build_networks, encoder, scatter
from postprior.stage1_vae.networks.dense import DEPTH
from postprior.stage1_vae.randomness import seeded


class JointEncoder(nn.Module):
    """Values of all modalities → (B, features): a trunk a modality, and a network of two hidden layers on top.

    The trunks' last, linear layers end in the same units and add up, which is the first layer of a network on the
    trunks' features side by side, in no order.

    Args:
        modalities: what is read.
        features: size of the output.
        width: width of the trunks; the hidden layers on top have `DEPTH` times as many units.
        networks: networks by modality, as of the unimodal encoders.
    """

    def __init__(self, modalities: Iterable[Modality], features: int, width: int, networks: Mapping[str, str]) -> None:
        super().__init__()
        hidden = DEPTH * width
        self.trunks = build_networks(encoder, modalities, hidden, width, networks)
        self.fusion = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, data: Mapping[str, Tensor]) -> Tensor:
        """Name → (B, *shape) of every modality → (B, features)."""
        return self.fusion(torch.stack([trunk(data[name]) for name, trunk in self.trunks.items()]).sum(0))


class JointVAE(MultimodalVAE):
    """Multimodal VAE whose posterior given all modalities is a network of its own.

    q(z | X) of a complete row is the joint encoder's normal. Given fewer modalities, since p(z | x_S) ∝
    p(z) Π_{m∈S} p(z | x_m) / p(z) for modalities independent given z,

        q(z | x_S) ∝ Π_{m∈S} q_m(z) / p(z)^(|S|−1).

    The joint encoder reads every modality, so that a row which lacks one cannot train it; any row is encoded.
    """

    incomplete = False

    def __init__(self, modalities: Iterable[Modality], **sizes: Unpack[Sizes]) -> None:
        super().__init__(modalities, **sizes)
        with seeded(self.seed + 1):  # not the encoders' own initial values again
            self.joint = JointEncoder(self.modalities, 2 * self.latent, self.width, self.networks)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return divided_product(experts, subsets, self.shared_prior())

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Any:
        chosen = batch.observed.unsqueeze(1) if subsets is None else restrict(batch, subsets)  # (B, S, M)
        q = self.subset_posterior(batch, chosen)
        return q[:, 0] if subsets is None else q

    def subset_posterior(self, batch: Batch, chosen: Tensor) -> Any:
        """q(z | x_S) of what is chosen of each row, (B, S, M) bool, batch shape (B, S)."""
        whole = chosen.all(-1, keepdim=True)  # (B, S, 1)
        if bool(whole.all()):
            joint = self.joint_posterior(batch)
            size = (*chosen.shape[:2], self.latent)
            return Normal(joint.loc.unsqueeze(1).expand(size), joint.scale.unsqueeze(1).expand(size))
        q = self.aggregate(self.unimodal(batch).shared, chosen)
        joint = self.joint_posterior(batch)
        return Normal(
            torch.where(whole, joint.loc.unsqueeze(1), q.loc),
            torch.where(whole, joint.scale.unsqueeze(1), q.scale),
        )

    def joint_posterior(self, batch: Batch) -> Normal:
        """q(z | X) of the complete rows, batch shape (B,). That of the others means nothing."""
        rows = batch.observed.all(1)
        if bool(rows.all()):
            return Normal.from_raw(self.joint({m.name: batch.encoder_input(m) for m in self.modalities}))
        complete = {m.name: batch.encoder_input(m)[rows] for m in self.modalities}
        return Normal.from_raw(scatter(self.joint(complete), rows))

    def joint_terms(self, batch: Batch, generator: torch.Generator) -> tuple[Normal, Tensor, Tensor]:
        """q(z | X), log p(x_m | z) of a draw of it (B, M), and KL(q ‖ p) (B,).

        Raises:
            ValueError: a row lacks a modality.
        """
        self.refuse_incomplete(batch)
        q = self.joint_posterior(batch)
        z = q.rsample(generator=generator).unsqueeze(1)
        likelihood = self.log_likelihood(z, batch, batch.observed.unsqueeze(1))[:, 0]
        return q, likelihood, kl_divergence(q, self.shared_prior())

    def refuse_incomplete(self, batch: Batch) -> None:
        """Refuse rows that the joint encoder cannot read."""
        if not bool(batch.observed.all()):
            raise ValueError(
                "batch: found a row that lacks a modality, expected rows with every modality: the joint encoder "
                "reads them all"
            )
