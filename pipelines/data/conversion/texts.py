"""Values as their file wrote them: the cells of a text file, and columns that their numbers alone cannot give back.

Such a column is kept beside its numbers in its file's type; the texts of the cells of a CSV or TSV, whatever they
mean, as `CELL`, to be told from strings.
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
"""Texts of cells that are missing, those of pyarrow."""
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
TYPES = (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.float64())
"""What a column of texts may be, tried in this order."""
SOME = 1000
"""Rows that are looked at first: where these say no, the others need no look."""


def usual_dialect(file: str) -> dict[str, str]:
    """What stands between columns and before decimals in a text file of that name."""
    return {"delimiter": "\t" if file.lower().endswith(".tsv") else ",", "decimal": "."}


def typed(texts: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """Values of the first type that all texts can have, strings if none; `mark` stands before decimals."""
    known = without_missing(texts)
    if known.null_count == len(known):
        return known.cast(pa.float64())
    trimmed = pc.utf8_trim(known, " \t")
    for kind in TYPES:
        with suppress(pa.ArrowException):
            _cast(trimmed[:SOME], kind, mark)  # to fail on all of them takes long
            return _cast(trimmed, kind, mark)
    return known


def parsed(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Values of one type, null for missing cells; an ArrowException tells of a text that has no such value."""
    known = without_missing(texts)
    if pa.types.is_string(kind):
        return known
    commas = pa.types.is_floating(kind) and pc.any(pc.match_substring(known, ",")).as_py()
    return _cast(pc.utf8_trim(known, " \t"), kind, "," if commas else ".")


def without_missing(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts, null for those of missing cells."""
    return pc.if_else(pc.is_in(texts, value_set=pa.array(NULLS)), pa.scalar(None, pa.string()), texts)


def formatted(column: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """The texts of values, null where they are."""
    texts = column.cast(pa.string())
    return pc.replace_substring(texts, ".", mark) if pa.types.is_floating(column.type) else texts


def as_cells(column: pa.ChunkedArray, mark: str) -> pa.ChunkedArray:
    """The texts of cells, empty ones where values are null."""
    return formatted(column, mark).fill_null("").cast(CELL)


def is_restored(made: pa.ChunkedArray, original: pa.ChunkedArray, mark: str = ".") -> bool:
    """Whether values, in the type of the file, are those that it has, to the bit and to the letter."""
    parts = [(made[rows], original[rows]) for rows in (slice(SOME), slice(SOME, None))]
    try:
        return all(_alike(_as_written(values, original.type, mark), expected) for values, expected in parts)
    except pa.ArrowException:
        return False


def restored(made: pa.Array, source: pa.ChunkedArray, there: Values, mark: str | None) -> pa.Array:
    """Values with those of the source where these are `there` (n,): texts with a `mark`, of their own type without."""
    of = pa.array(there)
    if mark is not None:
        texts = source.cast(pa.string()) if source.type == CELL else formatted(source, mark)
        if mark == "." and pa.types.is_floating(made.type):  # a file of decimal commas, written as one without
            texts = pc.replace_substring(texts, ",", mark)
        return pc.if_else(of, texts, formatted(made, mark)).combine_chunks()
    if source.type == CELL:
        nothing = pa.scalar(None, pa.string())  # what is not there may be no value of the type
        source = parsed(pc.if_else(of, source.cast(pa.string()), nothing), made.type)
    with suppress(pa.ArrowException):  # a drawn number may have more digits than a decimal
        return pc.if_else(of, source, made.cast(source.type)).combine_chunks()
    return pc.if_else(of, source.cast(made.type), made).combine_chunks()


def matches_numbers(column: ColumnConversion, source: pa.ChunkedArray, numbers: Values, seen: Values) -> Values:
    """Where (n,) a source is what the numbers of a column stand for: other cells were filled in, or changed."""
    try:
        x, there = column.encode(_meaning(source, pa.type_for_alias(column.type), column.kind == "categorical"))
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    same = (there == seen) & (close(x.astype(np.float32), np.asarray(numbers)) | ~there)
    return np.asarray(same & source.is_valid().to_numpy())


def matches_values(source: pa.ChunkedArray, values: pa.Array) -> Values:
    """Where (n,) a source means these values."""
    try:
        same = pc.equal(_meaning(source, values.type, exact=True), values)
    except pa.ArrowException:
        return np.zeros(len(source), bool)
    return np.asarray(same.fill_null(False).to_numpy())


def _meaning(source: pa.ChunkedArray, kind: pa.DataType, exact: bool) -> pa.ChunkedArray:
    """The values of a source, of this type if `exact` or if they are texts."""
    if source.type == CELL:
        return parsed(source.cast(pa.string()), kind)
    return simplify_type(source).cast(kind) if exact else simplify_type(source)


def _cast(texts: pa.ChunkedArray, kind: pa.DataType, mark: str) -> pa.ChunkedArray:
    """Texts without blanks around them in another type."""
    if pa.types.is_floating(kind) and mark == ",":
        if pc.any(pc.match_substring(texts, ".")).as_py():
            raise pa.ArrowInvalid("no decimal comma")
        return pc.replace_substring(texts, mark, ".").cast(kind)
    if not pa.types.is_boolean(kind):
        return texts.cast(kind)
    true, false = (pc.is_in(texts, value_set=pa.array(of)) for of in (TRUE, FALSE))
    if not pc.all(pc.or_(pc.or_(true, false), texts.is_null())).as_py():
        raise pa.ArrowInvalid("neither true nor false")
    return pc.if_else(texts.is_null(), pa.scalar(None, pa.bool_()), true)


def _as_written(column: pa.ChunkedArray, kind: pa.DataType, mark: str) -> pa.ChunkedArray:
    """Values in the type of their file; an ArrowException tells of one that does not fit."""
    if kind == CELL:
        return as_cells(column, mark)
    return column if column.type == kind else column.cast(kind)


def _alike(found: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    """Whether two columns of one type have the same values, −0 and 0 told apart, and are null in the same rows."""
    if not found.equals(expected):  # NaN, which no conversion gives, equals nothing
        return False
    if not pa.types.is_floating(expected.type):
        return True
    return np.array_equal(*(np.signbit(column.drop_null().to_numpy()) for column in (found, expected)))
