"""Render the report page: one self-contained HTML file, with the settings and hashes behind its results."""

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
from postprior.pipelines.report.cell_tables import checks, sheet
from postprior.pipelines.report.cells import Cells
from postprior.pipelines.report.figures import MUTED, Figure, Mark, readable
from postprior.pipelines.report.findings import QUESTIONS, findings
from postprior.pipelines.report.gallery import Pictures
from postprior.pipelines.report.leaderboard import FIT, cell, columns, has_scores, remarks
from postprior.pipelines.report.plots.leaks import SPACES
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.verdict import verdict
from postprior.pipelines.report.wording import as_text, folded, listed, number, p_value, percent, template
from postprior.pipelines.settings.params import SAMPLER_ROWS, Params, leaves
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.texts import escape_controls

HERE = Path(__file__).parent
GLYPHS = {"o": "●", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "s": "■", "p": "⬟", "x": "✕"}
GLYPHS |= {"H": "⬣", "1": "⅄"}
SIGNS = {"yes": "✓", "limited": "!", "unknown": "?", "no": "✕", "for": "→", "not": "✕"}
GLYPHS |= {"<": "◀", "*": "★", ">": "▶", "h": "⬢", "d": "♦", "8": "⯃"}


@dataclass(frozen=True)
class Plot:
    """A figure with its images for light and dark mode and for wide and narrow pages.

    The narrow images are None if they do not differ from the wide ones.
    """

    figure: Figure
    light: bytes
    dark: bytes
    narrow_light: bytes | None
    narrow_dark: bytes | None

    @classmethod
    def of(cls, figure: Figure) -> Plot:
        """Draw the images of a figure."""
        return cls(figure, *figure.pngs(), *(figure.pngs(narrow=True) if figure.wide else (None, None)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page: half the pixels that the header of the PNG gives."""
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
    cells: Cells | None = None,
    shareable: bool = False,
) -> str:
    """Return the page as text.

    Args:
        results: The results to show.
        looks: Marks by row.
        pictures: Sheets of samples by row.
        figures: Figures by the section of the page that shows them.
        plots: Images by the name of the figure.
        facts: Short texts under the headline.
        tables: Keys and values of settings and hashes, by caption.
        datasheets: Rows whose synthetic dataset has a datasheet in datasheets/<row>.md beside the page.
        cells: What the page shows of tables and vectors.
        shareable: Whether nothing that is given shows real rows, as `shareable.py` makes it: the page says so, and has
            no links to files beside it.
    """
    from markupsafe import Markup

    def escape_control(value: Any) -> Any:
        return escape_controls(value) if type(value) is str else value  # markup is a subclass of str and stays as it is

    answer = verdict(results)
    names: dict[str, Any] = {
        "looks": looks,
        "glyphs": GLYPHS,
        "signs": SIGNS,
        "plots": plots,
        "exact": EXACT,
        "muted": MUTED,
    }
    names |= {"readable": readable, "uri": _uri, "remarks": remarks, "cut": _cut}
    metrics = columns(results)
    groups = [metric.group for metric in metrics]
    fitted = [row for row in results.rows if any(row.estimate(*metric.keys) for metric in FIT)]
    fit = [metric for metric in FIT if has_scores(fitted, metric.keys)]
    copies = [
        (
            row.title,
            copy["sample"],
            copy["record"],
            SPACES.get(copy["space"], copy["space"]),
            copy["distance"],
            copy["ratio"],
        )
        for row in results.densities
        for copy in row.scores.get("privacy", {}).get("near_copies", [])
    ]
    title_of = {metric.key: metric.title for metric in LEADERBOARD}
    pairs = [
        (title_of[p.metric], p.first, p.second, *map(as_text, (p.difference, p.low, p.high)), p_value(p.p_holm))
        for p in results.pairs
    ]
    return template("page.html", names, autoescape=True, finalize=escape_control).render(
        title="postprior: is the synthetic data faithful, useful and safe?",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
        verdict=answer,
        shareable=shareable,
        facts=facts,
        answers=list(_answers(results, answer.density)),
        columns=metrics,
        spans=[(group, groups.count(group)) for group in dict.fromkeys(groups)],
        metrics=[metric for metric in LEADERBOARD if metric in metrics],
        rows=[(row, [cell(row, metric, results) for metric in metrics]) for row in results.rows],
        fit=fit,
        sampled=any(row.own_name in SAMPLER_ROWS for row in results.rows),
        noted=any(remarks(row) for row in fitted),
        fits=[(row, [cell(row, metric, results) for metric in fit]) for row in fitted],
        figures=figures,
        pairs=pairs,
        copies=[list(map(as_text, line)) for line in copies],
        advice=results.latent.get("health", {}).get("advice", []),
        tables=[(caption, list(rows)) for caption, rows in tables.items()],
        datasheets=datasheets,
        samples=_of_rows(results, pictures.samples),
        conditional=_of_rows(results, pictures.conditional),
        neighbours=_of_rows(results, pictures.neighbours),
        checks=cells and checks(cells),
        rows_in_full=cells and sheet(cells.examples, cells.densities),
    )


def _answers(results: Results, best: Row) -> Iterator[dict[str, Any]]:
    """Yield for each question the key numbers of the best density, and the findings by topic, the long ones folded."""
    every = list(findings(results, best))
    for question, title in QUESTIONS.items():
        answers = [finding for finding in every if finding.question == question]
        topics = [
            (topic, *folded([finding.text for finding in group]))
            for topic, group in groupby(answers, lambda finding: finding.topic)
        ]
        metrics = [metric for metric in LEADERBOARD if metric.question == question and metric.headline]
        numbers = [
            (_shown(metric, estimate), metric.title, _comparison(metric, results))
            for metric in [metric for metric in metrics if metric.tested] or metrics
            if (estimate := best.estimate(*metric.keys))
        ]
        if answers:
            yield {"name": question, "title": title, "density": best.title, "numbers": numbers, "topics": topics}


def _comparison(metric: Metric, results: Results) -> str:
    """Return what to compare a key number with: the value of real rows, or the neutral value of the metric."""
    real = results.row("real").estimate(*metric.keys)
    return f"{_shown(metric, real)} for real rows" if real else metric.neutral


def _shown(metric: Metric, estimate: Estimate) -> str:
    return percent(estimate.value) if metric.percent else number(estimate.value, metric.decimals)


def _of_rows(results: Results, sheets: Mapping[str, Sheet]) -> list[tuple[Row, Sheet]]:
    """Return the rows that have a sheet, each with its sheet."""
    return [(row, sheets[row.name]) for row in results.rows if row.name in sheets]


def _cut(sheet: Sheet, noun: str, label_name: str) -> str:
    """Return as JSON what the script needs to cut a sheet; `noun` and `label_name` name a sample and its label."""
    shape = {"side": sheet.side, "gap": GAP, "steps": sheet.steps}
    names = {key: getattr(sheet, key) for key in ("labels", "lines", "modalities", "given")}
    return json.dumps({**shape, **names, "noun": noun, "labelName": label_name})


def _uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def settings(params: Params) -> list[tuple[str, str]]:
    """Return the settings behind the results, by dotted key."""
    return [(key, _format_setting(value)) for key, value in leaves(params.chosen(params.densities))]


def _format_setting(value: Any) -> str:
    """Format a value as in params.yaml, a list without brackets."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_format_setting, value)) or "none"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def hashes(params: Params, project: Project) -> Iterator[tuple[str, str]]:
    """Yield the folders of the artefacts behind the results, and their shortened hashes."""
    artefacts = project.artefacts
    folders = [artefacts.autoencoder, artefacts.evaluators, artefacts.baselines]
    folders += [kind / name for kind in (artefacts.densities, artefacts.synthetic) for name in params.densities]
    for folder in folders:
        with suppress(UserError):
            yield folder.relative_to(project.root).as_posix(), folder_hash(folder)[:16]


def facts(params: Params, results: Results) -> list[str]:
    """Return short texts on what was compared."""
    texts = [
        f"profile {params.profile}",
        f"model {params.vae.told}",
        f"data {params.data.source}",
        f"{results.row(params.densities[0]).scores['samples']} samples scored per row of the table",
        f"{params.evaluate.resamples} half-samples for each interval",
    ]
    if others := list(dict.fromkeys(row.source for row in results.rows if row.source)):
        texts.append(f"compared with {listed(others)}")
    return texts
