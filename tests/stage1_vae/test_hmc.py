"""Hamiltonian Monte Carlo leaves known densities invariant, and converges to them."""

import math

import torch
from support.equations import agree, seeded
from torch import Tensor

from postprior.stage1_vae.hmc import hamiltonian_draws


def normal(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=seeded(seed), dtype=torch.float64)


def banana(z: Tensor) -> Tensor:
    """z₀ ~ N(0, 1), z₁ | z₀ ~ N((z₀² − 1)/2, 1), up to a constant."""
    return -0.5 * z[:, 0].square() - 0.5 * (z[:, 1] - 0.5 * (z[:, 0].square() - 1)).square()


def test_a_product_of_normals_has_its_moments() -> None:
    """Correlated experts whose product is known; chains start elsewhere."""
    roots = normal(2, 4, 4)
    precisions = roots @ roots.mT + 0.5 * torch.eye(4, dtype=torch.float64)
    locs = normal(2, 4, seed=2)
    precision = precisions.sum(0)
    mean = torch.linalg.solve(precision, (precisions @ locs.unsqueeze(-1)).sum(0)[:, 0])
    covariance = torch.linalg.inv(precision)

    def product(z: Tensor) -> Tensor:
        offsets = z.unsqueeze(1) - locs  # (n, 2, 4)
        return -0.5 * torch.einsum("nei,eij,nej->n", offsets, precisions, offsets)

    scale = covariance.diagonal().sqrt()
    draws = hamiltonian_draws(lambda v: product(v * scale), normal(10_000, 4) + 2, seeded())[0] * scale
    agree(draws.T, mean)
    centred = draws - mean
    agree(torch.einsum("ni,nj->ijn", centred, centred), covariance)


def test_a_curved_density_has_its_moments() -> None:
    z = hamiltonian_draws(banana, normal(20_000, 2), seeded(), warmup=60)[0]
    first, second = z.unbind(-1)
    agree(torch.stack([first, second, first * second]), 0.0)
    bend = 0.5 * (first.square() - 1)
    agree(torch.stack([first.square(), first.square() * second, (second - bend).square()]), 1.0)


def test_exact_draws_stay_exact_from_the_first_transition() -> None:
    """The transition leaves the density invariant, whatever the size of its steps."""
    first = normal(20_000)
    start = torch.stack([first, 0.5 * (first.square() - 1) + normal(20_000, seed=3)], -1)
    for step in (0.05, 0.6):
        z = hamiltonian_draws(banana, start, seeded(), warmup=0, step=step)[0]
        assert not torch.equal(z, start)
        agree(torch.stack([z[:, 0], z[:, 1], z[:, 0].square() - 1, z[:, 0].square() * z[:, 1] - 1]), 0.0)


def test_successive_states_are_kept() -> None:
    z = hamiltonian_draws(banana, normal(5000, 2), seeded(), warmup=40, draws=6)
    assert z.shape == (6, 5000, 2)
    assert (z.diff(dim=0).abs().sum(-1) > 0).double().mean() > 0.7
    agree((z[:, :, 0].square() * z[:, :, 1]).mean(0), 1.0)


def test_a_chain_does_not_depend_on_which_others_run() -> None:
    start = normal(3, 5, 2)
    run = torch.zeros(3, 5, dtype=torch.bool)
    run[1, 2] = run[2, 4] = True
    every = hamiltonian_draws(banana, start, seeded())[0].reshape(3, 5, 2)
    some = hamiltonian_draws(banana, start, seeded(), run=run)[0]
    torch.testing.assert_close(some, every[run])


def test_the_generator_decides_and_no_gradient_is_recorded() -> None:
    start, before = normal(50, 2), torch.get_rng_state()
    with torch.no_grad():
        one = hamiltonian_draws(banana, start, seeded())
    other = hamiltonian_draws(banana, start, seeded())
    assert torch.equal(one, other)
    assert not other.requires_grad
    assert not torch.equal(one, hamiltonian_draws(banana, start, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_where_the_density_is_no_number_no_chain_goes() -> None:
    def half(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) + (z[:, 0] > 0).double().log()

    def broken(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) + torch.where(z[:, 0] > 0, 0.0, math.nan)

    for density in (half, broken):
        z = hamiltonian_draws(density, normal(4000, 2).abs(), seeded())[0]
        assert (z[:, 0] > 0).all()
        agree(z[:, 0], math.sqrt(2 / math.pi))
