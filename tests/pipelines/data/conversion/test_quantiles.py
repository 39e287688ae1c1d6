"""Normal scores of columns, and the choice between them and other kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import ndtr, ndtri
from support.columns import columns_of, returned

from postprior.pipelines.data.conversion import ColumnConversion
from postprior.pipelines.data.conversion.categories import RARE
from postprior.pipelines.data.conversion.marginals import FEWEST, suited_kind
from postprior.pipelines.data.conversion.quantiles import NormalScores
from postprior.pipelines.data.formats.contents import Roles

N = 2000
RNG = np.random.default_rng(0)
NORMAL = ndtri((np.arange(100_000) + 0.5) / 100_000)  # the quantiles of N(0, 1)


def fitted(values: np.ndarray) -> ColumnConversion:
    return ColumnConversion.fit("x", "quantile", pa.chunked_array([values]))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The Kolmogorov–Smirnov distance."""
    places = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(side), places, "right") / len(side) for side in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


COLUMNS = {
    "continuous": np.exp(RNG.normal(0, 2, N)),
    "two modes": np.where(RNG.random(N) < 0.3, RNG.normal(-9, 1, N), RNG.normal(9, 0.1, N)),
    "zeros": np.where(RNG.random(N) < 0.4, 0, RNG.gamma(2, 1, N)),
    "below a limit": np.maximum(RNG.normal(0, 1, N), -0.5),
    "years": np.minimum(1995 + RNG.geometric(0.4, N), 2003),
    "ages": np.clip(RNG.normal(60, 15, N).round(), 50, 97),
    "doses": RNG.choice([10, 20, 50, 100], N, p=[0.5, 0.2, 0.2, 0.1]),
    "halves": RNG.integers(0, 9, N) / 2,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_normal_scores_become_the_training_values(name: str) -> None:
    values = COLUMNS[name]
    learned = fitted(values)
    drawn = learned.raw(learned.valid(NORMAL))
    assert distance(drawn, values) < 0.011
    levels, counts = np.unique(values, return_counts=True)
    for level in levels[counts >= 0.05 * N]:
        assert (drawn == level).mean() == pytest.approx((values == level).mean(), abs=2e-3)
        low, high = next(
            ends for ends in learned.column.intervals if ends[0] < learned.standardised(np.array([level])) < ends[1]
        )
        assert (ndtr(high) - ndtr(low)) == pytest.approx((values == level).mean(), abs=1e-3)
    if name in ("years", "doses", "halves"):
        assert set(np.unique(drawn)) <= set(levels)


@pytest.mark.parametrize("name", COLUMNS)
def test_training_values_are_valid_already(name: str) -> None:
    """What models see decodes to the value, and a value that comes back from a decoder is not changed."""
    learned = fitted(COLUMNS[name])
    x = learned.encode(pa.chunked_array([COLUMNS[name]]))[0].astype(np.float32)
    np.testing.assert_array_equal(learned.valid(x).astype(np.float32), x)
    np.testing.assert_allclose(learned.raw(x), COLUMNS[name], rtol=3e-6, atol=3e-6)
    assert abs(x.mean()) < 0.1
    assert 0.8 < x.std() < 1.02  # a spike has one x for an interval of scores


def test_the_knots_are_scores_of_shares_and_no_training_values() -> None:
    values = COLUMNS["continuous"]
    scores = NormalScores.fit(values, 0, values.std())
    inner = np.array(scores.values[1:-1])
    assert not np.isin(inner, values).any()
    rows = np.searchsorted(np.sort(values), inner)
    assert (np.diff(rows) >= RARE).all()
    assert min(rows[0], N - rows[-1]) >= RARE
    np.testing.assert_allclose(ndtr(scores.scores[1:-1]), rows / N)
    assert len(inner) == 103  # percentiles, and twice two in the tails, of 10 and 5 rows


def test_values_beyond_the_training_rows_stay_apart() -> None:
    """A score beyond the knots changes by 1 per standard deviation, so that an anomaly is not one of the extremes."""
    learned = fitted(COLUMNS["zeros"])
    assert learned.valid_range is not None
    most, scale = learned.valid_range[1], COLUMNS["zeros"].std()
    x = learned.standardised(np.array([most, most + scale, most + 30 * scale]))
    np.testing.assert_allclose(np.diff(x), [1, 29])
    np.testing.assert_allclose(learned.raw(x), most + np.array([0, 1, 30]) * scale)
    assert learned.raw(learned.valid(x)) == pytest.approx(most)


def two(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.where(RNG.random(N) < 0.5, first, second)


@pytest.mark.parametrize(
    ("detected", "values", "half", "kind"),
    [
        ("numeric", RNG.normal(5, 2, N), 0, "numeric"),
        ("numeric", RNG.normal(170, 9, N).round(), 0.5, "numeric"),
        ("numeric", np.expm1(np.abs(RNG.normal(3, 0.5, N))), 0, "log"),
        ("numeric", two(RNG.normal(0, 1, N), RNG.normal(8, 1, N)), 0, "quantile"),
        ("numeric", two(np.zeros(N), RNG.gamma(2, 1, N)), 0, "quantile"),
        ("numeric", RNG.random(N), 0, "quantile"),
        ("numeric", RNG.random(FEWEST - 1), 0, "numeric"),
        ("count", RNG.poisson(3, N).astype(float), 0.5, "count"),
        ("count", RNG.negative_binomial(1, 0.01, N).astype(float), 0.5, "count"),
        ("count", np.minimum(RNG.normal(4000, 1500, N).round(), 5171).clip(0), 0.5, "quantile"),
        ("count", two(np.zeros(N), RNG.poisson(9, N)), 0.5, "quantile"),
    ],
)
def test_the_kind_that_suits_a_column(detected: str, values: np.ndarray, half: float, kind: str) -> None:
    assert suited_kind(detected, values, half) == kind


def test_an_import_tells_the_kinds_that_it_chooses_and_the_user_may_choose_another(tmp_path: Path) -> None:
    days, rng = [*range(0, 90, 3), *[100] * 30], np.random.default_rng(0)
    table = "\n".join(["stay,weight", *(f"{day},{rng.normal(70, 9):.2f}" for day in days * 4)]) + "\n"
    told, back = returned(tmp_path, "clinic.csv", table)
    assert "of the kind quantile, which held-out rows fit best: stay; --kind COLUMN=numeric" in told
    assert sorted(back.splitlines()) == sorted(table.splitlines())
    columns = columns_of(tmp_path)
    assert (columns["stay"]["kind"], columns["weight"]["kind"]) == ("quantile", "numeric")
    assert max(columns["stay"]["quantiles"]["values"]) == 100.5
    told, _ = returned(tmp_path, "clinic.csv", table, Roles(kinds={"stay": "count", "weight": "quantile"}))
    assert "fit best" not in told
    columns = columns_of(tmp_path)
    assert (columns["stay"]["kind"], columns["weight"]["kind"]) == ("count", "quantile")
