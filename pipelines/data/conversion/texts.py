"""Cells of text files, and columns whose original values cannot be decoded from their numbers.

Such a column is stored next to its numbers in the type of its file. The texts of the cells of a CSV or TSV have the
type `CELL`, whatever they mean, to distinguish them from strings.
"""

from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import ColumnConversion, close, simplify_type

CELL = pa.binary()  # the type of a column of texts of cells
NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null", "-NaN", "-nan"),
    *("1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
)
"""Texts that mark a missing cell, the same as in pyarrow."""
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
TYPES = (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.float64())
"""Types of a column of texts, tried in this order."""
SOME = 1000
"""Number of rows that are tried first: if they do not fit, the other rows need not be tried."""


def usual_dialect(file: str) -> dict[str, str]:
    """Return the column delimiter and the decimal mark that a text file of this name usually has."""
    return {"delimiter": "\t" if file.lower().endswith(".tsv") else ",", "decimal": "."}


def typed(texts: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """Convert texts to the first type that fits all of them, or strings if none does; `mark` is the decimal mark."""
    observed = without_missing(texts)
    if observed.null_count == len(observed):
        return observed.cast(pa.float64())
    trimmed = pc.utf8_trim(observed, " \t")
    for kind in TYPES:
        with suppress(pa.ArrowException):
            _cast(trimmed[:SOME], kind, mark)  # fails faster than a cast of all texts
            return _cast(trimmed, kind, mark)
    return observed


def parsed(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Convert texts to values of one type, null for missing cells; an ArrowException if a text does not fit."""
    observed = without_missing(texts)
    if pa.types.is_string(kind):
        return observed
    commas = pa.types.is_floating(kind) and pc.any(pc.match_substring(observed, ",")).as_py()
    return _cast(pc.utf8_trim(observed, " \t"), kind, "," if commas else ".")


def without_missing(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace the texts of missing cells by null."""
    return pc.if_else(pc.is_in(texts, value_set=pa.array(NULLS)), pa.scalar(None, pa.string()), texts)


def formatted(column: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """Format values as texts; null remains null."""
    texts = column.cast(pa.string())
    return pc.replace_substring(texts, ".", mark) if pa.types.is_floating(column.type) else texts


def as_cells(column: pa.ChunkedArray, mark: str) -> pa.ChunkedArray:
    """Format values as the texts of cells, which are empty where values are null."""
    return formatted(column, mark).fill_null("").cast(CELL)


def is_restored(decoded: pa.ChunkedArray, original: pa.ChunkedArray, mark: str = ".") -> bool:
    """Whether decoded values, written in the type of the file, equal the original ones exactly."""
    parts = [(decoded[rows], original[rows]) for rows in (slice(SOME), slice(SOME, None))]
    try:
        return all(_identical(_as_written(values, original.type, mark), expected) for values, expected in parts)
    except pa.ArrowException:
        return False


def restored(decoded: pa.Array, source: pa.ChunkedArray, matches: Values, mark: str | None) -> pa.Array:
    """Replace decoded values by those of the source wherever it `matches` (n,).

    If a decimal `mark` is given, the result is texts, otherwise values of the source's own type if possible.
    """
    chosen = pa.array(matches)
    if mark is not None:
        texts = source.cast(pa.string()) if source.type == CELL else formatted(source, mark)
        if mark == "." and pa.types.is_floating(decoded.type):  # the source has decimal commas, the new file has not
            texts = pc.replace_substring(texts, ",", mark)
        return pc.if_else(chosen, texts, formatted(decoded, mark)).combine_chunks()
    if source.type == CELL:
        null = pa.scalar(None, pa.string())  # a text that is not chosen may not be a value of the type
        source = parsed(pc.if_else(chosen, source.cast(pa.string()), null), decoded.type)
    with suppress(pa.ArrowException):  # a drawn number may have more digits than a decimal type allows
        return pc.if_else(chosen, source, decoded.cast(source.type)).combine_chunks()
    return pc.if_else(chosen, source.cast(decoded.type), decoded).combine_chunks()


def matches_numbers(column: ColumnConversion, source: pa.ChunkedArray, numbers: Values, seen: Values) -> Values:
    """Return where (n,) the source still encodes to the numbers of a column; other cells were filled in or changed."""
    try:
        x, observed = column.encode(_meaning(source, pa.type_for_alias(column.type), column.kind == "categorical"))
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    same = (observed == seen) & (close(x.astype(np.float32), np.asarray(numbers)) | ~observed)
    return np.asarray(same & source.is_valid().to_numpy())


def matches_values(source: pa.ChunkedArray, values: pa.Array) -> Values:
    """Return where (n,) the cells of a source mean these values."""
    try:
        same = pc.equal(_meaning(source, values.type, exact=True), values)
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    return np.asarray(same.fill_null(False).to_numpy())


def _meaning(source: pa.ChunkedArray, kind: pa.DataType, exact: bool) -> pa.ChunkedArray:
    """Return the values of a source, in the type `kind` if `exact` or if they are texts of cells."""
    if source.type == CELL:
        return parsed(source.cast(pa.string()), kind)
    return simplify_type(source).cast(kind) if exact else simplify_type(source)


def _cast(texts: pa.ChunkedArray, kind: pa.DataType, mark: str) -> pa.ChunkedArray:
    """Cast texts without surrounding blanks to another type."""
    if pa.types.is_floating(kind) and mark == ",":
        if pc.any(pc.match_substring(texts, ".")).as_py():
            raise pa.ArrowInvalid("a decimal point among decimal commas")
        return pc.replace_substring(texts, mark, ".").cast(kind)
    if not pa.types.is_boolean(kind):
        return texts.cast(kind)
    true, false = (pc.is_in(texts, value_set=pa.array(words)) for words in (TRUE, FALSE))
    if not pc.all(pc.or_(pc.or_(true, false), texts.is_null())).as_py():
        raise pa.ArrowInvalid("neither true nor false")
    return pc.if_else(texts.is_null(), pa.scalar(None, pa.bool_()), true)


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
