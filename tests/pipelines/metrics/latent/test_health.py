"""Latent health: linear–Gaussian models with known divergences, clusters, and advice."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import posteriors

from postprior.pipelines.metrics.latent import health as module
from postprior.pipelines.metrics.latent.health import (
    clusters,
    dead_dimensions,
    divergence_to_prior,
    health,
    mutual_information,
)
from postprior.stage1_vae.distributions import Block, Laplace, Mixture, Normal
from postprior.stage2_latent.codes import Codes

D64 = torch.float64


def linear(variances: list[float], rows: int = 2000, seed: int = 0) -> Codes:
    """Return exact posteriors of x = W z + ε, z ~ N(0, I), where W has orthogonal columns.

    q(z | x) = N(m, diag v) with m ~ N(0, 1 − v). The aggregated posterior is the prior, and KL(q(z | x) ‖ p) =
    I(x; z) = −½ Σ ln v.
    """
    v = torch.tensor(variances)
    means = (1 - v).sqrt() * torch.randn(rows, len(v), generator=seeded(seed))
    return posteriors(means, v.sqrt(), (Block("z", (len(v),)),))


def single(loc: float, scale: float, family: type[Normal] | type[Laplace] = Normal, D: int = 1) -> Mixture:
    return Mixture.single(family(torch.full((D,), loc, dtype=D64), torch.full((D,), scale, dtype=D64)))


def rows(mixture: Mixture, count: int) -> Mixture:
    """Repeat the mixture for every row."""
    family, components = type(mixture.components), mixture.components
    size = (count, *components.loc.shape)
    repeated = family(components.loc.expand(size), components.scale.expand(size))
    return Mixture(mixture.weights.expand(count, -1), repeated)


def test_the_aggregate_of_exact_posteriors_is_the_prior() -> None:
    found = health(linear([0.5, 0.2]), seeded())
    information = [-0.5 * math.log(v) for v in (0.5, 0.2)]
    np.testing.assert_allclose(found["kl_per_dimension"], information, atol=0.05)  # 3 standard errors
    assert found["kl_total"] == pytest.approx(sum(found["kl_per_dimension"]))
    comparison = found["aggregated_to_prior"]
    assert comparison["mutual_information"] == pytest.approx(sum(information), abs=0.08)
    assert comparison["mutual_information_bound"] == pytest.approx(math.log(2000))
    assert comparison["marginal_kl"] == pytest.approx(0, abs=0.08)
    assert comparison["moment_kl"] == pytest.approx(0, abs=0.005)
    assert comparison["largest_shift"] < 0.1
    assert 0.9 < comparison["least_variance"] < comparison["largest_variance"] < 1.1
    assert comparison["posterior_share"] == pytest.approx(0.35, abs=0.1)


def test_an_aggregate_that_differs_from_the_prior() -> None:
    """The divergence of the Gaussian with the codes' moments from a prior with other moments, in closed form."""
    codes = linear([0.5, 0.2, 0.3])
    mixing = torch.tensor([[1.5, 0.4, 0.0], [0.0, 0.3, -0.2], [0.1, 0.0, 1.0]])
    prior = Mixture.single(Normal(torch.tensor([0.5, 0.0, -1.0]), torch.tensor([2.0, 0.5, 1.0])))
    codes = replace(codes, loc=codes.loc @ mixing + torch.tensor([1.0, 0.0, 2.0]), prior=prior)
    mean, variance = codes.mean.double(), codes.posterior().variance.double()
    covariance = torch.cov(mean.T, correction=0) + variance.mean(0).diag()
    shift, ratio = mean.mean(0) - prior.mean, covariance / prior.variance.double().unsqueeze(1)
    oracle = 0.5 * ((shift**2 / prior.variance).sum() + ratio.trace() - 3 - torch.logdet(ratio))
    comparison = health(codes, seeded())["aggregated_to_prior"]
    assert comparison["moment_kl"] == pytest.approx(float(oracle))
    assert comparison["shift"] == pytest.approx(((mean.mean(0) - prior.mean) / prior.variance.sqrt()).tolist())
    assert comparison["variance"] == pytest.approx((covariance.diagonal() / prior.variance).tolist())
    assert comparison["marginal_kl"] == pytest.approx(float(oracle), abs=0.1)  # these codes are Gaussian


def test_information_of_disjoint_posteriors_is_the_log_of_the_number_of_rows() -> None:
    loc = 1000.0 * torch.arange(50.0).unsqueeze(1)
    codes = posteriors(loc, torch.tensor(1.0), (Block("z", (1,)),))
    found = health(codes, seeded())["aggregated_to_prior"]
    assert found["mutual_information"] == pytest.approx(math.log(50)) == found["mutual_information_bound"]
    same = posteriors(torch.zeros(50, 1), torch.tensor(1.0), (Block("z", (1,)),))
    assert health(same, seeded())["aggregated_to_prior"]["mutual_information"] == pytest.approx(0, abs=1e-9)


def test_information_does_not_depend_on_the_size_of_temporaries(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = linear([0.5, 0.2], rows=101).posterior()
    expected = mutual_information(posterior, seeded())
    monkeypatch.setattr(module, "FLOATS", 1)
    assert mutual_information(posterior, seeded()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.3), (1.5, 0.8), (-2.0, 1.7)])
def test_a_laplace_posterior_against_a_laplace_prior(loc: float, scale: float) -> None:
    total, coordinates = divergence_to_prior(
        rows(single(loc, scale, Laplace), 400), single(0.0, 1.0, Laplace), seeded()
    )
    oracle = -math.log(scale) + abs(loc) + scale * math.exp(-abs(loc) / scale) - 1
    assert total == pytest.approx(oracle, abs=0.02)
    assert coordinates.tolist() == pytest.approx([oracle], abs=0.02)


def test_components_of_a_mixture_make_coordinates_dependent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distant components (a, a) and (−a, −a): the total contains ln 2 once, the coordinates contain it twice."""
    a = 6.0
    loc = torch.tensor([[a, a], [-a, -a]], dtype=D64)
    posterior = Mixture(torch.full((2,), 0.5, dtype=D64), Normal(loc, torch.ones_like(loc)))
    monkeypatch.setattr(module, "FLOATS", 64 * 4 * 100)  # of several chunks
    total, coordinates = divergence_to_prior(rows(posterior, 400), single(0.0, 1.0, D=2), seeded())
    component = a**2 / 2  # KL(N(±a, 1) ‖ N(0, 1))
    assert total == pytest.approx(2 * component - math.log(2), abs=0.3)
    assert coordinates.tolist() == pytest.approx(2 * [component - math.log(2)], abs=0.15)


def test_draws_agree_with_the_closed_form() -> None:
    """A Gaussian is written as a mixture of two equal ones, for the posteriors and for the prior."""

    def twice(mixture: Mixture) -> Mixture:
        parts = mixture.components
        loc, scale = (torch.cat([value, value], -2) for value in (parts.loc, parts.scale))
        return Mixture(torch.cat(2 * [mixture.weights], -1) / 2, type(parts)(loc, scale))

    posterior, prior = linear([0.5, 0.05], rows=500).posterior(), single(0.3, 1.4, D=2)
    exact, exact_coordinates = divergence_to_prior(posterior, prior, seeded())
    for q, p in ((twice(posterior), prior), (posterior, twice(prior))):
        drawn, drawn_coordinates = divergence_to_prior(q, p, seeded())
        assert drawn == pytest.approx(exact, abs=0.03)
        torch.testing.assert_close(drawn_coordinates, exact_coordinates.double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("family", [Laplace, Normal])
def test_codes_drawn_from_a_prior_that_is_not_gaussian_have_its_moments(
    monkeypatch: pytest.MonkeyPatch, family: type[Normal] | type[Laplace]
) -> None:
    """In eight dimensions, one Gaussian is 0.6 nats from a Laplace prior and further from a mixture of two."""
    monkeypatch.setattr(module, "PAIRS", 2**18)
    monkeypatch.setattr(module, "DRAWS", 4)
    loc = 3.0 * torch.tensor([[1.0], [-1.0]], dtype=D64) * torch.ones(8, dtype=D64)
    loc = loc if family is Normal else loc[:1]
    prior = Mixture(torch.full((len(loc),), 1 / len(loc), dtype=D64), family(loc, torch.ones_like(loc)))
    drawn = prior.rsample((4000,), seeded()).float()
    codes = replace(posteriors(drawn, torch.tensor(0.01), (Block("z", (8,)),)), prior=prior)
    found = health(codes, seeded())
    assert found["aggregated_to_prior"]["moment_kl"] == pytest.approx(0, abs=0.02)
    assert not any("from the prior" in line for line in found["advice"])


def test_dead_collapsed_and_active_dimensions() -> None:
    codes = linear([0.2, 0.999, 0.5], rows=1000)
    codes.loc[..., 1] = 0.0
    codes.scale[..., 1] = 1.0  # equal to the prior: dead and collapsed
    codes.loc[..., 2] = 0.7  # equal for all rows, but not the prior: dead, not collapsed
    found = health(codes, seeded())
    assert (found["dimensions"], found["active_units"]) == (3, 1)
    assert (found["dead_dimensions"], found["collapsed_dimensions"]) == (2, 1)
    assert found["kl_per_dimension"][1] == pytest.approx(0, abs=1e-6)


def test_the_prior_of_the_codes_is_needed() -> None:
    with pytest.raises(ValueError, match="codes: found no prior"):
        health(replace(linear([0.5]), prior=None), seeded())


def test_the_number_of_clusters() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=800)
    codes = 12 * np.eye(4, 5)[labels] + rng.normal(size=(800, 5)) @ (np.eye(5) + 0.3 * rng.normal(size=(5, 5)))
    found = clusters(codes[:500], codes[500:], labels[500:], seed=0)
    assert found["number"] == 4
    assert found["silhouette"] == pytest.approx(found["label_silhouette"])
    assert found["silhouette"] > 0.6
    assert found["tried_up_to"] == module.CLUSTERS[-1]
    assert found == clusters(codes[:500], codes[500:], labels[500:], seed=0)


def test_one_cluster_has_no_silhouette() -> None:
    codes = np.random.default_rng(0).normal(size=(600, 4))
    assert clusters(codes[:20], codes[400:], None, seed=0)["tried_up_to"] == 16
    missing = {"value": None, "why": "all held-out codes are in one group"}
    assert clusters(codes[:400], codes[400:], np.zeros(200, int), seed=0) == {
        "number": 1,
        "tried_up_to": 32,
        "silhouette": missing,
        "label_silhouette": missing,
    }
    each = clusters(codes[:20], codes[400:410], np.arange(10), seed=0)
    assert each["label_silhouette"]["why"] == "each held-out code is in a separate group"
    for few in (clusters(codes[:1], codes, None, seed=0), clusters(codes, codes[:0], None, seed=0)):
        assert few["value"] is None


def wide(share: float, D: int, spread: float = 1.0) -> Codes:
    """Return posteriors with this share of the codes' variance in every dimension."""
    means = spread * (1 - share) ** 0.5 * torch.randn(1000, D, generator=seeded(1))
    return posteriors(means, torch.tensor(spread * share**0.5), (Block("z", (D,)),))


def dead(codes: Codes, count: int) -> Codes:
    codes.loc[..., :count] = 0.0
    codes.scale[..., :count] = 1.0
    return codes


def advised(codes: Codes) -> list[str]:
    sentences: list[str] = health(codes, seeded())["advice"]
    return sentences


def test_no_advice_without_a_reason() -> None:
    assert not advised(linear([0.2, 0.95]))  # uneven, none dead, the aggregate is the prior
    assert not advised(dead(linear([0.5] * 4 + [0.1]), 1))  # a fifth of them dead


@pytest.mark.parametrize(
    ("codes", "sentences"),
    [
        (dead(wide(0.5, 3), 3), ["All latent dimensions are dead, so codes do not depend"]),
        (dead(wide(0.1, 4), 2), ["2 of 4 latent dimensions carry almost no information: use 2 in all, or"]),
        (wide(0.3, 3), ["All 3 latent dimensions are used about equally (KL from 0.6 to 0.6 nats): with more"]),
        (dead(wide(0.1, 4, 3.0), 1), ["1 of 4 latent dimensions carries almost no", "A Gaussian with"]),
        (wide(0.04**2, 6), ["All 6", "Posteriors are 2"]),
        (wide(0.04**2, 1), ["The only latent dimension"]),  # equally narrow, but close together in one dimension
    ],
)  # fmt: skip
def test_advice_follows_from_the_numbers(codes: Codes, sentences: list[str]) -> None:
    found = advised(codes)
    assert len(found) == len(sentences)
    assert all(line.startswith(start) for line, start in zip(found, sentences, strict=True)), found


def test_a_larger_and_a_smaller_beta_are_never_advised_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 2**18)
    for count in range(5):
        for spread in (0.2, 1.0, 4.0):
            text = " ".join(advised(dead(wide(0.001, 5, spread), count)))
            assert not ("smaller beta" in text and "larger beta" in text)


def test_fewer_rows_are_used_if_their_mixtures_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 2 * 30**2)
    found = health(linear([0.5, 0.2]), seeded())["aggregated_to_prior"]
    assert found["mutual_information_bound"] == pytest.approx(math.log(30))


def test_the_same_generator_gives_the_same_numbers() -> None:
    codes = linear([0.5, 0.2], rows=300)
    codes = replace(codes, prior=single(0.0, 1.0, Laplace, D=2))
    assert health(codes, seeded(1)) == health(codes, seeded(1))


def test_dead_dimensions_are_those_whose_means_do_not_move() -> None:
    means = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.05, 0.0])
    assert dead_dimensions(means) == 2
