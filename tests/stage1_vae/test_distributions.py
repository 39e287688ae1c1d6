"""Distributions and products of experts against torch.distributions and closed forms."""

import math

import pytest
import torch
from support.equations import seeded
from torch import distributions as td

from postprior.stage1_vae.distributions import FAMILIES, Laplace, Mixture, Normal, choose, kl_divergence
from postprior.stage1_vae.experts import all_subsets, product_of_experts

ORACLES = {"normal": td.Normal, "laplace": td.Laplace}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale_shape", [(4, 3, 2), (), (2,)])
def test_log_prob_is_that_of_torch(family: str, scale_shape: tuple[int, ...]) -> None:
    loc, scale, x = draw(4, 3, 2), draw(*scale_shape, seed=1).exp(), draw(5, 4, 3, 2, seed=2)
    expected = ORACLES[family](loc, scale).log_prob(x).sum((-2, -1))
    torch.testing.assert_close(FAMILIES[family](loc, scale, event=2).log_prob(x), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_scale_is_likelier(family: str) -> None:
    x, zero = draw(50), torch.zeros(50)
    best = FAMILIES[family].likeliest_scale(x)
    base = FAMILIES[family](zero, best)
    scores = [base.widened(torch.tensor(factor)).log_prob(x) for factor in (0.97, 1.0, 1.03)]
    assert scores[1] > max(scores[0], scores[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_have_the_family_s_moments_and_carry_gradients(family: str) -> None:
    loc, scale = torch.tensor([1.0, -2.0]).requires_grad_(), torch.tensor([0.5, 2.0]).requires_grad_()
    distribution = FAMILIES[family](loc, scale)
    x = distribution.rsample((200_000,), seeded())
    error = 5 * distribution.variance.detach().sqrt() / math.sqrt(len(x))
    assert ((x.mean(0) - distribution.mean).abs() < error).all()
    torch.testing.assert_close(x.var(0), distribution.variance, rtol=0.03, atol=0)
    x.sum().backward()
    assert (loc.grad == len(x)).all()
    torch.testing.assert_close(scale.grad, ((x - loc) / scale).sum(0).detach())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_is_that_of_torch_and_ignores_absent_components(family: str) -> None:
    loc, scale, x = draw(6, 4, 3), draw(6, 4, 3, seed=1).exp(), draw(6, 3, seed=2)
    weights = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64).expand(6, 4)
    mixture = Mixture(weights, FAMILIES[family](loc, scale))
    oracle = td.MixtureSameFamily(td.Categorical(weights), td.Independent(ORACLES[family](loc, scale), 1))
    torch.testing.assert_close(mixture.log_prob(x), oracle.log_prob(x))
    torch.testing.assert_close(mixture.mean, oracle.mean)
    torch.testing.assert_close(mixture.variance, oracle.variance)


def test_the_gradient_of_a_mixture_with_absent_components_is_finite() -> None:
    loc = draw(3, 2, 2).requires_grad_()
    mixture = Mixture.uniform(Normal(loc, torch.ones_like(loc)), torch.tensor([[True, False]] * 3))
    mixture.log_prob(draw(3, 2)).sum().backward()
    assert torch.isfinite(loc.grad).all()
    assert (loc.grad[:, 1] == 0).all()


def test_mixture_draws_choose_a_component_for_every_row_by_its_weight() -> None:
    weights = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.1, 0.9]])
    components = Normal(torch.tensor([0.0, 10.0, 20.0])[None, :, None].expand(2, 3, 1), torch.full((2, 3, 1), 0.1))
    chosen = (Mixture(weights, components).rsample((50_000,), seeded())[..., 0] / 10).round()
    shares = torch.stack([(chosen == c).double().mean(0) for c in range(3)], -1)
    torch.testing.assert_close(shares, weights.double(), rtol=0, atol=0.01)
    assert shares[0, 2] == 0 == shares[1, 0]


def test_thinning_keeps_small_mixtures_and_averages_to_large_ones() -> None:
    present = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    components = Normal(draw(2, 6, 1), torch.ones(2, 6, 1, dtype=torch.float64))
    mixture = Mixture.uniform(components, present)
    assert mixture.thin(6, seeded()) is mixture
    thinned = [mixture.thin(3, seeded(seed)) for seed in range(3000)]
    assert thinned[0].weights.shape == (2, 3)
    means = torch.stack([thin.mean for thin in thinned])
    torch.testing.assert_close(
        means[:, 1], mixture.mean[1].expand(3000, 1)
    )  # only two components have weight: both are kept
    error = 5 * means[:, 0].std() / math.sqrt(len(means))
    assert (means[:, 0].mean() - mixture.mean[0]).abs() < error


def test_products_are_normalised_products_of_densities() -> None:
    experts = Normal(draw(1, 3, 1), draw(1, 3, 1, seed=1).exp())
    subsets = all_subsets(3)
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    for prior in (None, Normal(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))):
        products = product_of_experts(experts, subsets, prior)
        for s, subset in enumerate(subsets):
            log_product = sum(experts[0, m].log_prob(grid) for m in range(3) if subset[m])
            log_product = log_product + (0 if prior is None else prior.log_prob(grid))
            log_product = log_product - torch.trapezoid(log_product.exp(), grid[:, 0]).log()
            torch.testing.assert_close(products[0, s].log_prob(grid), log_product, rtol=1e-6, atol=1e-6)


def test_the_product_over_nothing_is_the_prior() -> None:
    product = product_of_experts(Normal(draw(2, 3, 4), draw(2, 3, 4).exp()), torch.zeros(1, 3, dtype=torch.bool))
    assert (product.loc == 0).all()
    assert (product.scale == 1).all()


def test_subsets_are_all_and_different() -> None:
    subsets = all_subsets(4)
    assert subsets.shape == (15, 4)
    assert subsets.any(1).all()
    assert len(subsets.unique(dim=0)) == 15


def test_divergence_is_that_of_torch_and_only_between_normals() -> None:
    q, p = (Normal(draw(5, 3, seed=s), draw(5, 3, seed=s + 1).exp()) for s in (0, 2))
    expected = td.kl_divergence(td.Normal(q.loc, q.scale), td.Normal(p.loc, p.scale)).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)
    with pytest.raises(ValueError, match="found laplace and normal"):
        kl_divergence(FAMILIES["laplace"](q.loc, q.scale), p)


def test_the_same_generator_gives_the_same_draws_and_the_global_one_is_left_alone() -> None:
    before = torch.get_rng_state()
    mixture = Mixture.single(Normal(draw(4, 2), torch.ones(4, 2, dtype=torch.float64)))
    assert torch.equal(mixture.rsample((3,), seeded()), mixture.rsample((3,), seeded()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_component_of_weight_0_is_never_chosen() -> None:
    """Not even if the uniform number was rounded to 1 or is exactly 0."""
    weights = torch.tensor([[0.0, 0.3, 0.7, 0.0], [0.0, 1.0, 0.0, 0.0]])
    for uniform, expected in ((1.0, [2, 1]), (0.0, [1, 1])):
        assert choose(weights, torch.full((2, 1), uniform)).flatten().tolist() == expected
    third = torch.full((1, 3), 1 / 3)
    assert choose(third, torch.ones(1, 1)).item() == 2


def test_stratified_draws_have_the_mean_of_the_mixture_and_spread_over_components() -> None:
    generator = seeded()
    loc = torch.tensor([[[-10.0], [0.0], [10.0]]]).expand(4000, 3, 1)
    q = Mixture(torch.tensor([0.25, 0.25, 0.5]).expand(4000, 3), Normal(loc, torch.ones_like(loc)))
    z = q.stratified(4, generator)  # (4, 4000, 1)
    counts = torch.stack([(z - centre).abs().lt(5).sum(0) for centre in (-10.0, 0.0, 10.0)])
    assert (counts.squeeze(-1) == torch.tensor([1, 1, 2]).unsqueeze(-1)).all()
    assert abs(float(z.mean()) - 2.5) < 0.05


def test_a_marginal_is_the_integral_over_the_other_coordinates() -> None:
    kept = torch.tensor([True, False, True])
    loc, scale = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    mixture = Mixture(weights, Laplace(loc, scale.exp())).marginal(kept)
    grid = torch.linspace(-60, 60, 120_001, dtype=torch.float64)
    point = torch.tensor([0.3, 0.0, -0.7], dtype=torch.float64)
    line = point.repeat(len(grid), 1)
    line[:, 1] = grid
    whole = Mixture(weights, Laplace(loc, scale.exp())).log_prob(line).exp()
    torch.testing.assert_close(torch.trapezoid(whole, grid), mixture.log_prob(point[kept]).exp(), rtol=1e-5, atol=0)
