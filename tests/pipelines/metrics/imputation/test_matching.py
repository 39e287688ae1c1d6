"""Predictive mean matching: predictions of rows that were left out, and donors that have the noise of the data."""

import numpy as np
from sklearn.linear_model import Ridge

from postprior.pipelines.metrics.imputation.matching import DONORS, PENALTIES, Matching, nearest


def test_training_rows_are_predicted_by_the_regression_of_the_others() -> None:
    """The closed form equals refits without each row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x = (x - x.mean(0)) / x.std(0)
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=40)
    matching = Matching(y, x)
    errors = []
    for penalty in PENALTIES:
        fits = [Ridge(penalty).fit(np.delete(x, i, 0), np.delete(y, i)) for i in range(40)]
        errors.append([fit.predict(x[i : i + 1])[0] - y[i] for i, fit in enumerate(fits)])
    best = np.square(errors).mean(1).argmin()
    predicted = y + np.array(errors[best])
    assert np.isclose(matching.left_out_error, np.square(errors[best]).mean())
    assert np.allclose(matching.predicted, np.sort(predicted))
    assert np.array_equal(matching.values, y[np.argsort(predicted)])


def test_draws_have_the_distribution_of_the_data_given_the_predictors() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2))
    y = x[:, 0] + 0.5 * rng.normal(size=2000)
    x[::10, 1] = np.nan  # counts as the mean
    matching = Matching(y, np.concatenate([x, np.ones((2000, 1))], 1))
    assert np.isclose(matching.left_out_error, 0.25, rtol=0.1)
    new = np.array([[1.0, np.nan, 1.0]])
    drawn = matching.draws(np.repeat(new, 4000, 0), rng)[:, 0]
    assert len(np.unique(drawn)) == DONORS
    assert np.isin(drawn, y).all()
    spread = [matching.draws(np.array([[z, 0.0, 1.0]]), rng)[0, 0] - z for z in rng.normal(size=2000)]
    assert np.isclose(np.std(spread), 0.5, rtol=0.1)
    assert abs(np.mean(spread)) < 0.05


def test_nearest_of_few() -> None:
    assert nearest(np.array([0.0, 2.0]), np.array([5.0, -1.0]), 10).tolist() == [[1, 0], [0, 1]]
    predicted, target = np.sort(np.random.default_rng(0).normal(size=50)), np.array([-9.0, 0.0, 0.3, 9.0])
    found = np.sort(nearest(predicted, target, 4), 1)
    expected = np.sort(np.argsort(np.abs(predicted - target[:, None]), 1)[:, :4], 1)
    assert np.array_equal(found, expected)
