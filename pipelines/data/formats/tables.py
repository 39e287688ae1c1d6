"""Tables: a CSV, TSV or Parquet file, or a folder of such files."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion import TableConversion
from postprior.pipelines.data.conversion.columns import NUMBER, named_type
from postprior.pipelines.data.conversion.texts import CELL, is_restored, typed, usual_dialect, without_missing
from postprior.pipelines.data.formats.contents import (
    Roles,
    SourceContents,
    TableView,
    column_kind,
    safe_name,
    simplify_column,
    simplify_table,
)
from postprior.pipelines.data.formats.files import ends_in, files_in, holds
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.settings.names import first_duplicate, hint, listed

ABOUT = "a .csv, .tsv or .parquet table or a folder of them"
FACTS: tuple[str, ...] = ("file",)
TEXT = (".csv", ".tsv")
SUFFIXES = (*TEXT, ".parquet")
ROWS = 1 << 14  # rows of a CSV per write
FORMULA = r"^[=+\-@\t\r]"
IDS = ("id", "Id", "ID")  # headers of columns that are used as ids if the user names none
BLOCK = 1 << 26  # bytes of a text file per read, which is the greatest length of a row


def recognises(path: Path) -> bool:
    """Whether a path is a table or a folder with tables, judged by suffixes."""
    return holds(path, SUFFIXES, deep=False) if path.is_dir() else ends_in(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read each table; columns without a role form modalities."""
    files = files_in(path, SUFFIXES, deep=False) if path.is_dir() else [path]
    return [_read_text(file, roles) if ends_in(file, TEXT) else _read_parquet(file, roles) for file in files]


def _readable(path: Path) -> AbstractContextManager[None]:
    """Turn an error of reading a broken file into a UserError."""
    broken = pa.ArrowException, OSError, UnicodeDecodeError, csv.Error
    problem = "this is not a table in UTF-8 with one header per column"
    return as_user_error(broken, f"{path}: {problem}", "save the file again in this form")


def _read_parquet(path: Path, roles: Roles) -> SourceContents:
    """Read the columns of one Parquet file."""
    import pyarrow.parquet as parquet

    with _readable(path):
        _check_headers(path, parquet.read_schema(path).names)
        table = parquet.read_table(path)
    _check_rows(path, table)
    columns, originals = simplify_table(path, table)
    changed = [field for field in table.schema if field.type != columns.schema.field(field.name).type]
    contents = table_contents(columns, path.name, roles, originals=originals)
    return replace(contents, types={field.name: str(field.type) for field in changed})


def _read_text(path: Path, roles: Roles) -> SourceContents:
    """Read the columns of a CSV or TSV; numbers may have decimal commas if the column delimiter is no comma.

    Whole numbers with leading zeros are texts (postal or disease codes) unless the user requests a numeric kind. Ids
    and subjects are numbers only if they are written exactly as integers are formatted.
    """
    delimiter = _delimiter(path)
    with _readable(path):
        cells = _cells(path, delimiter)
        _check_headers(path, cells.column_names)
    _check_rows(path, cells)
    texts = {name: _texts(path, name, cells[name]) for name in cells.column_names}
    commas = delimiter != "," and any(_decimal_commas(text) for text in texts.values())
    mark, identities = "," if commas else ".", {name for name in (roles.id, roles.group, *IDS) if name}
    columns, originals = {}, {}
    for name, text in texts.items():
        column = _unless_padded(text) if name in identities else _typed(text, mark, name, roles)
        if not is_restored(column, cells[name], mark):
            originals[name] = cells[name]
        columns[name] = simplify_column(path, name, column)
    dialect = {"delimiter": delimiter, "decimal": mark}
    contents = table_contents(pa.table(columns), path.name, roles, originals=originals)
    return contents if dialect == usual_dialect(path.name) else replace(contents, dialect=dialect)


def _cells(path: Path, delimiter: str) -> pa.Table:
    """Read the texts of all cells of a file, with the type `CELL`."""
    import pyarrow.csv as arrow

    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        headers = next(csv.reader(file, delimiter=delimiter), [])
    return arrow.read_csv(
        path,
        arrow.ReadOptions(block_size=BLOCK),
        arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        arrow.ConvertOptions(column_types=dict.fromkeys(headers, CELL), strings_can_be_null=False),
    )


def _texts(path: Path, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return cells.cast(pa.string())
    except pa.ArrowInvalid:
        expected = "expected text in UTF-8; save the file in UTF-8"
        raise UserError(f"{path}: column {name}: bytes that are not UTF-8 found, {expected}") from None


def _typed(text: pa.ChunkedArray, mark: str, name: str, roles: Roles) -> pa.ChunkedArray:
    """Convert the texts of a column to values."""
    column = typed(text, mark)
    codes = pa.types.is_integer(column.type) and roles.kinds.get(name, "categorical") == "categorical"
    padded = codes and pc.any(pc.match_substring_regex(text, r"^[+-]?0\d")).as_py()
    return without_missing(text) if padded else column


def _decimal_commas(texts: pa.ChunkedArray) -> bool:
    """Whether all texts of a column are numbers, and some of them have a decimal comma."""
    if not pc.any(pc.match_substring(texts, ",")).as_py():
        return False
    observed = without_missing(texts)
    return bool(pc.all(pc.match_substring_regex(observed, r"^[+-]?\d*,?\d+([eE][+-]?\d+)?$")).as_py())


def _check_headers(path: Path, names: Sequence[str]) -> None:
    if empty := [place for place, name in enumerate(names) if not name.strip()]:
        raise UserError(f"{path}: column {empty[0] + 1} has an empty header, expected a name; name the column")
    if (name := first_duplicate(names)) is not None:
        raise UserError(f"{path}: header {name!r} found twice, expected a different name per column; rename one")


def _check_rows(path: Path, table: pa.Table) -> None:
    if not table.num_rows:
        expected = "expected one row per sample; check the file"
        raise UserError(f"{path}: no rows found below the headers, {expected}")


def _unless_padded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert texts to whole numbers if these, formatted again, give the same texts."""
    observed = without_missing(texts)
    try:
        numbers = observed.cast(pa.int64())
    except pa.ArrowInvalid:
        return observed
    return numbers if numbers.cast(pa.string()).equals(observed) else observed


def table_contents(
    table: pa.Table,
    place: str,
    roles: Roles,
    facts: dict[str, Any] | None = None,
    originals: Mapping[str, pa.ChunkedArray] | None = None,
) -> SourceContents:
    """Sort the columns of a table by role; `facts` say how to write them back, `originals` as in `SourceContents`."""
    originals = originals or {}
    names = table.column_names
    identity = roles.id or next((name for name in names if name in IDS), None)
    roles_of = {"ids": identity, "label": roles.label, "group": roles.group, "split": roles.split}
    known: dict[str, Any] = {role: (name, table[name]) if name in names else None for role, name in roles_of.items()}
    targets = {name: table[name] for name in roles.targets if name in names}
    taken = {*roles_of.values(), *roles.targets, *roles.skip}
    known["skipped"] = tuple(name for name in names if name in roles.skip)
    grouped = _groups if roles.only is None else _known_groups
    views = [
        TableView(
            name,
            table.select(columns),
            {column: column_kind(place, column, table[column], roles.kinds) for column in columns},
            facts or {"source": "tables", "file": place},
            {column: originals[column] for column in columns if column in originals},
        )
        for name, columns in grouped(place, [name for name in names if name not in taken], roles).items()
    ]
    headers = tuple(name for name in names if name not in roles.skip)
    others = {name: column for name, column in originals.items() if name in taken}
    return SourceContents(place, len(table), tuple(views), targets=targets, headers=headers, originals=others, **known)


def _groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Return columns by modality: the groups that the user names, and the rest under the name of the file."""
    groups = {}
    for modality, columns in roles.modalities.items():
        absent = [column for column in columns if column not in names]
        if absent and len(absent) < len(columns):
            found = f"{place} has no column {absent[0]!r} without a role{hint(absent[0], names)}"
            raise UserError(f"--modality {modality}: {found}, expected some of {listed(names)}; correct the name")
        if len(absent) < len(columns):
            groups[modality] = list(columns)
    grouped = [column for columns in groups.values() for column in columns]
    if (column := first_duplicate(grouped)) is not None:
        expected = "expected it in only one; remove it from the others"
        raise UserError(f"--modality: column {column!r} found in two modalities, {expected}")
    if rest := [name for name in names if name not in grouped]:
        groups[safe_name(Path(place).stem)] = rest
    return groups


def _known_groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Return columns by known modality, starting with the one named after the file.

    Known columns may be absent, and unknown columns are left out.
    """
    own, free, groups = safe_name(Path(place).stem), dict.fromkeys(names), {}
    for modality in sorted(roles.modalities, key=lambda name: name != own):
        if columns := [column for column in roles.modalities[modality] if column in free]:
            groups[modality] = columns
            free = dict.fromkeys(column for column in free if column not in columns)
    return groups


def _delimiter(path: Path) -> str:
    """Return the most frequent delimiter in the header: a comma, a semicolon or a tab."""
    with open(path, "rb") as file:
        header = file.readline(1 << 20)
    counts: Any = np.array([header.count(mark) for mark in (b",", b";", b"\t")])
    return ",;\t"[int(counts.argmax())]


def write(samples: Samples, conversions: Sequence[TableConversion], path: Path) -> None:
    """Write every table of the samples; rows without any of its modalities are left out, unless the source had them."""
    description = samples.dataset.conversion or {}
    for file, headers in samples.tables.items():
        text = not ends_in(Path(file), (".parquet",))
        dialect = usual_dialect(file) | description.get("dialects", {}).get(file, {})
        mark = dialect["decimal"] if text else None
        within = [conversion for conversion in conversions if conversion.facts["file"] == file]
        columns = samples.roles(mark)
        for conversion in within:
            decoded = samples.table(conversion, mark)
            columns |= dict(zip(decoded.column_names, decoded.columns, strict=True))
        if text and samples.excel_safe:
            for name, generated in _generated_cells(samples, within).items():
                columns[name] = _formula_safe(columns[name], generated)
        order = [header for header in headers or columns if header in columns]
        table = pa.table([columns[header] for header in order], names=order)
        if within:
            observed = samples.observed({conversion.name for conversion in within})
            table = table.filter(pa.array(np.any([observed, *map(samples.in_file, within)], 0)))
        types = {} if text else description.get("types", {}).get(file, {})
        write_table(_with_types(table, types), path / file, dialect["delimiter"])


def write_table(table: pa.Table, path: Path, delimiter: str | None = None) -> None:
    """Write one table in the format of its suffix; texts of a CSV or TSV are quoted only where necessary."""
    import pyarrow.parquet as parquet

    if ends_in(path, (".parquet",)):
        parquet.write_table(table, path)
        return
    delimiter = delimiter or usual_dialect(path.name)["delimiter"]
    alone = table.num_columns == 1  # an empty line would not be read as a row
    with open(path, "wb") as file:
        blocks = (table.slice(start, ROWS) for start in range(0, table.num_rows, ROWS))
        for block in chain([pa.table([[name] for name in table.column_names], table.column_names)], blocks):
            cells = [_quoted(column.cast(pa.string()).fill_null(""), delimiter, alone) for column in block.columns]
            lines = cells[0] if alone else pc.binary_join_element_wise(*cells, delimiter)
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def _quoted(texts: pa.ChunkedArray, delimiter: str, alone: bool) -> pa.ChunkedArray:
    """Quote texts of cells as a CSV requires; in a column that is `alone`, empty texts are quoted too."""
    needed = pc.match_substring_regex(texts, f'["\r\n{delimiter}]')
    if alone:
        needed = pc.or_(needed, pc.equal(texts, ""))
    if not pc.any(needed).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(needed, quoted, texts)


def _with_types(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Cast columns to their original types, except for columns whose values do not fit them."""
    for place, name in enumerate(table.column_names):
        if name in types:
            with suppress(pa.ArrowException):  # a drawn number may have more digits than a decimal type allows
                table = table.set_column(place, name, table.column(place).cast(named_type(types[name])))
    return table


def _generated_cells(samples: Samples, conversions: Sequence[TableConversion]) -> dict[str, pa.Array]:
    """Return by header which cells of text columns were imputed or generated; ids never are."""
    labels = [samples.label_name] if samples.synthetic and samples.label_name else []
    return {
        column.name: pa.array(samples.generated_values(conversion.name)[:, j])
        for conversion in conversions
        for j, column in enumerate(conversion.columns)
        if column.type == "string"
    } | dict.fromkeys(labels, pa.array(np.ones(len(samples), bool)))


def _formula_safe(texts: pa.ChunkedArray, generated: pa.Array) -> pa.ChunkedArray:
    """Put an apostrophe before `generated` texts that a spreadsheet would treat as formulas."""
    formula, number = (pc.match_substring_regex(texts, pattern) for pattern in (FORMULA, NUMBER))
    guarded = pc.and_(pc.and_not(formula, number), generated).fill_null(False)
    return pc.if_else(guarded, pc.binary_join_element_wise("'", texts, ""), texts)
