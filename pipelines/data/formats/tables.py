"""Tables: a CSV, TSV or Parquet file, or a folder of such files."""

import codecs
import csv
import gzip
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion import TableConversion
from postprior.pipelines.data.conversion.categories import (
    RARE,
    check_numbers,
    common_values,
    constant_value,
    is_free_text,
)
from postprior.pipelines.data.conversion.columns import UNMODELLED, named_type
from postprior.pipelines.data.conversion.forms import NUMBER, PLAIN, Form, usual_dialect
from postprior.pipelines.data.conversion.texts import is_restored
from postprior.pipelines.data.formats.contents import (
    Roles,
    SourceContents,
    TableView,
    column_kind,
    simplify_column,
    simplify_table,
)
from postprior.pipelines.data.formats.files import ends_in, files_in, holds
from postprior.pipelines.data.formats.identities import (
    IDS,
    first_rows,
    id_column,
    id_rank,
    is_index,
    unless_padded,
    visits,
)
from postprior.pipelines.data.formats.interpretation import Notes, interpret, stored
from postprior.pipelines.data.formats.patterns import has_decimal_commas
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.text_files import (
    INDEX,
    are_numbers,
    cells,
    check_headers,
    layout,
    stem,
    without_extras,
)
from postprior.pipelines.data.formats.text_files import texts as as_texts
from postprior.pipelines.data.names import column_name, composed
from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.progress import substeps
from postprior.pipelines.settings.names import first_duplicate, hint, listed
from postprior.pipelines.texts import shell_quoted

ABOUT = "a .csv, .tsv, .txt, .parquet or .feather table or a folder of them"
FACTS: tuple[str, ...] = ("file",)
OPTIONS: tuple[str, ...] = ("na", "keep_rare", "dates", "repeated")
TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
BINARY = (".parquet", ".feather")
SUFFIXES = (*TEXT, *BINARY)
ALONE = (".txt", ".txt.gz")
"""Suffixes of text files that are tables if the user names them; in a folder, they may be anything."""
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
ROWS = 1 << 14  # rows of a CSV per write
FORMULA = r"^[=+\-@\t\r]"
CONSTANT = "constant or nearly, not modelled but written back: {}; --keep-rare models those that vary in a few rows"
FREE_TEXT = "free text or names, not modelled but written back: {}; --kind COLUMN=categorical models the common values"
NOTHING = "constant or free text, left out and not written back, as nothing else is in the modality: {}"
OTHERS = "rare values, modelled together as 'other': {}; --keep-rare keeps those of few rows"
EXTRAS = "rows that are no samples, left out: {}"
NUMBERED = "headers that are numbers: {}, …; if they are a row of the data, add a row of headers above it"
RARE_NUMBERS = "rare values, which the model treats as missing: {}; --keep-rare keeps those of few rows"


def recognises(path: Path) -> bool:
    """Whether a path is a table or a folder with tables, judged by suffixes."""
    return holds(path, SUFFIXES, deep=False) if path.is_dir() else ends_in(path, (*SUFFIXES, *ALONE, *SHEETS))


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read each table; columns without a role form modalities."""
    files = files_in(path, SUFFIXES, deep=False) if path.is_dir() else [path]
    if ends_in(path, SHEETS):
        raise UserError(f"{path}: a spreadsheet found, expected {ABOUT}; save the sheet as CSV in UTF-8")
    return [_read_binary(file, roles) if ends_in(file, BINARY) else _read_text(file, roles) for file in files]


def _readable(path: Path) -> AbstractContextManager[None]:
    """Turn an error of reading a broken file into a UserError."""
    broken = pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error
    return as_user_error(broken, f"{path}: this is not a table with one header per column", "save the file again")


def _read_binary(path: Path, roles: Roles) -> SourceContents:
    """Read the columns of one Parquet or Feather file."""
    import pyarrow.feather as feather
    import pyarrow.parquet as parquet

    with _readable(path):
        if ends_in(path, (".parquet",)):
            check_headers(path, parquet.read_schema(path).names)
            table = parquet.read_table(path)
        else:
            table = feather.read_table(path)
            check_headers(path, table.column_names)
    return typed_contents(path, table, roles)


def typed_contents(path: Path, table: pa.Table, roles: Roles, identity: str | None = None) -> SourceContents:
    """Sort the columns of a table with types by role; `path` names it, and `identity` its ids, if they are known.

    A column of categories that are numbers is categorical.
    """
    _check_rows(path, table)
    table, spellings = _composed(path, table)
    roles = replace(roles, kinds=dict.fromkeys(_numbered_categories(table), "categorical") | dict(roles.kinds))
    columns, originals = simplify_table(path, table)
    changed = [field for field in table.schema if field.type != columns.schema.field(field.name).type]
    notes, forms = Notes(), {}
    for place, (name, column) in enumerate(zip(columns.column_names, columns.columns, strict=True)):
        values, forms[name] = stored(name, column, roles, notes)
        if values is not column:
            originals.setdefault(name, table[name])
            columns = columns.set_column(place, name, values)
    contents = table_contents(columns, path.name, roles, None, originals, forms, notes, identity)
    return replace(contents, types={field.name: str(field.type) for field in changed}, spellings=spellings)


def _numbered_categories(table: pa.Table) -> list[str]:
    """Return the columns of several categories that are numbers."""
    return [
        field.name
        for field in table.schema
        if pa.types.is_dictionary(field.type)
        and (pa.types.is_integer(field.type.value_type) or pa.types.is_floating(field.type.value_type))
        and pc.count_distinct(table[field.name].cast(field.type.value_type)).as_py() > 1
    ]


def _read_text(path: Path, roles: Roles) -> SourceContents:
    """Read the columns of a CSV or TSV.

    Whole numbers with leading zeros are texts (postal or disease codes) unless the user requests a numeric kind. Ids
    and subjects are numbers only if they are written exactly as integers are formatted.
    """
    with _readable(path):
        found = layout(path)
        original = cells(path, found)
    _check_rows(path, original)
    original, spellings = _composed(path, original)
    original, extras = without_extras(
        original, any(id_rank(name) or name == roles.id for name in original.column_names)
    )
    texts = {name: as_texts(path, name, original[name]) for name in original.column_names}
    mark = "," if any(has_decimal_commas(text, found.delimiter) for text in texts.values()) else "."
    identities = {name for name in (roles.id, roles.group) if name} | {name for name in texts if id_rank(name)}
    columns, originals, forms, notes = {}, {}, {}, Notes()
    notes.add(EXTRAS, extras)
    notes.add(NUMBERED, found.names[:3] if are_numbers(found.names) else [])
    for name, text in substeps(texts.items(), len(texts)):
        if name in identities or name == INDEX:
            column, forms[name] = unless_padded(text), PLAIN
        else:
            column, forms[name] = interpret(name, text, mark, roles, notes)
            if _padded(text, column, roles.kinds.get(name)):
                column = forms[name].observed(text)
        if not is_restored(column, original[name], mark):
            originals[name] = original[name]
        columns[name] = simplify_column(path, name, column)
    dialect = {"delimiter": found.delimiter, "decimal": mark, "encoding": found.encoding}
    if found.encoding != "utf-8":
        notes.add("read in the encoding {}, which export writes too", [found.encoding])
    contents = table_contents(pa.table(columns), path.name, roles, None, originals, forms, notes)
    contents = replace(contents, spellings=spellings)
    return contents if dialect == usual_dialect(path.name) else replace(contents, dialect=dialect)


def _composed(path: Path, table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """Return a table with its headers in plain form, and the headers as written where these differ."""
    headers = [column_name(name) for name in table.column_names]
    check_headers(path, headers)
    spellings = {header: name for header, name in zip(headers, table.column_names, strict=True) if header != name}
    return table.rename_columns(headers), spellings


def _padded(text: pa.ChunkedArray, column: pa.ChunkedArray, requested: str | None) -> bool:
    """Whether whole numbers are written with leading zeros, and the user requests no numeric kind."""
    codes = pa.types.is_integer(column.type) and requested in (None, "categorical")
    return bool(codes and pc.any(pc.match_substring_regex(text, r"^[+-]?0\d")).as_py())


def _check_rows(path: Path, table: pa.Table) -> None:
    if not table.num_rows:
        expected = "expected one row per sample; check the file"
        raise UserError(f"{path}: no rows found below the headers, {expected}")


def table_contents(
    table: pa.Table,
    place: str,
    roles: Roles,
    facts: dict[str, Any] | None = None,
    originals: Mapping[str, pa.ChunkedArray] | None = None,
    forms: Mapping[str, Form] | None = None,
    notes: Notes | None = None,
    known_identity: str | None = None,
) -> SourceContents:
    """Sort the columns of a table by role; `facts` say how to write them back, `originals` as in `SourceContents`.

    `known_identity` is the column of ids, if it need not be found.
    """
    originals, notes = originals or {}, notes or Notes()
    forms = {name: form for name, form in (forms or {}).items() if form != PLAIN}
    names = table.column_names
    identity = known_identity or id_column(table, roles)
    group = (roles.group, table[roles.group]) if roles.group in names else None
    ids = (identity, table[identity]) if identity in names else None
    if ids is not None and identity not in (roles.id, known_identity, IDS[0]):
        notes.add("rows are identified by {}; --id COLUMN chooses another column", [str(identity)])
    if ids is not None and roles.repeated == "first":
        rows = first_rows(ids[1])
        notes.add(
            "rows with the id of an earlier row, left out: {}", [str(len(table) - len(rows))][len(rows) == len(table) :]
        )
        table, originals = table.take(rows), {name: column.take(rows) for name, column in originals.items()}
        ids, group = (identity, table[identity]), (roles.group, table[roles.group]) if group else None
    if ids is not None and roles.repeated == "visits":
        group, ids = ids, (None, visits(ids[1]))
    roles_of = {"label": roles.label, "split": roles.split}
    known: dict[str, Any] = {role: (name, table[name]) if name in names else None for role, name in roles_of.items()}
    targets = {name: table[name] for name in roles.targets if name in names}
    taken = {identity, roles.group, *roles_of.values(), *roles.targets, *roles.skip}
    known["skipped"] = tuple(name for name in names if name in roles.skip)
    grouped = _groups if roles.only is None else _known_groups
    views = []
    for name, columns in grouped(place, [name for name in names if name not in taken], roles).items():
        told = Notes()
        kinds = {column: _kind(place, column, table[column], roles, told) for column in columns}
        kinds = {column: kind for column, kind in kinds.items() if kind != UNMODELLED}
        if kinds:
            notes.extend(told)
            own = {column: originals[column] for column in columns if column in originals}
            own_facts, content = facts or {"source": "tables", "file": place}, table.select(columns)
            views.append(TableView(name, content, kinds, own_facts, own, forms, roles.keep_rare, roles.kinds.keys()))
        else:
            notes.add(NOTHING, columns)
    headers = tuple(name for name in names if name not in roles.skip)
    others = {name: column for name, column in originals.items() if name in taken}
    return SourceContents(
        place,
        len(table),
        tuple(views),
        ids,
        group=group,
        targets=targets,
        headers=headers,
        originals=others,
        forms=forms,
        notes=notes.lines(place),
        **known,
    )


def _kind(place: str, name: str, column: pa.ChunkedArray, roles: Roles, notes: Notes) -> str:
    """Return the kind of a column; constants, free text and an index are not modelled unless the user gives a kind."""
    kind = column_kind(place, name, column, roles.kinds)
    if roles.only is not None:
        return kind
    requested, texts = name in roles.kinds, pa.types.is_string(column.type)
    rare_too = requested and (texts or kind != "categorical")  # rare texts become a category, rare numbers do not
    if constant_value(column, roles.keep_rare or rare_too) is not None:
        notes.add(CONSTANT, [name])
        return UNMODELLED
    if is_index(name) and not requested:
        notes.add("index, not modelled but written back: {}", [name])
        return UNMODELLED
    if kind != "categorical":
        return kind
    if texts and not requested and is_free_text(column, roles.keep_rare):
        check_numbers(place, name, column)
        notes.add(FREE_TEXT, [name])
        return UNMODELLED
    common = common_values(column, roles.keep_rare)
    values = pc.count_distinct(column).as_py()
    if len(common.values) < 2:
        found = f"{values} values found, {len(common.values) - common.others} of them in {RARE} rows or more"
        remedy = f"add --keep-rare, or leave the column out (--skip {shell_quoted(name)})"
        raise UserError(f"{place}: column {name}: {found}, expected two categories or more; {remedy}")
    if rare := values - len(common.values) + common.others:
        notes.add(OTHERS if common.others else RARE_NUMBERS, [f"{name} ({rare} value{'s' * (rare > 1)})"])
    return kind


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
        groups[composed(stem(place))] = rest
    return groups


def _known_groups(place: str, names: list[str], roles: Roles) -> dict[str, list[str]]:
    """Return columns by known modality, starting with the one named after the file.

    Known columns may be absent, and unknown columns are left out.
    """
    own, free, groups = composed(stem(place)), dict.fromkeys(names), {}
    for modality in sorted(roles.modalities, key=lambda name: name != own):
        if columns := [column for column in roles.modalities[modality] if column in free]:
            groups[modality] = columns
            free = dict.fromkeys(column for column in free if column not in columns)
    return groups


def write(samples: Samples, conversions: Sequence[TableConversion], path: Path) -> None:
    """Write every table of the samples; rows without any of its modalities are left out, unless the source had them."""
    description = samples.dataset.conversion or {}
    for file in samples.tables:
        dialect = usual_dialect(file) | description.get("dialects", {}).get(file, {})
        mark = None if ends_in(Path(file), BINARY) else dialect["decimal"]
        within = [conversion for conversion in conversions if conversion.facts["file"] == file]
        write_table(table_of(samples, within, file, mark), path / file, dialect["delimiter"], dialect["encoding"])


def table_of(samples: Samples, within: Sequence[TableConversion], file: str, mark: str | None = None) -> pa.Table:
    """Return the table of a file, whose modalities are those `within`, under its headers as written.

    If a decimal `mark` is given, all columns are texts; else they have their original types. The file has a line for
    each row with a value, or with a label that no other file holds (`Samples.labelled_in`).
    """
    columns = samples.roles(mark)
    if (header := samples.id_headers.get(file)) is not None:
        columns[header] = columns.pop(next(iter(columns)))
    for conversion in within:
        decoded = samples.table(conversion, mark)
        columns |= dict(zip(decoded.column_names, decoded.columns, strict=True))
    if mark is not None and samples.excel_safe:
        for name, generated in _generated_cells(samples, within).items():
            columns[name] = _formula_safe(columns[name], generated)
    order = {column_name(text): text for text in samples.tables[file] or columns if column_name(text) in columns}
    table = pa.table([columns[name] for name in order], names=list(order))
    if within:
        observed = samples.observed({conversion.name for conversion in within})
        kept = np.any([observed, samples.labelled_in(file), *map(samples.in_file, within)], 0)
        table = table.filter(pa.array(kept))
    types = (samples.dataset.conversion or {}).get("types", {}).get(file, {}) if mark is None else {}
    return _with_types(table, types).rename_columns(list(order.values()))


def write_table(table: pa.Table, path: Path, delimiter: str | None = None, encoding: str = "utf-8") -> None:
    """Write one table in the format of its suffix; texts of a CSV or TSV are quoted only where necessary.

    A text that the encoding cannot represent makes the file one in UTF-8.
    """
    if ends_in(path, (".parquet",)):
        import pyarrow.parquet as parquet

        parquet.write_table(table, path)
        return
    if ends_in(path, (".feather",)):
        import pyarrow.feather as feather

        feather.write_feather(table, path)
        return
    delimiter = delimiter or usual_dialect(path.name)["delimiter"]
    alone = table.num_columns == 1  # an empty line would not be read as a row
    encoder = codecs.getincrementalencoder(encoding)()
    with open(path, "wb") as plain:
        packed = gzip.GzipFile("", "wb", fileobj=plain, mtime=0) if ends_in(path, (".gz",)) else nullcontext(plain)
        with suppress(UnicodeEncodeError), packed as file:
            blocks = (table.slice(start, ROWS) for start in range(0, table.num_rows, ROWS))
            for block in chain([pa.table([[name] for name in table.column_names], table.column_names)], blocks):
                texts = [_quoted(column.cast(pa.string()).fill_null(""), delimiter, alone) for column in block.columns]
                lines = texts[0] if alone else pc.binary_join_element_wise(*texts, delimiter)
                file.write(encoder.encode("\n".join(lines.to_pylist()) + "\n"))
            return
    write_table(table, path, delimiter)


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
