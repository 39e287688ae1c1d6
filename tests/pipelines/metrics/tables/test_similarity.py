"""Similarity of tables: cases by hand, scipy as an oracle, missing cells, half-samples, constant columns."""

import numpy as np
import pytest
from scipy import stats
from support.tables import COLUMNS, people, table

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.pipelines.metrics.tables.associations import associations, cramers_v
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.pipelines.metrics.tables.similarity import (
    MOST,
    NO_COLUMN,
    NO_PAIR,
    pairs_of_columns,
    table_scores,
)
from postprior.stage1_vae.modalities import Column, Modality

NUMBERS, CLASSES = (COLUMNS[0], COLUMNS[1]), (COLUMNS[2], COLUMNS[4])


def scores(real, fake, **rest):
    found = table_scores(real, np.ones((1, len(real))), fake, np.ones((1, len(fake))), **rest)
    return {name: float(values[0]) if isinstance(values, np.ndarray) else values for name, values in found.items()}


def test_column_shapes_by_hand():
    columns = (Column("x", "normal"), Column("k", "categorical", 3), Column("b", "bernoulli"))
    real = table([[1, 0, 0], [2, 0, 1], [3, 1, 1], [4, 2, 1]], columns)
    fake = table([[2, 0, 0.4], [2, 1, 0.6]], columns)  # decoder means of b, which are 0 and 1 in an export
    # F and G are farthest apart from 2 on, 2/4 and 1; shares 2/4, 1/4, 1/4 and 1/2, 1/2, 0; shares of 1 are 3/4 and 1/2
    found = scores(real, fake)
    assert found["column_shapes"] == found["column_shapes/t"] == pytest.approx(np.mean([1 - 0.5, 1 - 0.25, 1 - 0.25]))
    shares = table([[0.2], [0.4], [0.6]], (Column("b", "bernoulli"),))  # intensities, not classes
    assert scores(shares, table([[0.4], [0.4]], (Column("b", "bernoulli"),)))["column_shapes"] == pytest.approx(2 / 3)


def test_pair_trends_by_hand():
    real = table([[0, 0], [0, 0], [1, 1], [1, 1]], (Column("k", "categorical", 2), Column("l", "categorical", 2)))
    fake = table([[0, 0], [0, 1], [1, 0], [1, 1]], real.modalities[0].columns)  # half of the mass has moved
    assert scores(real, fake)["column_pair_trends"] == pytest.approx(0.5)
    assert scores(fake, real)["column_pair_trends"] is NO_PAIR  # real rows have no association to keep
    mixed = (Column("k", "categorical", 2), Column("x", "normal"))
    real, fake = table([[0, 0], [0, 1], [1, 9], [1, 10]], mixed), table([[0, 0], [0, 5], [1, 90], [1, 100]], mixed)
    # bins of real rows 1, 2, 10, 11 and of synthetic rows 1, 1, 10, 11: a quarter of the mass has moved
    assert scores(real, fake)["column_pair_trends"] == pytest.approx(0.75)


def test_numbers_that_hardly_differ_or_are_never_seen_have_bins():
    columns = (Column("k", "categorical", 2), Column("x", "normal"), Column("y", "normal"))
    values = np.array([[0, 1, 5], [0, 1, 5], [1, np.nextafter(np.float32(1), np.float32(2)), 5]] * 4)
    cells = {"t": np.tile([True, True, False], (12, 1))}
    real = table(values, columns, cells=cells)
    assert scores(real, real)["column_pair_trends"] == 1


def test_associations_are_those_of_scipy():
    values, other = people(0), people(0, linked=False)
    change = abs(stats.pearsonr(*values[:, :2].T)[0] - stats.pearsonr(*other[:, :2].T)[0])
    found = scores(table(values[:, :2], NUMBERS), table(other[:, :2], NUMBERS))
    assert found["column_pair_trends"] == pytest.approx(1 - change / 2, rel=1e-5)
    counts = np.zeros((4, 5))
    np.add.at(counts, (values[:, 2].astype(int), values[:, 4].astype(int)), 1)  # with classes that never occur
    assert cramers_v(counts) == pytest.approx(stats.contingency.association(counts[:3, :4].astype(int), "cramer"))
    assert cramers_v(counts[:1]) == 0
    found = associations([*values.T], [False, False, True, True, True])
    assert found[0, 1] == found[1, 0] == pytest.approx(stats.pearsonr(*values[:, :2].T)[0])
    assert found[2, 4] == pytest.approx(cramers_v(counts))
    np.testing.assert_array_equal(np.diag(found), 1)


def test_a_set_is_like_itself_and_independent_columns_keep_shapes_alone():
    real = table(people(0, 2000))
    assert scores(real, real) == pytest.approx(dict.fromkeys(scores(real, real), 1))
    alike, apart = (scores(real, table(rows)) for rows in (people(1, 2000), people(0, 2000, linked=False)))
    assert apart["column_shapes"] == pytest.approx(1)
    assert apart["column_pair_trends"] < 0.8 < 0.9 < alike["column_pair_trends"]
    assert apart["quality"] == pytest.approx((1 + apart["column_pair_trends"]) / 2)


def test_a_constant_column_of_numbers_has_no_pairs_and_a_collapse_no_shape():
    one = table(np.repeat(people(0)[:1, :2], 200, axis=0), NUMBERS)
    found = scores(table(people(0)[:, :2], NUMBERS), one)
    assert found["column_shapes"] < 0.6
    assert found["column_pair_trends"] is NO_PAIR
    assert found["quality"] == found["column_shapes"]


@pytest.mark.parametrize("columns", [NUMBERS, CLASSES])
def test_half_samples_equal_the_scores_of_the_rows_they_keep(columns):
    rng, places = np.random.default_rng(0), [COLUMNS.index(column) for column in columns]
    real, fake = people(0)[:, places], people(1, rows=150)[:, places]
    weights = [half_samples(np.arange(len(rows)), 3, rng) for rows in (real, fake)]
    found = table_scores(table(real, columns), weights[0], table(fake, columns), weights[1])
    for line, (w, v) in enumerate(zip(*weights, strict=True)):
        expected = scores(table(real[w > 0], columns), table(fake[v > 0], columns))
        assert {name: values[line] for name, values in found.items()} == pytest.approx(expected)


def test_missing_cells_are_left_out_of_numbers():
    values, other = people(0)[:, :2], people(1)[:, :2]
    observed = np.ones((200, 2), bool)
    observed[120:, 0] = False
    found = scores(table(np.where(observed, values, 1e6), NUMBERS, cells={"t": observed}), table(other, NUMBERS))
    first = scores(table(values[:120, :1], NUMBERS[:1]), table(other[:, :1], NUMBERS[:1]))
    second = scores(table(values[:, 1:], NUMBERS[1:]), table(other[:, 1:], NUMBERS[1:]))
    assert found["column_shapes"] == pytest.approx((first["column_shapes"] + second["column_shapes"]) / 2)
    both = scores(table(values[:120], NUMBERS), table(other, NUMBERS))
    assert found["column_pair_trends"] == pytest.approx(both["column_pair_trends"])
    assert first["column_pair_trends"] is NO_PAIR  # one column has no pairs


def test_columns_without_rows_are_left_out_and_half_samples_without_any_column_have_no_value():
    observed = np.zeros((200, 5), bool)
    observed[:100, 0], observed[100:, 1] = True, True
    real = table(people(0), cells={"t": observed})
    apart = [
        stats.ks_2samp(x, y).statistic
        for x, y in zip((people(0)[:100, 0], people(0)[100:, 1]), people(1).T, strict=False)
    ]
    assert scores(real, table(people(1)))["column_shapes"] == pytest.approx(1 - np.mean(apart))
    nothing = table(people(0), cells={"t": np.zeros((200, 5), bool)})
    assert scores(nothing, table(people(1)))["column_shapes"] is NO_COLUMN
    lines = np.ones((3, 200))
    lines[1, 1:100] = 0  # a half-sample that keeps one row with values
    few = table(people(0), cells={"t": np.tile((np.arange(200) < 100)[:, None], (1, 5))})
    np.testing.assert_allclose(table_scores(few, lines, few, lines)["column_shapes"], [1, np.nan, 1])


def test_validity_by_hand():
    columns = (Column("x", "normal"), Column("k", "categorical", 3))
    whole = np.array([[True, True], [True, True], [False, True], [True, True]])
    train = table([[1, 0], [2, 2], [0, 0], [4, 2]], columns, cells={"t": whole})
    made = np.array([[True, True], [True, True], [False, True], [True, False]])
    fake = table([[0, 0], [4, 1], [9, 2], [3, 2]], columns, cells={"t": made})
    # x: 0 is too low, the missing cell may be missing; k: 1 does not occur, and no training row lacks it
    found = scores(train, fake, limits=Limits.of(train))["validity"]
    assert found == pytest.approx(np.mean([2 / 3, 2 / 4]))
    assert "validity" not in scores(train, fake)


def test_only_tables_are_scored():
    vectors = Dataset((Modality("x", "vector", (2,), "normal"),), {"x": np.zeros((3, 2), np.float32)})
    assert scores(vectors, vectors) == {}
    assert Limits.of(vectors) is None


def test_a_wide_table_is_scored_by_some_of_its_pairs():
    assert len([*pairs_of_columns(45)]) == 45 * 44 // 2
    pairs = pairs_of_columns(1000)
    assert 900 < len(set(pairs)) == len(pairs) <= MOST
    assert all(0 <= m < n < 1000 for m, n in pairs)
    assert max(np.bincount(np.ravel(pairs), minlength=1000)) < 12  # over all columns
