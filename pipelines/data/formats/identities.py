"""Columns of ids: which one of a table it is, and rows that have the same id."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.forms import PLAIN
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.formats.text_files import INDEX

IDS = ("id", "participant_id", "patient_id", "subject_id", "sample_id", "sample", "barcode")
"""Headers, in lower case, of columns that are used as ids if the user names none; the first ones come first."""


def unless_padded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert texts to whole numbers if these, formatted again, give the same texts."""
    observed = PLAIN.observed(texts)
    try:
        numbers = observed.cast(pa.int64())
    except pa.ArrowInvalid:
        return observed
    return numbers if numbers.cast(pa.string()).equals(observed) else observed


def id_rank(name: str) -> int:
    """Return how much a header looks like that of ids; 0 if it does not."""
    plain = name.lstrip("#").lower()
    return len(IDS) - IDS.index(plain) if plain in IDS else 0


def is_index(name: str) -> bool:
    """Whether a header is that of an index of pandas, which is used as ids if nothing else is, or is left out."""
    return name == INDEX or bool(re.fullmatch(r"__index_level_\d+__|Unnamed: 0(_level_\d+)?", name))


def id_column(table: pa.Table, roles: Roles) -> str | None:
    """Return the column of ids: the one that the user names, or one with a usual header; an index comes last.

    Headers that may mean something else count only if every row has another value.
    """
    if roles.id in table.column_names:
        return roles.id
    taken = {roles.label, roles.group, roles.split, *roles.targets, *roles.skip, *roles.kinds}
    names = sorted((name for name in table.column_names if id_rank(name) and name not in taken), key=id_rank)
    for name in reversed(names):
        if name.lower().endswith("id") or _unique(table[name]):
            return str(name)
    for name in filter(is_index, table.column_names):
        if name not in taken and _unique(table[name]) and not _counts(table[name]):
            return str(name)
    return None


def _unique(column: pa.ChunkedArray) -> bool:
    return not column.null_count and pc.count_distinct(column).as_py() == len(column)


def _counts(column: pa.ChunkedArray) -> bool:
    """Whether a column only counts the rows, from 0 or 1."""
    if not pa.types.is_integer(column.type):
        return False
    numbers = column.to_numpy()
    return bool(numbers[0] in (0, 1) and (np.diff(numbers) == 1).all())


def first_rows(ids: pa.ChunkedArray) -> pa.Array:
    """Return the first row of each id, in ascending order."""
    return pa.array(np.sort(np.unique(ids.cast(pa.string()).to_pylist(), return_index=True)[1]))


def visits(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a different id per row: the id and the number of the row among those with this id, from 1."""
    texts = np.array(ids.cast(pa.string()).fill_null("").to_pylist())
    order = np.argsort(texts, kind="stable")
    first = np.flatnonzero(np.append(True, texts[order][1:] != texts[order][:-1]))
    number = np.empty(len(texts), np.int64)
    number[order] = np.arange(len(texts)) - np.repeat(first, np.diff(np.append(first, len(texts)))) + 1
    return pc.binary_join_element_wise(pa.chunked_array([texts]), pa.chunked_array([number]).cast(pa.string()), " ")
