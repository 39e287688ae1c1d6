"""Chained equations: values of donors, whole classes, and the distribution of the data."""

import numpy as np
import pytest

from postprior.pipelines.metrics.imputation import chained
from postprior.pipelines.metrics.imputation.chained import Chained, Forests, MeanMatching
from postprior.pipelines.metrics.imputation.scores import covered

UNITS = (np.array([0, 1, 2]), np.array([0, 0, 0, 1]))  # three numbers; a category of three classes and a number
MIXING = np.array([[1.0, 0.5, -0.5, 1.0], [0.0, 1.0, 1.0, -1.0]])
NOISE = 0.6
KINDS = pytest.mark.parametrize("kind", [MeanMatching, Forests])


def rows(n: int, seed: int) -> np.ndarray:
    """Return rows of four numbers (two factors and noise), and of a category that depends on the first two of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ MIXING + NOISE * rng.normal(size=(n, 4))
    classes = np.argmax(logits(x) + rng.gumbel(size=(n, 3)), 1)
    return np.concatenate([x[:, :3], 2 * np.eye(3)[classes] - 0.5, x[:, 3:]], 1)


def logits(x: np.ndarray) -> np.ndarray:
    return np.stack([2 * x[:, 0], 2 * x[:, 1], np.zeros(len(x))], 1)


def lacking(complete: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Hide a share of all variables."""
    gaps = np.random.default_rng(seed).random((len(complete), 5)) < share
    return np.where(gaps[:, [0, 1, 2, 3, 3, 3, 4]], np.nan, complete)


@KINDS
def test_imputed_values_are_observed_values_and_whole_classes(kind: type[Chained]) -> None:
    training, some = lacking(rows(80, 0), 0.2, 1), lacking(rows(40, 2), 0.4, 3)

    def fills() -> list[np.ndarray]:
        rng = np.random.default_rng(4)
        fill = kind(UNITS).fit(training, rng).filled(some, 3, rng)
        return [part for block in (0, 1) for part in fill(block, np.arange(40))]

    numbers, _, classes, guess = fills()
    hidden = np.isnan(some)
    for column in range(3):
        imputed = numbers[:, hidden[:, column], column]
        assert np.isclose(imputed[..., None], training[:, column], rtol=1e-12).any(-1).all()
    assert {tuple(row) for row in classes[:, :, :3].reshape(-1, 3).round(6)} == {
        tuple(row) for row in 2 * np.eye(3) - 0.5
    }
    np.testing.assert_allclose(guess[:, :3].sum(1), 0.5)  # probabilities sum to 1
    np.testing.assert_allclose(numbers[0][~hidden[:, :3]], some[:, :3][~hidden[:, :3]])
    assert all((a == b).all() for a, b in zip(fills(), (numbers, _, classes, guess), strict=True))


@KINDS
def test_draws_have_the_distribution_of_a_linear_gaussian_world(kind: type[Chained]) -> None:
    """All numbers of the first block are hidden: their true distribution is known given the number of the other."""
    rng, complete = np.random.default_rng(0), rows(600, 1)
    some = complete.copy()
    some[:, :3] = some[:, 3:6] = np.nan
    draws, guess = kind(UNITS).fit(lacking(rows(500, 2), 0.2, 3), rng).filled(some, 19, rng)(0, np.arange(600))
    covariance = MIXING.T @ MIXING + NOISE**2 * np.eye(4)
    best = complete[:, 6:] * covariance[3, :3] / covariance[3, 3]
    error, least = (np.sqrt(np.square(x - complete[:, :3]).sum(1).mean()) for x in (guess, best))
    assert error < 1.05 * least
    assert covered(draws, complete[:, :3]).mean() == pytest.approx(0.9, abs=0.03)
    centred = draws - draws.mean((0, 1))
    drawn = np.einsum("rni,rnj->ij", centred, centred) / centred[..., 0].size
    np.testing.assert_allclose(drawn, covariance[:3, :3], atol=0.25)


@KINDS
def test_classes_have_their_probabilities(kind: type[Chained]) -> None:
    rng, complete = np.random.default_rng(0), rows(400, 1)
    some = complete.copy()
    some[:, 3:6] = np.nan
    draws, guess = kind(UNITS).fit(rows(1500, 2), rng).filled(some, 50, rng)(1, np.arange(400))
    odds = np.exp(logits(complete))
    true = odds / odds.sum(1, keepdims=True)
    drawn = (draws[:, :, :3] > 0).mean(0)
    assert np.abs(drawn - true).mean() < 0.09
    assert np.abs((guess[:, :3] + 0.5) / 2 - true).mean() < 0.08


@KINDS
@pytest.mark.filterwarnings("error")
def test_odd_columns_are_imputed(kind: type[Chained]) -> None:
    """A column that is constant, one that no training row has, and one that a single row has."""
    rng, training, some = np.random.default_rng(0), rows(30, 0), lacking(rows(20, 1), 0.5, 2)
    training[:, 0], training[:, 1], training[1:, 2] = 3, np.nan, np.nan
    draws, guess = kind(UNITS).fit(training, rng).filled(some, 2, rng)(0, np.arange(20))
    expected = np.array([3, 0, training[0, 2]])
    for x in (*draws, guess):
        np.testing.assert_allclose(x, np.where(np.isnan(some[:, :3]), expected, some[:, :3]))


def test_too_many_variables_are_refused() -> None:
    training = np.random.default_rng(0).normal(size=(10, chained.VARIABLES + 1))
    with pytest.raises(ValueError, match="found 129 variables, expected at most 128"):
        MeanMatching([np.arange(129)]).fit(training, np.random.default_rng(0))


@KINDS
def test_wide_vectors_that_lack_single_values(kind: type[Chained]) -> None:
    rng = np.random.default_rng(0)
    both = rng.normal(size=(900, 2)) @ rng.normal(size=(2, 72)) + 0.3 * rng.normal(size=(900, 72))
    some = np.where(rng.random((100, 72)) < 0.2, np.nan, both[800:])
    fill = kind([np.arange(2), np.arange(70)], [1]).fit(both[:800], rng).filled(some, 19, rng)
    hidden = np.isnan(some[:, 2:])
    draws, guess = fill(1, np.arange(100))
    assert np.square((guess - both[800:, 2:])[hidden]).mean() < 1.5 * 0.3**2
    assert covered(draws, both[800:, 2:])[hidden].mean() == pytest.approx(0.9, abs=0.06)
