"""Tables: the files that modalities came from, with their headers in their order, units and types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion import Conversion, TableConversion
from postprior.pipelines.data.conversion.columns import NUMBER, named_type
from postprior.pipelines.data.conversion.texts import usual_dialect
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.data.importers.files import ends_in

FORMULA = r"^[=+\-@\t\r]"
ROWS = 1 << 14
"""Rows of a CSV that are written together."""


def write_tables(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """Every table of the samples; a row is left out that lacks all of its modalities, unless its file had it so."""
    chosen = [conversion for conversion in conversions if isinstance(conversion, TableConversion)]
    known = samples.dataset.conversion or {}
    for file, headers in samples.tables.items():
        text = not ends_in(Path(file), (".parquet",))
        dialect = usual_dialect(file) | known.get("dialects", {}).get(file, {})
        mark = dialect["decimal"] if text else None
        inside = [conversion for conversion in chosen if conversion.facts["file"] == file]
        columns = samples.roles(mark)
        for conversion in inside:
            made = samples.table(conversion, mark)
            columns |= dict(zip(made.column_names, made.columns, strict=True))
        if text and samples.excel_safe:
            columns |= {
                name: _harmless(columns[name], made) for name, made in _generated(samples, inside).items()
            }
        kept = [header for header in headers or columns if header in columns]
        table = pa.table([columns[header] for header in kept], names=kept)
        if inside:
            there = samples.observed({conversion.name for conversion in inside})
            table = table.filter(pa.array(np.any([there, *map(samples.in_file, inside)], 0)))
        types = {} if text else known.get("types", {}).get(file, {})
        write_table(_as_they_were(table, types), folder / file, dialect["delimiter"])


def write_table(table: pa.Table, path: Path, delimiter: str | None = None) -> None:
    """One table in the format of its name; texts of a CSV or TSV are quoted where they must be."""
    import pyarrow.parquet as parquet

    if ends_in(path, (".parquet",)):
        parquet.write_table(table, path)
        return
    delimiter = delimiter or usual_dialect(path.name)["delimiter"]
    alone = table.num_columns == 1  # an empty line is no row
    with open(path, "wb") as file:
        for block in (pa.table([[name] for name in table.column_names], table.column_names), *_blocks(table)):
            cells = [
                _quoted(column.cast(pa.string()).fill_null(""), delimiter, alone) for column in block.columns
            ]
            lines = cells[0] if alone else pc.binary_join_element_wise(*cells, delimiter)
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def _blocks(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, ROWS):
        yield table.slice(start, ROWS)


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
    found = {
        column.name: pa.array(samples.made(conversion.name)[:, j])
        for conversion in conversions
        for j, column in enumerate(conversion.columns)
        if column.type == "string"
    }
    if samples.synthetic and (label := samples.label_name):
        found[label] = pa.array(np.ones(len(samples), bool))
    return found


def _harmless(texts: pa.ChunkedArray, made: pa.Array) -> pa.ChunkedArray:
    """Texts, of those `made` with an apostrophe before what a spreadsheet would take for a formula."""
    formula, number = (pc.match_substring_regex(texts, pattern) for pattern in (FORMULA, NUMBER))
    guarded = pc.and_(pc.and_not(formula, number), made).fill_null(False)
    return pc.if_else(guarded, pc.binary_join_element_wise("'", texts, ""), texts)
