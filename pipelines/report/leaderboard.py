"""The leaderboard and other tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from postprior.pipelines.metrics.registry import HEADLINES, LEADERBOARD
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.table import FIT, known

TRANSLATED = ("conditional_coherence", "conditional_gain")


def leaderboard(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and lines of comparison.csv: one line a row of the leaderboard, three columns a score that any row has.

    A fourth says why, where a row lacks the score or its interval and knows.
    """
    nested = [(group, key) for group in ("gap_closed", "difference_to_normal") for key in HEADLINES]
    nested += [(group, str(n)) for group in TRANSLATED for n in results.posterior.by_size(TRANSLATED[0])]
    columns = {metric.key: metric.keys for metric in LEADERBOARD}
    columns |= {"_".join(keys): keys for keys in (*nested, *(metric.keys for metric in FIT))}
    columns = {name: keys for name, keys in columns.items() if known(results.rows, keys)}
    why = {name for name, keys in columns.items() if any(row.why(*keys) for row in results.rows)}
    parts = {name: ("", "_low", "_high", *(["_why"] if name in why else [])) for name in columns}
    header = ["row", *(f"{name}{part}" for name in columns for part in parts[name])]

    def line(row: Row) -> Iterator[Any]:
        yield row.name
        for name, keys in columns.items():
            estimate = row.estimate(*keys)
            yield from (getattr(estimate, part, None) for part in INTERVAL)
            if name in why:
                yield row.why(*keys) or None

    return header, (list(line(row)) for row in results.rows)


def as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV with a header; what is not known is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return content.getvalue()
