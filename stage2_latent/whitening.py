"""The affine map under which codes have mean 0 and covariance I."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.moments import moments


@dataclass(frozen=True, eq=False)
class Whitening:
    """The affine map x = L⁻¹(z − m) under which codes have mean 0 and covariance I.

    Args:
        loc: m, (D,).
        root: L, (D, D), lower triangular with a positive diagonal: the Cholesky factor of the covariance.
    """

    loc: Tensor
    root: Tensor

    JITTER = 1e-6
    """Added to the covariance's diagonal, times its mean: a constant coordinate stays invertible."""

    @classmethod
    def identity(cls, loc: Tensor) -> Self:
        """The map that changes nothing, with the size and type of `loc` (D,)."""
        return cls(torch.zeros_like(loc), torch.eye(len(loc), dtype=loc.dtype, device=loc.device))

    @classmethod
    def fit(cls, codes: Codes) -> Self:
        """Whitening of the aggregated posterior, Cov z = Cov E[z | x] + E Cov[z | x]; see `moments`."""
        (mean,), (covariance,) = moments(codes)
        jitter = cls.JITTER * covariance.diagonal().mean().clamp_min(1e-12)
        root = torch.linalg.cholesky(covariance + jitter * torch.eye(len(mean)).to(mean))
        return cls(mean.to(codes.loc.dtype), root.to(codes.loc.dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Whitened codes of z (n, D)."""
        return torch.linalg.solve_triangular(self.root, (z - self.loc).T, upper=False).T

    def inverse(self, x: Tensor) -> Tensor:
        """Codes of whitened x (n, D)."""
        return self.loc + x @ self.root.T

    @property
    def log_det(self) -> Tensor:
        """log |dx/dz|, a number."""
        return -self.root.diagonal().log().sum()
