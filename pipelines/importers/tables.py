"""Tables: CSV, TSV and Parquet files, one or a folder of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.faults import hint, listed
from pipelines.importers.found import Found, Roles, TableView
from pipelines.importers.kinds import column_kind, safe_name

TEXT = (".csv", ".tsv")
SUFFIXES = (*TEXT, ".parquet")
IDS = ("id", "Id", "ID")
"""Headers of columns that are taken for ids where none is named."""
LARGEST = (1 << 31) - 1
"""Bytes of a CSV that are read as one block, so that the type of a column is that of all of its cells."""


def is_table(path: Path) -> bool:
    """Whether a path is a table, or a folder that holds some, by their names."""
    if path.is_dir():
        return any(child.suffix in SUFFIXES for child in path.iterdir())
    return path.suffix in SUFFIXES


def read_tables(path: Path, roles: Roles) -> list[Found]:
    """Each table with its columns in their roles; those that have none make modalities."""
    files = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES) if path.is_dir() else [path]
    texts = [name for name in (roles.id, roles.group) if name]
    return [found_in(read_table(file, texts), file.name, roles) for file in files]


def read_table(path: Path, texts: Sequence[str] = ()) -> pa.Table:
    """The columns of one file with plain types; empty and NaN cells are null.

    Columns of a CSV in `texts` or called id keep zeros that lead: they are numbers only if they are written as such.
    """
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        else:
            size = min(max(path.stat().st_size, 1), LARGEST)
            table = csv.read_csv(
                path,
                csv.ReadOptions(block_size=size),
                csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
                csv.ConvertOptions(
                    strings_can_be_null=True, column_types=dict.fromkeys([*texts, *IDS], pa.string())
                ),
            )
            for place, name in enumerate(table.column_names):
                if name in (*texts, *IDS):
                    table = table.set_column(place, name, _unless_padded(table.column(place)))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"{path}: this is no table in UTF-8 with one header a column ({words})") from None
    twice = [name for name, count in Counter(table.column_names).items() if count > 1 or not name.strip()]
    if twice:
        raise UserError(
            f"{path}: header {twice[0]!r} found twice or empty, expected a name of its own a column"
        )
    if not table.num_rows:
        raise UserError(f"{path}: found no rows below the headers, expected one a sample")
    return pa.table([plain(path, name, table[name]) for name in table.column_names], names=table.column_names)


def _unless_padded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as whole numbers where these are written just so."""
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if numbers.cast(pa.string()).equals(column) else column


def plain(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of integers, floats, booleans or plain strings where it can be one, with null for NaN."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_null(kind):
        return column.cast(pa.float64())
    if pa.types.is_floating(kind):
        nan = pc.is_nan(column)
        if pc.any(nan).as_py():
            column = pc.if_else(nan, pa.scalar(None, kind), column)
        if pc.any(pc.is_inf(column)).as_py():
            raise UserError(f"{path}: column {name}: infinity found, expected finite numbers or empty cells")
    return column


def found_in(table: pa.Table, place: str, roles: Roles, facts: dict[str, Any] | None = None) -> Found:
    """The columns of a table in their roles; `facts` say how to write them back."""
    names = table.column_names
    identity = roles.id or next((name for name in names if name in IDS), None)
    roles_of = {"ids": identity, "label": roles.label, "group": roles.group, "split": roles.split}
    known: dict[str, Any] = {
        role: (name, table[name]) if name in names else None for role, name in roles_of.items()
    }
    targets = {name: table[name] for name in roles.targets if name in names}
    taken = {*roles_of.values(), *roles.targets, *roles.skip}
    skipped = tuple(name for name in names if name in roles.skip)
    views = [
        TableView(
            name,
            table.select(columns),
            {column: column_kind(place, column, table[column], roles.kinds) for column in columns},
            facts or {"source": "tables", "file": place},
        )
        for name, columns in _groups(place, [name for name in names if name not in taken], roles).items()
    ]
    headers = tuple(name for name in names if name not in roles.skip)
    return Found(
        place, table.num_rows, tuple(views), targets=targets, headers=headers, skipped=skipped, **known
    )


def _groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Columns by modality: the groups that the user names, and the rest under the name of the file."""
    groups = {}
    for modality, columns in roles.modalities.items():
        lacking = [column for column in columns if column not in names]
        if len(lacking) < len(columns):
            if lacking:
                raise UserError(
                    f"--modality {modality}: {place} has no free column {lacking[0]!r}{hint(lacking[0], names)}; "
                    f"found there: {listed(names)}"
                )
            groups[modality] = list(columns)
    grouped = Counter(column for columns in groups.values() for column in columns)
    if twice := [column for column, count in grouped.items() if count > 1]:
        raise UserError(
            f"--modality: found column {twice[0]!r} twice, expected it in one modality; take one out"
        )
    if rest := [name for name in names if name not in grouped]:
        groups[safe_name(Path(place).stem)] = rest
    return groups


def _delimiter(path: Path) -> str:
    """What stands most often in the header: a comma, a semicolon or a tab."""
    with open(path, "rb") as file:
        header = file.readline(1 << 20)
    counts: Any = np.array([header.count(mark) for mark in (b",", b";", b"\t")])
    return ",;\t"[int(counts.argmax())]
