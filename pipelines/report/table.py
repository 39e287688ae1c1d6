"""The tables of rows and scores: their columns, and numbers as they show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from postprior.pipelines.metrics.registry import GROUPS, LEADERBOARD, SIGNED, Metric
from postprior.pipelines.report.numbers import number
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row


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
    key = "_".join(keys)
    return Metric("", key, about, name, better, SIGNED, decimals, keys)


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
        "effective_sample_share",
        about="of the posterior draws that the density chooses among",
        name="Effective share",
    ),
    _fit("rows", "used", about="training rows", name="Rows fitted", decimals=0),
    _fit("rows", "left_out", about="training rows that lack a modality", name="Left out", decimals=0),
)
"""Metrics of the table of fits."""


def columns(results: Results) -> list[Metric]:
    """The metrics that some row has or says why not, by group, each headline with the gap that it closes after it."""
    listed = []
    for metric in LEADERBOARD:
        listed.append(metric)
        if metric.headline:
            about = "way from the floor to Reconstruction, by " + metric.title.lower()
            place = ("gap_closed", metric.key)
            gap = replace(metric, place=place, name="Gap closed", about=about, better="higher", decimals=2)
            listed.append(gap)
    listed.sort(key=lambda metric: list(GROUPS).index(metric.group))
    return [metric for metric in listed if known(results.rows, metric.keys)]


def known(rows: Sequence[Row], keys: Sequence[str]) -> bool:
    """Whether some row has the score under nested keys, or says why not."""
    return any(row.estimate(*keys) or row.why(*keys) for row in rows)


def spans(shown: Sequence[Metric]) -> list[tuple[str, int]]:
    """The groups of columns and how many columns each has."""
    groups = [metric.group for metric in shown]
    return [(group, groups.count(group)) for group in dict.fromkeys(groups)]


def cells(row: Row, shown: Sequence[Metric], results: Results) -> list[Cell]:
    """The cells of a row."""
    return [_cell(row, metric, results) for metric in shown]


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


def _cell(row: Row, metric: Metric, results: Results) -> Cell:
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
