"""Which cells rows lack: the missing rate of every column, and the patterns of what is missing together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.fidelity.holes import missing_shares
from postprior.pipelines.metrics.statistics.intervals import Floats

Part = tuple[str, str]
"""A part of a row that can be missing: the title of a modality, and a column of it, "" for a whole modality."""
SINGLE = "values"
"""The column of the rate of missing single values of a vector."""


@dataclass(frozen=True)
class Pattern:
    """What the rows of a pattern lack, and the share of the rows that have it, by set of rows."""

    missing: tuple[Part, ...]
    shares: dict[str, float]


def parts_missing(rows: Dataset) -> tuple[list[Part], NDArray[np.bool_]]:
    """Return the parts of rows that can be missing, columns of tables and whole modalities, and which are (N, P)."""
    parts: list[Part] = []
    missing = [np.empty((len(rows), 0), bool)]
    for modality, observed in zip(rows.modalities, rows.observed.T, strict=True):
        if modality.kind == "table":
            parts += [(modality.title, column.name) for column in modality.columns]
            missing.append(rows.missing(modality.name))
        else:
            parts.append((modality.title, ""))
            missing.append(~observed[:, None])
    return parts, np.concatenate(missing, axis=1)


def missing_rates(sets: Mapping[str, Dataset]) -> dict[Part, dict[str, float]]:
    """Return the share of rows that lack a part, by part and set of rows; parts that no row lacks are left out.

    The part `SINGLE` of a vector has the share of its values that the rows with this vector lack.
    """
    found = {name: parts_missing(rows) for name, rows in sets.items()}
    parts = next(iter(found.values()))[0] if found else []
    rates = {
        part: {name: float(missing[:, p].mean()) for name, (_, missing) in found.items()}
        for p, part in enumerate(parts)
    }
    single = {name: missing_shares(rows) for name, rows in sets.items()}
    for vector in [m for m in next(iter(sets.values())).modalities if m.kind == "vector"]:
        shares = {name: own.get(vector.name, {}).get("values", 0.0) for name, own in single.items()}
        rates[vector.title, SINGLE] = shares
    return {part: shares for part, shares in rates.items() if any(shares.values())}


def missing_patterns(sets: Mapping[str, Dataset], real: str, most: int, fewest: int = 1) -> list[Pattern]:
    """Return the patterns of missing parts, those that most rows of the set `real` have first, at most `most`.

    A pattern that no row of this set has comes after those. Patterns of one up to `fewest` − 1 of its rows are left
    out. A table that lacks all columns counts as a missing modality.
    """
    found = {name: parts_missing(rows) for name, rows in sets.items()}
    parts = found[real][0]
    lines = np.concatenate([missing for _, missing in found.values()])
    owner = np.repeat(np.arange(len(found)), [len(missing) for _, missing in found.values()])
    patterns, codes = np.unique(lines, axis=0, return_inverse=True)
    counts: Floats = np.zeros((len(patterns), len(found)))
    np.add.at(counts, (codes.reshape(-1), owner), 1)
    place = list(found).index(real)
    shares = counts / np.maximum(counts.sum(0), 1)
    order = np.lexsort((-shares.sum(1), -counts[:, place]))
    kept = [p for p in order if not 0 < counts[p, place] < fewest][:most]
    return [Pattern(_joined(parts, patterns[p]), dict(zip(found, shares[p].tolist(), strict=True))) for p in kept]


def _joined(parts: list[Part], missing: NDArray[np.bool_]) -> tuple[Part, ...]:
    """Return the missing parts; the columns of a table that are all missing become the table."""
    whole: dict[str, bool] = {}
    for (title, _), absent in zip(parts, missing, strict=True):
        whole[title] = whole.get(title, True) and bool(absent)
    named = [(title, "") if whole[title] else (title, column) for title, column in np.array(parts, object)[missing]]
    return tuple(dict.fromkeys(named))
