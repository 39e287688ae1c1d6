"""The headline metrics of this project's rows, as results/summary.json and results/summary.csv."""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from postprior.pipelines.metrics.registry import HEADLINES, Metric
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.verdict import verdict
from postprior.pipelines.settings.params import BEST
from postprior.pipelines.texts import width

OF_EVERY_ROW = 2
"""Metrics of each row in summary.json: `dvc exp show` has a column for each number."""
REFERENCES = ("real", "normal")
"""Rows beside the densities in summary.json: what a density can reach, and what it has to beat."""


def summary(results: Results) -> dict[str, Any]:
    """Return the content of summary.json: the best density with its headline metrics, and the main ones of each row.

    The best density is the one on which the verdict of the report is. The main metrics are the first two by which
    densities are tested and that any of them has. Scores without a value are left out: DVC has no columns for them.
    """
    own = replace(results, rows=_own(results))
    judged = verdict(own)
    main = [metric for metric in HEADLINES if metric.tested and any(_values(row, [metric]) for row in own.densities)]
    rows = [*own.densities, *(row for row in own.rows if row.name in REFERENCES)]
    return {
        BEST: {"density": judged.density.name, "usable": judged.use, **_values(judged.density, HEADLINES)},
        **{row.name: _values(row, main[:OF_EVERY_ROW]) for row in rows},
    }


def summary_table(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Return header and lines of summary.csv: all rows, all headline metrics with intervals, empty where missing.

    Its columns are the same for all data, so that plots of DVC find them.
    """
    header = ["row", *(f"{metric.key}{end}" for metric in HEADLINES for end in ("", "_low", "_high"))]

    def line(row: Row) -> list[Any]:
        estimates = (row.estimate(*metric.keys) for metric in HEADLINES)
        return [row.name, *(getattr(estimate, field, None) for estimate in estimates for field in INTERVAL)]

    return header, (line(row) for row in _own(results))


def shown(comparison: str) -> list[str]:
    """Return the rows of comparison.csv, of this project and of others, with their headline metrics as a table."""
    rows = list(csv.DictReader(comparison.splitlines()))
    keys = [metric.key for metric in HEADLINES if any(row.get(metric.key) for row in rows)]
    cells = [
        ["", *keys],
        *([row["row"], *(f"{float(row[key]):.4g}" if row[key] else "" for key in keys)] for row in rows),
    ]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    padded = ([text + " " * (most - width(text)) for text, most in zip(line, widths, strict=True)] for line in cells)
    return ["  ".join(line).rstrip() for line in padded]


def _own(results: Results) -> tuple[Row, ...]:
    """Return the rows of this project, without means over seeds."""
    return tuple(row for row in results.rows if not row.source and row.kind != "seeds")


def _values(row: Row, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the values of the metrics that a row has."""
    return {metric.key: value for metric in metrics if (value := _value(row, metric)) is not None}


def _value(row: Row, metric: Metric) -> float | None:
    estimate = row.estimate(*metric.keys)
    return estimate.value if estimate is not None and math.isfinite(estimate.value) else None
