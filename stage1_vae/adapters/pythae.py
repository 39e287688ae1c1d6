"""Adapter of the autoencoders of Pythae 0.1.2 (Chadebec et al. 2022, https://github.com/clementchadebec/benchmark_VAE).

A model of Pythae is an autoencoder of one modality. Its code is the block z. Models with a normal posterior encode as
in their `forward`; the others in `POINTS` have one code per row. Models are refused if a flow or a Markov chain changes
their posteriors, or if their codes are discrete or lie on a sphere or in a hyperbolic space.

Pythae is not imported: its models bring their modules along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import Block, Mixture, Normal
from postprior.stage1_vae.foreign import Located

NORMAL = [
    *("VAE", "BetaVAE", "BetaTCVAE", "DisentangledBetaVAE", "FactorVAE", "INFOVAE_MMD"),
    *("IWAE", "MIWAE", "CIWAE", "PIWAE", "MSSSIM_VAE", "VAEGAN", "VAMP"),
]
"""Models whose encoder returns the mean and the logarithm of the variance of a normal posterior."""
POINTS = ["AE", "WAE_MMD", "RAE_L2", "RAE_GP"]
"""Models whose encoder returns a code."""


def class_of(model: Any) -> str | None:
    """Return the name of the class of Pythae that a model belongs to; None for other objects."""
    names = [base.__name__ for base in type(model).__mro__ if base.__module__.startswith("pythae.models.")]
    return names[0] if names else None


def adapter(model: Any, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Pythae:
    """Return a model of the class `name` with the methods of `Adaptable`.

    Raises:
        ValueError: its codes have no supported posterior, or there are several modalities.
    """
    if name not in (*NORMAL, *POINTS):
        raise ValueError(f"model: found {name} of Pythae, expected one of {', '.join((*NORMAL, *POINTS))}")
    if len(shapes) != 1:
        found = f"{len(shapes)} modalities for {name} of Pythae, {', '.join(shapes)}"
        raise ValueError(f"model: found {found}, expected one; adapt a model of several modalities")
    return Pythae(model, name, next(iter(shapes)))


class Pythae(nn.Module):
    """An autoencoder of Pythae with the methods of `Adaptable`, with the prior N(0, I)."""

    def __init__(self, model: Any, name: str, modality: str) -> None:
        super().__init__()
        self.model: Any = model.eval()
        self.normal, self.modalities = name in NORMAL, (modality,)

    @property
    def layout(self) -> tuple[Block, ...]:
        """The block of all codes."""
        return (Block("z", (int(self.model.latent_dim),)),)

    def encode(self, batch: Mapping[str, Tensor]) -> Mixture | Tensor:
        """Return the normal posteriors of rows, or their codes (n, D)."""
        found = self.model.encoder(batch[self.modalities[0]])
        if not self.normal:
            return found.embedding
        return Mixture.single(Normal(found.embedding, torch.exp(0.5 * found.log_covariance)))

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Located]:
        """Return the locations of normal likelihoods given codes (n, D); the losses of Pythae have no scale."""
        return {name: Located(self.model.decoder(latents).reconstruction, Normal) for name in names}
