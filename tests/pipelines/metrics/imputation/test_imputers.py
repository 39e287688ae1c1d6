"""Baseline imputers: agreement with scikit-learn, and draws from the distribution of the data."""

import numpy as np
import pytest
from sklearn.impute import KNNImputer
from sklearn.metrics.pairwise import nan_euclidean_distances

from postprior.pipelines.metrics.imputation import imputers
from postprior.pipelines.metrics.imputation.imputers import Imputer, Iterative, Mean, Neighbours
from postprior.pipelines.metrics.imputation.reduction import COMPONENTS, Reduction
from postprior.pipelines.metrics.imputation.scores import covered

WIDTHS = (2, 3)
ALL = np.arange(60)


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Return rows (x_1, x_2) with x_2 = A x_1 + noise of standard deviation 0.1."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(2, 3))
    one = rng.normal(size=(n, 2))
    return np.concatenate([one, one @ mixing + 0.1 * rng.normal(size=(n, 3))], 1)


def without(block: slice, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    complete = rows(n, 1)
    lacking = complete.copy()
    lacking[:, block] = np.nan
    return complete, lacking


@pytest.mark.parametrize(
    "imputer", [Mean(WIDTHS), Neighbours(WIDTHS, 7), Iterative(WIDTHS)], ids=["mean", "knn", "chain"]
)
def test_shapes_and_seeds(imputer: Imputer) -> None:
    rng = np.random.default_rng
    imputer.fit(rows(100), rng(0))
    _, lacking = without(slice(2, 5))
    draws, guess = imputer.filled(lacking, 4, rng(1))(1, ALL)
    assert draws.shape == (4, 60, 3)
    assert guess.shape == (60, 3)
    assert np.isfinite(draws).all()


def test_the_guess_of_neighbours_is_that_of_scikit_learn() -> None:
    training = rows(200)
    training[:20, 0] = np.nan
    _, lacking = without(slice(2, 5))
    expected = KNNImputer(n_neighbors=5).fit(training).transform(lacking)[:, 2:]
    imputer = Neighbours(WIDTHS, 5).fit(training, np.random.default_rng(0))
    draws, guess = imputer.filled(lacking, 500, np.random.default_rng(0))(1, ALL)
    np.testing.assert_allclose(guess, expected, rtol=1e-9)
    np.testing.assert_allclose(draws.mean(0), expected, atol=0.4)
    donors = {tuple(row) for row in training[:, 2:]}
    assert {tuple(row) for row in draws[0]} <= donors


def test_one_search_serves_every_number_of_neighbours() -> None:
    """With missing values on both sides, neighbours are those of `nan_euclidean`, and fewer are a prefix of more."""
    rng, training, (_, lacking) = np.random.default_rng(0), rows(200), without(slice(2, 5))
    training[rng.random(training.shape) < 0.2] = np.nan
    lacking[::3, 0] = np.nan
    imputer = Neighbours(WIDTHS, 9).fit(training, rng)
    donors = np.flatnonzero(np.isfinite(training[:, 2:]).all(1))
    distances = np.nan_to_num(nan_euclidean_distances(lacking, training[donors]), nan=np.inf)
    np.testing.assert_array_equal(imputer.nearest(lacking, 1, 9), donors[distances.argsort(1, kind="stable")[:, :9]])
    for k, fill in zip((1, 4, 9), imputer.filled_by_number(lacking, 3, rng, (1, 4, 9)), strict=True):
        _, guess = fill(1, ALL[::2])
        _, expected = Neighbours(WIDTHS, k).fit(training, rng).filled(lacking, 3, rng)(1, ALL[::2])
        np.testing.assert_array_equal(guess, expected)


def test_donors_have_the_block() -> None:
    training = rows(100)
    training[::2, 2:] = np.nan
    _, lacking = without(slice(2, 5))
    draws, _ = (
        Neighbours(WIDTHS, 5)
        .fit(training, np.random.default_rng(0))
        .filled(lacking, 3, np.random.default_rng(0))(1, ALL)
    )
    assert np.isfinite(draws).all()


def test_the_mean_is_that_of_observed_values() -> None:
    training = rows(100)
    training[:50, 2] = np.nan
    _, lacking = without(slice(2, 5))
    _, guess = Mean(WIDTHS).fit(training, np.random.default_rng(0)).filled(lacking, 2, np.random.default_rng(0))(1, ALL)
    assert guess[7, 0] == pytest.approx(training[50:, 2].mean())


def test_chains_recover_a_linear_relation() -> None:
    """x_2 determines x_1: three linear equations for two unknowns."""
    complete, lacking = without(slice(0, 2))
    draws, guess = (
        Iterative(WIDTHS).fit(rows(400), np.random.default_rng(0)).filled(lacking, 20, np.random.default_rng(0))(0, ALL)
    )
    assert np.abs(guess - complete[:, :2]).mean() < 0.15
    assert 0.02 < draws.std(0).mean() < 0.4


def test_wide_blocks_are_reduced_and_come_back_wide() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    wide = z @ rng.normal(size=(2, 40)) + 0.01 * rng.normal(size=(300, 40))
    both = np.concatenate([z, wide], 1)
    lacking = both[200:].copy()
    lacking[:, 2:] = np.nan
    imputer = Iterative((2, 40), [1]).fit(both[:200], rng)
    assert imputer.reduction.components[1].n_components_ == COMPONENTS
    _, guess = imputer.filled(lacking, 2, rng)(1, np.arange(100))
    assert np.abs(guess - wide[200:]).mean() < 0.1


def test_draws_of_reduced_blocks_vary_as_the_block_does() -> None:
    """What the components leave out is drawn as well: intervals of independent noise contain 90 % of it."""
    rng = np.random.default_rng(0)
    training, truth = rng.normal(size=(2, 500, 42))
    lacking = truth.copy()
    lacking[:, 2:] = np.nan
    draws, guess = Iterative((2, 40), [1]).fit(training, rng).filled(lacking, 19, rng)(1, np.arange(500))
    assert covered(draws, truth[:, 2:]).mean() == pytest.approx(0.9, abs=0.01)
    assert np.abs(guess).mean() < 0.1


def test_the_components_of_a_row_follow_from_the_values_that_it_has() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, COMPONENTS)) @ rng.normal(size=(COMPONENTS, 60))
    reduction, lacking = Reduction([slice(0, 60)], [0], rows), np.where(rng.random(rows.shape) < 0.3, np.nan, rows)
    lacking[0] = np.nan
    assert np.isnan(reduction(lacking)[0]).all()
    np.testing.assert_allclose(reduction(lacking)[1:], reduction(rows)[1:], atol=1e-3)
    np.testing.assert_allclose(reduction.means(0, reduction(rows)), rows, atol=1e-9)


def test_a_modality_that_no_training_row_has_whole_has_no_neighbours() -> None:
    training = rows(30)
    training[:15, 2], training[15:, 3] = np.nan, np.nan
    filled = Neighbours(WIDTHS, 5).fit(training, np.random.default_rng(0))
    _, lacking = without(slice(2, 5))
    with pytest.raises(ValueError, match="no training row has all values"):
        filled.filled(lacking, 2, np.random.default_rng(0))(1, ALL)


@pytest.mark.filterwarnings("error")
def test_a_feature_that_was_never_observed_is_filled_with_the_mean_of_all() -> None:
    training = rows(30)
    training[:, 2] = np.nan
    imputer = Mean(WIDTHS).fit(training, np.random.default_rng(0))
    assert imputer.filled(training, 2, np.random.default_rng(0))(1, np.arange(30))[1][0, 0] == 0


def test_chains_do_not_diverge_where_classes_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bounds, the imputed classes of these rows exceed 800,000 after three rounds."""
    monkeypatch.setattr(imputers, "ROUNDS", 3)
    rng, shares = np.random.default_rng(0), 1 / np.arange(1, 26) ** 2
    classes = rng.choice(25, (240, 2), p=shares / shares.sum())
    complete = np.concatenate([np.eye(25)[classes[:, 0]], np.eye(25)[classes[:, 1]], rng.normal(size=(240, 2))], 1)
    training, some = complete[:120].copy(), complete[120:].copy()
    training[::3, :25], some[:, :25], some[:, -1], some[1::2, :-1] = np.nan, np.nan, np.nan, np.nan
    draws, guess = Iterative((25, 27)).fit(training, rng).filled(some, 5, rng)(0, np.arange(120))
    assert np.abs(draws).max() < 2
    assert np.abs(guess).max() < 2
