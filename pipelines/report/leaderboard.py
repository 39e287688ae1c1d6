"""Columns, cells and CSV lines of the leaderboard, and columns of the table of fits."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from postprior.pipelines.metrics.registry import GROUPS, LEADERBOARD, SIGNED, TESTED, Metric
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.wording import number

CONDITIONAL = ("conditional_coherence", "conditional_gain")


@dataclass(frozen=True)
class Cell:
    """A number as the table shows it, or a dash; `why` is the reason if it or its interval is missing."""

    value: str = "–"
    interval: str = ""
    sort: str = ""  # the value by which the column is sorted
    best: bool = False
    why: str = ""


def _fit(*keys: str, about: str, name: str, better: str = "", decimals: int = 2) -> Metric:
    """Return a column of the table of fits, whose values are under nested keys."""
    return Metric("", "_".join(keys), about, name, better, SIGNED, decimals, keys)


FIT = (
    _fit(
        "log_likelihood",
        "train",
        about="mean log-likelihood of training codes, nats per row",
        name="Log-likelihood, train",
    ),
    _fit(
        "log_likelihood", "validation", about="mean log-likelihood of validation codes, nats per row", name="Validation"
    ),
    _fit(
        "log_likelihood", "test", about="mean log-likelihood of test codes, nats per row", name="Test", better="higher"
    ),
    _fit(
        "overfitting",
        about="log-likelihood of training codes minus that of validation codes",
        name="Train − validation",
    ),
    _fit(
        "memorisation",
        "ratio",
        about="distance of draws to the nearest training code, divided by that of held-out codes",
        name="Distance ratio",
    ),
    _fit(
        "memorisation",
        "near_copies",
        about="share of draws nearer to a training code than 99 % of held-out codes are",
        name="Near copies",
        decimals=3,
    ),
    _fit(
        "effective_sample_share",
        about="effective sample size of the posterior draws in conditional generation, divided by their number",
        name="Effective share",
    ),
    _fit("rows", "used", about="training rows that the density was fitted to", name="Rows fitted", decimals=0),
    _fit(
        "rows",
        "left_out",
        about="training rows left out because they lack a modality or a label",
        name="Left out",
        decimals=0,
    ),
)
"""Metrics of the table of fits."""


def columns(results: Results) -> list[Metric]:
    """Return the metrics of the leaderboard by group; after each metric that is tested comes the gap closed.

    A metric is left out if no row has it or gives a reason why not.
    """
    listed = []
    for metric in sorted(LEADERBOARD, key=lambda metric: list(GROUPS).index(metric.group)):
        listed.append(metric)
        if metric.tested:
            about = (
                "share of the gap between Normal prior and Reconstruction that is closed, measured by " + metric.title
            )
            place = ("gap_closed", metric.key)
            listed.append(replace(metric, place=place, name="Gap closed", about=about, better="higher", decimals=2))
    return [metric for metric in listed if has_scores(results.rows, metric.keys)]


def has_scores(rows: Sequence[Row], keys: Sequence[str]) -> bool:
    """Whether any row has the score under nested keys, or gives a reason why not."""
    return any(row.estimate(*keys) or row.why(*keys) for row in rows)


def remarks(row: Row) -> str:
    """Return what is unusual about a density and its draws."""
    texts, scores = [], row.scores
    if scores.get("bound"):
        texts.append("log-likelihoods are lower bounds")
    if scores.get("stores_training_codes"):
        texts.append("stores training codes")
    counts = scores.get("rows", {})
    if incomplete := counts.get("incomplete"):
        texts.append(f"{incomplete} of the rows lack a modality")
    if inferred := counts.get("inferred"):
        texts.append(f"the labels of {inferred} rows were inferred")
    if unlabelled := counts.get("unlabelled"):
        texts.append(f"{unlabelled} rows without a label were left out")
    if scores.get("values") == "refined":
        texts.append("images and volumes drawn by the refiner")
    if temperature := scores.get("temperature"):
        texts.append(f"drawn at temperature {temperature:g}")
    if truncation := scores.get("truncation"):
        texts.append(f"the least likely {100 * truncation:g} % of draws replaced")
    return "; ".join(texts)


def cell(row: Row, metric: Metric, results: Results) -> Cell:
    """Return the cell of a row; the best of several densities in a column is marked."""
    estimate, why = row.estimate(*metric.keys), row.why(*metric.keys)
    if estimate is None or not math.isfinite(estimate.value):
        return Cell(why=why)
    rivals = [rival.value for other in results.densities if (rival := other.estimate(*metric.keys))]
    ranked = row.kind == "density" and bool(metric.better) and len(rivals) > 1
    best = ranked and estimate.value == (min if metric.better == "lower" else max)(rivals)
    ends = [number(end, metric.decimals) for end in (estimate.low, estimate.high) if end is not None]
    interval = (" to " if "−" in ends[0] else "–").join(ends) if len(set(ends)) == 2 else ""
    return Cell(number(estimate.value, metric.decimals), interval, repr(estimate.value), best, why)


def leaderboard(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Return header and lines of comparison.csv: one line per row of the leaderboard, three columns per score.

    A fourth column gives the reason if a row lacks the score or its interval. Scores that no row has are left out.
    """
    nested = [(group, key) for group in ("gap_closed", "difference_to_normal") for key in TESTED]
    nested += [(group, str(n)) for group in CONDITIONAL for n in results.posterior.by_size(CONDITIONAL[0])]
    columns = {metric.key: metric.keys for metric in LEADERBOARD}
    columns |= {"_".join(keys): keys for keys in (*nested, *(metric.keys for metric in FIT))}
    columns = {name: keys for name, keys in columns.items() if has_scores(results.rows, keys)}
    explained = {name for name, keys in columns.items() if any(row.why(*keys) for row in results.rows)}
    suffixes = {name: ("", "_low", "_high", *(["_why"] if name in explained else [])) for name in columns}
    header = ["row", *(f"{name}{suffix}" for name in columns for suffix in suffixes[name])]

    def line(row: Row) -> Iterator[Any]:
        yield row.name
        for name, keys in columns.items():
            estimate = row.estimate(*keys)
            yield from (getattr(estimate, field, None) for field in INTERVAL)
            if name in explained:
                yield row.why(*keys) or None

    return header, (list(line(row)) for row in results.rows)


def as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Return CSV with a header; missing values are empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([None if value != value else value for value in line] for line in lines)
    return content.getvalue()
