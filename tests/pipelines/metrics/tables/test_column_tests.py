"""Tests of columns: scipy as an oracle, missing cells, a single class."""

import numpy as np
import pytest
from scipy import stats
from support.tables import COLUMNS, people, table

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.tables.column_tests import column_tests
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.stage1_vae.modalities import Modality


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
        "shape": pytest.approx(1 - np.abs(np.diff(counts / counts.sum(1, keepdims=True), axis=0)).sum() / 2),
    }
    assert all(found[name]["shape"] == pytest.approx(1 - found[name]["statistic"]) for name in ("age", "visits"))


def test_the_shares_of_valid_cells_are_those_inside_the_limits_of_the_training_rows():
    train, fake = people(0), people(1, rows=150)
    fake[:30, 0] = train[:, 0].max() + 1
    found = column_tests(table(people(2)), table(fake), Limits.of(table(train)))["t"]
    inside = (fake[:, 0] >= train[:, 0].min()) & (fake[:, 0] <= train[:, 0].max())
    assert found["age"]["valid"] == pytest.approx(inside.mean())
    assert found["site"]["valid"] == 1


def test_tests_distinguish_distributions_and_accept_a_single_class():
    shifted = people(1)
    shifted[:, 0] += 2
    found = column_tests(table(people(0)), table(shifted))["t"]
    assert found["age"]["p_value"] < 1e-3 < found["visits"]["p_value"]
    assert found["site"]["p_value"] > 1e-3
    single = table(np.zeros((9, 1)), (COLUMNS[2],))
    assert column_tests(single, single)["t"]["group"]["p_value"] == 1


def test_columns_without_rows_and_other_modalities_have_no_test():
    observed = np.zeros((200, 5), bool)
    observed[:100, 0], observed[100:, 1], observed[:, 2] = True, True, True
    tested = column_tests(table(people(0), cells={"t": observed}), table(people(1)))["t"]
    assert {name for name, found in tested.items() if "p_value" in found} == {"age", "visits", "group"}
    unseen = {"value": None, "why": "there are no real rows with this column"}
    assert tested[COLUMNS[3].name] == tested[COLUMNS[4].name] == unseen
    vectors = Dataset((Modality("x", "vector", (2,), "normal"),), {"x": np.zeros((3, 2), np.float32)})
    assert column_tests(vectors, vectors) == {}
