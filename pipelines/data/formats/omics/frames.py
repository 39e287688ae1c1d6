"""Data frames of AnnData: columns of obs and var in their own types, with the categories and order of categorical ones.

Columns are Arrow columns; the metadata of their fields have the categories: {"categories": [...], "ordered": false}.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import named_type
from postprior.pipelines.data.formats.omics.stores import is_group, texts

KEY = b"categorical"


@dataclass(frozen=True)
class Frame:
    """A data frame (n rows): its index, its columns, and the names of columns that cannot be read."""

    index: list[str]
    columns: pa.Table
    unreadable: tuple[str, ...] = ()


def read_frame(root: Any, name: str) -> Frame:
    """Read a data frame of any version of anndata; its categories may lie beside it, or in `uns` of the root."""
    stored = root[name]
    if is_group(stored):
        index = str(stored.attrs["_index"])
        names = [str(column) for column in stored.attrs["column-order"]]
        known = stored.get("__categories", {})
        found = {column: _read_column(stored[column], known.get(column)) for column in names if column in stored}
        rows = texts(stored[index])
    else:  # anndata before 0.7: one array of records
        index, *names = stored.dtype.names
        uns = root.get("uns", {})
        table = stored[()]
        categories = {column: uns.get(f"{column}_categories") for column in names}
        found = {column: _typed(table[column], categories[column]) for column in names}
        rows = [value.decode() if isinstance(value, bytes) else str(value) for value in table[index].tolist()]
    fields, arrays, unreadable = [], [], []
    for column in names:
        if (pair := found.get(column)) is None or len(pair[0]) != len(rows):
            unreadable.append(column)
            continue
        fields.append(pa.field(column, pair[0].type, metadata=pair[1]))
        arrays.append(pair[0])
    columns = pa.Table.from_arrays(arrays, schema=pa.schema(fields)) if fields else pa.table({})
    return Frame(rows, columns, tuple(unreadable))


Typed = tuple[pa.Array, dict[bytes, bytes] | None]


def _read_column(stored: Any, known: Any) -> Typed | None:
    """Return a column and its metadata; None if it is of no known encoding."""
    if not is_group(stored):
        return _typed(texts(stored) if stored.dtype.kind in "OTSU" else stored[()], known)
    if "codes" in stored:
        ordered = bool(stored.attrs.get("ordered", False))
        return _typed(stored["codes"][()], stored["categories"], ordered)
    if "mask" in stored and "values" in stored and not is_group(stored["values"]):
        values, _ = _typed(texts(stored) if stored["values"].dtype.kind in "OTSU" else stored["values"][()])
        return pc.if_else(pa.array(stored["mask"][()]), pa.scalar(None, values.type), values), None
    return None


def _typed(values: Any, categories: Any = None, ordered: bool = False) -> Typed:
    """Return values as an Arrow array; if there are categories, the values are their numbers, −1 if missing."""
    if categories is None:
        values = np.asarray(values)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        return pa.array(values.tolist() if values.dtype.kind == "U" else values), None
    pair = _read_column(categories, None)
    assert pair is not None
    codes = np.asarray(values)
    entry = {"categories": pair[0].to_pylist(), "ordered": ordered}
    return pair[0].take(pa.array(codes, mask=codes < 0)), {KEY: json.dumps(entry).encode()}


def describe(columns: pa.Table) -> list[dict[str, Any]]:
    """JSON-able description of columns."""
    return [
        {"name": field.name, "type": str(field.type), "values": _without_nan(column), **_categorical(field)}
        for field, column in zip(columns.schema, columns.columns, strict=True)
    ]


def _without_nan(column: pa.ChunkedArray) -> list[Any]:
    return [None if value != value else value for value in column.to_pylist()]


def from_description(entries: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the columns that `describe` described."""
    fields, arrays = [], []
    for entry in entries:
        kind = named_type(entry["type"])
        marks = {key: entry[key] for key in ("categories", "ordered") if key in entry}
        fields.append(pa.field(entry["name"], kind, metadata={KEY: json.dumps(marks)} if marks else None))
        arrays.append(pa.array(entry["values"], kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _categorical(field: pa.Field) -> dict[str, Any]:
    """Return the categories of a column and whether they are ordered; empty if it has none."""
    return dict(json.loads(field.metadata[KEY])) if field.metadata and KEY in field.metadata else {}


def write_frame(group: Any, name: str, index: Iterable[Any], columns: pa.Table) -> None:
    """Write a data frame; texts become categories, as anndata itself writes them, unless the file had plain texts."""
    frame = group.create_group(name)
    frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    frame.attrs.create("column-order", columns.column_names, dtype=_text_type())
    put(frame, "_index", [str(label) for label in index])
    for field, column in zip(columns.schema, columns.combine_chunks().columns, strict=True):
        _write_column(frame, field, column.combine_chunks())


def _text_type() -> Any:
    from h5py import string_dtype

    return string_dtype()


def _write_column(frame: Any, field: pa.Field, column: Any) -> None:
    """Write one column in the encoding that its type, its categories and missing values ask for."""
    kind, marks = field.type, _categorical(field)
    if marks:
        categories = pa.array(marks["categories"], kind)
        codes = pc.index_in(column, value_set=categories).fill_null(-1).to_numpy(zero_copy_only=False)
        part = _group(frame, field.name, "categorical", ordered=marks["ordered"])
        put(part, "categories", _plain(categories))
        put(part, "codes", codes.astype(np.min_scalar_type(-max(1, len(categories)))))
    elif pa.types.is_floating(kind) or not column.null_count:
        put(frame, field.name, _plain(column))
    else:
        name = "boolean" if pa.types.is_boolean(kind) else "integer" if pa.types.is_integer(kind) else "string-array"
        part = _group(frame, field.name, f"nullable-{name}")
        zero: Any = {"boolean": False, "integer": 0}.get(name, "")
        put(part, "values", _plain(column.fill_null(zero)))
        put(part, "mask", column.is_null().to_numpy(zero_copy_only=False))


def _plain(column: Any) -> Any:
    return column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy(zero_copy_only=False)


def _group(parent: Any, name: str, encoding: str, **attributes: Any) -> Any:
    version = "0.2.0" if encoding == "categorical" else "0.1.0"
    made = parent.create_group(name)
    made.attrs.update({"encoding-type": encoding, "encoding-version": version, **attributes})
    return made


def put(group: Any, name: str, values: Values | list[str]) -> None:
    """Write an array of numbers or a list of texts."""
    listed = isinstance(values, list)
    content = np.array(values, object) if listed else values
    stored = group.create_dataset(name, data=content, dtype=_text_type() if listed else None)
    stored.attrs.update({"encoding-type": "string-array" if listed else "array", "encoding-version": "0.2.0"})


def with_categories(columns: dict[str, Any]) -> pa.Table:
    """Return columns as a table in which texts are categorical, with their distinct values as categories."""
    fields = []
    for name, column in columns.items():
        entry = (
            {"categories": column.drop_null().unique().to_pylist(), "ordered": False}
            if pa.types.is_string(column.type)
            else None
        )
        fields.append(pa.field(name, column.type, metadata={KEY: json.dumps(entry)} if entry else None))
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields)) if fields else pa.table({})
