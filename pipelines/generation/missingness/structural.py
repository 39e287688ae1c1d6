"""Structural missingness: values that are missing because a level of another column leaves nothing to observe."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import lgamma
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.arrays import Rows
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.missingness.units import Flags, Units
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.settings.names import listed
from postprior.stage1_vae.modalities import support

FEWEST = 5  # rows on each side of a rule
EXACT = 0.999  # share of the rows of a level that must agree
CHANCE = np.log(
    1e-6
)  # log-probability of the counts of a level, if absence did not depend on it, below which they count
MOST = 32  # levels of a column that may decide
LABEL = "label"
ColumnKey = tuple[str, int] | None
"""A column of a table, by modality and index, or None for the label."""


@dataclass(frozen=True)
class StructuralRule:
    """A unit that rows lack at some levels of a column, and never lack at others.

    Attributes:
        unit: the unit, as `Units` numbers them.
        column: the column that decides.
        absent: levels at which all rows lack the unit.
        present: levels at which no row lacks it.
        free: the other levels of training rows, at which the rule says nothing.
    """

    unit: int
    column: ColumnKey
    absent: tuple[int, ...]
    present: tuple[int, ...]
    free: tuple[int, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """All levels of training rows."""
        return tuple(sorted((*self.absent, *self.present, *self.free)))

    def decided(self, level: Ints) -> tuple[Flags, Flags]:
        """Return at which of the levels (n,) rows lack the unit, and at which they have it; neither at free levels."""
        return np.isin(level, self.absent), np.isin(level, self.present)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description."""
        return asdict(self)

    @classmethod
    def from_description(cls, entry: dict[str, Any]) -> Self:
        """Return the rule that `describe` described."""
        column = None if entry["column"] is None else (str(entry["column"][0]), int(entry["column"][1]))
        return cls(int(entry["unit"]), column, *(tuple(map(int, entry[key])) for key in ("absent", "present", "free")))


@dataclass(frozen=True, eq=False)
class LevelColumn:
    """A column of few levels: the level of each row (N,), and which rows have it (N,)."""

    column: ColumnKey
    level: Ints
    seen: Flags


def level_of(column: ColumnKey, data: Mapping[str, Rows], labels: Ints | None) -> Ints:
    """Return the level (n,) of rows with these values of modalities and labels (n,); −1 for rows without a label."""
    if column is None:
        assert labels is not None
        return labels
    name, place = column
    return np.rint(data[name][:, place]).astype(np.int64)


def level_columns(data: Dataset, labels: Ints | None, rows: Ints) -> Iterator[LevelColumn]:
    """Yield the columns of whole numbers with at most `MOST` levels, and the label, of rows (N,)."""
    if labels is not None:
        yield LevelColumn(None, labels, labels >= 0)
    for modality in data.modalities:
        places = [
            j
            for j, c in enumerate(modality.columns)
            if c.likelihood == "bernoulli" or support(c.likelihood, c.classes)[2]
        ]
        if places:
            values = {modality.name: np.asarray(data.data[modality.name][rows])}
            seen = ~data.missing(modality.name)[rows]
            for place in places:
                column = (modality.name, place)
                level = level_of(column, values, None)
                if len(np.unique(level[seen[:, place]])) <= MOST:
                    yield LevelColumn(column, level, seen[:, place])


def structural_rules(units: Units, absent: Flags, columns: Sequence[LevelColumn]) -> tuple[StructuralRule, ...]:
    """Find the rule of each unit that holds for most rows; rows (N, U) lack the units `absent`.

    A column decides only about units that more rows lack than lack the column, so that rules form no circle. They are
    returned in the order in which they apply.
    """
    applicable = units.applicable(absent)
    lacking = (absent | ~applicable).sum(0)
    best: dict[int, tuple[int, StructuralRule]] = {}
    for column in columns:
        levels, index = np.unique(column.level[column.seen], return_inverse=True)
        one_hot = (index == np.arange(len(levels))[:, None]).astype(np.float32)  # (L, n)
        could, lacks = (one_hot @ flags[column.seen].astype(np.float32) for flags in (applicable, applicable & absent))
        for unit in np.flatnonzero((lacking > (~column.seen).sum()) & (lacks.sum(0) >= FEWEST)).tolist():
            n, k = could[:, unit], lacks[:, unit]
            if n.sum() - k.sum() < FEWEST:
                continue
            clear = (n >= FEWEST) & (_log_chance(n, k) < CHANCE)
            verdicts = clear & (k >= EXACT * n), clear & (k <= (1 - EXACT) * n)
            rows = int(n[verdicts[0] | verdicts[1]].sum())
            if rows > best.get(unit, (0,))[0]:
                parts = (*verdicts, ~(verdicts[0] | verdicts[1]))
                found = (tuple(levels[part].tolist()) for part in parts)
                best[unit] = rows, StructuralRule(unit, column.column, *found)
    return tuple(best[unit][1] for unit in sorted(best, key=lambda unit: (lacking[unit], unit)))


def _log_chance(n: Floats, k: Floats) -> Floats:
    """Return the log-probability of k of n rows at each level (L,) if levels do not matter, a hypergeometric law."""
    N, K = float(n.sum()), float(k.sum())

    def choose(total: float, chosen: float) -> float:
        return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)

    counts = zip(n.tolist(), k.tolist(), strict=True)
    return np.array([choose(K, k_l) + choose(N - K, n_l - k_l) - choose(N, n_l) for n_l, k_l in counts])


def sentences(rules: Sequence[StructuralRule], units: Units, data: Dataset) -> list[str]:
    """Return rules as sentences for readers, one for all units that follow the same levels in the same way."""
    alike: dict[tuple[Any, ...], list[StructuralRule]] = {}
    for rule in rules:
        alike.setdefault((rule.column, rule.absent, rule.present), []).append(rule)
    return [_sentence(group, units, data) for group in alike.values()]


def _sentence(rules: Sequence[StructuralRule], units: Units, data: Dataset) -> str:
    """Return rules that differ only in their units as a sentence."""
    name, text = _names_of_levels(rules[0], data)
    parts = [
        f"{word} where {name} is {listed(text(level) for level in levels)}"
        for word, levels in (("missing", rules[0].absent), ("never missing", rules[0].present))
        if levels
    ]
    return f"{listed(units.title(rule.unit) for rule in rules)}: {', '.join(parts)}"


def _names_of_levels(rule: StructuralRule, data: Dataset) -> Any:
    """Return the name of the column that decides, and a function that returns the text of a level."""
    if rule.column is None:
        names = data.label_names
        return LABEL, lambda level: str(level) if names is None else names[level]
    modality_name, place = rule.column
    modality = next(m for m in data.modalities if m.name == modality_name)
    entry = (data.conversion or {}).get("modalities", {}).get(modality_name)
    if entry is None:
        return modality.columns[place].name, str
    from postprior.pipelines.data.conversion import TableConversion, from_description  # they import pyarrow

    conversion = from_description(modality_name, entry)
    assert isinstance(conversion, TableConversion)
    column = conversion.columns[place]
    return column.name, lambda level: str(column.decode(np.array([level]), np.array([True]))[0])
