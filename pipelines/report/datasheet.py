"""Write the datasheet of a synthetic dataset; datasheet.md is its template.

The sections follow Gebru et al. 2021, "Datasheets for Datasets" (https://arxiv.org/abs/1803.09010).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.fidelity.holes import missing_shares
from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.findings import QUESTIONS, findings
from postprior.pipelines.report.findings.leaks import NO_GUARANTEE
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.wording import number_cell, percent, template
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import Markdown, enumerated, markdown, markdown_code
from postprior.stage1_vae.modalities import Modality

SCORES = ("score", "this dataset", "real, held out", "what it measures")
DEFAULTS = {"labels_from": None, "values": None, "temperature": 1.0, "truncation": 0.0}
MOST = 20
"""Greatest number of constraints that are listed."""
ORIGINS = {"data": "training data", "autoencoder": "autoencoder", "refiner": "refiner", "density": "density"}
VALUES = {
    "mean": "means of the decoders",
    "draws": "draws from the decoders' likelihoods",
    "auto": "draws from the decoders' likelihoods in tables and vectors, means of the decoders in other modalities",
    "refined": "draws from the decoders' likelihoods in tables and vectors, draws of the refiner given the means of "
    "the decoders in images and volumes",
}
COMPLETE = {False: "as in the training rows", True: "none"}


def datasheet(row: Row, results: Results, params: Params, dataset: Dataset) -> str:
    """Return the datasheet of a density's synthetic dataset as Markdown; the same files give the same bytes."""
    rows = tuple(r for r in results.rows if r is row or (r.kind in ("data", "baseline") and not r.source))
    sentences: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for finding in findings(replace(results, rows=rows, augmentation={}), row):
        if finding.topic != NO_GUARANTEE:  # the template says so in any case
            sentences[finding.question].append(finding.text)

    def answer(question: str) -> Markdown:
        points = "\n".join(f"- {markdown(text)}" for text in sentences[question])
        scores = list(_scores(row, results, question))
        return Markdown("\n\n".join(filter(None, [_table(SCORES, scores) if scores else "", points])))

    text = template("datasheet.md", finalize=markdown, keep_trailing_newline=True).render(
        row=row,
        dataset=dataset,
        origin=DEFAULTS | dataset.provenance,
        sentences=sentences,
        answer=answer,
        table=_table,
        source=markdown_code(params.data.source),
        modalities=_modalities(dataset),
        labels=list(_labels(dataset)),
        constraints=_constraints(dataset),
        settings=_settings(row, params, dataset),
        hashes=_hashes(dataset),
        folder=Markdown(row.name),
    )
    return text.replace("\u202f", " ")


def _modalities(dataset: Dataset) -> list[tuple[Any, ...]]:
    """Return name, kind, shape, values and missing shares of each modality."""
    shares = missing_shares(dataset)
    return [
        (m.title, m.kind, " × ".join(map(str, m.shape)), _range(m), _missing(shares.get(m.name, {})))
        for m in dataset.modalities
    ]


def _missing(shares: Mapping[str, float]) -> str:
    """Describe the shares of rows without a modality, and of values that the others lack."""
    rows = percent(shares.get("rows", 0.0), 0)
    return f"{rows}; {percent(shares['values'], 0)} of the values of other rows" if shares.get("values") else rows


def _range(modality: Modality) -> str:
    """Describe the values that a modality takes."""
    if modality.columns:
        return ", ".join(f"{column.name} ({column.likelihood.replace('_', ' ')})" for column in modality.columns)
    if modality.classes is not None:
        return f"{modality.classes} classes"
    return "unbounded" if modality.range is None else f"{modality.range[0]:g} to {modality.range[1]:g}"


def _labels(dataset: Dataset) -> Iterator[tuple[Any, ...]]:
    """Yield name, number of rows and share of each label."""
    if dataset.labels is not None:
        numbers, counts = np.unique(dataset.labels, return_counts=True)
        names = dataset.label_names or tuple(map(str, range(int(numbers.max()) + 1)))
        for number, count in zip(numbers, counts, strict=True):
            yield names[number] if number >= 0 else "none", int(count), percent(count / len(dataset))


def _constraints(dataset: Dataset) -> tuple[str, int] | None:
    """Return the constraints that all real rows keep, and how many rows of the dataset violate one."""
    if not (dataset.conversion or {}).get("constraints"):
        return None
    from postprior.pipelines.data.constraints.keeping import violations  # imports pyarrow

    found = violations(dataset)
    return enumerated([*found], MOST), int(np.any([*found.values()], 0).sum())


def _settings(row: Row, params: Params, dataset: Dataset) -> list[tuple[str, Any]]:
    """Return how the dataset was generated: model, density, seed and settings."""
    origin, labels = dataset.provenance, dataset.provenance.get("labels")
    if isinstance(labels, dict):
        labels = ", ".join(f"{count} of {name}" for name, count in labels.items())
    kind = origin.get("sampler", "unknown")
    return [
        ("real data", Markdown(f"source {markdown_code(params.data.source)}")),
        ("rows that the density was fitted to", row.scores.get("rows", {}).get("used", "unknown")),
        ("autoencoder", f"{params.vae.told}, seed {params.seed}"),
        ("density of the latent codes", row.name if row.name == kind else f"{row.name}, of kind {kind}"),
        ("seed of the samples", origin.get("seed", "unknown")),
        ("condition", str(labels or "none (unconditional)")),
        ("values", VALUES.get(str(origin.get("values")), "unknown")),
        ("temperature", origin.get("temperature", "unknown")),
        ("truncation", origin.get("truncation", "unknown")),
        *([] if "complete" not in origin else [("missing values", COMPLETE[origin["complete"]])]),
    ]


def _scores(row: Row, results: Results, question: str) -> Iterator[tuple[str, ...]]:
    """Yield the scores that answer a question, and those of real rows."""
    real = results.baseline_of(row, "real")
    for metric in LEADERBOARD:
        estimates = [scored.estimate(*metric.keys) for scored in (row, real)]
        if metric.question == question and estimates[0]:
            cells = [number_cell(estimate, metric.decimals) if estimate else "–" for estimate in estimates]
            yield (metric.heading, *cells, metric.about)


def _hashes(dataset: Dataset) -> list[tuple[str, Markdown]]:
    """Return the hashes of the dataset and of what it was made from."""
    origins = {name: dataset.provenance.get(key) for key, name in ORIGINS.items()}
    return [
        ("this dataset", markdown_code(dataset.hash)),
        *((name, markdown_code(digest)) for name, digest in origins.items() if digest),
    ]


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> Markdown:
    """Return a table in Markdown."""
    table = (header, [Markdown("---")] * len(header), *lines)
    return Markdown("\n".join("| " + " | ".join(map(markdown, cells)) + " |" for cells in table))
