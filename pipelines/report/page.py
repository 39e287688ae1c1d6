"""The page: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.report.figures import DARK, LIGHT, Figure, Mark
from pipelines.report.findings import findings, headline
from pipelines.report.gallery import Sheet
from pipelines.report.results import HEADLINES, METRICS, Metric, Results, Row

HERE = Path(__file__).parent
GLYPHS = {"o": "●", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "s": "■", "p": "⬟", "x": "✕"}
GLYPHS |= {"<": "◀", "*": "★", ">": "▶", "h": "⬢", "d": "♦", "8": "⯃"}


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard: a metric, or how much of the gap a headline metric closes."""

    keys: tuple[str, ...]
    title: str
    arrow: str
    about: str
    decimals: int
    better: str

    @classmethod
    def of(cls, metric: Metric) -> Column:
        """The column of a metric."""
        return cls((metric.key,), metric.title, metric.arrow, metric.about, metric.decimals, metric.better)


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


@dataclass(frozen=True)
class Plot:
    """A figure with its pictures for a light and a dark page."""

    figure: Figure
    light: bytes
    dark: bytes

    @classmethod
    def of(cls, figure: Figure) -> Plot:
        """The pictures of a figure."""
        return cls(figure, figure.png(LIGHT), figure.png(DARK))


@dataclass(frozen=True)
class Cell:
    """A number as the table shows it."""

    value: str
    interval: str
    sort: str
    best: bool


def columns() -> list[Column]:
    """All metrics, each headline metric followed by the gap that it closes."""
    listed = []
    for metric in METRICS:
        listed.append(Column.of(metric))
        if metric.key in HEADLINES:
            about = "way from the floor to Reconstruction, by " + metric.title.lower()
            listed.append(Column(("gap_closed", metric.key), "Gap closed", "↑", about, 2, "higher"))
    return listed


def render(
    results: Results,
    looks: Mapping[str, Mark],
    sheets: Mapping[str, Sheet],
    plots: Mapping[str, tuple[str, Sequence[Plot]]],
    facts: Sequence[str],
    tables: Mapping[str, Iterable[tuple[str, Any]]],
) -> str:
    """The page as text.

    Args:
        results: the rows, in the order of the leaderboard.
        looks: the mark of every row.
        sheets: pictures of samples by row.
        plots: by the title of a group, what it is about and its plots.
        facts: short facts under the headline.
        tables: by caption, the keys and values of settings.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        title="postprior: comparison of latent samplers",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
        headline=headline(results),
        facts=facts,
        findings=list(findings(results)),
        columns=columns(),
        metrics=METRICS,
        rows=[_row(row, columns(), results, looks[row.name]) for row in results.rows],
        fit=FIT,
        fits=[
            {**_row(row, FIT, results, looks[row.name]), "note": _remarks(row)}
            for row in results.rows
            if row.kind != "data"
        ],
        gallery=[
            _panel(row, sheets[row.name], looks[row.name]) for row in results.rows if row.name in sheets
        ],
        plots=[
            {"title": title, "about": about, "figures": [_plot(plot) for plot in shown]}
            for title, (about, shown) in plots.items()
            if shown
        ],
        tables=[{"caption": caption, "rows": list(rows)} for caption, rows in tables.items()],
    )


def _row(row: Row, shown: Sequence[Column], results: Results, mark: Mark) -> dict[str, Any]:
    cells = [_cell(row, column, results) for column in shown]
    return {"name": row.name, "title": row.title, "kind": row.kind, "cells": cells, **_look(mark)}


def _remarks(row: Row) -> str:
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


def _cell(row: Row, column: Column, results: Results) -> Cell | None:
    estimate = row.estimate(*column.keys)
    if estimate is None or not math.isfinite(estimate.value):
        return None
    rivals = [rival.value for other in results.densities if (rival := other.estimate(*column.keys))]
    ranked = row.kind == "density" and bool(column.better) and len(rivals) > 1
    best = ranked and estimate.value == _best(rivals, column.better)
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{_number(estimate.low, column)}–{_number(estimate.high, column)}"
    return Cell(_number(estimate.value, column), interval, repr(estimate.value), best)


def _number(value: float, column: Column) -> str:
    """A number with the column's decimals and a minus sign, never a negative zero."""
    return f"{round(value, column.decimals) + 0.0:.{column.decimals}f}".replace("-", "−")


def _best(values: Sequence[float], better: str) -> float:
    return min(values) if better == "lower" else max(values)


def _panel(row: Row, sheet: Sheet, mark: Mark) -> dict[str, Any]:
    width, height = _size(sheet.png)
    labelled = f", labelled {', '.join(sheet.labels)}" if any(sheet.labels) else ""
    judged = row.scores.get("labels_from") == "judges"
    note = "" if not judged else "labels given by the judges" if any(sheet.labels) else "drawn without labels"
    return {
        "title": row.title,
        "labels": sheet.labels,
        "note": note,
        "alt": f"{row.title}: {len(sheet.labels)} samples{labelled}; from top to bottom {', '.join(sheet.rows)}.",
        "src": _uri(sheet.png),
        "width": width,
        "height": height,
        **_look(mark),
    }


def _plot(plot: Plot) -> dict[str, Any]:
    width, height = _size(plot.light)
    return {
        "alt": plot.figure.alt,
        "light": _uri(plot.light),
        "dark": _uri(plot.dark),
        "width": width // 2,
        "height": height // 2,
    }


def _look(mark: Mark) -> dict[str, str | None]:
    return {"glyph": GLYPHS[mark.shape], "colour": mark.colour}


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, which a PNG's header holds at a fixed place."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
