"""The uniform distribution of a metric: its volume, its sampler against integrals, and the choice of its options."""

import math

import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, posteriors
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES
from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.riemannian import Metric, Riemannian

CODES, _ = labelled(400, seed=1)
VALIDATION, _ = labelled(200, seed=2)


def metric(D: int, C: int = 4, spread: float = 1.0, dtype: torch.dtype = torch.float64) -> Metric:
    generator = seeded(D)
    centres = spread * torch.randn(C, D, generator=generator, dtype=dtype)
    values, rates = torch.rand(2, C, D, generator=generator, dtype=dtype) + 0.5
    return Metric(centres, values, rates)


def by_hand(m: Metric, z: Tensor) -> Tensor:
    """G(z) of a point as a matrix."""
    kernels = (-(m.rates * (z - m.centres).square()).sum(-1)).exp()
    return torch.stack([k * a.diag() for k, a in zip(kernels, m.values, strict=True)]).sum(0)


@pytest.mark.parametrize("D", [1, 2, 5])
def test_volume_is_the_root_of_the_determinant(D: int) -> None:
    m = metric(D)
    z = 2 * torch.randn(20, D, generator=seeded(), dtype=torch.float64)
    expected = torch.stack([0.5 * torch.linalg.slogdet(by_hand(m, point)).logabsdet for point in z])
    torch.testing.assert_close(m.log_volume(z), expected)


@pytest.mark.parametrize("D", [1, 2, 5])
def test_weights_are_volume_over_proposal(D: int) -> None:
    """The proposal is a mixture of one Gaussian per term of the metric, weighted by their masses."""
    m = metric(D)
    z = 2 * torch.randn(20, D, generator=seeded(), dtype=torch.float64)
    masses = (m.values / m.rates).sqrt().prod(-1)
    parts = torch.distributions.Independent(torch.distributions.Normal(m.centres, (D * m.rates).rsqrt()), 1)
    q = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(masses), parts)
    difference = m.weights(z) - (m.log_volume(z) - q.log_prob(z))
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))
    centre, offset = m.propose(40_000, seeded())
    torch.testing.assert_close((centre + offset).mean(0), q.mean, atol=0.03, rtol=0)
    torch.testing.assert_close((centre + offset).var(0), q.variance, atol=0.05, rtol=0.03)


@pytest.mark.parametrize("D", [2, 3, 6])
def test_weights_are_least_where_one_term_is_alone(D: int) -> None:
    """√det is superadditive from two dimensions on (Minkowski), which bounds the weights from below."""
    m = metric(D)
    z = 3 * torch.randn(500, D, generator=seeded(), dtype=torch.float64)
    assert float(m.weights(z).min()) > -1e-9
    far = m.centres[:1] + 30 * torch.randn(1, D, generator=seeded(1), dtype=torch.float64).sign()
    assert float(metric(D, C=1).weights(far)) == pytest.approx(0, abs=1e-9)


def test_a_volume_that_underflows_has_a_logarithm() -> None:
    m = metric(5, dtype=torch.float32)
    far = torch.full((1, 5), 100.0)
    assert m.log_volume(far).isfinite().all()
    assert float(m.log_volume(far)) == pytest.approx(
        float(Metric(*(part.double() for part in vars(m).values())).log_volume(far.double())), rel=1e-4
    )


def test_a_single_centroid_is_drawn_around_as_a_gaussian() -> None:
    """√det(Σ⁻¹ ω) ∝ exp(−D m²/(2ρ²)): covariance Σ ρ²/D; with ρ = √D, the rule for one row, r times Σ."""
    D, scale = 4, torch.tensor([0.1, 1.0, 2.0, 0.5])
    codes = posteriors(torch.arange(4.0).expand(10, 4).clone(), scale, LAYOUT)
    density = Riemannian(radius=0.7, centroids=1, regularisation=0.0).fit(codes, codes, seeded())
    assert float(density.radii[0]) == pytest.approx(0.7 * math.sqrt(D))
    drawn = density.sample(40_000, seeded()).mean
    torch.testing.assert_close(drawn.mean(0) / scale, torch.arange(4.0) / scale, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), (0.7 * scale).square().diag(), atol=0.03, rtol=0.03)
    cold = density.sample(40_000, seeded(), temperature=0.5).mean
    centre = torch.arange(4.0)
    torch.testing.assert_close(cold - centre, 0.5 * (drawn - centre))


def test_overlapping_balls_on_a_line_match_the_integral() -> None:
    """√G of two terms is not the sum of their roots: draws of the proposal alone would be off by far more."""
    m = Metric(
        torch.tensor([[-0.6], [0.9], [5.0]]),
        torch.tensor([[1.0], [9.0], [4.0]]),
        torch.tensor([[0.5], [2.0], [1.0]]),
    )
    grid = torch.linspace(-8, 10, 3001).unsqueeze(-1)
    edges = torch.linspace(-4, 8, 25)
    volume = m.log_volume(grid).exp()
    volume = volume / volume.sum()
    expected = torch.histogram(grid[:, 0], edges, weight=volume).hist
    centre, offset = m.sample(100_000, 20, seeded())
    found = torch.histogram((centre + offset)[:, 0], edges).hist / 100_000
    proposed = torch.histogram(sum(m.propose(100_000, seeded()))[:, 0], edges).hist / 100_000
    assert float((found - expected).abs().max()) < 0.004
    assert float((proposed - expected).abs().max()) > 0.015


def test_overlapping_balls_in_four_dimensions_match_importance_sampling() -> None:
    """Moments of the chains against importance sampling from a wide normal."""
    m = metric(4, C=3, spread=0.7)
    wide = 2 * torch.randn(400_000, 4, generator=seeded(), dtype=torch.float64)
    weights = (m.log_volume(wide) + wide.square().sum(-1) / 8).softmax(0)
    mean = weights @ wide
    second = (weights.unsqueeze(-1) * (wide - mean)).T @ (wide - mean)
    centre, offset = m.sample(40_000, 30, seeded(1))
    drawn = centre + offset
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), second, atol=0.03, rtol=0)
    gathered = torch.linalg.det(drawn.T.cov()) / torch.linalg.det(sum(m.propose(40_000, seeded(2))).T.cov())
    assert float(gathered) < 0.9, "the law gathers where balls overlap"


def test_share_of_the_last_term_is_as_documented() -> None:
    """In the plane, with one isotropic centroid, the two terms add up: their volumes relate as λ/τ to ρ²."""
    codes = posteriors(torch.zeros(10, 2), torch.tensor(0.5), (Block("z", (2,)),))
    density = Riemannian(radius=1.0, centroids=1, regularisation=0.02, decay=0.01)
    density.fit(codes, codes, seeded())
    assert float(density.radii[0]) ** 2 == pytest.approx(2.0)
    drawn = density.sample(40_000, seeded()).mean
    far = (drawn.norm(dim=1) > 3).double().mean()  # of the centroid's own hardly any, of the last e^(−0.09)
    assert float(far) == pytest.approx(0.5 * math.exp(-0.09), abs=0.01)


def test_radius_is_the_widest_gap_times_r() -> None:
    loc = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0], *([4.0, float(i)] for i in range(1, 8))])
    scale = torch.tensor([[1.0, 1.0], [0.5, 1.0], *([2.0, 1.0] for _ in range(8))])
    codes = posteriors(loc, scale, (Block("z", (2,)),))
    density = Riemannian(radius=0.1).fit(codes, codes, seeded())
    # nearest under each one's own covariance: 1/1, 1/0.5, and 1/1 along the second coordinate
    torch.testing.assert_close(density.radii, torch.tensor([0.2]))


def test_chains_are_as_long_as_forgetting_takes() -> None:
    """If centroids are far apart, the first proposal is an exact draw; if all overlap, short chains do not converge."""
    apart = posteriors(100 * torch.randn(20, 8, generator=seeded()), torch.tensor(1.0), (Block("z", (8,)),))
    density = Riemannian(radius=0.01).fit(apart, apart, seeded())
    assert density.steps == 1
    close = posteriors(torch.randn(300, 32, generator=seeded()), torch.tensor(1.0), (Block("z", (32,)),))
    with pytest.raises(ValueError, match=r"option radius: found 0\.5, expected a smaller one"):
        Riemannian(radius=0.5).fit(close, close, seeded())
    kept = Riemannian(radius=[0.1, 0.5]).fit(close, close, seeded())
    assert list(kept.scores) == ["0.1"]


def test_the_mixing_rule_bounds_what_chains_have_forgotten() -> None:
    """Chains of twice the chosen length draw from the same distribution."""
    density = Riemannian(radius=0.5).fit(CODES, VALIDATION, seeded())
    assert 1 < density.steps < 32
    m = density._metric(0)
    once, twice, none = (sum(m.sample(10_000, steps, seeded(steps))) for steps in (density.steps, 2 * density.steps, 0))
    volumes = [float(m.log_volume(z).mean()) for z in (once, twice, none)]
    assert volumes[0] == pytest.approx(volumes[1], abs=0.06)
    assert volumes[2] < volumes[1] - 0.1


def test_energy_distance_is_that_of_the_draws() -> None:
    density = Riemannian(radius=0.1).fit(CODES, VALIDATION, seeded())
    x, classes = VALIDATION.mean, VALIDATION.labels // 2
    generator, total = seeded(5), 0.0
    for index in (0, 1):
        drawn = density._sample(torch.full((density.TRIAL_DRAWS,), index), generator, 1.0).double()
        own = x[classes == index].double()
        across = (drawn.unsqueeze(1) - own).norm(dim=-1).mean()
        apart = (drawn.unsqueeze(1) - drawn).norm(dim=-1).sum() / (len(drawn) * (len(drawn) - 1))
        total += len(own) / len(x) * float(2 * across - apart)
    assert density._distance(x, classes, seeded(5)) == pytest.approx(total, abs=1e-3)


def test_the_nearest_radius_is_chosen() -> None:
    density = Riemannian(radius=[0.05, 0.2, 0.5]).fit(CODES, VALIDATION, seeded())
    chosen = min(density.scores, key=density.scores.__getitem__)
    other = Riemannian(radius=float(chosen)).fit(CODES, VALIDATION, seeded())
    torch.testing.assert_close(density.radii, other.radii)


def test_centroids_are_rows_of_their_label() -> None:
    density = Riemannian(radius=0.1, centroids=60).fit(CODES, VALIDATION, seeded())
    assert density.centres.shape == (2, 30, 4)
    for index, label in enumerate((0, 2)):
        distance = torch.cdist(
            density.centres[index],
            CODES.mean[CODES.labels == label],
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        assert float(distance.amin(1).max()) < 1e-3
        assert len(density.centres[index].unique(dim=0)) == 30


def test_a_label_with_few_rows_has_its_own_balls_only() -> None:
    few = torch.cat([(CODES.labels == 0).nonzero()[:, 0], (CODES.labels == 2).nonzero()[:3, 0]])
    density = Riemannian(radius=0.01).fit(CODES.select(few), VALIDATION, seeded())
    assert density.counts.tolist() == [len(few) - 3, 3]
    drawn = density.sample(300, seeded(), labels=torch.full((300,), 2)).mean
    nearest = torch.cdist(drawn, CODES.mean[few[-3:]]).min(1)
    assert float(nearest.values.max()) < 0.1
    torch.testing.assert_close(nearest.indices.bincount() / 300, torch.full((3,), 1 / 3), atol=0.1, rtol=0)


def test_components_of_mixtures_are_rows_by_their_weights() -> None:
    """A component without weight is never a centroid; Laplace posteriors enter with their standard deviations."""
    loc = torch.stack([CODES.mean, CODES.mean + 50], dim=1)
    weights = torch.tensor([1.0, 0.0]).expand(400, 2).clone()
    codes = Codes(LAYOUT, "laplace", loc, torch.full_like(loc, 0.3), weights, CODES.observed)
    density = Riemannian(radius=0.1, centroids=300).fit(codes, codes, seeded())
    assert density.centres.shape == (1, 300, 4)
    assert float(density.centres.max()) < 40
    variance = (FAMILIES["laplace"].deviation * 0.3) ** 2
    torch.testing.assert_close(density.precisions, torch.full_like(density.precisions, 1 / variance))


def test_rows_that_are_all_alike_give_that_point() -> None:
    codes = posteriors(torch.ones(10, 4), torch.tensor(0.5), LAYOUT)
    drawn = Riemannian(radius=1.0, regularisation=0.0).fit(codes, codes, seeded()).sample(50, seeded()).mean
    assert float((drawn - 1).abs().max()) < 1e-3
