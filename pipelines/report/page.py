"""The page: one HTML file that needs nothing but itself, and where its results come from."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.pictures import EXACT, GAP, Sheet
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.registry import LEADERBOARD, Metric
from postprior.pipelines.report.figures import DARK, LIGHT, Figure, Mark, readable
from postprior.pipelines.report.findings import QUESTIONS, findings, headline
from postprior.pipelines.report.gallery import Pictures
from postprior.pipelines.report.leaderboard import FIT, cell, columns, known, remarks
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.wording import listed, number, template, text
from postprior.pipelines.settings.params import Params, leaves
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.texts import escape_controls

HERE = Path(__file__).parent
GLYPHS = {"o": "●", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "s": "■", "p": "⬟", "x": "✕"}
GLYPHS |= {"<": "◀", "*": "★", ">": "▶", "h": "⬢", "d": "♦", "8": "⯃"}


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

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page, half of those that a PNG's header holds at a fixed place."""
        width, height = struct.unpack(">II", self.light[16:24])
        return width // 2, height // 2


def render(
    results: Results,
    looks: Mapping[str, Mark],
    pictures: Pictures,
    figures: Mapping[str, Sequence[Figure]],
    plots: Mapping[str, Plot],
    facts: Sequence[str],
    tables: Mapping[str, Iterable[tuple[str, Any]]],
    datasheets: Sequence[str] = (),
) -> str:
    """The page as text.

    `looks` are by row, `figures` by the section that they stand in, `plots` by the figure's name. The `facts` stand
    under the headline, `tables` hold by caption the keys and values of settings, and `datasheets` are rows whose
    synthetic set has a datasheet in datasheets/<row>.md beside the page.
    """
    from markupsafe import Markup

    def shown_as(value: Any) -> Any:
        return escape_controls(value) if type(value) is str else value  # markup is another type

    names = {"looks": looks, "glyphs": GLYPHS, "plots": plots, "exact": EXACT}
    names |= {"readable": readable, "uri": _uri, "remarks": remarks, "cut": _cut}
    shown = columns(results)
    groups = [metric.group for metric in shown]
    fitted = [row for row in results.rows if any(row.estimate(*metric.keys) for metric in FIT)]
    fit = [metric for metric in FIT if known(fitted, metric.keys)]
    copies = [
        (row.title, *(copy[key] for key in ("sample", "record", "space", "distance", "ratio")))
        for row in results.densities
        for copy in row.scores.get("privacy", {}).get("near_copies", [])
    ]
    pairs = [(p.metric, p.first, p.second, p.difference, p.low, p.high, p.p_holm) for p in results.pairs]
    return template("page.html", names, autoescape=True, finalize=shown_as).render(
        title="postprior: is the synthetic data faithful, useful, safe?",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
        headline=headline(results),
        facts=facts,
        answers=list(_answers(results)),
        columns=shown,
        spans=[(group, groups.count(group)) for group in dict.fromkeys(groups)],
        metrics=[metric for metric in LEADERBOARD if metric in shown],
        rows=[(row, [cell(row, metric, results) for metric in shown]) for row in results.rows],
        fit=fit,
        noted=any(remarks(row) for row in fitted),
        fits=[(row, [cell(row, metric, results) for metric in fit]) for row in fitted],
        figures=figures,
        pairs=[list(map(text, told)) for told in pairs],
        copies=[list(map(text, told)) for told in copies],
        advice=results.latent.get("health", {}).get("advice", []),
        tables=[(caption, list(rows)) for caption, rows in tables.items()],
        datasheets=datasheets,
        samples=_of_rows(results, pictures.samples),
        parts=_of_rows(results, pictures.parts),
        neighbours=_of_rows(results, pictures.neighbours),
    )


def _answers(results: Results) -> Iterator[dict[str, Any]]:
    """By question: the numbers of the best density that speak most, and what was found."""
    found, best = list(findings(results)), results.densities[0]
    for question, title in QUESTIONS.items():
        told = [finding for finding in found if finding.question == question]
        sentences = [(word, [one.text for one in some]) for word, some in groupby(told, lambda one: one.about)]
        metrics = [metric for metric in LEADERBOARD if metric.question == question and metric.overview]
        numbers = [
            (number(estimate.value, metric.decimals), metric.title, _beside(metric, results))
            for metric in [metric for metric in metrics if metric.headline] or metrics
            if (estimate := best.estimate(*metric.keys))
        ]
        if told:
            yield {"name": question, "title": title, "of": best.title, "numbers": numbers, "told": sentences}


def _beside(metric: Metric, results: Results) -> str:
    """What a key number is read beside: the same of real rows, or what the metric says."""
    real = results.row("real").estimate(*metric.keys)
    return f"{number(real.value, metric.decimals)} for real rows" if real else metric.neutral


def _of_rows(results: Results, sheets: Mapping[str, Sheet]) -> list[tuple[Row, Sheet]]:
    """The rows that have a sheet, with it."""
    return [(row, sheets[row.name]) for row in results.rows if row.name in sheets]


def _cut(sheet: Sheet, noun: str, word: str) -> str:
    """What the script needs to cut a sheet; a sample is a noun, and a word says what its text is."""
    shape = {"side": sheet.side, "gap": GAP, "steps": sheet.steps}
    names = {key: getattr(sheet, key) for key in ("labels", "lines", "modalities", "given")}
    return json.dumps({**shape, **names, "noun": noun, "word": word})


def _uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def settings(params: Params) -> list[tuple[str, str]]:
    """The settings that led here, by dotted key."""
    return [(key, _spelt(value)) for key, value in leaves(params.chosen(params.densities))]


def _spelt(value: Any) -> str:
    """A value as params.yaml has it, a list without its brackets."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_spelt, value)) or "none"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def hashes(params: Params, project: Project) -> Iterator[tuple[str, str]]:
    """The identities of the artefacts behind the results."""
    folders = project.artefacts
    places = [folders.autoencoder, folders.evaluators, folders.baselines]
    places += [kind / name for kind in (folders.densities, folders.synthetic) for name in params.densities]
    for place in places:
        with suppress(UserError):
            yield place.relative_to(project.root).as_posix(), folder_hash(place)[:16]


def facts(params: Params, results: Results) -> list[str]:
    """What was compared, in a few words each."""
    told = [
        f"model {params.vae.model}, {params.vae.latent} latent dimensions",
        f"data {params.data.source}",
        f"{results.row(params.densities[0]).scores['samples']} samples scored a row",
        f"{params.evaluate.resamples} half-samples behind every interval",
    ]
    if others := list(dict.fromkeys(row.source for row in results.rows if row.source)):
        told.append(f"beside {listed(others)}")
    return told
