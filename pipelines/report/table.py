"""The tables of rows and scores: their columns, and numbers as they show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from postprior.pipelines.report.metrics import HEADLINES, METRICS, Metric
from postprior.pipelines.report.numbers import number
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row


@dataclass(frozen=True)
class Column:
    """A column: a metric, how much of the gap a headline metric closes, or a fact of a fit.

    Args:
        keys: where its numbers stand in a row's scores.
        title: its heading.
        arrow: a sign for what is better.
        about: what it says, in a phrase.
        decimals: places after the point.
        better: "higher" or "lower"; "" where neither is better by itself.
        group: the columns that it stands with.
        key: whether it belongs to the overview.
    """

    keys: tuple[str, ...]
    title: str
    arrow: str
    about: str
    decimals: int
    better: str
    group: str = ""
    key: bool = False

    @classmethod
    def of(cls, metric: Metric) -> Column:
        """The column of a metric."""
        group = next((name for name, keys in GROUPS.items() if metric.key in keys), "Other")
        return cls(
            metric.keys,
            metric.title,
            metric.arrow,
            metric.about,
            metric.decimals,
            metric.better,
            group,
            metric.key in OVERVIEW,
        )


@dataclass(frozen=True)
class Cell:
    """A number as the table shows it, a dash where there is none, and why it or its interval is missing."""

    value: str = "–"
    interval: str = ""
    sort: str = ""
    best: bool = False
    why: str = ""


GROUPS = {
    "Coherence": ("joint_coherence", "pairwise_coherence", "label_entropy", "label_agreement"),
    "Pairing": ("pairing_auc", "incoherence", "canonical_preservation"),
    "Distance": ("frechet_distance", "joint_frechet_distance", "kernel_distance", "mmd"),
    "Overlap": (
        "precision",
        "recall",
        "density",
        "coverage",
        "alpha_precision",
        "beta_recall",
        "authenticity",
    ),
    "Use": ("utility_ratio",),
    "Leaks": ("membership_auc", "near_copies"),
}
"""Groups of columns, in their order, and the metrics in each."""
OVERVIEW = (
    "joint_coherence",
    "label_entropy",
    "incoherence",
    "frechet_distance",
    "kernel_distance",
    "coverage",
    "utility_ratio",
    "membership_auc",
    "near_copies",
)
FIT = (
    Column(("log_likelihood", "train"), "Log-likelihood, train", "", "nats a row, of training codes", 2, ""),
    Column(("log_likelihood", "validation"), "Validation", "", "nats a row, of validation codes", 2, ""),
    Column(("log_likelihood", "test"), "Test", "↑", "nats a row, of test codes", 2, "higher"),
    Column(("overfitting",), "Train − validation", "", "log-likelihood that held-out codes lack", 2, ""),
    Column(
        ("memorisation", "ratio"),
        "Distance ratio",
        "",
        "distance of draws to the nearest training code over that of held-out codes",
        2,
        "",
    ),
    Column(
        ("memorisation", "near_copies"),
        "Near copies",
        "",
        "share of draws nearer to a training code than 99 % of held-out codes",
        3,
        "",
    ),
    Column(
        ("effective_sample_share",),
        "Effective share",
        "",
        "of the posterior draws that the density chooses among",
        2,
        "",
    ),
    Column(("rows", "used"), "Rows fitted", "", "training rows", 0, ""),
    Column(("rows", "left_out"), "Left out", "", "training rows that lack a modality", 0, ""),
)
"""Columns of the table of fits."""


def columns(results: Results) -> list[Column]:
    """The metrics that some row has or says why not, by group, each headline with the gap that it closes after it."""
    listed = []
    for metric in METRICS:
        column = Column.of(metric)
        listed.append(column)
        if metric.key in HEADLINES:
            about = "way from the floor to Reconstruction, by " + metric.title.lower()
            gap = replace(
                column,
                keys=("gap_closed", metric.key),
                title="Gap closed",
                about=about,
                arrow="↑",
                decimals=2,
            )
            listed.append(replace(gap, better="higher", key=column.key))
    order = [*GROUPS, "Other"]
    listed.sort(key=lambda column: order.index(column.group))
    return [column for column in listed if known(results.rows, column.keys)]


def known(rows: Sequence[Row], keys: Sequence[str]) -> bool:
    """Whether some row has the score under nested keys, or says why not."""
    return any(row.estimate(*keys) or row.why(*keys) for row in rows)


def spans(shown: Sequence[Column]) -> list[tuple[str, int]]:
    """The groups of columns and how many columns each has."""
    groups = [column.group for column in shown]
    return [(group, groups.count(group)) for group in dict.fromkeys(groups)]


def line(row: Row, shown: Sequence[Column], results: Results) -> dict[str, Any]:
    """A row of a table."""
    title = row.title.removeprefix(f"{row.source}: ") if row.source else row.title
    return {
        "name": row.name,
        "title": title,
        "source": row.source,
        "kind": row.kind,
        "cells": [_cell(row, column, results) for column in shown],
    }


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


def _cell(row: Row, column: Column, results: Results) -> Cell:
    estimate, why = row.estimate(*column.keys), row.why(*column.keys)
    if estimate is None or not math.isfinite(estimate.value):
        return Cell(why=why)
    rivals = [rival.value for other in results.densities if (rival := other.estimate(*column.keys))]
    ranked = row.kind == "density" and bool(column.better) and len(rivals) > 1
    best = ranked and estimate.value == (min if column.better == "lower" else max)(rivals)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{number(estimate.low, column.decimals)}–{number(estimate.high, column.decimals)}"
    return Cell(number(estimate.value, column.decimals), interval, repr(estimate.value), best, why)
