"""The Gaussian of the aggregated posterior: moments in closed form, conditionals and marginals against torch."""

from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from support.latent import labelled, posteriors, unlabelled
from torch.distributions import MultivariateNormal

from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.gaussian import Gaussian
from postprior.stage2_latent.gaussian_mixture import GaussianMixture

CODES, _ = labelled(500, seed=1)
VALIDATION, _ = labelled(200, seed=2)


def aggregated(codes: Codes) -> MultivariateNormal:
    """The normal with E z and Cov z of the mixture of all components of all posteriors."""
    parts = codes.posterior().components
    weights, loc = codes.weights.double() / len(codes), parts.loc.double()
    mean = torch.einsum("nc,ncd->d", weights, loc)
    second = torch.einsum("nc,ncd,nce->de", weights, loc, loc)
    second = second + torch.einsum("nc,ncd->d", weights, parts.variance.double()).diag()
    return MultivariateNormal(mean, second - mean.unsqueeze(-1) * mean)


def of_mixtures() -> Codes:
    """Posteriors with two components each."""
    generator = seeded(3)
    loc = torch.randn(300, 2, 4, generator=generator)
    weights = torch.rand(300, 2, generator=generator).softmax(-1)
    scale = torch.rand(300, 2, 4, generator=generator) + 0.1
    observed = torch.ones(300, 2, dtype=torch.bool)
    return Codes(CODES.layout, "laplace", loc, scale, weights, observed)


@pytest.mark.parametrize("codes", [CODES, of_mixtures()], ids=["normals", "mixtures"])
def test_it_is_the_gaussian_with_the_moments_of_the_aggregated_posterior(codes: Codes) -> None:
    density = Gaussian().fit(codes, generator=seeded()).to(torch.float64)
    z = 2 * torch.randn(20, 4, generator=seeded(5), dtype=torch.float64)
    torch.testing.assert_close(density.log_prob(z), aggregated(codes).log_prob(z), rtol=1e-4, atol=1e-4)


def test_labels_are_ignored() -> None:
    density = Gaussian().fit(CODES, VALIDATION, seeded())
    same = Gaussian().fit(unlabelled(CODES), unlabelled(VALIDATION), seeded())
    assert torch.equal(density.log_prob(CODES.mean), same.log_prob(CODES.mean))
    assert density.sample(3, seeded()).labels is None


def test_no_gaussian_is_more_likely() -> None:
    """In expectation over posterior draws of the training rows, other means or covariances are less likely."""
    law = aggregated(CODES)
    density = Gaussian().fit(CODES, generator=seeded())
    z = torch.cat([CODES.draw(seeded(s)) for s in range(40)])
    best = float(density.log_prob(z).mean())
    for shift, scale in ((0.3, 1.0), (0.0, 0.7), (0.0, 1.4)):
        other = MultivariateNormal(law.mean + shift, scale * law.covariance_matrix)
        assert float(other.log_prob(z.double()).mean()) < best - 0.01


def test_conditional_and_marginal_are_those_of_torch() -> None:
    density = Gaussian().fit(CODES, generator=seeded()).to(torch.float64)
    law = aggregated(CODES)
    mean, covariance = law.mean, law.covariance_matrix
    given = torch.tensor([[1.1, -0.3]], dtype=torch.float64)
    expected = MultivariateNormal(mean[:2], covariance[:2, :2]).log_prob(given)
    torch.testing.assert_close(density.log_marginal({"z": given}), expected, rtol=1e-4, atol=1e-4)
    drawn = density.condition({"z": given.expand(20_000, 2)}, seeded()).loc[:, 0, 2:]
    gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
    torch.testing.assert_close(drawn.mean(0), mean[2:] + gain @ (given[0] - mean[:2]), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), covariance[2:, 2:] - gain @ covariance[:2, 2:], atol=0.03, rtol=0)


def test_temperature_scales_the_covariance() -> None:
    density = Gaussian().fit(CODES, generator=seeded())
    cold = density.sample(20_000, seeded(), temperature=0.5).mean
    expected = aggregated(CODES)
    torch.testing.assert_close(cold.mean(0), expected.mean.float(), atol=0.03, rtol=0)
    torch.testing.assert_close(cold.T.cov(), 0.25 * expected.covariance_matrix.float(), atol=0.02, rtol=0.05)


def test_its_state_is_the_whitening() -> None:
    tensors, _ = Gaussian().fit(CODES, generator=seeded()).state()
    assert tensors.keys() == {
        "whitening.loc",
        "whitening.root",
        "classes.labels",
        "classes.probabilities",
        "levels",
    }


def test_one_component_of_the_mixture_is_this_gaussian() -> None:
    """EM on fresh draws converges to the closed form."""
    layout = (Block("z", (3,)),)
    codes = posteriors(CODES.mean[:, :3], torch.tensor(0.3), layout)
    fitted = GaussianMixture(components=1, covariance="full", batch=10_000)
    fitted.fit(codes, codes, seeded())
    closed = Gaussian().fit(codes, codes, seeded())
    z = codes.draw(seeded(1))
    torch.testing.assert_close(fitted.log_prob(z), closed.log_prob(z), atol=0.1, rtol=0)


def test_rows_that_lack_blocks_count_by_what_they_have() -> None:
    """If w is missing for large z, E w is still right; the mean of complete rows is not."""
    generator = seeded(4)
    z = torch.randn(4000, 2, generator=generator)
    w = z + 0.3 * torch.randn(4000, 2, generator=generator)
    whole = posteriors(torch.cat([z, w], dim=1), torch.tensor(0.1), CODES.layout)
    observed, loc = whole.observed.clone(), whole.loc.clone()
    observed[z[:, 0] > 0, 1], loc[z[:, 0] > 0, :, 2:] = False, torch.nan
    lacking = replace(whole, observed=observed, loc=loc)
    means = [
        Gaussian().fit(codes, whole, seeded()).whitening.loc[2]
        for codes in (whole, lacking, lacking.select(lacking.complete))
    ]
    assert float(means[1]) == pytest.approx(float(means[0]), abs=0.05)
    assert float(means[2]) < float(means[0]) - 0.5
