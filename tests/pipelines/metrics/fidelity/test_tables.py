"""Fidelity of tables: cases by hand, scipy as an oracle, missing cells, half-samples, constant columns."""

import numpy as np
import pytest
from scipy import stats

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.fidelity.tables import (
    MOST,
    NO_COLUMN,
    NO_PAIR,
    column_tests,
    correlation_ratio,
    cramers_v,
    pairs_of_columns,
    table_scores,
)
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.modalities import Column, Modality

COLUMNS = (
    Column("age", "normal"),
    Column("visits", "negative_binomial"),
    Column("group", "categorical", 3),
    Column("sex", "bernoulli"),
    Column("site", "categorical", 4),
)


def table(values, columns=COLUMNS, **rest):
    values = np.asarray(values, np.float32)
    return Dataset((Modality("t", "table", (len(columns),), "columns", columns=columns),), {"t": values}, **rest)


def people(seed, rows=200, linked=True):
    """Columns that hang together, or the same columns without their ties."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    age = rng.normal(size=rows) + 2 * group
    visits = rng.poisson(np.exp(0.5 * group))
    sex, site = rng.random(rows) < 0.2 + 0.3 * group, (group + (rng.random(rows) < 0.3)) % 4
    columns = [age, visits, group, sex, site]
    return np.stack(columns if linked else [rng.permutation(column) for column in columns], axis=1)


def scores(real, fake):
    found = table_scores(real, np.ones((1, len(real))), fake, np.ones((1, len(fake))))
    return {
        name.split("/")[0]: values if isinstance(values, Missing) else float(values[0])
        for name, values in found.items()
    }


def test_marginals_by_hand():
    columns = (Column("x", "normal"), Column("k", "categorical", 3), Column("b", "bernoulli"))
    real = table([[1, 0, 0], [2, 0, 1], [3, 1, 1], [4, 2, 1]], columns)
    fake = table([[2, 0, 0.5], [2, 1, 0.5]], columns)
    # F and G are farthest apart from 2 on, 2/4 and 1; shares 2/4, 1/4, 1/4 and 1/2, 1/2, 0; means 3/4 and 1/2
    expected = [1 - 0.5, 1 - 0.25, 1 - 0.25]
    assert scores(real, fake)["marginal_similarity"] == pytest.approx(np.mean(expected))


def test_a_set_is_like_itself_and_independent_columns_keep_marginals_alone():
    real = table(people(0))
    assert scores(real, real) == pytest.approx({"marginal_similarity": 1, "correlation_similarity": 1})
    alike, apart = scores(real, table(people(1))), scores(real, table(people(0, linked=False)))
    assert apart["marginal_similarity"] == pytest.approx(1)
    assert apart["correlation_similarity"] < 0.8 < 0.9 < alike["correlation_similarity"]


def test_collapse_is_unlike():
    one = table(np.repeat(people(0)[:1], 200, axis=0))
    found = scores(table(people(0)), one)
    assert found["marginal_similarity"] < 0.6
    assert found["correlation_similarity"] < 0.8
    assert scores(one, one)["correlation_similarity"] == 1


def test_associations_are_those_of_scipy():
    values = people(0)
    age, visits, group, _, site = values.T
    of_group, of_site = np.eye(3)[group.astype(int)], np.eye(4)[site.astype(int)]
    one = np.ones((1, 200))
    counts = (of_group.T @ of_site).astype(int)
    assert cramers_v(of_group, of_site, one)[0] == pytest.approx(stats.contingency.association(counts, "cramer"))
    parts = [age[group == k] for k in range(3)]
    f = stats.f_oneway(*parts).statistic
    explained = f * 2 / (f * 2 + 197)  # η² of an analysis of variance
    assert correlation_ratio(age, of_group, one)[0] == pytest.approx(np.sqrt(explained))
    numbers = (COLUMNS[0], COLUMNS[1])
    real, fake = values[:, :2], people(0, linked=False)[:, :2]
    change = abs(stats.pearsonr(age, visits)[0] - stats.pearsonr(*fake.T)[0])
    found = scores(table(real, numbers), table(fake, numbers))
    assert found["correlation_similarity"] == pytest.approx(1 - change / 2, rel=1e-5)


def test_a_class_that_never_occurs_and_a_constant_column_change_nothing_and_are_no_error():
    x, y = np.eye(5)[[0, 0, 1, 1]], np.eye(3)[[2, 2, 0, 0]]
    assert cramers_v(x, y, np.ones((1, 4)))[0] == pytest.approx(1)
    assert cramers_v(np.eye(2)[[0, 0, 0, 0]], y, np.ones((1, 4)))[0] == 0
    assert correlation_ratio(np.full(4, 7.1), x, np.ones((1, 4)))[0] == 0


def test_half_samples_equal_the_scores_of_the_rows_they_keep():
    rng = np.random.default_rng(0)
    real, fake = people(0), people(1, rows=150)
    weights = [half_samples(np.arange(len(rows)), 3, rng) for rows in (real, fake)]
    found = table_scores(table(real), weights[0], table(fake), weights[1])
    for line, (w, v) in enumerate(zip(*weights, strict=True)):
        expected = scores(table(real[w > 0]), table(fake[v > 0]))
        assert {name.split("/")[0]: values[line] for name, values in found.items()} == pytest.approx(expected)


def test_missing_cells_are_left_out():
    """A row without a cell is left out for that column, and for pairs with it."""
    values, other = people(0)[:, :2], people(1)[:, :2]
    numbers = (COLUMNS[0], COLUMNS[1])
    observed = np.ones((200, 2), bool)
    observed[120:, 0] = False
    spoiled = np.where(observed, values, 1e6)
    found = scores(table(spoiled, numbers, cells={"t": observed}), table(other, numbers))
    first = scores(table(values[:120, :1], numbers[:1]), table(other[:, :1], numbers[:1]))
    second = scores(table(values[:, 1:], numbers[1:]), table(other[:, 1:], numbers[1:]))
    assert found["marginal_similarity"] == pytest.approx(
        (first["marginal_similarity"] + second["marginal_similarity"]) / 2
    )
    both = scores(table(values[:120], numbers), table(other, numbers))
    assert found["correlation_similarity"] == pytest.approx(both["correlation_similarity"])
    assert set(first) == {"marginal_similarity"}  # one column has no pairs


def test_unobserved_columns_and_pairs_are_left_out():
    observed = np.zeros((200, 5), bool)
    observed[:100, 0], observed[100:, 1], observed[:, 2] = True, True, True
    real, fake = table(people(0), cells={"t": observed}), table(people(1))
    found = scores(real, fake)
    seen = [people(0)[:100, 0], people(0)[100:, 1]]
    apart = [stats.ks_2samp(x, y).statistic for x, y in zip(seen, people(1).T, strict=False)]
    of_group = scores(table(people(0)[:, 2:3], COLUMNS[2:3]), table(people(1)[:, 2:3], COLUMNS[2:3]))
    expected = [1 - apart[0], 1 - apart[1], of_group["marginal_similarity"]]
    assert found["marginal_similarity"] == pytest.approx(np.mean(expected))
    kept = []
    for pair, rows in (([0, 2], slice(0, 100)), ([1, 2], slice(100, 200))):
        two = tuple(COLUMNS[column] for column in pair)
        of_pair = scores(table(people(0)[rows][:, pair], two), table(people(1)[:, pair], two))
        kept.append(of_pair["correlation_similarity"])
    assert found["correlation_similarity"] == pytest.approx(np.mean(kept))
    tested = column_tests(real, fake)["t"]
    assert {name for name, found in tested.items() if "p_value" in found} == {"age", "visits", "group"}
    unseen = {"value": None, "why": "there are no real rows with this column"}
    assert tested[COLUMNS[3].name] == tested[COLUMNS[4].name] == unseen
    nothing = table(people(0), cells={"t": np.zeros((200, 5), bool)})
    assert scores(nothing, fake) == {"marginal_similarity": NO_COLUMN, "correlation_similarity": NO_PAIR}
    lines = np.ones((3, 200))
    lines[1, 1:100] = 0  # a half-sample that keeps one row with values
    few = table(people(0), cells={"t": np.tile((np.arange(200) < 100)[:, None], (1, 5))})
    for name, values in table_scores(few, lines, few, lines).items():
        np.testing.assert_allclose(values, [1, np.nan, 1], err_msg=name)


def test_tests_are_those_of_scipy():
    real, fake = people(0), people(1, rows=150)
    found = column_tests(table(real), table(fake))["t"]
    assert set(found) == {column.name for column in COLUMNS}
    for index, name in ((0, "age"), (1, "visits")):
        expected = stats.ks_2samp(real[:, index], fake[:, index], method="asymp")
        assert found[name]["test"] == "ks"
        assert found[name]["statistic"] == pytest.approx(expected.statistic)
        assert found[name]["p_value"] == pytest.approx(expected.pvalue)
    counts = np.array([[(of[:, 4] == k).sum() for k in range(4)] for of in (real, fake)])
    expected = stats.chi2_contingency(counts[:, counts.sum(0) > 0])
    assert found["site"] == {
        "test": "chi_square",
        "statistic": pytest.approx(expected.statistic),
        "p_value": pytest.approx(expected.pvalue),
    }


def test_tests_distinguish_distributions_and_accept_a_single_class():
    shifted = people(1)
    shifted[:, 0] += 2
    found = column_tests(table(people(0)), table(shifted))["t"]
    assert found["age"]["p_value"] < 1e-3 < found["visits"]["p_value"]
    assert found["site"]["p_value"] > 1e-3
    single = table(np.zeros((9, 1)), (COLUMNS[2],))
    assert column_tests(single, single)["t"]["group"]["p_value"] == 1


def test_only_tables_are_scored():
    images = Dataset((Modality("x", "vector", (2,), "normal"),), {"x": np.zeros((3, 2), np.float32)})
    assert table_scores(images, np.ones((1, 3)), images, np.ones((1, 3))) == {}
    assert column_tests(images, images) == {}


def test_a_wide_table_is_scored_by_some_of_its_pairs():
    assert len([*pairs_of_columns(45)]) == 45 * 44 // 2
    pairs = pairs_of_columns(1000)
    assert 900 < len(set(pairs)) == len(pairs) <= MOST
    assert all(0 <= m < n < 1000 for m, n in pairs)
    assert max(np.bincount(np.ravel(pairs), minlength=1000)) < 12  # over all columns
