"""The datasheet that a synthetic dataset travels with; datasheet.md holds its words.

Its sections are those of Gebru et al. 2021, "Datasheets for Datasets" (https://arxiv.org/abs/1803.09010).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.findings import QUESTIONS, findings
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.wording import number_with, percent, template
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import Markdown, markdown, markdown_code
from postprior.stage1_vae.modalities import Modality

SCORES = ("score", "these data", "real, held out", "what it is")
UNKNOWN = {"labels_from": None, "values": None, "temperature": 1.0, "truncation": 0.0}
VALUES = {"mean": "means of the decoders", "draws": "draws from the decoders' likelihoods"}


def datasheet(row: Row, results: Results, params: Params, dataset: Dataset) -> str:
    """The datasheet of a density's synthetic dataset, as Markdown; the same files give the same bytes."""
    rows = tuple(r for r in results.rows if r is row or (r.kind in ("data", "floor") and not r.source))
    found: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for finding in findings(replace(results, rows=rows, augmentation={})):
        if finding.about != "No guarantee":  # the template says so, whether or not tests ran
            found[finding.question].append(finding.text)

    def answer(question: str) -> Markdown:
        points = "\n".join(f"- {markdown(text)}" for text in found[question])
        scores = list(_scores(row, results, question))
        return Markdown("\n\n".join(filter(None, [_table(SCORES, scores) if scores else "", points])))

    text = template("datasheet.md", finalize=markdown, keep_trailing_newline=True).render(
        row=row,
        dataset=dataset,
        origin=UNKNOWN | dataset.provenance,
        found=found,
        answer=answer,
        table=_table,
        source=markdown_code(params.data.source),
        modalities=_modalities(dataset),
        labels=list(_labels(dataset)),
        settings=_settings(row, params, dataset),
        hashes=_hashes(dataset),
        folder=Markdown(row.name),
    )
    return text.replace("\u202f", " ")


def _modalities(dataset: Dataset) -> list[tuple[Any, ...]]:
    """Name, kind, shape, values and missing share of every modality."""
    missing = 1 - dataset.observed.mean(0)
    return [
        (m.name, m.kind, " × ".join(map(str, m.shape)), _range(m), percent(float(share), 0))
        for m, share in zip(dataset.modalities, missing, strict=True)
    ]


def _range(modality: Modality) -> str:
    """What values a modality takes."""
    if modality.columns:
        return ", ".join(f"{of.name} ({of.likelihood.replace('_', ' ')})" for of in modality.columns)
    if modality.classes is not None:
        return f"{modality.classes} classes"
    return "unbounded" if modality.range is None else f"{modality.range[0]:g} to {modality.range[1]:g}"


def _labels(dataset: Dataset) -> Iterator[tuple[Any, ...]]:
    """Name, rows and share of every label."""
    if dataset.labels is not None:
        numbers, counts = np.unique(dataset.labels, return_counts=True)
        names = dataset.label_names or tuple(map(str, range(int(numbers.max()) + 1)))
        for number, count in zip(numbers, counts, strict=True):
            yield names[number], int(count), percent(count / len(dataset))


def _settings(row: Row, params: Params, dataset: Dataset) -> list[tuple[str, Any]]:
    """How the rows were made: model, density, seed and settings."""
    origin, labels = dataset.provenance, dataset.provenance.get("labels")
    if isinstance(labels, dict):
        labels = ", ".join(f"{count} of {name}" for name, count in labels.items())
    kind = origin.get("sampler", "unknown")
    return [
        ("real data", Markdown(f"source {markdown_code(params.data.source)}")),
        ("rows that the density learned from", row.scores.get("rows", {}).get("used", "unknown")),
        ("autoencoder", f"{params.vae.model}, {params.vae.latent} latent dimensions, seed {params.seed}"),
        ("density of the codes", row.name if row.name == kind else f"{row.name}, of kind {kind}"),
        ("seed of the samples", origin.get("seed", "unknown")),
        ("condition", str(labels or "none, as learned")),
        ("values", VALUES.get(str(origin.get("values")), "unknown")),
        ("temperature", origin.get("temperature", "unknown")),
        ("truncation", origin.get("truncation", "unknown")),
    ]


def _scores(row: Row, results: Results, question: str) -> Iterator[tuple[str, ...]]:
    """The scores that answer a question, beside those of real rows."""
    real = results.beside(row, "real")
    for metric in LEADERBOARD:
        found, theirs = row.estimate(*metric.keys), real.estimate(*metric.keys)
        if metric.question == question and found:
            shown = [number_with(e, metric.decimals) if e else "–" for e in (found, theirs)]
            yield (metric.heading, *shown, metric.about)


def _hashes(dataset: Dataset) -> list[tuple[str, Markdown]]:
    """The hashes by which these data and what is behind them are known."""
    behind = {name: dataset.provenance.get(name) for name in ("data", "autoencoder", "density")}
    known = [(f"{name} behind it", markdown_code(found)) for name, found in behind.items() if found]
    return [("this dataset", markdown_code(dataset.hash)), *known]


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> Markdown:
    """A table in Markdown."""
    every = (header, [Markdown("---")] * len(header), *lines)
    return Markdown("\n".join("| " + " | ".join(map(markdown, cells)) + " |" for cells in every))
