"""Mixtures of diagonal components over the codes as they are: what the autoencoder's own distributions make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stage1_vae.distributions import FAMILIES, Diagonal
from stage2_latent.density import Density
from stage2_latent.picks import pick, pick_given


class DiagonalMixture(Density):
    """p(z | y) = Σ_t w_yt p(z | loc_yt, scale_yt) with components of one family; a final class says how it is learned.

    Attributes:
        family: `normal` or `laplace`.
        log_weights: (K, T), normalised over T.
        loc, scale: (K, T, D), in the units of the codes.
    """

    conditional = True
    whitens = False

    family: str
    log_weights: Tensor
    loc: Tensor
    scale: Tensor

    def _components(self, index: object = ...) -> Diagonal:
        """The components at an index of (K, T)."""
        return FAMILIES[self.family](self.loc[index], self.scale[index])  # type: ignore[index]

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        joint = self.log_weights[index] + self._components(index).log_prob(x.unsqueeze(1))  # (n, T)
        return joint.logsumexp(-1)

    def _sample(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        component = pick(self.log_weights.exp(), classes, generator)
        return self._components((classes, component)).rsample((), generator)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        family = FAMILIES[self.family]
        seen = family(self.loc[..., known], self.scale[..., known])
        prior = self.log_weights + self.classes.probabilities.log().unsqueeze(-1)
        joint = prior + seen.log_prob(z[:, None, None, known])  # (n, K, T)
        k, t = pick_given(joint, classes, generator)
        return self._components((k, t)).rsample((), generator), k

    def _floats_per_row(self) -> int:
        return self.loc[0].numel()

    def _tensors(self) -> dict[str, Tensor]:
        return {"log_weights": self.log_weights, "loc": self.loc, "scale": self.scale}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.family = learned["family"]
        self.log_weights, self.loc, self.scale = tensors["log_weights"], tensors["loc"], tensors["scale"]

    def _learned(self) -> dict[str, Any]:
        return {"family": self.family, "components": self.loc.shape[1]}
