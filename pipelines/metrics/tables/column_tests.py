"""Tests whether real and synthetic values of a column have the same distribution."""

from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import FEWEST, too_few
from postprior.pipelines.metrics.tables.columns import Sides, columns_of
from postprior.pipelines.texts import escape_controls


def column_tests(real: Dataset, fake: Dataset) -> dict[str, dict[str, dict[str, Any]]]:
    """Test every column of every table; return test, statistic and p-value by modality and column.

    Numbers have a Kolmogorov–Smirnov test, classes a χ² test. The tests assume independent rows: if several rows have
    the same source, p-values are too small. A column that is observed in fewer than two rows of either set is missing.
    """
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for sides in columns_of(real, fake):
        results.setdefault(sides.table.name, {})[sides.name] = _test(sides)
    return results


def add_column_tests(written: dict[str, Any], real: Dataset, fake: Dataset) -> None:
    """Add the tests of every table's columns to a row as stored.

    DVC takes a key `error` for a failure, and prints keys to terminals.
    """
    for modality, columns in column_tests(real, fake).items():
        keys = {name: "error (column)" if name == "error" else escape_controls(name) for name in columns}
        written["modalities"][modality]["columns"] = {keys[name]: test for name, test in columns.items()}


def _test(sides: Sides) -> dict[str, Any]:
    from scipy.stats import chi2_contingency, ks_2samp  # here, because it takes a second and few data have tables

    x, y = (values[~np.isnan(values)] for values in (sides.real, sides.fake))
    rows, side = min((len(x), "real"), (len(y), "synthetic"))
    if missing := too_few(rows, FEWEST, f"{side} rows with this column"):
        return missing.written
    if sides.classes:
        values, codes = np.unique(np.concatenate([x, y]), return_inverse=True)
        counts = np.stack([np.bincount(part, minlength=len(values)) for part in (codes[: len(x)], codes[len(x) :])])
        name, result = "chi_square", chi2_contingency(counts, correction=False)
    else:
        name, result = "ks", ks_2samp(x, y, method="asymp")
    return {"test": name, "statistic": float(result.statistic), "p_value": float(result.pvalue)}
