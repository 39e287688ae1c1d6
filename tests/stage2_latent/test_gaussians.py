"""Components of every covariance structure against torch, and their EM against scikit-learn and explicit equations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Oracle
from support.equations import seeded
from support.latent import random_mixture
from torch import Tensor

from postprior.stage2_latent import gaussians
from postprior.stage2_latent.factor_analysers import FactorAnalysers, FactorMoments
from postprior.stage2_latent.gaussian_mixture import COVARIANCES
from postprior.stage2_latent.gaussians import Components, Moments, Statistics, linear
from postprior.stage2_latent.moments import Whitening
from postprior.stage2_latent.online_em import clusters, expectation, online_em
from postprior.stage2_latent.tied_gaussians import TiedGaussians, TiedMoments

K, T, D = 2, 3, 4
NONE = torch.zeros(K, dtype=torch.float64)


def analysers(rank: int) -> FactorAnalysers:
    full = random_mixture(K, T, D)
    generator = seeded(6)
    loadings = torch.randn(K, T, D, rank, generator=generator, dtype=torch.float64)
    variances = torch.rand(K, T, D, generator=generator, dtype=torch.float64) + 0.3
    return FactorAnalysers(full.log_weights, full.means, loadings, variances)


def mixture_of(covariance: str) -> Components:
    """K mixtures with random parameters, in double precision."""
    full = random_mixture(K, T, D)
    return {
        "full": lambda: full,
        "tied": lambda: TiedGaussians(full.log_weights, full.means, full.factors[:, :1]),
        "diagonal": lambda: analysers(0),
        "low_rank": lambda: analysers(2),
    }[covariance]()


def covariances(mixture: Components) -> Tensor:
    """Σ of every component by its definition, (K, T, D, D)."""
    if isinstance(mixture, FactorAnalysers):
        return mixture.loadings @ mixture.loadings.mT + mixture.variances.diag_embed()
    precision = mixture.factors.mT @ mixture.factors  # type: ignore[attr-defined]
    whole = torch.linalg.inv(precision)
    return whole.repeat_interleave(mixture.means.shape[1] // whole.shape[1], dim=1)


def as_torch(mixture: Components, index: int, known: object = slice(None)) -> torch.distributions.Distribution:
    """The mixture of one class in torch, over all or some coordinates."""
    covariance = covariances(mixture)[index][:, known][:, :, known]  # type: ignore[index]
    normals = torch.distributions.MultivariateNormal(mixture.means[index][:, known], covariance)  # type: ignore[index]
    weights = torch.distributions.Categorical(logits=mixture.log_weights[index])
    return torch.distributions.MixtureSameFamily(weights, normals)


@pytest.fixture(scope="module", params=list(COVARIANCES))
def covariance(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def mixture(covariance: str) -> Components:
    return mixture_of(covariance)


def points(rows: int = 300) -> Tensor:
    """Points of two classes, of several clusters each, (K, rows, D)."""
    full = random_mixture(K, T, D)
    classes = torch.arange(K).repeat_interleave(rows)
    return replace(full, means=3 * full.means).sample(classes, seeded(2)).unflatten(0, (K, rows))


def test_log_prob_is_that_of_torch(mixture: Components) -> None:
    x = torch.randn(7, D, generator=seeded(), dtype=torch.float64)
    for index in range(K):
        values = mixture.select(index).log_prob(x.unsqueeze(0)).squeeze(0)
        torch.testing.assert_close(values, as_torch(mixture, index).log_prob(x), rtol=1e-9, atol=1e-9)


def test_samples_have_the_moments_of_the_mixture(mixture: Components) -> None:
    classes = torch.tensor([0, 1]).repeat(50_000)
    x = mixture.sample(classes, seeded())
    for index in range(K):
        truth, drawn = as_torch(mixture, index), x[classes == index]
        torch.testing.assert_close(drawn.mean(0), truth.mean, atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.var(0), truth.variance, atol=0.1, rtol=0.05)


def test_deviations_have_the_covariance_of_their_component(mixture: Components) -> None:
    component = torch.arange(K * T).repeat(30_000)
    drawn = mixture.deviations(component, seeded())
    for index in range(K * T):
        own = drawn[component == index]
        expected = covariances(mixture).flatten(0, 1)[index]
        unit = expected.diagonal().sqrt()
        assert ((own.T.cov() - expected) / (unit * unit.unsqueeze(-1))).abs().max() < 0.04


def test_temperature_scales_the_deviation_and_not_the_choice(mixture: Components) -> None:
    classes = torch.tensor([0, 1]).repeat(500)
    warm, cold = (mixture.sample(classes, seeded(), t) for t in (1.0, 1e-9))
    half = mixture.sample(classes, seeded(), 0.5)
    torch.testing.assert_close(half, (warm + cold) / 2, rtol=1e-6, atol=1e-6)
    nearest = torch.cdist(cold, mixture.means.flatten(0, 1)).min(-1)
    assert nearest.values.max() < 1e-6
    assert torch.equal(nearest.indices // T, classes)


def test_over_codes_that_are_not_whitened_the_density_changes_by_the_determinant(mixture: Components) -> None:
    root = torch.randn(D, D, generator=seeded(3), dtype=torch.float64).tril(-1) + 0.7 * torch.eye(D)
    whitening = Whitening(torch.arange(4.0, dtype=torch.float64), root)
    z = 3 * torch.randn(K, 5, D, generator=seeded(4), dtype=torch.float64)
    over_codes = mixture.unwhitened(whitening).log_prob(z)
    whitened = whitening.forward(z.flatten(0, 1)).unflatten(0, (K, 5))
    torch.testing.assert_close(over_codes, mixture.log_prob(whitened) + whitening.log_det)


def test_marginals_are_those_of_torch(mixture: Components) -> None:
    known = torch.tensor([True, False, True, False])
    log_p = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    weighted = replace(mixture, log_weights=mixture.log_weights + log_p.unsqueeze(-1))
    whole = weighted.unwhitened(Whitening.identity(mixture.means[0, 0]))
    z = torch.randn(6, D, generator=seeded(), dtype=torch.float64)
    of_class = torch.stack([as_torch(mixture, index, known).log_prob(z[:, known]) for index in range(K)])
    expected = (of_class + log_p.unsqueeze(-1)).logsumexp(0)
    z[:, ~known] = torch.nan  # never read
    torch.testing.assert_close(whole.log_marginal(z, known, None), expected)
    classes = torch.tensor([0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(whole.log_marginal(z, known, classes), of_class[classes, torch.arange(6)])


def test_completions_follow_the_conditional_distribution(mixture: Components) -> None:
    """Mean and covariance of p(z_r | z_g), by importance sampling with the joint density."""
    known = torch.tensor([True, False, True, False])
    whole = mixture.unwhitened(Whitening.identity(mixture.means[0, 0]))
    given = torch.tensor([0.4, -0.6], dtype=torch.float64)
    z = torch.full((40_000, D), torch.nan, dtype=torch.float64)
    z[:, known] = given
    drawn, classes = whole.complete(z, known, torch.ones(40_000, dtype=torch.int64), seeded())
    assert torch.equal(drawn[:, known], z[:, known])
    assert bool((classes == 1).all())
    grid = torch.linspace(-12, 12, 241, dtype=torch.float64)
    rest = torch.cartesian_prod(grid, grid)
    joint = torch.empty(len(rest), D, dtype=torch.float64)
    joint[:, known], joint[:, ~known] = given, rest
    weight = as_torch(mixture, 1).log_prob(joint).softmax(0)
    mean = weight @ rest
    expected = (rest - mean).T @ ((rest - mean) * weight.unsqueeze(-1))
    scale = expected.diagonal().sqrt()
    found = drawn[:, ~known]
    assert ((found.mean(0) - mean) / scale).abs().max() < 0.03
    assert ((found.T.cov() - expected) / (scale * scale.unsqueeze(-1))).abs().max() < 0.05


def test_classes_of_completions_are_drawn_by_their_posterior() -> None:
    full = random_mixture(K, T, D)
    log_p = torch.tensor([0.2, 0.8], dtype=torch.float64).log()
    weighted = replace(full, log_weights=full.log_weights + log_p.unsqueeze(-1))
    known = torch.tensor([False, True, True, False])
    z = torch.tensor([0.0, 0.3, -0.2, 0.0], dtype=torch.float64).expand(20_000, D)
    _, classes = weighted.complete(z, known, None, seeded())
    each = torch.stack([as_torch(full, index, known).log_prob(z[:1, known]) for index in range(K)])
    expected = (each.squeeze(-1) + log_p).softmax(0)[1]
    assert float(classes.double().mean()) == pytest.approx(float(expected), abs=0.015)


def test_products_with_one_matrix_per_row_are_those_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices are used by different numbers of rows, some by none; in one piece and in chunks."""
    generator = seeded()
    matrices = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    index = torch.tensor([4] * 150 + [1] * 3 + [0] * 64)[torch.randperm(217, generator=generator)]
    vectors = torch.randn(217, 4, generator=generator, dtype=torch.float64)
    expected = torch.einsum("ned,nd->ne", matrices[index], vectors)
    torch.testing.assert_close(linear(matrices, index, vectors), expected)
    monkeypatch.setattr(gaussians, "FLOATS", 1)
    torch.testing.assert_close(linear(matrices, index, vectors), expected)


def test_an_average_is_the_mean_of_the_densities(mixture: Components) -> None:
    """Also for codes that are not whitened; its draws come from both mixtures."""
    other = replace(mixture, means=mixture.means + 4.0, log_weights=mixture.log_weights.flip(-1))
    mean = type(mixture).average([mixture, other])
    x = 3 * torch.randn(K, 7, D, generator=seeded(), dtype=torch.float64)
    expected = (mixture.log_prob(x).exp() + other.log_prob(x).exp()).log() - torch.tensor(2.0).log()
    torch.testing.assert_close(mean.log_prob(x), expected)
    whole = mean.unwhitened(Whitening.identity(mixture.means[0, 0]))
    torch.testing.assert_close(whole.log_prob(x), expected)
    classes = torch.tensor([0, 1]).repeat(20_000)
    drawn = mean.sample(classes, seeded())[classes == 1]
    truths = [as_torch(each, 1) for each in (mixture, other)]
    between = (truths[1].mean - truths[0].mean) / 2
    torch.testing.assert_close(drawn.mean(0), truths[0].mean + between, atol=0.1, rtol=0)
    variance = (truths[0].variance + truths[1].variance) / 2 + between.square()
    torch.testing.assert_close(drawn.var(0), variance, atol=0.1, rtol=0.05)


def test_parameters_of_low_rank_are_compact() -> None:
    x = torch.randn(K, 500, 40, generator=seeded())
    hard = torch.nn.functional.one_hot(torch.arange(500) % T, T).expand(K, -1, -1).to(x)
    count = {
        name: sum(v.numel() for v in structure.start(x, hard, 3).maximise(torch.ones(K)).tensors().values())
        for name, structure in COVARIANCES.items()
    }
    shared = K * T * (1 + 40)
    assert count["full"] == shared + K * T * 40 * 40
    assert count["tied"] == shared + K * 40 * 40
    assert count["diagonal"] == shared + K * T * 40
    assert count["low_rank"] == shared + K * T * 40 * (1 + 3)


# The M-step


def test_moments_are_weighted_sums() -> None:
    x = torch.randn(2, 5, 3, generator=seeded())
    r = torch.rand(2, 5, 4, generator=seeded(1)).softmax(-1)
    moments, tied = Moments.of(x, r), TiedMoments.of(x, r)
    torch.testing.assert_close(moments.weight, r.mean(1))
    torch.testing.assert_close(moments.first, torch.einsum("kbt,kbd->ktd", r, x) / 5)
    torch.testing.assert_close(moments.second, torch.einsum("kbt,kbd,kbe->ktde", r, x, x) / 5)
    torch.testing.assert_close((tied.weight, tied.first), (moments.weight, moments.first))
    torch.testing.assert_close(tied.total, moments.second.sum(1))


@pytest.mark.parametrize(("covariance", "theirs"), [("full", "full"), ("tied", "tied"), ("diagonal", "diag")])
def test_one_pass_is_one_step_of_em_by_scikit_learn(covariance: str, theirs: str) -> None:
    """From the same start, on the same points: weights, means and covariances after a step."""
    x = points()
    start = mixture_of(covariance)
    sigma = covariances(start)
    precisions = {
        "full": lambda: torch.linalg.inv(sigma[0]),
        "tied": lambda: torch.linalg.inv(sigma[0, 0]),
        "diag": lambda: 1 / sigma[0].diagonal(dim1=-2, dim2=-1),
    }[theirs]()
    oracle = Oracle(
        T,
        covariance_type=theirs,
        max_iter=1,
        reg_covar=gaussians.FLOOR,
        weights_init=start.log_weights[0].exp().numpy(),
        means_init=start.means[0].numpy(),
        precisions_init=precisions.numpy(),
    )
    with pytest.warns(UserWarning, match="did not converge"):
        oracle.fit(x[0].numpy())
    stepped = expectation(start, x)[0].maximise(NONE)
    np.testing.assert_allclose(stepped.log_weights.exp()[0], oracle.weights_, rtol=1e-6)
    np.testing.assert_allclose(stepped.means[0], oracle.means_, rtol=1e-6)
    sigma = covariances(stepped)[0]
    found = {"full": sigma, "tied": sigma[0], "diag": sigma.diagonal(dim1=-2, dim2=-1)}[theirs]
    np.testing.assert_allclose(found, oracle.covariances_, rtol=1e-5, atol=1e-8)


def test_one_pass_is_one_step_of_em_for_factor_analysers() -> None:
    """The equations of Ghahramani & Hinton per row: regression on the factors extended by a 1."""
    start, x = analysers(2), points(50)
    stepped = expectation(start, x)[0].maximise(NONE)
    r = start.joint(x).softmax(-1)[1, :, 2]  # of one component
    mean, loadings, variances = start.means[1, 2], start.loadings[1, 2], start.variances[1, 2]
    gain = loadings.T @ torch.linalg.inv(loadings @ loadings.T + variances.diag())
    cross, outer = torch.zeros(D, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    extended = []
    for point, weight in zip(x[1], r, strict=True):
        h = torch.cat([gain @ (point - mean), torch.ones(1, dtype=torch.float64)])
        spread = torch.zeros(3, 3, dtype=torch.float64)
        spread[:2, :2] = torch.eye(2) - gain @ loadings
        cross += weight * point.unsqueeze(-1) * h
        outer += weight * (spread + h.unsqueeze(-1) * h)
        extended.append(h)
    solution = cross @ torch.linalg.inv(outer)
    residual = x[1] - torch.stack(extended) @ solution.T
    psi = (r @ (residual * x[1])) / r.sum()
    torch.testing.assert_close(stepped.loadings[1, 2], solution[:, :2])
    torch.testing.assert_close(stepped.means[1, 2], solution[:, 2])
    torch.testing.assert_close(stepped.variances[1, 2], psi + gaussians.FLOOR, rtol=1e-6, atol=1e-8)


def shrunk(strength: float) -> Callable[[Statistics[Any]], Any]:
    """The M-step with one shrinkage for all classes."""
    return lambda statistics: statistics.maximise(torch.full_like(statistics.weight[:, 0], strength))


def test_em_raises_the_likelihood_of_every_structure(covariance: str) -> None:
    x = points()
    start = expectation(mixture_of(covariance), x)[0]
    likelihoods = torch.stack([likelihood for _, likelihood in online_em(start, lambda turn: x, 30, shrunk(0.0))])
    assert (likelihoods[:11].diff(dim=0) > -1e-4).all(), "as long as the step is 1, but for the floor of variances"
    assert (likelihoods[-1] > likelihoods[0] + 1e-3).all()


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_one_factor_analyser_with_enough_factors_has_the_covariance_of_the_points(strength: float) -> None:
    """Two factors and a diagonal can express any covariance in 3-D; shrinkage pulls towards that of the points."""
    x = points()[:1, :, :3]
    start = FactorMoments.of(x, torch.ones(1, 300, 1, dtype=torch.float64), 2)
    *_, (statistics, _) = online_em(start, lambda turn: x, 150, shrunk(strength))
    fitted = shrunk(strength)(statistics)
    expected = x[0].T.cov(correction=0)
    torch.testing.assert_close(covariances(fitted)[0, 0], expected, rtol=0.04, atol=0.04)


def test_chunks_of_the_e_step_add_up(covariance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, x = mixture_of(covariance), points()
    whole = expectation(mixture, x)
    monkeypatch.setattr("postprior.stage2_latent.online_em.ROWS", 37)
    parts = expectation(mixture, x)
    torch.testing.assert_close(vars(parts[0]), vars(whole[0]))
    torch.testing.assert_close(parts[1], whole[1])


def test_shrinkage_pulls_covariances_to_their_mean_in_the_class_and_that_to_all_classes() -> None:
    x = points()
    r = torch.rand(K, 300, T, generator=seeded(), dtype=torch.float64).softmax(-1)
    moments = Moments.of(x, r)
    free, pulled, same = (moments.maximise(NONE + s) for s in (0.0, 0.7, 1e9))
    torch.testing.assert_close((pulled.means, pulled.log_weights), (free.means, free.log_weights))
    weight = free.log_weights.exp()[..., None, None]
    own = covariances(free) - gaussians.FLOOR * torch.eye(D)
    mean = (weight * own).sum(1, keepdim=True)
    mean = (mean + 0.7 * mean.mean(0)) / 1.7
    expected = (weight * own + 0.7 * mean) / (weight + 0.7) + gaussians.FLOOR * torch.eye(D)
    torch.testing.assert_close(covariances(pulled), expected)
    torch.testing.assert_close(covariances(same), covariances(same)[:1, :1].expand(K, T, D, D))


def test_the_pooled_covariance_is_shrunk_towards_the_scaled_identity() -> None:
    x = points()
    r = torch.rand(K, 300, T, generator=seeded(), dtype=torch.float64).softmax(-1)
    moments = TiedMoments.of(x, r)
    within, shrunk = (covariances(moments.maximise(NONE + 0.7, share))[:, 0] for share in (0.0, 0.3))
    free = covariances(moments.maximise(NONE))[:, 0] - gaussians.FLOOR * torch.eye(D)
    variance = free.diagonal(dim1=-2, dim2=-1).mean()
    expected = 0.7 * within + 0.3 * (variance + gaussians.FLOOR) * torch.eye(D)
    torch.testing.assert_close(shrunk, expected)


def test_strong_shrinkage_makes_factor_analysers_alike() -> None:
    x = points()
    hard = COVARIANCES["low_rank"].start(x, clusters(x, T, 0), 2)
    spread = []
    for maximise in (shrunk(0.0), shrunk(100.0)):
        *_, (statistics, _) = online_em(hard, lambda turn: x, 30, maximise)
        spread.append(float(covariances(maximise(statistics)).std((0, 1)).mean()))
    assert spread[1] < 0.05 * spread[0]


def test_empty_components_do_no_harm(covariance: str) -> None:
    """A component without points keeps a tiny weight and finite parameters."""
    x = points()
    hard = torch.zeros(K, 300, T, dtype=torch.float64)
    hard[..., 0] = 1
    fitted = COVARIANCES[covariance].start(x, hard, 2).maximise(NONE)
    assert all(bool(value.isfinite().all()) for value in fitted.tensors().values())
    assert fitted.log_weights[:, 1:].max() < -10
    assert fitted.log_prob(x).isfinite().all()


@pytest.mark.parametrize("dimensions", [1, gaussians.SMALL, gaussians.SMALL + 1])
def test_full_covariances_are_scored_alike_in_few_and_in_many_dimensions(dimensions: int) -> None:
    mixture = random_mixture(K, T, dimensions)
    x = torch.randn(K, 7, dimensions, generator=seeded(), dtype=torch.float64)
    expected = torch.stack([as_torch(mixture, index).log_prob(x[index]) for index in range(K)])
    torch.testing.assert_close(mixture.log_prob(x), expected)
