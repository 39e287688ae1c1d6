"""Tables: CSV, TSV and Parquet files, one or a folder of them."""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.faults import hint, listed
from pipelines.importers.files import ends_in, files_in, visible
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
    return any(visible(path, SUFFIXES, deep=False)) if path.is_dir() else ends_in(path, SUFFIXES)


def read_tables(path: Path, roles: Roles) -> list[Found]:
    """Each table with its columns in their roles; those that have none make modalities."""
    files = files_in(path, SUFFIXES, deep=False) if path.is_dir() else [path]
    found = []
    for file in files:
        table = read_table(file, roles)
        made_plain = [plain(file, name, table[name]) for name in table.column_names]
        others = zip(table.schema, made_plain, strict=True)
        types = {field.name: str(field.type) for field, column in others if field.type != column.type}
        whole = found_in(pa.table(made_plain, names=table.column_names), file.name, roles)
        found.append(replace(whole, types=types if ends_in(file, (".parquet",)) else {}))
    return found


def read_table(path: Path, roles: Roles) -> pa.Table:
    """The columns of one file, which are different by name and have rows; empty cells are null."""
    import pyarrow.parquet as parquet

    try:
        if ends_in(path, TEXT):
            table = _read_text(path, roles)
        else:
            _check_headers(path, parquet.read_schema(path).names)
            table = parquet.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise UserError(
            f"{path}: this is no table in UTF-8 with one header a column ({words}); save it again as such"
        ) from None
    _check_headers(path, table.column_names)
    if not table.num_rows:
        raise UserError(f"{path}: found no rows below the headers, expected one a sample")
    return table


def _read_text(path: Path, roles: Roles) -> pa.Table:
    """The columns of a CSV or TSV; numbers may have decimal commas where no comma stands between columns.

    Whole numbers with zeros that lead are texts (codes of places or diseases) unless a kind of numbers is asked for;
    ids and subjects are numbers only where they are written just so.
    """
    import pyarrow.csv as csv

    delimiter, texts = _delimiter(path), {name for name in (roles.id, roles.group, *IDS) if name}

    def read(mark: str, texts: Iterable[str], only: Sequence[str] = ()) -> pa.Table:
        size = min(max(path.stat().st_size, 1), LARGEST)
        return csv.read_csv(
            path,
            csv.ReadOptions(block_size=size),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            csv.ConvertOptions(
                strings_can_be_null=True,
                column_types=dict.fromkeys(texts, pa.string()),
                decimal_point=mark,
                include_columns=list(only) or None,
            ),
        )

    table = read(".", texts)
    if delimiter != "," and any(_decimal_commas(column) for column in table.columns):
        table = read(",", texts)
    _check_headers(path, table.column_names)
    numbers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    codes = [name for name in numbers if roles.kinds.get(name, "categorical") == "categorical"]
    padded = read(".", codes, codes) if codes and _zeros_lead(path, delimiter) else None
    for place, name in enumerate(table.column_names):
        if pa.types.is_binary(table.column(place).type):
            raise UserError(f"{path}: column {name}: bytes that are no UTF-8 found; save the file in UTF-8")
        if name in texts:
            table = table.set_column(place, name, _unless_padded(table.column(place)))
        elif padded is not None and name in codes and _is_padded(padded[name]):
            table = table.set_column(place, name, padded[name])
    return table


def _zeros_lead(path: Path, delimiter: str) -> bool:
    """Whether a file may have whole numbers with zeros that lead."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(rb"(^|[\n\r\"%s])[+-]?0\d" % re.escape(delimiter.encode()), content) is not None


def _is_padded(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, r"^[+-]?0\d")).as_py())


def _decimal_commas(column: pa.ChunkedArray) -> bool:
    """Whether all texts of a column are numbers, some of them with a comma."""
    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return False
    numbers = pc.all(pc.match_substring_regex(column, r"^[+-]?\d*,?\d+([eE][+-]?\d+)?$")).as_py()
    return bool(numbers and pc.any(pc.match_substring(column, ",")).as_py())


def _check_headers(path: Path, names: Sequence[str]) -> None:
    if empty := [place for place, name in enumerate(names) if not name.strip()]:
        raise UserError(
            f"{path}: an empty header found above column {empty[0] + 1}, expected a name; give it one"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{path}: header {twice[0]!r} found twice, expected a name of its own a column; rename one"
        )


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
            raise UserError(
                f"{path}: column {name}: infinity found, expected finite numbers or empty cells; correct it"
            )
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
    grouped = _groups if roles.only is None else _known_groups
    views = [
        TableView(
            name,
            table.select(columns),
            {column: column_kind(place, column, table[column], roles.kinds) for column in columns},
            facts or {"source": "tables", "file": place},
        )
        for name, columns in grouped(place, [name for name in names if name not in taken], roles).items()
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


def _known_groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Columns by the modality that has them, those of the file's own name first; some may lack, others are left out."""
    own, free, groups = safe_name(Path(place).stem), dict.fromkeys(names), {}
    for modality in sorted(roles.modalities, key=lambda name: name != own):
        if found := [column for column in roles.modalities[modality] if column in free]:
            groups[modality] = found
            free = dict.fromkeys(column for column in free if column not in found)
    return groups


def _delimiter(path: Path) -> str:
    """What stands most often in the header: a comma, a semicolon or a tab."""
    with open(path, "rb") as file:
        header = file.readline(1 << 20)
    counts: Any = np.array([header.count(mark) for mark in (b",", b";", b"\t")])
    return ",;\t"[int(counts.argmax())]
