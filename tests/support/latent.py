"""Latent codes whose distribution is known, for the tests of densities."""

from dataclasses import replace

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Mixture, Normal
from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.gaussians import Gaussians
from support.equations import seeded

LAYOUT = (Block("z", (2,)), Block("w", (1, 2), owner="b"))
CENTRES = torch.tensor([[1.5, 0.0, -1.0, 0.5], [0.0, 0.0, 0.0, 0.0], [-1.5, 1.0, 0.0, -0.5]])
NOISE = 0.3
"""Scale of every posterior."""


class LinearEncoder:
    """q(z | x) = N(x, NOISE²), whose posteriors and their mixture are known."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        loc = inputs["x"]
        return Mixture.single(Normal(loc, torch.full_like(loc, NOISE)))


def posteriors(loc: Tensor, scale: Tensor, layout: tuple[Block, ...], **others: object) -> Codes:
    """Codes with one normal posterior per row, (N, D), and the prior N(0, I)."""
    zero = torch.zeros_like(loc[0])
    return Codes(
        layout=layout,
        family="normal",
        loc=loc.unsqueeze(1),
        scale=scale.expand_as(loc).unsqueeze(1).clone(),
        weights=torch.ones_like(loc[:, :1]),
        observed=torch.ones(len(loc), len(layout), dtype=torch.bool),
        prior=Mixture.single(Normal(zero, torch.ones_like(zero))),
        **others,  # type: ignore[arg-type]
    )


def labelled(rows: int, seed: int, dimensions: int = 4) -> tuple[Codes, LinearEncoder]:
    """Codes of labels 0 and 2 around `CENTRES`, correlated across coordinates; label 1, "one", has no rows."""
    generator = seeded(seed)
    labels = 2 * torch.randint(2, (rows,), generator=generator)
    mixing = torch.randn(4, 4, generator=seeded(9)) * 0.4
    x = CENTRES[labels] + torch.randn(rows, 4, generator=generator) @ mixing
    x = x[:, :dimensions]
    layout = LAYOUT if dimensions == 4 else (Block("z", (dimensions,)),)
    names = ("zero", "one", "two")
    codes = posteriors(x, torch.tensor(NOISE), layout, labels=labels, label_names=names)
    return codes, LinearEncoder(x)


def unlabelled(codes: Codes) -> Codes:
    return replace(codes, labels=None, label_names=None)


def random_mixture(K: int = 2, T: int = 3, D: int = 4) -> Gaussians:
    """K mixtures of T Gaussians with random parameters, in double precision."""
    generator = seeded(5)
    log_weights = torch.randn(K, T, generator=generator, dtype=torch.float64).log_softmax(-1)
    means = torch.randn(K, T, D, generator=generator, dtype=torch.float64)
    raw = torch.randn(K, T, D, D, generator=generator, dtype=torch.float64)
    factors = raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).abs().add(0.5).diag_embed()
    return Gaussians(log_weights, means, factors)
