"""Missing rates and patterns of rows, by hand."""

import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.tables.patterns import SINGLE, missing_patterns, missing_rates
from postprior.stage1_vae.modalities import Column, Modality

TABLE = Modality("t", "table", (2,), "columns", columns=(Column("a", "normal"), Column("b", "normal")), title="Labs")
IMAGE = Modality("scan", "image", (1, 2, 2), "laplace")


def rows(cells, mask):
    data = {"t": np.zeros((len(cells), 2), np.float32), "scan": np.zeros((len(cells), 1, 2, 2), np.float32)}
    return Dataset((TABLE, IMAGE), data, mask=np.array(mask, bool), cells={"t": np.array(cells, bool)})


REAL = rows([[1, 1], [1, 0], [1, 0], [0, 0]], [[1, 1], [1, 1], [1, 1], [0, 1]])
MADE = rows([[1, 1], [0, 1]], [[1, 0], [1, 1]])


def test_rates_are_shares_of_rows():
    found = missing_rates({"real": REAL, "made": MADE})
    assert found == {
        ("Labs", "a"): {"real": 0.25, "made": 0.5},
        ("Labs", "b"): {"real": 0.75, "made": 0.0},
        ("scan", ""): {"real": 0.0, "made": 0.5},
    }
    assert missing_rates({"real": rows([[1, 1]], [[1, 1]])}) == {}


def test_a_vector_has_the_rate_of_its_single_values():
    vector = Modality("x", "vector", (4,), "normal")
    seen = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    mask = np.array([[1], [1], [0]], bool)
    made = Dataset((vector,), {"x": np.zeros((3, 4), np.float32)}, mask=mask, cells={"x": seen})
    assert missing_rates({"real": made}) == {("x", ""): {"real": pytest.approx(1 / 3)}, ("x", SINGLE): {"real": 3 / 8}}


def test_patterns_are_those_of_most_real_rows_first():
    found = missing_patterns({"real": REAL, "made": MADE}, "real", most=9)
    assert found[0].missing == (("Labs", "b"),)
    by_missing = {pattern.missing: pattern.shares for pattern in found}
    assert by_missing == {
        (("Labs", "b"),): {"real": 0.5, "made": 0.0},
        (): {"real": 0.25, "made": 0.0},
        (("Labs", ""),): {"real": 0.25, "made": 0.0},  # both columns: the whole table
        (("scan", ""),): {"real": 0.0, "made": 0.5},
        (("Labs", "a"),): {"real": 0.0, "made": 0.5},
    }
    for name in ("real", "made"):
        assert sum(pattern.shares[name] for pattern in found) == pytest.approx(1)
    assert len(missing_patterns({"real": REAL, "made": MADE}, "real", most=2)) == 2


def test_patterns_of_few_real_rows_can_be_left_out():
    found = missing_patterns({"real": REAL, "made": MADE}, "real", most=9, fewest=2)
    assert {pattern.missing for pattern in found} == {(("Labs", "b"),), (("scan", ""),), (("Labs", "a"),)}
