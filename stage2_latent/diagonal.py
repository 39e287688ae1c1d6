"""Mixtures of diagonal components over codes that are not whitened, in the family of the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES, Diagonal
from postprior.stage2_latent.categorical import draw_class_and_component, draw_component
from postprior.stage2_latent.density import Density

CACHED_FLOATS = 2**20
"""Maximum number of floats in a table of residuals; larger tables exceed the processor's caches and take three times
as long."""


class DiagonalMixture(Density):
    """p(z | y) = Σ_t w_yt p(z | loc_yt, scale_yt) with components of one family; a final class implements the fit.

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
        """Return the components at an index into (K, T)."""
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
        chunks = z.split(self._rows_per_chunk())
        class_chunks = [None] * len(chunks) if classes is None else classes.split(self._rows_per_chunk())
        drawn = [
            draw_class_and_component(self._log_joint(chunk, known), class_chunk, generator)
            for chunk, class_chunk in zip(chunks, class_chunks, strict=True)
        ]
        k, t = (torch.cat(indices) for indices in zip(*drawn, strict=True))
        return self._components((k, t)).rsample((), generator), k

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        joint = self._log_joint(z, known).logsumexp(-1)  # (n, K)
        if classes is None:
            return joint.logsumexp(-1)
        return (joint - self.classes.probabilities.log()).gather(1, classes.unsqueeze(-1)).squeeze(-1)

    def _log_joint(self, z: Tensor, known: Tensor) -> Tensor:
        """Return log p(class, component, z[known]), shape (n, K, T)."""
        marginal = self._components().marginal(known)
        prior = self.log_weights + self.classes.probabilities.log().unsqueeze(-1)
        return prior + marginal.log_prob(z[:, None, None, known])

    def _floats_per_row(self) -> int:
        return self.loc.numel()

    def _rows_per_chunk(self) -> int:
        return min(super()._rows_per_chunk(), max(1, CACHED_FLOATS // self.loc.numel()))

    def _tensors(self) -> dict[str, Tensor]:
        return {"log_weights": self.log_weights, "loc": self.loc, "scale": self.scale}

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return {"log_weights": "K T", "loc": "K T D", "scale": "K T D"}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.family = learned["family"]
        self.log_weights, self.loc, self.scale = tensors["log_weights"], tensors["loc"], tensors["scale"]

    def _learned(self) -> dict[str, Any]:
        return {"family": self.family, "components": self.loc.shape[1]}
