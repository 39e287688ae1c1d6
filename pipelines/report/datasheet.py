"""The datasheet that a synthetic dataset travels with.

Its sections are those of Gebru et al. 2021, "Datasheets for Datasets" (https://arxiv.org/abs/1803.09010), for data that
nobody collected: what they are, how they were made, what they can stand in for and what they cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.findings import QUESTIONS, findings
from postprior.pipelines.report.findings.words import number_with, percent
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import Markdown, code, markdown
from postprior.stage1_vae.modalities import Modality

LIMITS = (
    "What the autoencoder cannot decode or the density has not learned is missing: rare rows and groups first.",
    "Relations between modalities hold as far as the scores above say, and no further.",
    "Every score is of one set of samples from one training run, on held-out rows of the same source.",
)
GUARANTEE = Markdown(
    "These data are **not differentially private**: tests find the leaks they look for, and passing them is no "
    "guarantee."
)
AVOID = (
    "decisions about a person, or statements about any record of the real data;",
    "the last test of a model that will work on real data: test on real rows;",
    "studies of rare groups or of extreme values, which generated data smooth away;",
    "training of a further generator, whose faults would add to these;",
    "proof that data are anonymous.",
)


def datasheet(row: Row, results: Results, params: Params, dataset: Dataset) -> str:
    """The datasheet of a density's synthetic dataset, as Markdown; the same files give the same bytes.

    Args:
        row: of the density.
        results: of the comparison.
        params: the settings that led here.
        dataset: the samples.
    """
    rows = tuple(r for r in results.rows if r is row or (r.kind in ("data", "floor") and not r.source))
    found: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for finding in findings(replace(results, rows=rows, augmentation={})):
        if finding.about != "No guarantee":  # said here, whether or not tests ran
            found[finding.question].append(finding.text)
    parts = {
        "Motivation": _motivation(params, dataset),
        "Composition": _composition(dataset),
        "Collection": _collection(row, params, dataset),
        "What it is faithful to": [*_scores(row, results, "faithful"), *_points(found["faithful"])],
        "What it is useful for": [*_scores(row, results, "useful"), *_points(found["useful"])],
        "Privacy": [*_scores(row, results, "leaks"), *_points([*found["leaks"], GUARANTEE])],
        "Limits": _points([*_values(dataset), *LIMITS, *found["basis"]]),
        "Uses to avoid": ["Do not use these data for", "", *_points([*_unsafe(row), *AVOID])],
        "Distribution and citation": _citation(row, dataset),
    }
    text = [
        f"# Datasheet of the synthetic dataset {markdown(row.name)}",
        "",
        "Written by `postprior compare`, from files alone.",
    ]
    for title, lines in parts.items():
        text += ["", f"## {title}", "", *lines]
    return "\n".join(text).replace("\u202f", " ") + "\n"


def _motivation(params: Params, dataset: Dataset) -> list[str]:
    return [
        f"{len(dataset)} synthetic tuples of {len(dataset.modalities)} modalities, made to stand in for real data "
        f"(source {code(params.data.source)}) where these cannot be shared, or to be added to them where they are few.",
    ]


def _composition(dataset: Dataset) -> list[str]:
    """Modalities and labels, with their shares."""
    header = ("modality", "kind", "shape", "values", "missing")
    missing = 1 - dataset.observed.mean(0)
    cells = [
        (m.name, m.kind, " × ".join(map(str, m.shape)), _range(m), percent(float(share), 0))
        for m, share in zip(dataset.modalities, missing, strict=True)
    ]
    return [
        "Each row is drawn from a density of codes and decoded, independently of the others; how near rows come to "
        "records of real data stands under Privacy.",
        "",
        *_table(header, cells),
        *_labels(dataset),
    ]


def _range(modality: Modality) -> str:
    """What values a modality takes."""
    if modality.columns:
        return ", ".join(
            f"{column.name} ({column.likelihood.replace('_', ' ')})" for column in modality.columns
        )
    if modality.classes is not None:
        return f"{modality.classes} classes"
    return "unbounded" if modality.range is None else f"{modality.range[0]:g} to {modality.range[1]:g}"


def _labels(dataset: Dataset) -> Iterator[str]:
    if dataset.labels is None:
        yield from ("", "There are no labels.")
        return
    numbers, counts = np.unique(dataset.labels, return_counts=True)
    names = dataset.label_names or tuple(map(str, range(int(numbers.max()) + 1)))
    of_judges = dataset.provenance.get("labels_from") == "judges"
    origin = (
        "were given by the judges, classifiers of real data" if of_judges else "were drawn by the density"
    )
    yield from ("", f"Labels {origin}:", "")
    shares = [
        (names[number], int(count), percent(count / len(dataset)))
        for number, count in zip(numbers, counts, strict=True)
    ]
    yield from _table(("label", "rows", "share"), shares)


def _collection(row: Row, params: Params, dataset: Dataset) -> list[str]:
    """How the rows were made: model, density, seed and settings."""
    origin = dataset.provenance
    kind = origin.get("sampler", "unknown")
    values = {"mean": "means of the decoders", "draws": "draws from the decoders' likelihoods"}
    settings = [
        ("real data", Markdown(f"source {code(params.data.source)}")),
        ("rows that the density learned from", row.scores.get("rows", {}).get("used", "unknown")),
        ("autoencoder", f"{params.vae.model}, {params.vae.latent} latent dimensions, seed {params.seed}"),
        ("density of the codes", row.name if row.name == kind else f"{row.name}, of kind {kind}"),
        ("seed of the samples", origin.get("seed", "unknown")),
        ("condition", _condition(origin.get("labels"))),
        ("values", values.get(str(origin.get("values")), "unknown")),
        ("temperature", origin.get("temperature", "unknown")),
        ("truncation", origin.get("truncation", "unknown")),
    ]
    about = (
        "Nothing was collected: an autoencoder was trained on the real rows, a density was fitted to their codes, and "
        "draws of it were decoded. All settings are in `params.yaml` and in the report's table of settings."
    )
    return [about, "", *_table(("what", "how"), settings)]


def _condition(labels: Any) -> str:
    """What labels were asked for."""
    if isinstance(labels, dict):
        return ", ".join(f"{count} of {name}" for name, count in labels.items())
    return str(labels) if labels else "none, as learned"


def _scores(row: Row, results: Results, question: str) -> Iterator[str]:
    """The scores that answer a question, beside those of real rows."""
    real = results.beside(row, "real")
    lines = []
    for metric in LEADERBOARD:
        found, theirs = row.estimate(*metric.keys), real.estimate(*metric.keys)
        if metric.question == question and found:
            shown = [number_with(e, metric.decimals) if e else "–" for e in (found, theirs)]
            lines.append((metric.heading, *shown, metric.about))
    if lines:
        yield from _table(("score", "these data", "real, held out", "what it is"), lines)
        yield ""


def _values(dataset: Dataset) -> Iterator[str]:
    """What the way in which values and codes were drawn means for their use."""
    if dataset.provenance.get("values") == "mean":
        yield "Values are means of the decoders: they are smoother than real ones and vary less."
    if dataset.provenance.get("temperature", 1.0) != 1.0 or dataset.provenance.get("truncation"):
        yield "The draws are more typical than real rows: the temperature is below 1, or unlikely codes were left out."


def _unsafe(row: Row) -> list[str]:
    flagged = row.scores.get("privacy", {}).get("flagged")
    return (
        ["any purpose outside the circle that may see the real data: tests of privacy flag them;"]
        if flagged
        else []
    )


def _citation(row: Row, dataset: Dataset) -> list[str]:
    """The hashes by which these data are known, and how to check them."""
    names = ("data", "autoencoder", "density")
    hashes = [("this dataset", code(dataset.hash))]
    hashes += [
        (f"{name} behind it", code(dataset.provenance[name]))
        for name in names
        if dataset.provenance.get(name)
    ]
    return [
        "Name the dataset by its hash, and what it was made from by theirs:",
        "",
        *_table(("what", "sha256"), hashes),
        "",
        "Whoever holds the folder checks that it is the one described here:",
        "",
        '    python -c "from pathlib import Path; from postprior.pipelines.storage import folder_hash; '
        f"print(folder_hash(Path('{row.name}')))\"",
        "",
        "The folder's `manifest.json` names what is behind it; beside it lies one array a modality. The licence and "
        "the terms of the real data bind what is made from them.",
    ]


def _points(texts: Sequence[str]) -> list[str]:
    return [f"- {markdown(text)}" for text in texts]


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A table in Markdown."""
    for cells in (header, [Markdown("---")] * len(header), *lines):
        yield "| " + " | ".join(map(markdown, cells)) + " |"
