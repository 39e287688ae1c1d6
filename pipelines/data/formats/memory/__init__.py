"""Data in memory: data frames, AnnData, MuData and arrays, read as the files of these formats are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.memory import annotated, arrays, frames
from postprior.pipelines.errors import UserError

ALONE = "table", "cells", "array"
"""Names of a data frame, of AnnData or MuData, and of an array that are given without a name."""


def is_frame(value: Any) -> bool:
    """Whether an object is a data frame of pandas."""
    return any(base.__name__ == "DataFrame" and base.__module__.startswith("pandas") for base in type(value).__mro__)


def is_series(value: Any) -> bool:
    """Whether an object is a series of pandas."""
    return any(base.__name__ == "Series" and base.__module__.startswith("pandas") for base in type(value).__mro__)


def named(data: Any) -> dict[str, Any]:
    """Return objects by name; a single object gets a name of `ALONE`.

    Raises:
        UserError: there is no object, or a name is no file name.
    """
    if not isinstance(data, Mapping):
        data = {ALONE[0 if is_frame(data) else 1 if annotated.suffix_of(data) else 2]: data}
    if not data:
        raise UserError("data: no object found, expected one data frame, AnnData, MuData or array for each modality")
    for name in data:
        if not isinstance(name, str) or not name.strip() or {"/", "\\", "\0"} & {*name} or name in (".", ".."):
            raise UserError(f"data: the name {name!r} found, expected a text without slashes; rename the modality")
    return dict(data)


def read(data: Mapping[str, Any], roles: Roles, ids: Any = None, label: Any = None) -> list[SourceContents]:
    """Return the contents of objects by name, one source or more for each.

    Args:
        data: what `named` returns.
        roles: the roles of columns.
        ids: the ids of the rows of arrays: one sequence for all, or one for each by name. By default those of the first
            data frame, AnnData or MuData, or else the number of the row.
        label: labels by id, as a series or mapping, or in the order of the first object. Columns are named by `roles`.

    Raises:
        UserError: an object has no known type, or its rows and its ids differ in number.
    """
    contents: list[SourceContents] = []
    first: pa.ChunkedArray | None = None
    for name, value in sorted(data.items(), key=lambda item: _has_no_ids(item[1])):
        if is_frame(value):
            contents.append(frames.read(name, value, roles))
        elif annotated.suffix_of(value):
            contents += annotated.read(name, value, roles)
        else:
            array = arrays.as_array(name, value)
            given = ids.get(name) if isinstance(ids, Mapping) else ids
            contents.append(arrays.read(name, array, _ids(name, len(array), given, first), roles))
        if first is None and contents[0].ids is not None:
            first = contents[0].ids[1]
    order = {name: place for place, name in enumerate(data)}
    contents.sort(key=lambda source: order[_owner(source.place, order)])
    return contents if label is None else [*contents, _labels(label, first, roles)]


def _has_no_ids(value: Any) -> bool:
    return not is_frame(value) and not annotated.suffix_of(value)


def _owner(place: str, names: Mapping[str, int]) -> str:
    """Return the name of the object of a source: its place is the name of a file, or of a part of one."""
    suffixes = (frames.SUFFIX, arrays.SUFFIX, *annotated.SUFFIXES.values())
    return next(name for name in names if any(f"{place}/".startswith(f"{name}{suffix}/") for suffix in suffixes))


def _ids(name: str, rows: int, given: Any, first: pa.ChunkedArray | None) -> pa.ChunkedArray:
    """Return ids for the rows of an array: those given, those of the first source, or the numbers of the rows."""
    values = pa.chunked_array([pa.array(given)]) if given is not None else first
    if values is None:
        return pa.chunked_array([np.arange(rows)])
    if len(values) != rows:
        what = "ids given" if given is not None else "ids in the other data"
        raise UserError(f"{name}: {rows} rows and {len(values)} {what} found, expected the same number; pass ids=")
    return values


def _labels(label: Any, first: pa.ChunkedArray | None, roles: Roles) -> SourceContents:
    """Return a source that has nothing but labels."""
    pd = frames.pandas("label")
    if isinstance(label, Mapping):
        label = pd.Series(dict(label))
    if not is_series(label) or frames.is_plain(label.index):  # in the order of the first object
        values = label.array if is_series(label) else np.asarray(label)
        label = pd.Series(values, index=pd.Index(_ids("label", len(values), None, first).to_pylist()))
    name = str(roles.label)
    return frames.read(name, label.to_frame(name), roles)


def column(name: str, values: Sequence[str], contents: Sequence[SourceContents], roles: Roles) -> SourceContents:
    """Return a source of one column `name`, whose values are in the order of the rows of the first source."""
    pd = frames.pandas(name)
    first = contents[0].ids
    ids = _ids(name, len(values), None, None if first is None else first[1])
    return frames.read(name, pd.DataFrame({name: list(values)}, index=pd.Index(ids.to_pylist())), roles)
