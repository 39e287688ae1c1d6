"""The aggregated posterior as one Gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent.density import Density
from postprior.stage2_latent.gaussians import Gaussians, standard_normal
from postprior.stage2_latent.task import Task


class Gaussian(Density):
    """p(z) = N(E z, Cov E[z | x] + E Cov[z | x]), the moment-matched Gaussian, in closed form.

    It minimises KL(aggregated posterior ‖ Gaussian). The whitening contains all parameters of this Gaussian, since it
    is N(0, I) over whitened codes; nothing else is learned.
    """

    name = "gaussian"
    labelled = False
    conditional = True
    marginal = True

    def _fit(self, task: Task) -> None:
        self._record_scores(task)

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        return self._standard().log_prob(x.unsqueeze(0)).squeeze(0)

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        return temperature * standard_normal(len(classes), self.whitening.root, generator)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self._standard().unwhitened(self.whitening).complete(z, known, classes, generator)

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        return self._standard().unwhitened(self.whitening).log_marginal(z, known, classes)

    def _standard(self) -> Gaussians:
        """Return N(0, I)."""
        loc = self.whitening.loc
        eye = torch.eye(len(loc), dtype=loc.dtype, device=loc.device)
        return Gaussians(loc.new_zeros(1, 1), loc.new_zeros(1, 1, len(loc)), eye[None, None])

    def _tensors(self) -> dict[str, Tensor]:
        return {}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        pass
