"""Tables: CSV, TSV and Parquet files, one or a folder of them."""

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
from postprior.pipelines.data.conversion.texts import CELL, comes_back, typed, usual_dialect, without_missing
from postprior.pipelines.data.formats.contents import Found, Roles, TableView, column_kind, made_plain, plain, safe_name
from postprior.pipelines.data.formats.files import ends_in, files_in, holds
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.settings.names import first_duplicate, hint, listed

ABOUT = "a .csv, .tsv or .parquet table or a folder of them"
FACTS: tuple[str, ...] = ("file",)
TEXT = (".csv", ".tsv")
SUFFIXES = (*TEXT, ".parquet")
ROWS = 1 << 14  # of a CSV that are written together
FORMULA = r"^[=+\-@\t\r]"
IDS = ("id", "Id", "ID")  # headers of columns that are taken for ids where none is named
BLOCK = 1 << 26  # bytes of a text file that are read together; a row is no longer


def recognises(path: Path) -> bool:
    """Whether a path is a table, or a folder that holds some, by their names."""
    return holds(path, SUFFIXES, deep=False) if path.is_dir() else ends_in(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[Found]:
    """Each table with its columns in their roles; those that have none make modalities."""
    files = files_in(path, SUFFIXES, deep=False) if path.is_dir() else [path]
    return [_read_text(file, roles) if ends_in(file, TEXT) else _read_parquet(file, roles) for file in files]


def _readable(path: Path) -> AbstractContextManager[None]:
    """A UserError for whatever is wrong with a file that is read inside."""
    broken = pa.ArrowException, OSError, UnicodeDecodeError, csv.Error
    return as_user_error(broken, f"{path}: this is no table in UTF-8 with one header a column", "save it again as such")


def _read_parquet(path: Path, roles: Roles) -> Found:
    """The columns of one Parquet file."""
    import pyarrow.parquet as parquet

    with _readable(path):
        _check_headers(path, parquet.read_schema(path).names)
        table = parquet.read_table(path)
    _check_rows(path, table)
    columns, originals = made_plain(path, table)
    changed = [field for field in table.schema if field.type != columns.schema.field(field.name).type]
    found = found_in(columns, path.name, roles, originals=originals)
    return replace(found, types={field.name: str(field.type) for field in changed})


def _read_text(path: Path, roles: Roles) -> Found:
    """The columns of a CSV or TSV; numbers may have decimal commas where no comma stands between columns.

    Whole numbers with zeros that lead are texts (codes of places or diseases) unless a kind of numbers is asked for;
    ids and subjects are numbers only where they are written just so.
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
        if not comes_back(column, cells[name], mark):
            originals[name] = cells[name]
        columns[name] = plain(path, name, column)
    dialect = {"delimiter": delimiter, "decimal": mark}
    found = found_in(pa.table(columns), path.name, roles, originals=originals)
    return found if dialect == usual_dialect(path.name) else replace(found, dialect=dialect)


def _cells(path: Path, delimiter: str) -> pa.Table:
    """The texts of all cells of a file, as `CELL`."""
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
        raise UserError(f"{path}: column {name}: bytes that are no UTF-8 found; save the file in UTF-8") from None


def _typed(text: pa.ChunkedArray, mark: str, name: str, roles: Roles) -> pa.ChunkedArray:
    """What the cells of a column mean."""
    column = typed(text, mark)
    codes = pa.types.is_integer(column.type) and roles.kinds.get(name, "categorical") == "categorical"
    padded = codes and pc.any(pc.match_substring_regex(text, r"^[+-]?0\d")).as_py()
    return without_missing(text) if padded else column


def _decimal_commas(texts: pa.ChunkedArray) -> bool:
    """Whether all texts of a column are numbers, some of them with a comma."""
    if not pc.any(pc.match_substring(texts, ",")).as_py():
        return False
    known = without_missing(texts)
    return bool(pc.all(pc.match_substring_regex(known, r"^[+-]?\d*,?\d+([eE][+-]?\d+)?$")).as_py())


def _check_headers(path: Path, names: Sequence[str]) -> None:
    if empty := [place for place, name in enumerate(names) if not name.strip()]:
        raise UserError(f"{path}: an empty header found above column {empty[0] + 1}, expected a name; give it one")
    if (name := first_duplicate(names)) is not None:
        raise UserError(f"{path}: header {name!r} found twice, expected a name of its own a column; rename one")


def _check_rows(path: Path, table: pa.Table) -> None:
    if not table.num_rows:
        raise UserError(f"{path}: found no rows below the headers, expected one a sample")


def _unless_padded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as whole numbers where these are written just so."""
    known = without_missing(texts)
    try:
        numbers = known.cast(pa.int64())
    except pa.ArrowInvalid:
        return known
    return numbers if numbers.cast(pa.string()).equals(known) else known


def found_in(
    table: pa.Table,
    place: str,
    roles: Roles,
    facts: dict[str, Any] | None = None,
    originals: Mapping[str, pa.ChunkedArray] | None = None,
) -> Found:
    """The columns of a table in their roles; `facts` say how to write them back, `originals` are as for `Found`."""
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
    return Found(place, len(table), tuple(views), targets=targets, headers=headers, originals=others, **known)


def _groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Columns by modality: the groups that the user names, and the rest under the name of the file."""
    groups = {}
    for modality, columns in roles.modalities.items():
        lacking = [column for column in columns if column not in names]
        if lacking and len(lacking) < len(columns):
            found = f"{place} has no free column {lacking[0]!r}{hint(lacking[0], names)}"
            raise UserError(f"--modality {modality}: {found}; found there: {listed(names)}")
        if len(lacking) < len(columns):
            groups[modality] = list(columns)
    grouped = [column for columns in groups.values() for column in columns]
    if (column := first_duplicate(grouped)) is not None:
        raise UserError(f"--modality: found column {column!r} twice, expected it in one modality; take one out")
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


def write(samples: Samples, conversions: Sequence[TableConversion], path: Path) -> None:
    """Every table of the samples; a row is left out that lacks all of its modalities, unless its file had it so."""
    known = samples.dataset.conversion or {}
    for file, headers in samples.tables.items():
        text = not ends_in(Path(file), (".parquet",))
        dialect = usual_dialect(file) | known.get("dialects", {}).get(file, {})
        mark = dialect["decimal"] if text else None
        within = [conversion for conversion in conversions if conversion.facts["file"] == file]
        columns = samples.roles(mark)
        for conversion in within:
            made = samples.table(conversion, mark)
            columns |= dict(zip(made.column_names, made.columns, strict=True))
        if text and samples.excel_safe:
            columns |= {name: _harmless(columns[name], made) for name, made in _generated(samples, within).items()}
        kept = [header for header in headers or columns if header in columns]
        table = pa.table([columns[header] for header in kept], names=kept)
        if within:
            there = samples.observed({conversion.name for conversion in within})
            table = table.filter(pa.array(np.any([there, *map(samples.in_file, within)], 0)))
        types = {} if text else known.get("types", {}).get(file, {})
        write_table(_as_they_were(table, types), path / file, dialect["delimiter"])


def write_table(table: pa.Table, path: Path, delimiter: str | None = None) -> None:
    """One table in the format of its name; texts of a CSV or TSV are quoted where they must be."""
    import pyarrow.parquet as parquet

    if ends_in(path, (".parquet",)):
        parquet.write_table(table, path)
        return
    delimiter = delimiter or usual_dialect(path.name)["delimiter"]
    alone = table.num_columns == 1  # an empty line is no row
    with open(path, "wb") as file:
        blocks = (table.slice(start, ROWS) for start in range(0, table.num_rows, ROWS))
        for block in chain([pa.table([[name] for name in table.column_names], table.column_names)], blocks):
            cells = [_quoted(column.cast(pa.string()).fill_null(""), delimiter, alone) for column in block.columns]
            lines = cells[0] if alone else pc.binary_join_element_wise(*cells, delimiter)
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def _quoted(texts: pa.ChunkedArray, delimiter: str, alone: bool) -> pa.ChunkedArray:
    """Texts of cells as a line of a CSV has them; those of a column that is `alone` are never nothing."""
    needed = pc.match_substring_regex(texts, f'["\r\n{delimiter}]')
    if alone:
        needed = pc.or_(needed, pc.equal(texts, ""))
    if not pc.any(needed).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(needed, quoted, texts)


def _as_they_were(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Columns in the types of their file, but for those whose values do not fit there."""
    for place, name in enumerate(table.column_names):
        if name in types:
            with suppress(pa.ArrowException):  # a drawn number with more digits than a decimal has
                table = table.set_column(place, name, table.column(place).cast(named_type(types[name])))
    return table


def _generated(samples: Samples, conversions: Sequence[TableConversion]) -> dict[str, pa.Array]:
    """Which cells of columns of texts were filled in or generated, by header; ids never were."""
    labels = [samples.label_name] if samples.synthetic and samples.label_name else []
    return {
        column.name: pa.array(samples.made(conversion.name)[:, j])
        for conversion in conversions
        for j, column in enumerate(conversion.columns)
        if column.type == "string"
    } | dict.fromkeys(labels, pa.array(np.ones(len(samples), bool)))


def _harmless(texts: pa.ChunkedArray, made: pa.Array) -> pa.ChunkedArray:
    """Texts, of those `made` with an apostrophe before what a spreadsheet would take for a formula."""
    formula, number = (pc.match_substring_regex(texts, pattern) for pattern in (FORMULA, NUMBER))
    guarded = pc.and_(pc.and_not(formula, number), made).fill_null(False)
    return pc.if_else(guarded, pc.binary_join_element_wise("'", texts, ""), texts)
