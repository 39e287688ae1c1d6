"""Scores of single columns, and tests whether real and synthetic values of a column have the same distribution."""

from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import FEWEST, too_few
from postprior.pipelines.metrics.tables.columns import Limits, Sides, columns_of
from postprior.pipelines.metrics.tables.similarity import column_shape, valid_shares
from postprior.pipelines.texts import escape_controls


def column_tests(real: Dataset, fake: Dataset, limits: Limits | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Score and test every column of every table; return the entries of results files by modality and column.

    An entry has test, statistic and p-value, the `shape` of the column (see `similarity`), and the share of its
    synthetic cells that are `valid` by the limits of the training rows, if they are given. Numbers have a
    Kolmogorov–Smirnov test, classes a χ² test. The tests assume independent rows: if several rows have the same source,
    p-values are too small. A column that is observed in fewer than two rows of either set is missing.
    """
    results: dict[str, dict[str, dict[str, Any]]] = {}
    columns = columns_of(real, fake)
    ones = [np.ones((1, len(rows))) for rows in (real, fake)]
    valid = valid_shares(columns, limits, ones[1])[:, 0].tolist() if columns and limits else [None] * len(columns)
    for sides, share in zip(columns, valid, strict=True):
        entry = _test(sides)
        if "test" in entry:
            entry["shape"] = float(column_shape(sides, *ones)[0])
            entry |= {} if share is None else {"valid": share}
        results.setdefault(sides.table.name, {})[sides.name] = entry
    return results


def add_column_tests(written: dict[str, Any], real: Dataset, fake: Dataset, limits: Limits | None = None) -> None:
    """Add the entries of every table's columns to a row as stored."""
    for modality, columns in column_tests(real, fake, limits).items():
        written["modalities"][modality]["columns"] = {column_key(name): entry for name, entry in columns.items()}


def column_key(name: str) -> str:
    """Return the key of a column in results files: DVC takes a key `error` for a failure, and prints keys to terminals.

    >>> column_key("age"), column_key("error")
    ('age', 'error (column)')
    """
    return "error (column)" if name == "error" else escape_controls(name)


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
