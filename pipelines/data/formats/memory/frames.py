"""Data frames of pandas: their columns as typed columns of a source, and back into the same types.

The types of a frame are JSON: {"index": {…} or null, "columns": [{"header": "sex", "name": "sex", "dtype": …}, …]}.
`header` is the text under which the column is known here, `name` the label in the frame. A dtype is

{"dtype": "Int64"}                                         as pandas writes it
{"string": "python", "missing": "NA"}                      texts, with the storage and the mark of missing values
{"categories": [...], "ordered": false, "of": {…}}         categories in their order, with their own dtype
{"duration": …}, {"period": …} or {"interval": …}          see `spans`
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.categories import OTHER, RARE
from postprior.pipelines.data.conversion.columns import simplify_type
from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.identities import id_column
from postprior.pipelines.data.formats.memory import spans
from postprior.pipelines.data.formats.tables import typed_contents
from postprior.pipelines.data.names import column_name
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import first_duplicate

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".parquet"
"""The suffix of the file that a frame is exported to."""
INDEX = ("id", "index", "row")
"""Headers of an index that has no name; the first that is no column is taken."""
PLAIN = (str, int, float, bool)
"""Types of the names of columns, and of categories."""


def read(name: str, frame: pd.DataFrame, roles: Roles) -> SourceContents:
    """Return the contents of a frame; its index identifies the rows.

    A plain RangeIndex does so only if no column has ids, by its name or as the user says.

    Raises:
        UserError: an index or a column has several levels or no usable type.
    """
    types = types_of(name, frame)
    header = types["index"]["header"]
    headers = [entry["header"] for entry in types["columns"]]
    columns = [frame.iloc[:, place] for place in range(len(headers))]
    arrays = {h: _arrow(name, h, column, h in roles.skip) for h, column in zip(headers, columns, strict=True)}
    table, path = pa.table(arrays), Path(name + SUFFIX)
    kept = [_without_rare(entry, column, roles) for entry, column in zip(types["columns"], columns, strict=True)]
    if roles.id in headers or (is_plain(frame.index) and id_column(table, roles)):
        return replace(typed_contents(path, table, roles), frame={"index": None, "columns": kept})
    index = frame.index.to_series()
    table = pa.table({header: _arrow(name, header, index)} | arrays)
    own = _without_rare(types["index"], index, replace(roles, id=header))
    return replace(typed_contents(path, table, roles, header), frame={"index": own, "columns": kept})


def _without_rare(entry: dict[str, Any], column: pd.Series, roles: Roles) -> dict[str, Any]:
    """Return the entry of a column without categories that rare rows have, because synthetic rows share these types.

    Ids, subjects and skipped columns keep no category that any row has.
    """
    header, dtype = entry["header"], entry["dtype"]
    if "categories" not in dtype:
        return entry
    if header in (roles.id, roles.group, *roles.skip):
        least = len(column) + 1
    else:
        keep = roles.rare_labels == "keep" if header == roles.label and roles.rare_labels else roles.keep_rare
        least = 1 if keep else RARE
    rows = column.value_counts(sort=False)  # in the order of the categories
    common = [value for value, n in zip(dtype["categories"], rows, strict=True) if n == 0 or n >= least]
    return entry | {"dtype": dtype | {"categories": common}}


def types_of(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    """Return the types of a frame, after a check that it is flat and that its columns have different names."""
    if frame.columns.nlevels > 1 or frame.index.nlevels > 1:
        where = "columns" if frame.columns.nlevels > 1 else "index"
        raise UserError(f"{name}: {where} of several levels found, expected one; flatten them, or reset the index")
    headers = [column_name(str(label)) for label in frame.columns]
    if (same := first_duplicate(headers)) is not None:
        raise UserError(f"{name}: column {same!r} found twice, expected different names; rename one")
    for label in frame.columns:
        if not isinstance(label, PLAIN):
            raise UserError(f"{name}: a column named {label!r} found, expected a text or a number; rename it")
    label = frame.index.name if isinstance(frame.index.name, PLAIN) else None
    names = (column_name(str(label or "")), *INDEX, "_".join(("row", *headers)))
    header = next(header for header in names if header and header not in headers)
    columns = [
        {"header": header, "name": label, "dtype": described(frame.iloc[:, place])}
        for place, (header, label) in enumerate(zip(headers, frame.columns.tolist(), strict=True))
    ]
    index = described(frame.index.to_series())
    return {"index": {"header": header, "name": label, "dtype": index}, "columns": columns}


def is_plain(index: pd.Index) -> bool:
    """Whether an index counts the rows because nobody has set another."""
    return type(index).__name__ == "RangeIndex" and index.name is None and index.start == 0 and index.step == 1


def _arrow(name: str, header: str, column: pd.Series, skipped: bool = False) -> pa.ChunkedArray:
    """Return one column, null where a value is missing, or everywhere if the user skips it."""
    if skipped:
        return pa.chunked_array([pa.nulls(len(column))])
    try:
        array = pa.array(spans.plain(column), from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:100]
        expected = "expected values of one type: numbers, texts, dates, durations, periods, intervals or booleans"
        raise UserError(f"{name}: column {header}: {reason}; {expected}; convert it, or leave it out (skip)") from None
    return _coarsest(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array]))


def _coarsest(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return moments in the coarsest unit that has them all, so that days stay days in synthetic rows."""
    if pa.types.is_timestamp(column.type):
        zone = column.type.tz
        for kind in (*([] if zone else [pa.date32()]), *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us"))):
            with suppress(pa.ArrowInvalid):
                return column.cast(kind)
    return column


def described(column: pd.Series) -> dict[str, Any]:
    """JSON-able description of the dtype of a column."""
    import pandas as pd

    dtype = column.dtype
    if (span := spans.type_of(column)) is not None:
        return span
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        values = categories.tolist()
        known = values if all(isinstance(value, PLAIN) for value in values) else list(map(str, values))
        return {"categories": known, "ordered": bool(dtype.ordered), "of": described(categories.to_series())}
    if isinstance(dtype, pd.StringDtype):
        return {"string": dtype.storage, "missing": "NA" if dtype.na_value is pd.NA else "nan"}
    return {"dtype": str(dtype)}


def dtype_of(entry: Mapping[str, Any]) -> Any:
    """Return the dtype that `described` described."""
    import pandas as pd

    if "categories" in entry:
        own, kind = entry["categories"], dtype_of(entry["of"])
        values = pd.Index(
            [spans.parsed(text, entry["of"]) for text in own] if spans.dtype_of(entry["of"]) else own, kind
        )
        return pd.CategoricalDtype(values, entry["ordered"])
    if "string" in entry:
        return pd.StringDtype(entry["string"], pd.NA if entry["missing"] == "NA" else np.nan)
    return spans.dtype_of(entry) or pd.api.types.pandas_dtype(entry["dtype"])


def frame_of(table: pa.Table, types: Mapping[str, Any] | None, ids: str | None = None) -> pd.DataFrame:
    """Return a table as a frame of these types; without types, of those that suit the columns.

    Args:
        table: the rows; columns that `types` do not have are left out, and columns may be absent.
        types: what `types_of` returns; None if the rows do not come from a frame.
        ids: without `types`, the column that becomes the index.
    """
    pd = pandas("to_pandas")
    if types is None:
        frame = pd.DataFrame({name: table[name].to_pandas() for name in table.column_names})
        return frame.set_index(ids) if ids in frame else frame
    index = types["index"]
    columns = {
        entry["header"]: restored(table[entry["header"]], entry["dtype"])
        for entry in types["columns"]
        if entry["header"] in table.column_names
    }
    frame = pd.DataFrame(columns, index=range(len(table)))
    frame.columns = pd.Index([entry["name"] for entry in types["columns"] if entry["header"] in columns])
    if index is not None and index["header"] in table.column_names:
        frame.index = pd.Index(restored(table[index["header"]], index["dtype"]), name=index["name"])
    return frame


def restored(column: pa.ChunkedArray, entry: Mapping[str, Any]) -> pd.Series:
    """Return a column (n rows) in a dtype that `described` described.

    The class of rare values, and categories that the description lacks, are further categories. Whole numbers and
    booleans that are missing although the dtype has no missing values get the dtype that has.
    """
    import pandas as pd

    dtype = dtype_of(entry)
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(_categorical(column, entry))
    if spans.dtype_of(entry) is not None:
        return spans.restored(column.to_pylist(), entry)
    if isinstance(dtype, pd.DatetimeTZDtype) or (isinstance(dtype, np.dtype) and dtype.kind == "M"):
        kind = pa.timestamp(dtype.unit if dtype.kind == "M" and hasattr(dtype, "unit") else np.datetime_data(dtype)[0])
        moments = simplify_type(column).cast(kind).to_pandas()
        return moments.dt.tz_localize("UTC").astype(dtype) if hasattr(dtype, "tz") else moments.astype(dtype)
    if isinstance(dtype, pd.StringDtype) or dtype.kind == "O":
        return pd.Series(column.to_pylist(), dtype=dtype)
    if not isinstance(dtype, np.dtype):
        return column.to_pandas(types_mapper=pd.ArrowDtype).astype(dtype)
    if dtype.kind == "f":
        return pd.Series(column.cast(pa.float64(), safe=False).to_numpy().astype(dtype))
    if column.null_count:
        whole = "boolean" if dtype.kind == "b" else "Int64" if dtype.kind == "i" else "UInt64"
        return column.to_pandas(types_mapper=pd.ArrowDtype).astype(whole)
    return pd.Series(column.to_numpy().astype(dtype))


def _categorical(column: pa.ChunkedArray, entry: Mapping[str, Any]) -> pd.Categorical:
    """Return a column of categories; values that the entry does not have become the last categories."""
    import pandas as pd

    dtype = dtype_of(entry)
    known = pa.array(spans.as_texts(dtype.categories), from_pandas=True) if len(dtype.categories) else pa.array([])
    kind = column.type if pa.types.is_null(known.type) else known.type
    values, known = column.cast(kind), known.cast(kind)
    found = values.unique().drop_null()
    new = found.filter(pc.invert(pc.is_in(found, value_set=known))).to_pylist()
    if new:
        known = pa.concat_arrays([known, pa.array(new, kind)])
        span = spans.dtype_of(entry["of"]) is not None
        own = [spans.parsed(value, entry["of"]) if span and value != OTHER else value for value in new]
        more = pd.Index(own, dtype=None if OTHER in new else dtype.categories.dtype)
        dtype = pd.CategoricalDtype(dtype.categories.append(more), dtype.ordered)
    codes = pc.index_in(values, value_set=known)
    return pd.Categorical.from_codes(codes.fill_null(-1).to_numpy(), dtype=dtype)


def pandas(place: str) -> Any:
    """Import pandas; a UserError if it is not installed."""
    return optional("pandas", "pandas", place)
