"""Base class of models with a joint encoder q(z | X) in addition to the unimodal encoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from postprior.stage1_vae.autoencoder import restrict
from postprior.stage1_vae.distributions import Normal, kl_divergence
from postprior.stage1_vae.experts import divided_product
from postprior.stage1_vae.hiding import unweighted
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.networks import build_networks, encoder, scatter
from postprior.stage1_vae.networks.dense import DEPTH
from postprior.stage1_vae.randomness import seeded


class JointEncoder(nn.Module):
    """Values of all modalities → (B, features): one trunk per modality, then a network with two hidden layers.

    The outputs of the trunks, whose last layers are linear, are added. This equals the first layer of a network on the
    concatenated features of the trunks, and does not depend on the order of the modalities.

    Args:
        modalities: the modalities, all of which are read.
        features: size of the output.
        width: width of the trunks; the hidden layers of the network have `DEPTH` times as many units.
        networks: networks by modality, as for the unimodal encoders.
    """

    def __init__(self, modalities: Iterable[Modality], features: int, width: int, networks: Mapping[str, str]) -> None:
        super().__init__()
        hidden = DEPTH * width
        self.trunks = build_networks(encoder, modalities, hidden, width, networks)
        self.fusion = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, data: Mapping[str, Tensor]) -> Tensor:
        """Map the values (B, *shape) of every modality, by name, to (B, features)."""
        return self.fusion(torch.stack([trunk(data[name]) for name, trunk in self.trunks.items()]).sum(0))


class JointVAE(MultimodalVAE):
    """Multimodal VAE with a separate network for the posterior given all modalities.

    q(z | X) of a complete row is the normal distribution of the joint encoder. If the modalities are independent given
    z, p(z | x_S) ∝ p(z) Π_{m∈S} p(z | x_m) / p(z). The posterior given fewer modalities is therefore

        q(z | x_S) ∝ Π_{m∈S} q_m(z) / p(z)^(|S|−1).

    The joint encoder reads every modality, so it trains on complete rows only. Any row can be encoded.
    """

    incomplete = False

    def __init__(self, modalities: Iterable[Modality], **sizes: Unpack[Sizes]) -> None:
        super().__init__(modalities, **sizes)
        with seeded(self.seed + 1):  # a different seed, so as not to repeat the initial values of the encoders
            self.joint = JointEncoder(self.modalities, 2 * self.latent, self.width, self.networks)

    def aggregate(self, experts: Normal, subsets: Tensor) -> Normal:
        return divided_product(experts, subsets, self.shared_prior())

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Any:
        chosen = batch.observed.unsqueeze(1) if subsets is None else restrict(batch, subsets)  # (B, S, M)
        q = self.subset_posterior(batch, chosen)
        return q[:, 0] if subsets is None else q

    def subset_posterior(self, batch: Batch, chosen: Tensor) -> Any:
        """Return q(z | x_S), batch shape (B, S), given the chosen modalities (B, S, M) bool of each row."""
        complete = chosen.all(-1, keepdim=True)  # (B, S, 1)
        if bool(complete.all()):
            joint = self.joint_posterior(batch)
            size = (*chosen.shape[:2], self.latent)
            return Normal(joint.loc.unsqueeze(1).expand(size), joint.scale.unsqueeze(1).expand(size))
        q = self.aggregate(self.unimodal(batch).shared, chosen)
        joint = self.joint_posterior(batch)
        return Normal(
            torch.where(complete, joint.loc.unsqueeze(1), q.loc),
            torch.where(complete, joint.scale.unsqueeze(1), q.scale),
        )

    def joint_posterior(self, batch: Batch) -> Normal:
        """Return q(z | X), batch shape (B,). The values in incomplete rows are meaningless."""
        complete = batch.observed.all(1)
        if batch.complete or bool(complete.all()):
            output = self.joint({m.name: batch.encoder_input(m) for m in self.modalities})
            return Normal.from_raw(unweighted(output, batch))
        values = {m.name: batch.encoder_input(m)[complete] for m in self.modalities}
        return Normal.from_raw(unweighted(scatter(self.joint(values), complete), batch))

    def joint_terms(self, batch: Batch, generator: torch.Generator) -> tuple[Normal, Tensor, Tensor]:
        """Return q(z | X), log p(x_m | z) of one draw from it (B, M), and KL(q ‖ p) (B,).

        Raises:
            ValueError: a modality is missing in some row.
        """
        self.refuse_incomplete(batch)
        q = self.joint_posterior(batch)
        z = q.rsample(generator=generator).unsqueeze(1)
        likelihood = self.log_likelihood(z, batch, self.each_modality())[:, 0]
        return q, likelihood, kl_divergence(q, self.shared_prior())

    def refuse_incomplete(self, batch: Batch) -> None:
        """Raise an error if a row is incomplete, because the joint encoder reads every modality."""
        if not (batch.complete or bool(batch.observed.all())):
            raise ValueError(
                "batch: found a row with a missing modality, expected complete rows, because the joint encoder reads "
                "every modality"
            )
