"""Distributions of columns: counts by hand, bins that fit the values, classes in order, nothing rare when asked."""

import numpy as np
import pytest

from postprior.pipelines.metrics.tables.marginals import BINS, CLASSES, of_classes, of_numbers


def test_shares_are_those_of_a_histogram_whose_outermost_bins_are_open():
    rng = np.random.default_rng(0)
    values = {"real": rng.normal(size=500), "made": rng.normal(0.5, 2, size=300)}
    values["made"][:20] = np.nan
    found = of_numbers(values, "real")
    for name, numbers in values.items():
        inner = np.clip(numbers[~np.isnan(numbers)], found.edges[0], found.edges[-1] - 1e-9)
        np.testing.assert_allclose(found.shares[name], np.histogram(inner, found.edges)[0] / len(inner))
    widths = np.diff(found.edges)
    np.testing.assert_allclose(widths, widths[0])
    assert BINS / 2 < len(widths) < 3 * BINS


@pytest.mark.parametrize(("unit", "most"), [(1.0, 7), (1.0, 400), (0.1, 3.0), (0.25, 20.0), (10.0, 90.0)])
def test_values_of_the_data_lie_within_bins_and_every_bin_has_as_many(unit, most):
    values = np.repeat(np.round(np.arange(0, most + unit / 2, unit), 2), 60)
    found = of_numbers({"real": values}, "real")
    edges, shares = found.edges, found.shares["real"]
    assert np.abs(values[:, None] - edges).min() > 0.01 * unit
    inner = shares[1:-1]
    assert inner.max() < 1.6 * inner.min()  # no comb: at most one value more in a bin of two


def test_an_outlier_does_not_stretch_the_bins_and_amounts_have_bins_of_equal_ratios():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000)
    values[0] = 1e6
    assert of_numbers({"real": values, "made": values * 1e3}, "real").edges[-1] < 15
    amounts = of_numbers({"real": np.exp(rng.normal(8, 2, 1000))}, "real")
    assert amounts.logarithmic
    assert not of_numbers({"real": values}, "real").logarithmic
    constant = of_numbers({"real": np.full(9, 3.0), "made": np.array([2.0, 3.0])}, "real")
    assert constant.shares["real"].max() == 1
    nothing = of_numbers({"real": np.full(3, np.nan), "made": np.array([1.0])}, "real")
    assert np.isnan(nothing.shares["real"]).all()
    assert nothing.shares["made"].sum() == 1


def test_the_outermost_bins_hold_enough_values_when_asked():
    values = {"real": np.arange(100.0) ** 2, "made": np.linspace(-8000, 20000, 100)}
    for fewest, enough in ((10, True), (1, False)):
        shares = of_numbers(values, "real", fewest).shares["real"]
        assert (min(shares[[0, -1]]) >= 0.1) == enough


def test_classes_are_counted_the_most_frequent_real_ones_first():
    real, made = np.array([2, 2, 2, 0, 0, np.nan]), np.array([1, 1, 0, 2.0])
    found = of_classes({"real": real, "made": made}, "real", 4)
    assert found.classes == (2, 0, 1)
    np.testing.assert_allclose(found.shares["real"], [3 / 5, 2 / 5, 0])
    np.testing.assert_allclose(found.shares["made"], [1 / 4, 1 / 4, 1 / 2])
    assert found.others == 0


def test_many_and_rare_classes_are_counted_together():
    many = np.repeat(np.arange(20), np.arange(20, 0, -1))
    found = of_classes({"real": many}, "real", 20)
    assert found.classes == tuple(range(CLASSES - 1))
    assert found.others == 20 - (CLASSES - 1)
    assert found.shares["real"].sum() == pytest.approx(1)
    assert found.shares["real"][-1] == pytest.approx((many >= CLASSES - 1).mean())
    rare = of_classes({"real": np.repeat([0, 1, 2], [30, 12, 9])}, "real", 3, fewest=10)
    assert (rare.classes, rare.others) == ((0, 1), 1)
    np.testing.assert_allclose(rare.shares["real"], np.array([30, 12, 9]) / 51)
