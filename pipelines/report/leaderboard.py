"""The leaderboard and the table of fits: columns, cells as the page shows them, and the lines of CSV."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from postprior.pipelines.metrics.registry import GROUPS, HEADLINES, LEADERBOARD, SIGNED, Metric
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.wording import number

TRANSLATED = ("conditional_coherence", "conditional_gain")


@dataclass(frozen=True)
class Cell:
    """A number as the table shows it, a dash where there is none, and why it or its interval is missing."""

    value: str = "–"
    interval: str = ""
    sort: str = ""
    best: bool = False
    why: str = ""


def _fit(*keys: str, about: str, name: str, better: str = "", decimals: int = 2) -> Metric:
    """A fact of a fit under nested keys."""
    return Metric("", "_".join(keys), about, name, better, SIGNED, decimals, keys)


FIT = (
    _fit("log_likelihood", "train", about="nats a row, of training codes", name="Log-likelihood, train"),
    _fit("log_likelihood", "validation", about="nats a row, of validation codes", name="Validation"),
    _fit("log_likelihood", "test", about="nats a row, of test codes", name="Test", better="higher"),
    _fit("overfitting", about="log-likelihood that held-out codes lack", name="Train − validation"),
    _fit(
        "memorisation",
        "ratio",
        about="distance of draws to the nearest training code over that of held-out codes",
        name="Distance ratio",
    ),
    _fit(
        "memorisation",
        "near_copies",
        about="share of draws nearer to a training code than 99 % of held-out codes",
        name="Near copies",
        decimals=3,
    ),
    _fit(
        "effective_sample_share", about="of the posterior draws that the density chooses among", name="Effective share"
    ),
    _fit("rows", "used", about="training rows", name="Rows fitted", decimals=0),
    _fit("rows", "left_out", about="training rows that lack a modality", name="Left out", decimals=0),
)
"""Metrics of the table of fits."""


def columns(results: Results) -> list[Metric]:
    """The metrics that some row has or says why not, by group, each headline with the gap that it closes after it."""
    listed = []
    for metric in sorted(LEADERBOARD, key=lambda metric: list(GROUPS).index(metric.group)):
        listed.append(metric)
        if metric.headline:
            about = "way from the floor to Reconstruction, by " + metric.title.lower()
            place = ("gap_closed", metric.key)
            listed.append(replace(metric, place=place, name="Gap closed", about=about, better="higher", decimals=2))
    return [metric for metric in listed if known(results.rows, metric.keys)]


def known(rows: Sequence[Row], keys: Sequence[str]) -> bool:
    """Whether some row has the score under nested keys, or says why not."""
    return any(row.estimate(*keys) or row.why(*keys) for row in rows)


def remarks(row: Row) -> str:
    """What is unusual about a density and its draws."""
    told, scores = [], row.scores
    if scores.get("bound"):
        told.append("log-likelihoods are lower bounds")
    if scores.get("stores_training_codes"):
        told.append("holds training codes")
    if incomplete := scores.get("rows", {}).get("incomplete"):
        told.append(f"{incomplete} of the rows lack a modality")
    if temperature := scores.get("temperature"):
        told.append(f"drawn at temperature {temperature:g}")
    if truncation := scores.get("truncation"):
        told.append(f"the least likely {100 * truncation:g} % drawn again")
    return "; ".join(told)


def cell(row: Row, metric: Metric, results: Results) -> Cell:
    """The score of a row; bold as the best of a column where several densities have it."""
    estimate, why = row.estimate(*metric.keys), row.why(*metric.keys)
    if estimate is None or not math.isfinite(estimate.value):
        return Cell(why=why)
    rivals = [rival.value for other in results.densities if (rival := other.estimate(*metric.keys))]
    ranked = row.kind == "density" and bool(metric.better) and len(rivals) > 1
    best = ranked and estimate.value == (min if metric.better == "lower" else max)(rivals)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{number(estimate.low, metric.decimals)}–{number(estimate.high, metric.decimals)}"
    return Cell(number(estimate.value, metric.decimals), interval, repr(estimate.value), best, why)


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
