"""A second VAE over the codes: its score is a lower bound, and tight where the posterior is exact."""

import math

import pytest
import torch
from support.equations import seeded
from support.latent import labelled
from torch import Tensor

from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.two_stage_vae import INITIAL_SCALE, SLOPE, SecondStage, TwoStageVae

CODES, _ = labelled(400, seed=1)
VALIDATION, _ = labelled(200, seed=2)
LAYOUT = (Block("z", (3,)),)


def stage(spread: float = 0.0, features: int = 3) -> SecondStage:
    """Networks with random weights, in double precision; with spread 0 they output 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        second = SecondStage(features, 2, 8, 1).double().requires_grad_(False)
    generator = seeded()
    for parameter in second.parameters():
        parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return second


def score(second: SecondStage, x: Tensor, classes: Tensor, draws: int, seed: int = 0) -> Tensor:
    noise = torch.randn(draws, 1, x.shape[-1], generator=seeded(seed), dtype=torch.float64)
    return second.log_weights(x, classes, noise).logsumexp(0) - math.log(draws)


def points(n: int, features: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, features, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(2, (n,), generator=seeded(2))


def test_untrained_it_is_the_standard_normal_without_a_gap() -> None:
    """For any noise: with the exact posterior every importance weight is the density itself."""
    x, classes = points(50)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    for draws in (1, 5):
        torch.testing.assert_close(score(stage(), x, classes, draws, seed=draws), expected)


def test_bound_is_re_derived_row_by_row() -> None:
    """log 1/K Σ p(x | u) p(u) / q(u | x) with torch.distributions, one row and one draw at a time."""
    second = stage(spread=0.3)
    x, classes = points(4)
    noise = torch.randn(3, 1, 3, generator=seeded(), dtype=torch.float64)
    normal = torch.distributions.Normal
    for row, label in zip(x, classes, strict=True):
        hot = torch.eye(2, dtype=torch.float64)[label]
        shift, log_scale = second.encoder(torch.cat([row, hot])).chunk(2)
        q = normal(SLOPE * row + shift, INITIAL_SCALE * log_scale.exp())
        total = torch.zeros((), dtype=torch.float64)
        for eps in noise[:, 0]:
            u = q.mean + q.stddev * eps
            p = normal(SLOPE * u + second.decoder(torch.cat([u, hot])), second.log_scale.exp())
            log_ratio = (p.log_prob(row) + normal(0.0, 1.0).log_prob(u) - q.log_prob(u)).sum()
            total += log_ratio.exp() / 3
        found = second.log_weights(row.unsqueeze(0), label.unsqueeze(0), noise).logsumexp(0) - math.log(3)
        torch.testing.assert_close(found[0], total.log())


def test_bound_rises_to_the_likelihood_with_more_draws() -> None:
    """x | u ~ N(a u, t²) has the marginal N(0, a² + t²); the posterior left as it was for another t is not exact."""
    second = stage()
    second.log_scale.fill_(math.log(0.8))
    x, classes = points(300)
    truth = torch.distributions.Normal(0.0, math.sqrt(SLOPE**2 + 0.8**2)).log_prob(x).sum(-1)
    gaps = []
    for draws in (1, 8, 64):
        found = torch.stack([score(second, x, classes, draws, seed) for seed in range(40)])
        gaps.append(float((truth - found.mean(0)).mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.05


def gaussian_codes(rows: int, seed: int) -> Codes:
    return Codes.empirical(LAYOUT, torch.randn(rows, 3, generator=seeded(seed)) @ MIXING.T + SHIFT)


MIXING = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-0.5, 0.3, 0.2]])
SHIFT = torch.tensor([1.0, -2.0, 5.0])


def test_of_gaussian_codes_the_bound_is_close_and_the_draws_are_right() -> None:
    density = TwoStageVae(hidden=16, layers=1, steps=150, batch=256, learning_rate=3e-3)
    density.fit(gaussian_codes(4000, 1), gaussian_codes(1000, 2), seeded())
    z = gaussian_codes(4000, 3).mean
    truth = torch.distributions.MultivariateNormal(SHIFT, MIXING @ MIXING.T).log_prob(z).mean()
    scores = [float(density.log_prob(z).mean())]
    for seed in range(20):
        density.noise = torch.randn(density.noise.shape, generator=seeded(seed))
        scores.append(float(density.log_prob(z).mean()))
    assert float(truth) == pytest.approx(scores[0], abs=0.03)
    assert -0.005 < float(truth) - sum(scores[1:]) / 20 < 0.05
    drawn = density.sample(20_000, seeded()).mean
    torch.testing.assert_close(drawn.mean(0), SHIFT, atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), MIXING @ MIXING.T, atol=0.25, rtol=0)


def test_it_learns_what_no_gaussian_fits_and_separates_labels() -> None:
    """Label 0 is a ring, label 1 its centre; both have the same mean."""
    generator = seeded(1)
    labels = torch.randint(2, (3000,), generator=generator)
    angle = 2 * torch.pi * torch.rand(3000, generator=generator)
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    z = ring * (labels == 0).unsqueeze(-1) + 0.15 * torch.randn(3000, 2, generator=generator)
    codes = Codes.empirical((Block("z", (2,)),), z, labels)
    density = TwoStageVae(hidden=32, layers=2, steps=500, batch=256, learning_rate=1e-2).fit(codes, generator=seeded())
    radius = density.sample(4000, seeded(), labels=torch.arange(4000) % 2).mean.norm(dim=1)
    assert float((radius[::2] < 0.5).float().mean()) < 0.16, "a Gaussian has 0.22"
    assert float((radius[1::2] < 0.5).float().mean()) > 0.9
    first, last = density.history[0], max(density.history, key=lambda row: row["validation_log_likelihood"])
    assert last["validation_log_likelihood"] > first["validation_log_likelihood"] + 1.0


def test_draws_hold_the_decoders_noise_and_temperature_scales_all_of_it() -> None:
    """Untrained, a draw is a u + s ε of variance a² + s² = 1 in whitened units, and T² at temperature T."""
    density = TwoStageVae(hidden=4, layers=1, steps=1, learning_rate=0.0).fit(
        gaussian_codes(400, 1), generator=seeded()
    )
    for temperature in (1.0, 0.4):
        x = density.whitening.forward(density.sample(20_000, seeded(), temperature=temperature).mean)
        torch.testing.assert_close(x.var(0), torch.full((3,), temperature**2), rtol=0.05, atol=0)


def test_weights_of_the_best_held_out_look_are_kept() -> None:
    few = CODES.select(torch.arange(20))
    density = TwoStageVae(hidden=64, steps=1000, patience=2, learning_rate=1e-2)
    density.fit(few, VALIDATION, seeded())
    held_out = [row["validation_log_likelihood"] for row in density.history]
    assert len(held_out) < 11, "did not stop early"
    assert held_out[-1] < max(held_out) - 0.2
    z = torch.cat([VALIDATION.draw(seeded(i)) for i in range(8)])
    found = density.log_prob(z, VALIDATION.labels.repeat(8)).mean()
    assert float(found) == pytest.approx(max(held_out), abs=0.15)
