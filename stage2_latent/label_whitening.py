"""Whitening of codes within each label and each block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from postprior.stage2_latent.gaussians import Gaussians, inverse_factors, linear
from postprior.stage2_latent.layouts import Layout, coordinates


@dataclass(frozen=True, eq=False)
class LabelWhitening:
    """The affine maps x = L_y⁻¹(z − m_y), one for each label y, where L_y is block-diagonal.

    Args:
        means: m_y, (K, D).
        roots: L_y, (K, D, D), lower triangular with a positive diagonal.
    """

    means: Tensor
    roots: Tensor

    @classmethod
    def of(cls, gaussians: Gaussians, layout: Layout, shares: Tensor | None = None) -> Self:
        """Return the maps under which the blocks of one Gaussian per label become N(0, I), each on its own.

        Args:
            gaussians: one Gaussian per label.
            layout: blocks of the code vector; covariances between them are set to 0.
            shares: probabilities of the labels (K,), to give all labels the mean covariance; None: each has its own.
        """
        roots = inverse_factors(gaussians.factors[:, 0].double())
        covariances = roots @ roots.mT
        if shares is not None:
            covariances = torch.einsum("k,kij->ij", shares.double(), covariances).expand_as(covariances)
        owner = coordinates(layout, torch.arange(len(layout), device=roots.device))
        blocks = torch.linalg.cholesky(covariances * (owner == owner.unsqueeze(-1)))
        return cls(gaussians.means[:, 0], blocks.to(gaussians.means))

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return the whitened codes x (n, D) of codes z (n, D) with labels (n,)."""
        return linear(self._inverses, classes, z - self.means[classes])

    def inverse(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return the codes z (n, D) of whitened codes x (n, D) with labels (n,)."""
        return linear(self.roots, classes, x) + self.means[classes]

    @cached_property
    def _inverses(self) -> Tensor:
        return inverse_factors(self.roots.double()).to(self.roots)

    @cached_property
    def log_det(self) -> Tensor:
        """log |dx/dz| of each label, (K,)."""
        return -self.roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
