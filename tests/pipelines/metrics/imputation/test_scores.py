"""Scores of imputation: closed forms, brute force, and the coverage of intervals."""

import numpy as np
import pytest

from postprior.pipelines.metrics.imputation.scores import covered, energy_score, interval


def brute(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the energy score from all pairs, row by row."""
    R = len(draws)
    near = np.linalg.norm(draws - truth, axis=-1).mean(0)
    pairs = np.linalg.norm(draws[:, None] - draws[None], axis=-1).sum((0, 1))
    return near - pairs / (2 * R * (R - 1))


def test_the_energy_score_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    draws, truth = (
        rng.normal(size=(7, 300, 4)).astype(np.float32),
        rng.normal(size=(300, 4)).astype(np.float32),
    )
    np.testing.assert_allclose(energy_score(draws, truth), brute(draws, truth), rtol=1e-4)


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The continuous ranked probability score (n,): sorted, Σ_{r<s} |x_r − x_s| = Σ_r (2r − R + 1) x_(r), r from 0."""
    R = len(draws)
    ranks = (2 * np.arange(R) - R + 1)[:, None]
    return np.abs(draws - truth).mean(0) - (ranks * np.sort(draws, 0)).sum(0) / (R * (R - 1))


def test_in_one_dimension_the_energy_score_is_the_crps_which_has_a_closed_form() -> None:
    """CRPS of a standard normal (Gneiting et al. 2005): y (2 Φ(y) − 1) + 2 φ(y) − 1/√π."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    truth = np.linspace(-2, 2, 9)[:, None]
    draws = rng.normal(size=(4000, 9, 1))
    np.testing.assert_allclose(energy_score(draws[:200], truth), crps(draws[:200, :, 0], truth[:, 0]))
    exact = truth * (2 * norm.cdf(truth) - 1) + 2 * norm.pdf(truth) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(crps(draws[..., 0], truth[:, 0])[:, None], exact, atol=0.03)


def test_equal_draws_score_their_distance_and_the_true_distribution_scores_best() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3))
    guess = np.broadcast_to(np.zeros(3), (5, 4000, 3))
    np.testing.assert_allclose(energy_score(guess, truth), np.linalg.norm(truth, axis=1))
    scores = {scale: energy_score(scale * rng.normal(size=(40, 4000, 3)), truth).mean() for scale in (0.5, 1.0, 2.0)}
    assert scores[1.0] < min(scores[0.5], scores[2.0], np.linalg.norm(truth, axis=1).mean())


def test_few_draws_have_the_score_of_many() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20_000, 2))
    few, many = (energy_score(rng.normal(size=(R, 20_000, 2)), truth).mean() for R in (2, 50))
    assert few == pytest.approx(many, abs=0.02)


@pytest.mark.parametrize("R", [19, 39, 99])
def test_intervals_have_their_nominal_coverage(R: int) -> None:
    """For any distribution, here a heavy-tailed one."""
    rng = np.random.default_rng(R)
    found = covered(rng.standard_cauchy((R, 20_000, 1)), rng.standard_cauchy((20_000, 1)))
    assert found.mean() == pytest.approx(0.9, abs=0.008)


def test_an_interval_leaves_out_equally_many_draws_on_both_sides() -> None:
    low, high = interval(np.random.default_rng(0).permutation(39).astype(float))
    assert (low, high) == (1, 37)


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws: found 5, expected at least 19 for 90% intervals"):
        interval(np.zeros((5, 1)))
