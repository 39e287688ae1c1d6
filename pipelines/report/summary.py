"""The headline metrics of this project's rows, as results/summary.json and results/summary.csv."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from postprior.pipelines.metrics.registry import HEADLINES, Metric
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.verdict import verdict
from postprior.pipelines.settings.params import BEST

OF_EVERY_ROW = 2
"""Metrics of each row in summary.json: `dvc exp show` has a column for each number."""
REFERENCES = ("real", "normal")
"""Rows beside the densities in summary.json: what a density can reach, and what it has to beat."""


def summary(results: Results) -> dict[str, Any]:
    """Return the content of summary.json: the best density with its headline metrics, and the main ones of each row.

    The best density is that of the verdict, or the first of the leaderboard if it is another source's. The main metrics
    are the first two by which densities are tested and that any of them has. Scores without a value are left out,
    because DVC has no columns for them.
    """
    best = next(row for row in (verdict(results).density, *results.densities) if not row.source)
    main = [
        metric for metric in HEADLINES if metric.tested and any(_values(row, [metric]) for row in results.densities)
    ]
    own = {row.name: row for row in results.rows if not row.source and row.kind != "seeds"}
    names = [name for name, row in own.items() if row.kind == "density"] + [name for name in REFERENCES if name in own]
    return {
        BEST: {"density": best.name, **_values(best, HEADLINES)},
        **{name: _values(own[name], main[:OF_EVERY_ROW]) for name in names},
    }


def summary_table(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Return header and lines of summary.csv: all rows, all headline metrics with intervals, empty where missing.

    Its columns are the same for all data, so that plots of DVC find them.
    """
    header = ["row", *(f"{metric.key}{end}" for metric in HEADLINES for end in ("", "_low", "_high"))]

    def line(row: Row) -> list[Any]:
        estimates = (row.estimate(*metric.keys) for metric in HEADLINES)
        return [row.name, *(getattr(estimate, field, None) for estimate in estimates for field in INTERVAL)]

    return header, (line(row) for row in results.rows if not row.source)


def _values(row: Row, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the values of the metrics that a row has."""
    return {metric.key: value for metric in metrics if (value := _value(row, metric)) is not None}


def _value(row: Row, metric: Metric) -> float | None:
    estimate = row.estimate(*metric.keys)
    return estimate.value if estimate is not None and math.isfinite(estimate.value) else None
