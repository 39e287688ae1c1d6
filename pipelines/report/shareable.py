"""What a report without real rows shows: everything that a page to share is made of, without the rest.

The page that is made of these contents holds no real row, no id, no label that few rows have and no extreme value:

- pictures of real rows, of their reconstructions, of conditional generation and of nearest training rows are left out,
  and so are samples of densities that a privacy test flags;
- labels beside samples are left out if fewer than `FEWEST` training and test rows have them;
- of tables and vectors (`cells.cells_of`), rows in full are left out, and so are classes, patterns of missing cells,
  bins of numbers and statistics of features that fewer than `FEWEST` real rows determine;
- near copies, which name training rows, and the map of the codes, in which each point is a row, are left out;
- the settings of the data, which name files, are left out;
- of the hashes, only those of the synthetic datasets are shown: they let a recipient check a dataset. A hash of data or
  of a model that was fitted to it would confirm a guess of the last unknown row to someone who knows all others.

Scores are means over many rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.pictures import Sheet
from postprior.pipelines.report.cells import FEWEST
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.report.gallery import Pictures
from postprior.pipelines.report.page import Plot
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row

SPLITS = ("train", "test")
OF_REAL_ROWS = ("real", "reconstruction")


def without_rows(results: Results) -> Results:
    """Return results without the lists of near copies."""

    def stripped(row: Row) -> Row:
        if "privacy" not in row.scores:
            return row
        return replace(row, scores={**row.scores, "privacy": {**row.scores["privacy"], "near_copies": []}})

    return replace(results, rows=tuple(map(stripped, results.rows)))


def without_real(pictures: Pictures, results: Results, labels: Iterable[str]) -> Pictures:
    """Return the pictures of samples of densities that no test flags, and of the prior; only these labels are shown."""
    shown = set(labels)
    flagged = {row.name for row in results.rows if row.scores.get("privacy", {}).get("flagged")}
    samples = {
        name: _labelled(sheet, shown)
        for name, sheet in pictures.samples.items()
        if name not in flagged and name not in OF_REAL_ROWS
    }
    return Pictures(samples, {}, {})


def _labelled(sheet: Sheet, shown: set[str]) -> Sheet:
    return replace(sheet, labels=tuple(label if label in shown else "" for label in sheet.labels))


def frequent_labels(project: Project) -> list[str]:
    """Return the labels that at least `FEWEST` rows of the codes have; none if the codes were removed."""
    from postprior.pipelines.artefacts.codes import load_codes

    if not project.artefacts.codes.exists():
        return []
    tables = [load_codes(project.artefacts.codes / split) for split in SPLITS]
    names, labels = tables[0].label_names, [table.labels for table in tables if table.labels is not None]
    if names is None or not labels:
        return []
    counts = sum(np.bincount(one.numpy()[one.numpy() >= 0], minlength=len(names)) for one in labels)
    return [name for name, count in zip(names, np.asarray(counts).tolist(), strict=True) if count >= FEWEST]


def without_sources(settings: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the settings by dotted key without those of the data, which name files and columns."""
    return [(key, value) for key, value in settings if not key.startswith("data.")]


def of_synthetic(hashes: Iterable[tuple[str, str]], project: Project) -> list[tuple[str, str]]:
    """Return the hashes of synthetic datasets among those of folders."""
    place = project.artefacts.synthetic.relative_to(project.root).as_posix()
    return [(folder, found) for folder, found in hashes if folder.startswith(f"{place}/")]


def drawn(figures: Mapping[str, Sequence[Figure]], plots: Mapping[str, Plot]) -> dict[str, Plot]:
    """Return the images of figures, by name; those of equal figures are taken from `plots`."""
    images = {}
    for figure in (figure for group in figures.values() for figure in group):
        known = plots.get(figure.name)
        equal = known is not None and (known.figure.alt, known.figure.table) == (figure.alt, figure.table)
        images[figure.name] = known if known is not None and equal else Plot.of(figure)
    return images
