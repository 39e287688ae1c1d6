"""Splines: those of normflows, their inverse and slopes, and the identity for parameters 0."""

import math

import pytest
import torch
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from support.equations import seeded
from torch import Tensor

from postprior.stage2_latent.splines import LEAST, Splines

BINS, BOUND = 5, 3.0


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


RAW = 2 * numbers(0, 3 * BINS - 1, 40, 6)
X = 2 * numbers(1, 40, 6)
SPLINES = Splines(RAW, BINS, BOUND)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_they_are_those_of_the_library(direction: str) -> None:
    widths, heights, slopes = RAW.permute(1, 2, 0).split([BINS, BINS, BINS - 1], dim=-1)
    expected = unconstrained_rational_quadratic_spline(
        X,
        widths,
        heights,
        slopes + math.log(math.expm1(1 - LEAST)),
        inverse=direction == "inverse",
        tail_bound=BOUND,
    )
    assert (X.abs() > BOUND).any()
    for found, truth in zip(getattr(SPLINES, direction)(X), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)


def test_inverse_undoes_forward() -> None:
    y, up = SPLINES.forward(X)
    back, down = SPLINES.inverse(y)
    torch.testing.assert_close(back, X, rtol=0, atol=1e-10)
    torch.testing.assert_close(down, -up, rtol=0, atol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_slope_is_the_derivative_also_beyond_the_bounds(direction: str) -> None:
    x = (3 * X).requires_grad_()
    y, log_slope = getattr(SPLINES, direction)(x)
    (derivative,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    torch.testing.assert_close(log_slope, derivative.log())
    (bend,) = torch.autograd.grad(log_slope.sum(), x)
    assert bend.isfinite().all()
    outside = x.abs() > BOUND
    assert torch.equal(y[outside], x[outside])


def test_zeros_are_the_identity() -> None:
    y, log_slope = Splines(torch.zeros_like(RAW), BINS, BOUND).forward(X)
    torch.testing.assert_close(y, X)
    torch.testing.assert_close(log_slope, torch.zeros_like(X))


def test_derivatives_are_those_of_finite_differences() -> None:
    """Of both results, by the points and by the parameters, within and beyond the bounds."""
    x, raw = X[:5].clone().requires_grad_(), RAW[:, :5].clone().requires_grad_()
    assert (x.abs() > BOUND).any()
    assert torch.autograd.gradcheck(lambda x, raw: Splines(raw, BINS, BOUND).forward(x), (x, raw))
