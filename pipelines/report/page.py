"""The page: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from postprior.pipelines.data.pictures import EXACT, GAP, Sheet
from postprior.pipelines.metrics.registry import LEADERBOARD, Metric
from postprior.pipelines.report.figures import DARK, LIGHT, Figure, Mark
from postprior.pipelines.report.findings import QUESTIONS, findings, headline
from postprior.pipelines.report.numbers import readable, text
from postprior.pipelines.report.plots import Group
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.table import FIT, columns, known, line, number, remarks, spans
from postprior.pipelines.texts import visible

HERE = Path(__file__).parent
GLYPHS = {"o": "●", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "s": "■", "p": "⬟", "x": "✕"}
GLYPHS |= {"<": "◀", "*": "★", ">": "▶", "h": "⬢", "d": "♦", "8": "⯃"}
KEY_NUMBERS = {"faithful": ("joint_coherence", "frechet_distance"), "useful": ("utility_ratio",)}
KEY_NUMBERS |= {"leaks": ("membership_auc", "near_copies")}
NEUTRAL = {"utility_ratio": "1 if as good as real rows", "membership_auc": "0.5 is a coin"}


@dataclass(frozen=True)
class Plot:
    """A figure with its pictures for light and dark, wide and narrow pages; narrow ones only where they differ."""

    figure: Figure
    light: bytes
    dark: bytes
    narrow_light: bytes | None
    narrow_dark: bytes | None

    @classmethod
    def of(cls, figure: Figure) -> Plot:
        """The pictures of a figure."""
        narrow = [figure.png(theme, narrow=True) if figure.wide else None for theme in (LIGHT, DARK)]
        return cls(figure, figure.png(LIGHT), figure.png(DARK), *narrow)


@dataclass(frozen=True)
class Pictures:
    """Sheets by row: samples, samples beside their nearest training rows, and modalities from parts."""

    samples: Mapping[str, Sheet]
    neighbours: Mapping[str, Sheet]
    parts: Mapping[str, Sheet]


def render(
    results: Results,
    looks: Mapping[str, Mark],
    pictures: Pictures,
    groups: Sequence[Group],
    plots: Mapping[str, Plot],
    facts: Sequence[str],
    tables: Mapping[str, Iterable[tuple[str, Any]]],
    datasheets: Sequence[str] = (),
) -> str:
    """The page as text.

    Args:
        results: the rows, in the order of the leaderboard.
        looks: the mark of every row.
        pictures: of samples.
        groups: the figures, by question.
        plots: their pictures, by the figure's name.
        facts: short facts under the headline.
        tables: by caption, the keys and values of settings.
        datasheets: rows whose synthetic set has a datasheet in datasheets/<row>.md beside the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # markup is another type
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = columns(results)
    fitted = [row for row in results.rows if any(row.estimate(*column.keys) for column in FIT)]
    fit = [column for column in FIT if known(fitted, column.keys)]

    def marked(row: Row, told: Mapping[str, Any]) -> dict[str, Any]:
        look = looks[row.name]
        return {**told, "glyph": GLYPHS[look.shape], "colour": look.colour}

    def panels(sheets: Mapping[str, Sheet], noun: str, word: str, alt: str) -> list[dict[str, Any]]:
        rows = [row for row in results.rows if row.name in sheets]
        return [marked(row, _panel(row, sheets[row.name], noun, word, alt)) for row in rows]

    return environment.get_template("page.html").render(
        title="postprior: is the synthetic data faithful, useful, safe?",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
        headline=headline(results),
        facts=facts,
        answers=list(_answers(results)),
        columns=shown,
        spans=spans(shown),
        metrics=[metric for metric in LEADERBOARD if any(metric.keys == column.keys for column in shown)],
        rows=[marked(row, line(row, shown, results)) for row in results.rows],
        fit=fit,
        noted=any(remarks(row) for row in fitted),
        fits=[marked(row, {**line(row, fit, results), "note": remarks(row)}) for row in fitted],
        samples=panels(pictures.samples, "Sample", "label", "from top to bottom"),
        parts=panels(pictures.parts, "Row", "", "beneath one another"),
        neighbours=panels(pictures.neighbours, "Pair", "distance", "each beside its nearest training row;"),
        groups={group.name: _group(group, plots) for group in groups},
        pairs=[[text(value) for value in told] for told in _pairs(results)],
        copies=[[text(value) for value in told] for told in _copies(results)],
        advice=results.latent.get("health", {}).get("advice", []),
        tables=[{"caption": caption, "rows": list(rows)} for caption, rows in tables.items()],
        datasheets=datasheets,
    )


def _answers(results: Results) -> Iterable[dict[str, Any]]:
    """By question: the numbers of the best density that speak most, and what was found."""
    found, best = list(findings(results)), results.densities[0]
    for question, title in QUESTIONS.items():
        told = [finding for finding in found if finding.question == question]
        sentences = [
            (word, [one.text for one in some]) for word, some in groupby(told, lambda one: one.about)
        ]
        shown = [metric for metric in LEADERBOARD if metric.key in KEY_NUMBERS.get(question, ())]
        numbers = [
            (number(estimate.value, metric.decimals), metric.title, _beside(metric, results))
            for metric in shown
            if (estimate := best.estimate(*metric.keys))
        ]
        if told:
            yield {"name": question, "title": title, "of": best.title, "numbers": numbers, "told": sentences}


def _beside(metric: Metric, results: Results) -> str:
    """What a key number is read beside: the same of real rows, or what the metric says."""
    real = results.row("real").estimate(*metric.keys)
    return f"{number(real.value, metric.decimals)} for real rows" if real else NEUTRAL.get(metric.key, "")


def _pairs(results: Results) -> Iterable[tuple[Any, ...]]:
    """The lines of the table of tests between densities."""
    for pair in results.pairs:
        values = (pair.difference, pair.low, pair.high, pair.p_holm)
        yield pair.metric, pair.first, pair.second, *values


def _copies(results: Results) -> Iterable[tuple[Any, ...]]:
    """The lines of the table of near copies."""
    for row in results.densities:
        for copy in row.scores.get("privacy", {}).get("near_copies", []):
            yield row.title, *(copy[key] for key in ("sample", "record", "space", "distance", "ratio"))


def _panel(row: Row, sheet: Sheet, noun: str, word: str, alt: str) -> dict[str, Any]:
    """A sheet with what the script needs to cut it."""
    texts = f", {word} {', '.join(sheet.labels)}" if word and any(sheet.labels) else ""
    judged = row.scores.get("labels_from") == "judges" and word == "label"
    note = "" if not judged else "labels given by the judges" if any(sheet.labels) else "drawn without labels"
    known = {
        "side": sheet.side,
        "gap": GAP,
        "steps": sheet.steps,
        "labels": sheet.labels,
        "lines": sheet.lines,
        "modalities": sheet.modalities,
        "given": sheet.given,
        "noun": noun,
        "word": word,
    }
    return {
        "title": row.title,
        "note": note,
        "labels": sheet.labels,
        "rows": sheet.rows,
        "alt": f"{row.title}: {len(sheet.labels)} {noun.lower()}s{texts}; {alt} {', '.join(sheet.rows)}.",
        "src": _uri(sheet.image, "webp"),
        "width": sheet.size[0],
        "height": sheet.size[1],
        "exact": sheet.side <= EXACT,
        "sheet": json.dumps(known),
    }


def _group(group: Group, plots: Mapping[str, Plot]) -> dict[str, Any]:
    figures = [_plot(plots[figure.name]) for figure in group.figures]
    return {"title": group.title, "about": group.about, "figures": figures}


def _plot(plot: Plot) -> dict[str, Any]:
    figure = plot.figure
    width, height = _size(plot.light)
    return {
        "alt": figure.alt,
        "about": figure.about,
        "wide": figure.wide,
        "light": _uri(plot.light),
        "dark": _uri(plot.dark),
        "narrow": _uri(plot.narrow_light) if plot.narrow_light else None,
        "narrow_dark": _uri(plot.narrow_dark) if plot.narrow_dark else None,
        "width": width // 2,
        "height": height // 2,
        "title": figure.title,
        "numbers": readable(figure),
    }


def _uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, which a PNG's header holds at a fixed place."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
