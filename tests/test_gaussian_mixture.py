"""Full-covariance mixtures against scikit-learn and torch, and EM against mixtures that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latent import labelled, posteriors, random_mixture, seeded, unlabelled
from sklearn.mixture import GaussianMixture as Oracle

from stage2_latent.codes import Block, Codes
from stage2_latent.gaussian_mixture import GaussianMixture
from stage2_latent.gaussians import Gaussians, Moments, online_em

PLANE = (Block("z", (2,)),)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.tensor([[-4.0, 0.0], [3.0, 3.0], [3.0, -3.0]])
UNIT = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
ROOTS = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-0.9, 0.3]]])


def three_components(rows: int, seed: int, scale: float = 0.3) -> Codes:
    """Posterior means from three Gaussians, with posterior noise on top."""
    generator = seeded(seed)
    component = torch.multinomial(WEIGHTS, rows, replacement=True, generator=generator)
    noise = torch.randn(rows, 2, 1, generator=generator)
    means = MEANS[component] + (ROOTS[component] @ noise).squeeze(-1)
    return posteriors(means, torch.tensor(scale), PLANE)


def as_torch(mixture: Gaussians, index: int) -> torch.distributions.Distribution:
    precision = mixture.factors[index].mT @ mixture.factors[index]
    normals = torch.distributions.MultivariateNormal(mixture.means[index], precision_matrix=precision)
    weights = torch.distributions.Categorical(logits=mixture.log_weights[index])
    return torch.distributions.MixtureSameFamily(weights, normals)


def test_log_prob_is_that_of_torch() -> None:
    mixture = random_mixture()
    x = torch.randn(7, 4, generator=seeded(), dtype=torch.float64)
    for index in range(2):
        values = mixture.select(index).log_prob(x.unsqueeze(0)).squeeze(0)
        torch.testing.assert_close(values, as_torch(mixture, index).log_prob(x), rtol=1e-9, atol=1e-9)


def test_samples_have_the_moments_of_the_mixture() -> None:
    mixture = random_mixture()
    classes = torch.tensor([0, 1]).repeat(50_000)
    x = mixture.sample(classes, seeded())
    for index in range(2):
        truth = as_torch(mixture, index)
        drawn = x[classes == index]
        torch.testing.assert_close(drawn.mean(0), truth.mean, atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.var(0), truth.variance, atol=0.1, rtol=0.05)


def test_moments_are_weighted_sums() -> None:
    generator = seeded()
    x = torch.randn(2, 5, 3, generator=generator)
    r = torch.rand(2, 5, 4, generator=generator)
    moments = Moments.of(x, r)
    torch.testing.assert_close(moments.weight, r.mean(1))
    torch.testing.assert_close(moments.first, torch.einsum("kbt,kbd->ktd", r, x) / 5)
    torch.testing.assert_close(moments.second, torch.einsum("kbt,kbd,kbe->ktde", r, x, x) / 5)


def test_one_pass_is_one_step_of_em_by_scikit_learn() -> None:
    """From the same start, on the same points: weights, means and covariances after a step."""
    points = three_components(500, seed=3).mean.double()
    weights, means = WEIGHTS.double() / WEIGHTS.double().sum(), MEANS.double()
    start = Gaussians(weights.log().unsqueeze(0), means.unsqueeze(0), UNIT.unsqueeze(0))
    oracle = Oracle(
        3, max_iter=1, reg_covar=1e-4, weights_init=weights, means_init=means, precisions_init=UNIT
    )
    with pytest.warns(UserWarning, match="did not converge"):
        oracle.fit(points.numpy())
    x = points.unsqueeze(0)
    stepped = Moments.of(x, start.joint(x).softmax(-1)).maximise(torch.zeros(1, dtype=torch.float64))
    np.testing.assert_allclose(stepped.log_weights.exp()[0], oracle.weights_, rtol=1e-6)
    np.testing.assert_allclose(stepped.means[0], oracle.means_, rtol=1e-6)
    precisions = stepped.factors[0].mT @ stepped.factors[0]
    np.testing.assert_allclose(precisions, oracle.precisions_, rtol=1e-5)


def test_shrinkage_pulls_covariances_to_their_mean() -> None:
    x = torch.randn(1, 400, 2, generator=seeded())
    x[:, :200] *= 3
    hard = torch.zeros(1, 400, 2)
    hard[:, :200, 0], hard[:, 200:, 1] = 1, 1
    free, tied = (Moments.of(x, hard).maximise(torch.tensor([s])) for s in (0.0, 1e6))
    variances = [torch.cholesky_inverse(m.factors[0].mT)[:, 0, 0] for m in (free, tied)]
    assert variances[0][0] > 5 * variances[0][1]
    assert float(variances[1][0]) == pytest.approx(float(variances[1][1]), rel=1e-3)


def test_em_raises_the_likelihood() -> None:
    x = three_components(400, seed=4).mean.unsqueeze(0)
    responsibilities = torch.rand(1, 400, 3, generator=seeded()).softmax(-1)
    passes = list(online_em(Moments.of(x, responsibilities), lambda turn: x, 30, torch.zeros(1)))
    likelihoods = torch.stack([likelihood for _, likelihood in passes]).flatten()
    assert (likelihoods.diff() > -1e-4).all()
    assert likelihoods[-1] > likelihoods[0] + 0.5


def test_known_mixture_is_recovered_and_its_size_chosen() -> None:
    """Held-out log-likelihood picks three of 1 … 6, with the weights, means and covariances drawn from."""
    density = GaussianMixture(components=[1, 2, 3, 6], covariance="full", shrinkage=4.0)
    density.fit(three_components(2000, seed=1), three_components(1000, seed=2), seeded())
    assert density.mixture.means.shape == (1, 3, 2)
    assert max(density.scores, key=density.scores.__getitem__) == "full 3"
    mixture = density.mixture.unwhitened(density.whitening)
    order = [int((mixture.means[0] - mean).square().sum(-1).argmin()) for mean in MEANS]
    torch.testing.assert_close(mixture.log_weights.exp()[0, order], WEIGHTS, atol=0.03, rtol=0)
    torch.testing.assert_close(mixture.means[0, order], MEANS, atol=0.2, rtol=0)
    factors = mixture.factors[0, order]
    covariances = torch.linalg.inv(factors.mT @ factors)
    expected = ROOTS @ ROOTS.mT + 0.09 * torch.eye(2)
    torch.testing.assert_close(covariances, expected, atol=0.15, rtol=0.1)


def test_posteriors_of_several_components_are_fitted_whole() -> None:
    """Each row's posterior has two far components: the density has both, with their weights."""
    rows = 300
    loc = torch.tensor([[-4.0, 0.0], [4.0, 1.0]]).expand(rows, 2, 2).clone()
    weights = torch.tensor([0.25, 0.75]).expand(rows, 2).clone()
    observed = torch.ones(rows, 1, dtype=torch.bool)
    codes = Codes(PLANE, "laplace", loc, torch.full_like(loc, 0.5), weights, observed)
    density = GaussianMixture(components=2).fit(codes, generator=seeded())
    drawn = density.sample(4000, seeded()).loc[:, 0]
    left = drawn[:, 0] < 0
    assert float(left.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(drawn[~left].var(0).mean()) == pytest.approx(2 * 0.25, rel=0.1)


def test_fit_on_posteriors_is_wider_than_on_their_means() -> None:
    codes, validation = three_components(1000, 1, scale=1.0), three_components(300, 2, scale=1.0)
    points = [Codes.empirical(PLANE, table.mean) for table in (codes, validation)]
    wide = GaussianMixture(components=3).fit(codes, validation, seeded())
    narrow = GaussianMixture(components=3).fit(*points, seeded())
    held_out = validation.draw(seeded(5))
    assert wide.log_prob(held_out).mean() > narrow.log_prob(held_out).mean() + 0.3


def test_every_pass_sees_fresh_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    draw = Codes.draw

    def spy(self: Codes, generator: torch.Generator, rows: torch.Tensor | None = None) -> torch.Tensor:
        z = draw(self, generator, rows)
        seen.append(float(z.sum()))
        return z

    monkeypatch.setattr(Codes, "draw", spy)
    GaussianMixture(components=2, passes=10).fit(three_components(100, 1), generator=seeded())
    assert len(set(seen)) == len(seen) >= 11


def test_condition_is_the_closed_form_of_a_gaussian() -> None:
    codes, _ = labelled(2000, seed=1)
    density = GaussianMixture(components=1).fit(unlabelled(codes), generator=seeded()).to(torch.float64)
    mixture = density.mixture.unwhitened(density.whitening)
    mean, covariance = mixture.means[0, 0], torch.linalg.inv(mixture.factors[0, 0].mT @ mixture.factors[0, 0])
    given = torch.tensor([0.7, -0.4], dtype=torch.float64)
    drawn = density.condition({"z": given.expand(20_000, 2)}, seeded()).loc[:, 0, 2:]
    gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
    expected = covariance[2:, 2:] - gain @ covariance[:2, 2:]
    torch.testing.assert_close(drawn.mean(0), mean[2:] + gain @ (given - mean[:2]), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), expected, atol=0.03, rtol=0)


def test_condition_on_everything_changes_nothing() -> None:
    codes, _ = labelled(200, seed=1)
    density = GaussianMixture(components=2, passes=10).fit(codes, generator=seeded())
    given = codes.split(codes.mean)
    assert torch.equal(density.condition(given, seeded()).loc[:, 0], codes.mean)


def test_labels_share_nothing_but_the_number_of_components() -> None:
    """Two labels at different places: each has its own mixture."""
    codes, _ = labelled(400, seed=1)
    shifted = replace(codes, loc=codes.loc + 10.0 * codes.labels.reshape(-1, 1, 1))
    density = GaussianMixture(components=2, passes=10).fit(shifted, generator=seeded())
    means = density.mixture.unwhitened(density.whitening).means
    assert (means[1] - means[0]).min() > 10


@pytest.mark.parametrize("components", [[], [0], "3", [1, 2.5], True])
def test_components_are_checked(components: object) -> None:
    with pytest.raises(ValueError, match="option components: found"):
        GaussianMixture(components=components)
