"""Mean and covariance of codes that may have missing blocks, and the whitening built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.layouts import coordinates

ITERATIONS = 100
"""Maximum number of iterations of EM for missing blocks."""
TOLERANCE = 1e-6
"""EM stops when no entry of a covariance changes by more than this share of the largest variance of its class."""


def moments(codes: Codes, classes: Tensor | None = None, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return the means (K, D) and covariances (K, D, D) of the codes of each class, in double precision.

    If all blocks of all rows are observed, this is the closed form Cov E[z | x] + E Cov[z | x]. Rows with missing
    blocks contribute their observed blocks: EM integrates out the missing coordinates given the observed ones
    (Dempster, Laird & Rubin 1977, section 4.1). This is valid if what is missing depends on observed values;
    dropping incomplete rows is not valid in that case.

    Args:
        codes: N rows.
        classes: (N,), the class of each row, −1 for rows to leave out; None puts all rows into one class.
        count: K.
    """
    if classes is None:
        classes = torch.zeros(len(codes), dtype=torch.int64, device=codes.loc.device)
    patterns, group = codes.observed.unique(dim=0, return_inverse=True)
    patterns = coordinates(codes.layout, patterns)  # (P, D)
    centre, sums = _sums(codes, classes, count, group, len(patterns))
    total = sums[..., 0, 0].sum(0).clamp_min(1)  # (K,)
    if bool(patterns.all()):
        averages = sums[0] / total[:, None, None]
        mean = averages[:, 1:, 0]
        return centre + mean, averages[:, 1:, 1:] - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    mean, covariance = _start(sums, patterns)
    for _ in range(ITERATIONS):
        completed = [
            _completed(pattern_sums, known, mean, covariance)
            for pattern_sums, known in zip(sums, patterns, strict=True)
        ]
        averages = torch.stack(completed).sum(0) / total[:, None, None]
        before = covariance
        mean = averages[:, 1:, 0]
        covariance = averages[:, 1:, 1:] - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        scale = covariance.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
        if bool(((covariance - before).abs() <= TOLERANCE * scale).all()):
            break
    return centre + mean, covariance


def _sums(codes: Codes, classes: Tensor, count: int, group: Tensor, patterns: int) -> tuple[Tensor, Tensor]:
    """Return a centre (D,) and Σ E[(1, z − centre)(1, z − centre)ᵀ] per pattern and class, (P, K, 1 + D, 1 + D).

    Unknown coordinates count as 0.
    """
    D = codes.dimensions
    sums = codes.loc.new_zeros(patterns * count, 1 + D, 1 + D, dtype=torch.float64)
    place = group * count + classes
    used = [rows.start + (classes[rows] >= 0).nonzero().squeeze(-1) for rows in codes.chunks()]
    centre, known = sums.new_zeros(D), place.new_zeros(D)
    for rows in used:
        observed = codes.known(rows)
        centre += codes.posterior(rows).mean.masked_fill(~observed, 0).double().sum(0)
        known += observed.sum(0)
    centre /= known.clamp_min(1)
    for rows in used:
        posterior, observed = codes.posterior(rows), codes.known(rows).unsqueeze(1)
        components = posterior.components
        loc = (components.loc.double() - centre).masked_fill(~observed, 0)  # (n, C, D)
        weights = posterior.weights.double().unsqueeze(-1)  # (n, C, 1)
        variance = components.variance.double().masked_fill(~observed, 0)
        points = torch.cat([torch.ones_like(loc[..., :1]), loc], dim=-1)
        noise = torch.nn.functional.pad((weights * variance).sum(1), (1, 0))  # (n, 1 + D)
        for index in place[rows].unique().tolist():
            chosen = place[rows] == index
            x = points[chosen].flatten(0, 1)
            sums[index] += (weights[chosen].flatten(0, 1) * x).mT @ x + noise[chosen].sum(0).diag()
    return centre, sums.unflatten(0, (patterns, count))


def _start(sums: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (K, D) and diagonal covariances (K, D, D), each coordinate from the rows of a class that have it."""
    counts = torch.einsum("pk,pd->kd", sums[..., 0, 0], patterns.to(sums)).clamp_min(1)
    mean = sums[..., 1:, 0].sum(0) / counts
    variance = sums[..., 1:, 1:].diagonal(dim1=-2, dim2=-1).sum(0) / counts - mean.square()
    return mean, variance.clamp_min(1e-12).diag_embed()


def _completed(sums: Tensor, known: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the expected sums (K, 1 + D, 1 + D) of one pattern, with Gaussian unknown coordinates given the known.

    The unknown coordinates are A x̃ + noise of covariance C_rr − B C_gr, where x̃ is 1 followed by the known coordinates
    and A = [μ_r − B μ_g, B].
    """
    if bool(known.all()):
        return sums
    unknown = ~known
    across = covariance[:, unknown][..., known]  # (K, r, g)
    root = torch.linalg.cholesky(_jittered(covariance[:, known][..., known]))
    slope = torch.cholesky_solve(across.mT, root).mT
    shift = mean[:, unknown] - (slope @ mean[:, known].unsqueeze(-1)).squeeze(-1)
    map_ = sums.new_zeros(len(sums), sums.shape[-1], sums.shape[-1])
    given = torch.cat([torch.ones_like(known[:1]), known])
    map_[:, given, given] = 1.0
    rows = (~given).nonzero().squeeze(-1)
    map_[:, rows, 0] = shift
    map_[:, rows.unsqueeze(-1), given.nonzero().squeeze(-1)[1:]] = slope
    filled = map_ @ sums @ map_.mT
    within = covariance[:, unknown][..., unknown] - slope @ across.mT
    filled[:, rows.unsqueeze(-1), rows] += sums[:, :1, :1] * within
    return filled


def _jittered(covariance: Tensor) -> Tensor:
    """Return the matrices with jitter on the diagonal, which makes them positive definite."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)[:, None, None]
    return covariance + 1e-9 * scale * torch.eye(covariance.shape[-1]).to(covariance)


def identity_weight(rows: int, dimensions: int) -> float:
    """Return the weight D⁴ / (N⁴ + D⁴) of a well-conditioned target in a covariance of N rows in D dimensions.

    It is 1/2 if N = D, where the sample covariance becomes singular, 0.06 if N = 2 D, and below 0.002 from N = 5 D.
    """
    return dimensions**4 / (rows**4 + dimensions**4)


def regularised(covariance: Tensor, mean: Tensor, rows: int, resolution: float) -> Tensor:
    """Return a positive definite covariance (D, D), shrunk towards its diagonal with `identity_weight`.

    A coordinate that varies by less than the rounding of its mean is constant. Its variance becomes the share `JITTER`
    of the mean variance.

    Args:
        covariance: (D, D), of N rows.
        mean: (D,).
        rows: N.
        resolution: relative spacing of the numbers that the rows are stored in.
    """
    variance = covariance.diagonal()
    constant = JITTER * variance.mean().clamp_min(1e-12)
    floor = torch.where(variance > (resolution * mean).square(), 0, constant)
    share = identity_weight(rows, len(mean))
    return (1 - share) * covariance + ((share + JITTER) * variance + floor).diag()


JITTER = 1e-6
"""Share of its variance that is added to each coordinate, so that collinear coordinates stay invertible."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """The affine map x = L⁻¹(z − m) that gives codes mean 0 and covariance I.

    Args:
        loc: m, (D,).
        root: L, (D, D), lower triangular with a positive diagonal: the Cholesky factor of the covariance.
    """

    loc: Tensor
    root: Tensor

    @classmethod
    def identity(cls, loc: Tensor) -> Self:
        """Return the identity map, with the size and type of `loc` (D,)."""
        return cls(torch.zeros_like(loc), torch.eye(len(loc), dtype=loc.dtype, device=loc.device))

    @classmethod
    def fit(cls, codes: Codes) -> Self:
        """Fit the whitening of the aggregated posterior, Cov z = Cov E[z | x] + E Cov[z | x].

        See `moments` and `regularised`.
        """
        (mean,), (covariance,) = moments(codes)
        resolution = torch.finfo(codes.loc.dtype).eps
        root = torch.linalg.cholesky(regularised(covariance, mean, len(codes), resolution))
        return cls(mean.to(codes.loc.dtype), root.to(codes.loc.dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Return the whitened codes x of codes z (n, D)."""
        return torch.linalg.solve_triangular(self.root, (z - self.loc).T, upper=False).T

    def inverse(self, x: Tensor) -> Tensor:
        """Return the codes z of whitened codes x (n, D)."""
        return self.loc + x @ self.root.T

    @property
    def log_det(self) -> Tensor:
        """log |dx/dz|, a scalar."""
        return -self.root.diagonal().log().sum()
