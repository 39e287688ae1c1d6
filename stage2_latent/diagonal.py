"""Mixtures of diagonal components over the codes as they are: what the autoencoder's own distributions make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES, Diagonal
from postprior.stage2_latent.categorical import draw_class_and_component, draw_component
from postprior.stage2_latent.density import Density

CACHED_FLOATS = 2**20
"""Numbers that a table of residuals may hold: larger ones leave the processor's caches and take three times as long."""


class DiagonalMixture(Density):
    """p(z | y) = Σ_t w_yt p(z | loc_yt, scale_yt) with components of one family; a final class says how it is learned.

    Attributes:
        family: `normal` or `laplace`.
        log_weights: (K, T), normalised over T.
        loc, scale: (K, T, D), in the units of the codes.
    """

    conditional = True
    marginal = True
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

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        component = draw_component(self.log_weights.exp(), classes, generator)
        chosen = self._components((classes, component))
        return type(chosen)(chosen.loc, temperature * chosen.scale).rsample((), generator)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        parts = z.split(self._rows_per_chunk())
        asked = [None] * len(parts) if classes is None else classes.split(self._rows_per_chunk())
        picked = [
            draw_class_and_component(self._log_joint(part, known), of, generator)
            for part, of in zip(parts, asked, strict=True)
        ]
        k, t = (torch.cat(index) for index in zip(*picked, strict=True))
        return self._components((k, t)).rsample((), generator), k

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        joint = self._log_joint(z, known).logsumexp(-1)  # (n, K)
        if classes is None:
            return joint.logsumexp(-1)
        return (joint - self.classes.probabilities.log()).gather(1, classes.unsqueeze(-1)).squeeze(-1)

    def _log_joint(self, z: Tensor, known: Tensor) -> Tensor:
        """log p(class) w p(z[known] | class, component), (n, K, T)."""
        seen = self._components().marginal(known)
        prior = self.log_weights + self.classes.probabilities.log().unsqueeze(-1)
        return prior + seen.log_prob(z[:, None, None, known])

    def _floats_per_row(self) -> int:
        return self.loc.numel()

    def _rows_per_chunk(self) -> int:
        return min(super()._rows_per_chunk(), max(1, CACHED_FLOATS // self.loc.numel()))

    def _tensors(self) -> dict[str, Tensor]:
        return {"log_weights": self.log_weights, "loc": self.loc, "scale": self.scale}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.family = learned["family"]
        self.log_weights, self.loc, self.scale = tensors["log_weights"], tensors["loc"], tensors["scale"]

    def _learned(self) -> dict[str, Any]:
        return {"family": self.family, "components": self.loc.shape[1]}
