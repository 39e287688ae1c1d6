"""Tools for tests that derive a model's equations again: in float64, one row at a time, with torch.distributions.

Four rows of three modalities, complete (`FULL`) or incomplete (`HOLES`), are the data of these tests. The functions
return the terms that papers write: a posterior, log p(x_m | z), a product of experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, Normal

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE

MODALITIES = (
    Modality("a", "vector", (3,), "normal"),
    Modality("b", "vector", (5,), "laplace"),
    Modality("c", "image", (1, 4, 4), "bernoulli", (0, 1)),
)
ROWS, CODE, NOISE = 4, 4, 0.7
"""Rows, size of the shared code, and the scale of every likelihood that has one."""
FULL = torch.ones(ROWS, 3, dtype=torch.bool)
HOLES = torch.tensor([[True, True, False], [True, True, True], [False, True, True], [False, False, True]])
by_mask = pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perturb(module: Any, scale: float, generator: torch.Generator) -> Any:
    """The module with normal noise of a scale added to every parameter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def build(
    kind: type[MultimodalVAE],
    modalities: Sequence[Modality] = MODALITIES,
    *,
    stretch: float = 2.0,
    shift: float = 0.0,
    **options: object,
) -> MultimodalVAE:
    """A model in float64 whose parameters are far from their small initial values.

    Every parameter is multiplied by `stretch`; then normal noise of scale `shift` is added.
    """
    sizes = {"latent": CODE, "width": 2, "likelihood_scale": NOISE, "seed": 3}
    model = kind(modalities, **sizes | options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(stretch)
    return perturb(model, shift, seeded(1))


def batch(observed: Tensor = FULL, modalities: Sequence[Modality] = MODALITIES) -> Batch:
    """Rows with uniform values."""
    generator = seeded(5)
    shapes = {m.name: (len(observed), *m.shape) for m in modalities}
    data = {name: torch.rand(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return Batch(data, observed)


def names_of(rows: Batch, row: int) -> list[str]:
    """The modalities that a row has."""
    return [name for name, has in zip(rows.data, rows.observed[row].tolist(), strict=True) if has]


def moments(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Location and scale of a network's output: locations, then log-scales, which are clamped to [−7, 5]."""
    loc, log_scale = raw.chunk(2, -1)
    return loc, log_scale.clamp(-7, 5).exp()


def normal(raw: Tensor) -> Independent:
    """The normal distribution of a network's output, its axes flattened."""
    loc, scale = moments(raw)
    return Independent(Normal(loc.flatten(), scale.flatten()), 1)


def encoded(model: MultimodalVAE, rows: Batch, row: int, name: str) -> Tensor:
    """The raw output of the encoder of one modality of a row."""
    return model.encoders[name](rows.data[name][row : row + 1])[0]


def expert(model: MultimodalVAE, rows: Batch, row: int, name: str) -> Independent:
    """The posterior q_m(z | x_m) of a row."""
    return normal(encoded(model, rows, row, name))


def standard(size: int, family: type = Normal) -> Independent:
    """The prior: location 0, scale 1."""
    return Independent(family(torch.zeros(size, dtype=torch.float64), 1.0), 1)


STANDARD = standard(CODE)


def product(experts: list[Independent]) -> Independent:
    """The normalised product of normal distributions."""
    precision = sum(q.stddev**-2 for q in experts)
    moment = sum(q.mean * q.stddev**-2 for q in experts)
    return Independent(Normal(moment / precision, precision**-0.5), 1)


def log_likelihood(model: MultimodalVAE, rows: Batch, row: int, name: str, z: Tensor) -> Tensor:
    """log p(x_m | z) of one modality of a row."""
    output, x = model.decoders[name](z[None])[0], rows.data[name][row]
    likelihood = {m.name: m.likelihood for m in model.modalities}[name]
    if likelihood == "bernoulli":
        return (x * output.sigmoid().log() + (1 - x) * (1 - output.sigmoid()).log()).sum()
    return {"normal": Normal, "laplace": Laplace}[likelihood](output, NOISE).log_prob(x).sum()


def same_loss(loss: Tensor, expected: list[Tensor]) -> None:
    """Assert that the loss per row is the derived one, up to rounding in float64."""
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


class Free(nn.Module):
    """An encoder whose output is a parameter of every row: its gradients are gradients per row."""

    def __init__(self, raw: Tensor) -> None:
        super().__init__()
        self.raw = nn.Parameter(raw)

    def forward(self, _: object) -> Tensor:
        return self.raw


def repeat(rows: Batch, times: int) -> Batch:
    """Every row `times` times, copies beside each other."""
    data = {name: values.repeat_interleave(times, 0) for name, values in rows.data.items()}
    return Batch(data, rows.observed.repeat_interleave(times, 0))


def agree(estimates: Tensor, expected: Tensor | float, errors: float = 5.0) -> None:
    """Assert that the means of estimates (…, R) are the expected values (…) within so many standard errors."""
    error = estimates.std(-1) / math.sqrt(estimates.shape[-1])
    distance = (estimates.mean(-1) - expected).abs() / error
    assert (distance < errors).all(), f"{distance.max():.1f} standard errors apart"
