"""Cells of text files, and columns whose original values cannot be decoded from their numbers.

Such a column is stored next to its numbers in the type of its file. The texts of the cells of a CSV or TSV have the
type `CELL`, whatever they mean, to distinguish them from strings.
"""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import UNMODELLED, ColumnConversion, close, simplify_type
from postprior.pipelines.data.conversion.forms import CELL, PLAIN, SOME, Form


def as_cells(column: pa.ChunkedArray, mark: str) -> pa.ChunkedArray:
    """Format values as the texts of cells, which are empty where values are null."""
    return PLAIN.written(column, mark).fill_null("").cast(CELL)


def is_restored(decoded: pa.ChunkedArray, original: pa.ChunkedArray, mark: str = ".") -> bool:
    """Whether decoded values, written in the type of the file, equal the original ones exactly."""
    parts = [(decoded[rows], original[rows]) for rows in (slice(SOME), slice(SOME, None))]
    try:
        return all(_identical(_as_written(values, original.type, mark), expected) for values, expected in parts)
    except pa.ArrowException:
        return False


def restored(
    decoded: pa.Array, source: pa.ChunkedArray, matches: Values, mark: str | None, form: Form = PLAIN
) -> pa.Array:
    """Replace decoded values by those of the source wherever it `matches` (n,).

    If a decimal `mark` is given, the result is texts, otherwise values of the source's own type if possible.
    """
    chosen = pa.array(matches)
    if mark is not None:
        texts = source.cast(pa.string()) if source.type == CELL else PLAIN.written(source, mark)
        if (
            mark == "." and pa.types.is_floating(decoded.type) and not form.pattern
        ):  # the source has decimal commas, the new file has not
            texts = pc.replace_substring(texts, ",", mark)
        return pc.if_else(chosen, texts, form.written(decoded, mark)).combine_chunks()
    if source.type == CELL:
        null = pa.scalar(None, pa.string())  # a text that is not chosen may not be a value of the type
        source = form.parsed(pc.if_else(chosen, source.cast(pa.string()), null), decoded.type)
    with suppress(pa.ArrowException):  # a drawn number may have more digits than a decimal type allows
        return pc.if_else(chosen, source, decoded.cast(source.type)).combine_chunks()
    return pc.if_else(chosen, source.cast(decoded.type), decoded).combine_chunks()


def matches_numbers(column: ColumnConversion, source: pa.ChunkedArray, numbers: Values, seen: Values) -> Values:
    """Return where (n,) the source still encodes to the numbers of a column; other cells were filled in or changed."""
    if column.kind == UNMODELLED:
        return np.asarray(source.is_valid().to_numpy())
    try:
        kind = pa.type_for_alias(column.type)
        x, observed = column.encode(_meaning(source, kind, column.kind == "categorical", column.form))
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    same = (observed == seen) & (close(x.astype(np.float32), np.asarray(numbers)) | ~observed)
    return np.asarray(same & source.is_valid().to_numpy())


def matches_values(source: pa.ChunkedArray, values: pa.Array) -> Values:
    """Return where (n,) the cells of a source mean these values."""
    try:
        same = pc.equal(_meaning(source, values.type, True, PLAIN), values)
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    return np.asarray(same.fill_null(False).to_numpy())


def _meaning(source: pa.ChunkedArray, kind: pa.DataType, exact: bool, form: Form) -> pa.ChunkedArray:
    """Return the values of a source, in the type `kind` if `exact` or if they are texts of cells."""
    if source.type == CELL:
        return form.parsed(source.cast(pa.string()), kind)
    values = simplify_type(source).cast(kind) if exact else simplify_type(source)
    return replace(form, marks=False).observed(values) if form.missing else values


def _as_written(column: pa.ChunkedArray, kind: pa.DataType, mark: str) -> pa.ChunkedArray:
    """Convert values to the type of their file; an ArrowException if one does not fit."""
    if kind == CELL:
        return as_cells(column, mark)
    return column if column.type == kind else column.cast(kind)


def _identical(column: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    """Whether two columns of one type have the same values, with −0 ≠ 0, and are null in the same rows."""
    if not column.equals(expected):  # NaN equals nothing; no conversion produces it
        return False
    if not pa.types.is_floating(expected.type):
        return True
    return np.array_equal(*(np.signbit(c.drop_null().to_numpy()) for c in (column, expected)))
