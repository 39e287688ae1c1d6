"""Read what the report shows of the cells of tables and vectors, real beside synthetic, in the units of their files.

The real rows are those of the reference set, with which all rows of the leaderboard are compared; the synthetic rows
are those that are scored. Only the densities of this project are shown, at most `SHOWN` of them, the best first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import cells_as_texts, is_temporal, values_as_texts
from postprior.pipelines.metrics.statistics.intervals import FEWEST as FEWEST_SCORED
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.tables.associations import associations
from postprior.pipelines.metrics.tables.column_tests import column_key
from postprior.pipelines.metrics.tables.columns import Sides, columns_of
from postprior.pipelines.metrics.tables.marginals import Marginal, of_classes, of_numbers
from postprior.pipelines.metrics.tables.patterns import SINGLE, Part, Pattern, missing_patterns, missing_rates
from postprior.pipelines.report.features import Features, features_of
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.verdict import verdict
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import load_artefact
from postprior.stage1_vae.modalities import Modality

REAL = "Real"
"""The name of the real rows among the sets of rows."""
SHOWN = 4  # densities in the figures, at most
HARDEST = 12  # columns whose distributions are shown
RELATED, CANDIDATES = 20, 60  # columns whose associations are shown, and from which these are chosen
ROWS, LINES = 4, 40  # rows of each set that are shown in full, and their columns
PATTERNS = 8  # patterns of missing parts
VECTORS = 3  # vectors that are shown
FEWEST = 10  # rows that a class or a pattern needs on a page that can be shared
TICKS = 3  # dates on an axis

Names = Mapping[Part, str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its name for readers.
        shapes: the score of its distribution, by row of the leaderboard.
        invalid: the share of cells that the training rows do not allow, by row of the leaderboard.
        marginal: its distribution; None except for the hardest columns.
        texts: texts of the classes of the distribution.
        ticks: places and texts on the axis of dates; empty for other columns.
    """

    title: str
    shapes: Mapping[str, float]
    invalid: Mapping[str, float]
    marginal: Marginal | None = None
    texts: tuple[str, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Associations:
    """Associations (K, K) of columns by set of rows, and how many columns of tables are left out."""

    titles: tuple[str, ...]
    matrices: Mapping[str, Floats]
    left_out: int


@dataclass(frozen=True)
class Examples:
    """Rows as export writes them: by set of rows, the texts of each of the lines; None where a cell is missing."""

    lines: tuple[str, ...]
    texts: Mapping[str, Sequence[Sequence[str | None]]]
    left_out: int


@dataclass(frozen=True)
class Cells:
    """What the report shows of tables and vectors.

    Attributes:
        rows: number of rows of each set: `REAL`, and densities, that of the verdict first.
        columns: all columns of tables, the hardest for the best density first.
        associations: None with fewer than two columns.
        missing_rates: the share of rows that lack a part, by its name and set of rows.
        missing_patterns: the commonest patterns of missing parts.
        constraints: the share of rows that violate a constraint of the data, by its text and set of rows.
        vectors: the vectors.
        examples: rows in full; None on a page that can be shared, because they show real rows.
        names: names of parts for readers.
        not_shown: names of further densities.
    """

    rows: Mapping[str, int]
    columns: tuple[Column, ...]
    associations: Associations | None
    missing_rates: Mapping[str, Mapping[str, float]]
    missing_patterns: Sequence[Pattern]
    constraints: Mapping[str, Mapping[str, float]]
    vectors: tuple[Features, ...]
    examples: Examples | None
    names: Names
    not_shown: tuple[str, ...] = ()

    @property
    def densities(self) -> tuple[str, ...]:
        """The densities, the best first."""
        return tuple(name for name in self.rows if name != REAL)


def cells_of(params: Params, project: Project, results: Results, shareable: bool = False) -> Cells | None:
    """Read real and synthetic rows and summarise them; None without tables and vectors, or with too few rows.

    With `shareable`, nothing shows single real rows: examples are left out, and so are classes and patterns that fewer
    than `FEWEST` of the real rows have, and bins of numbers that begin among so few.
    """
    modalities = project.synthetic(params.densities[0]).modalities
    if not any(m.tabular for m in modalities):
        return None
    best = verdict(results).density
    every = sorted((row for row in results.densities if not row.source), key=lambda row: row is not best)
    rows = every[:SHOWN]
    sets = _sets(project, rows)
    if min(map(len, sets.values())) < FEWEST_SCORED:
        return None
    fewest = FEWEST if shareable else 1
    names = _names(modalities)
    sides = {row.name: columns_of(sets[REAL], sets[row.name]) for row in rows}
    columns, order = _columns(sides, results, names, sets[REAL], fewest)
    parts = missing_rates(sets)
    vectors = [m for m in modalities if m.kind == "vector"][:VECTORS]
    return Cells(
        {name: len(rows) for name, rows in sets.items()},
        columns,
        _associations(sides, order, names),
        {names[part]: shares for part, shares in parts.items()},
        missing_patterns(sets, REAL, PATTERNS, fewest) if parts else (),
        _constraints(sets),
        tuple(features_of(vector, sets, REAL, fewest) for vector in vectors),
        None if shareable else _examples(sets, names),
        names,
        tuple(row.name for row in every[SHOWN:]),
    )


def _sets(project: Project, rows: Sequence[Row]) -> dict[str, Dataset]:
    """Return the tables and vectors of the real rows, and of the scored rows of each density."""
    places = np.asarray(load_artefact(project.artefacts.baselines, "reference").arrays["rows.reference"])
    sets = {REAL: _narrowed(project.dataset("test")).select(places)}
    for row in rows:
        sets[row.name] = _narrowed(project.synthetic(row.name)).select(np.arange(row.scores["samples"]))
    return sets


def _narrowed(rows: Dataset) -> Dataset:
    """Return rows without the values of other modalities than tables and vectors, whose masks stay."""
    values = {
        m.name: rows.data[m.name] if m.tabular else np.broadcast_to(np.float32(0), (len(rows), *(1 for _ in m.shape)))
        for m in rows.modalities
    }
    shown = {m.name for m in rows.modalities if m.tabular}
    cells = {name: seen for name, seen in rows.cells.items() if name in shown}
    sources = {name: rows.source_values[name] for name in rows.source_values if name in shown}
    return replace(rows, data=values, cells=cells, source_values=sources, filled_cells={})


def _names(modalities: Sequence[Modality]) -> dict[Part, str]:
    """Return the names of columns and modalities; a column that several tables have is named after its table, too."""
    headers = [column.name for m in modalities for column in m.columns]
    names: dict[Part, str] = {(m.title, ""): m.title for m in modalities}
    names |= {(m.title, SINGLE): f"{m.title}, {SINGLE}" for m in modalities if m.kind == "vector"}
    for m in modalities:
        for column in m.columns:
            names[m.title, column.name] = column.name if headers.count(column.name) == 1 else f"{m.title}.{column.name}"
    return names


def _columns(
    sides: Mapping[str, Sequence[Sides]], results: Results, names: Names, real: Dataset, fewest: int
) -> tuple[tuple[Column, ...], list[int]]:
    """Return the columns, the hardest for the first density first, and their numbers in this order."""
    scored = [row for row in results.rows if not row.source and row.kind != "seeds"]
    first = next(iter(sides.values()))
    found = [_column(side, scored, names) for side in first]
    best = next(iter(sides))
    order = sorted(range(len(found)), key=lambda c: found[c].shapes.get(best, np.inf))
    columns = [found[c] for c in order]
    for place, c in enumerate(order[:HARDEST]):
        values = {REAL: first[c].real} | {name: own[c].fake for name, own in sides.items()}
        columns[place] = _with_marginal(columns[place], first[c], values, real, fewest)
    return tuple(columns), order


def _column(side: Sides, rows: Sequence[Row], names: Names) -> Column:
    """Return a column with its scores in the results."""
    keys = ("modalities", side.table.title, "columns", column_key(side.name))
    shapes, valid = (
        {row.name: found.value for row in rows if (found := row.estimate(*keys, part))} for part in ("shape", "valid")
    )
    return Column(names[side.table.title, side.name], shapes, {name: 1 - share for name, share in valid.items()})


def _with_marginal(column: Column, side: Sides, values: Mapping[str, Floats], real: Dataset, fewest: int) -> Column:
    """Return a column with its distribution, and the texts that its axis needs."""
    place = [own.name for own in side.table.columns].index(side.name)
    if side.classes:
        marginal = of_classes(values, REAL, side.table.columns[place].classes or 2, fewest)
        texts = values_as_texts(side.table, place, np.array(marginal.classes, float), real.conversion)
        return replace(column, marginal=marginal, texts=tuple(texts))
    marginal = of_numbers(values, REAL, fewest)
    if marginal.edges is None or not is_temporal(side.table, place, real.conversion):
        return replace(column, marginal=marginal)
    chosen = marginal.edges[np.linspace(0, len(marginal.edges) - 1, TICKS).astype(int)]
    texts = values_as_texts(side.table, place, chosen, real.conversion)
    return replace(column, marginal=marginal, ticks=tuple(zip(chosen.tolist(), texts, strict=True)))


def _associations(sides: Mapping[str, Sequence[Sides]], order: Sequence[int], names: Names) -> Associations | None:
    """Return the associations of all columns, or of those whose associations differ most among the hardest."""
    first = next(iter(sides.values()))
    if len(first) < 2:
        return None
    chosen = sorted(order[:CANDIDATES])
    classes = [first[c].classes for c in chosen]
    best = next(iter(sides))
    matrices = {
        REAL: associations([first[c].real for c in chosen], classes),
        best: associations([first[c].fake for c in chosen], classes),
    }
    if len(chosen) > RELATED:
        apart = np.nan_to_num(np.abs(matrices[best] - matrices[REAL])).max(1)
        kept = np.sort(np.argsort(-apart, kind="stable")[:RELATED])
        matrices = {name: matrix[np.ix_(kept, kept)] for name, matrix in matrices.items()}
        chosen = [chosen[k] for k in kept]
        classes = [classes[k] for k in kept]
    matrices |= {
        name: associations([own[c].fake for c in chosen], classes) for name, own in sides.items() if name != best
    }
    titles = tuple(names[first[c].table.title, first[c].name] for c in chosen)
    return Associations(titles, matrices, len(first) - len(chosen))


def _constraints(sets: Mapping[str, Dataset]) -> dict[str, dict[str, float]]:
    """Return the share of rows that violate each constraint, by its text and set of rows."""
    if not (sets[REAL].conversion or {}).get("constraints"):
        return {}
    from postprior.pipelines.data.constraints.keeping import violations  # imports pyarrow

    found = {name: violations(replace(rows, conversion=sets[REAL].conversion)) for name, rows in sets.items()}
    return {text: {name: float(violated[text].mean()) for name, violated in found.items()} for text in found[REAL]}


def _examples(sets: Mapping[str, Dataset], names: Names) -> Examples | None:
    """Return evenly spaced real rows, and the first, random ones of the densities; None without tables."""
    tables = [m for m in sets[REAL].modalities if m.kind == "table"]
    if not tables:
        return None
    lines: dict[str, None] = {}
    texts: dict[str, dict[str, list[str | None]]] = {}
    for name, rows in sets.items():
        places = np.linspace(0, len(rows) - 1, ROWS) if name == REAL else np.arange(ROWS)
        some = rows.select(np.unique(places.astype(int)[places < len(rows)]))
        own: dict[str, list[str | None]] = {}
        if some.labels is not None and some.label_names is not None:
            label = ((rows.conversion or {}).get("labels") or {}).get("name") or "label"
            own[label] = [some.label_names[k] if k >= 0 else None for k in some.labels]
        for table in tables:
            written = cells_as_texts(table, some)
            own |= {names.get((table.title, header), header): column for header, column in written.items()}
        texts[name] = own
        lines |= dict.fromkeys(own)
    shown = list(lines)[:LINES]
    absent = [None] * ROWS
    return Examples(
        tuple(shown),
        {name: [own.get(line, absent) for line in shown] for name, own in texts.items()},
        len(lines) - len(shown),
    )
