"""The labels of an import: rare classes, classes as numbers, and columns that are quantities rather than classes."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.categories import OTHER, RARE, common_values, grouped, value_counts
from postprior.pipelines.data.formats.contents import Named
from postprior.pipelines.data.importing.joining import Joined
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted

MOST = 1000
"""Greatest number of classes."""
MANY = 10
"""Greatest number of different numbers that are classes even if most rows have a rare one."""


def with_common_labels(joined: Joined, rare: str) -> tuple[Joined, dict[str, bool]]:
    """Return the samples with rare labels treated as `rare` says, null for no label, and what happened to them.

    A label is rare if fewer than `RARE` of all rows have it. `merge` gives rows with rare texts the label `OTHER`, and
    no label if that is rare too; rows with rare numbers get no label. `unlabelled` leaves all of them without a label,
    `keep` changes nothing. The second result has the key `others` if labels were merged, and `unlabelled` if some were
    taken away. A UserError is raised if the column has no labels, or looks like a quantity.
    """
    if joined.label is None:
        return joined, {}
    name, given = str(joined.label[0]), joined.label[1]
    every = _as_classes(given)
    _check_classes(name, every, rare)
    labels = every if rare == "unlabelled" else grouped(every, common_values(every, rare == "keep", MOST))
    if rare != "keep":
        values, counts = value_counts(labels)
        common = values.filter(pa.array(counts >= RARE))
        labels = pc.if_else(pc.is_in(labels, value_set=common), labels, pa.scalar(None, labels.type))
        if len(common) < 2:
            found = f"{len(common)} of {len(value_counts(every)[0])} classes found in {RARE} rows or more"
            raise UserError(f"label {name}: {found}, expected two; add --rare-labels keep, or leave --label out")
    if labels.equals(given):
        return joined, {}
    merged = every.filter(pc.not_equal(every, labels))
    removed = every.filter(pc.and_(every.is_valid(), labels.is_null()))
    notes, keep = list(joined.notes), "--rare-labels keep keeps them"
    if len(merged):
        notes.append(f"label {name}: {pc.count_distinct(merged)} rare classes merged into '{OTHER}'; {keep}")
    if len(removed):
        rare_classes = f"rare classes (of fewer than {RARE} rows, {pc.count_distinct(removed)} found)"
        notes.append(f"label {name}: {len(removed)} rows of {rare_classes} have no label; {keep}")
    treated = replace(joined, label=(name, labels), originals={name: given, **joined.originals}, notes=tuple(notes))
    happened = {"others": len(merged) > 0, "unlabelled": len(removed) > 0}
    return treated, {key: True for key, value in happened.items() if value}


def _as_classes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whole numbers as integers if they are floats only because some are missing, as in pandas."""
    if not (pa.types.is_floating(column.type) and column.null_count):
        return column
    whole = pc.all(pc.equal(column, pc.round(column)), min_count=0).as_py()
    return column.cast(pa.int64()) if whole else column


def _check_classes(name: str, column: pa.ChunkedArray, rare: str) -> None:
    """Refuse a column without labels, with one class, with too many, or with numbers that are a quantity."""
    values, counts = value_counts(column)
    text, target = pa.types.is_string(column.type), f"for a quantity use --target {shell_quoted(name)}"
    expected = "expected two classes or more; leave --label out"
    if len(values) < 2:
        found = f"only the class {values[0].as_py()!r}" if len(values) else "no label"
        raise UserError(f"label {name}: {found} found, {expected}")
    fractions = values.filter(pc.not_equal(values, pc.round(values))) if pa.types.is_floating(column.type) else None
    if fractions:
        found = f"values such as {fractions[0].as_py():g}"
        raise UserError(f"label {name}: {found} found, expected at most {MOST} classes; {target}")
    if not text and rare != "keep" and len(values) > MANY and 2 * counts[counts >= RARE].sum() < counts.sum():
        found = f"{len(values)} different numbers found, most of them in fewer than {RARE} rows"
        raise UserError(f"label {name}: {found}, expected classes; {target}, for classes add --rare-labels keep")
    if len(values) > MOST and (not text or rare == "unlabelled"):
        raise UserError(f"label {name}: {len(values)} different values found, expected at most {MOST}; {target}")


def class_indices(named: Named | None) -> tuple[Values | None, tuple[str, ...] | None]:
    """Return labels (N,) as indices of label names, −1 for null, and the names; None without labels."""
    if named is None:
        return None, None
    values = sorted(named[1].drop_null().unique().to_pylist())
    places = pc.index_in(named[1], value_set=pa.array(values, named[1].type)).fill_null(-1)
    return places.to_numpy().astype(np.int64), tuple(str(value) for value in values)
