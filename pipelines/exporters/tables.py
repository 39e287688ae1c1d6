"""Tables: the files that modalities came from, with their headers in their order, units and types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.conversion import Conversion, TableConversion
from pipelines.exporters.samples import Samples

FORMULA = re.compile(r"^[=+\-@\t\r]")
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def write_tables(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """Every table of the samples; a row that lacks all of its modalities is left out."""
    chosen = [conversion for conversion in conversions if isinstance(conversion, TableConversion)]
    for file, headers in samples.tables.items():
        inside = [conversion for conversion in chosen if conversion.facts["file"] == file]
        columns = dict(samples.roles)
        for conversion in inside:
            columns |= dict(
                zip((c.name for c in conversion.columns), samples.table(conversion).columns, strict=True)
            )
        kept = [header for header in headers or columns if header in columns]
        table = pa.table([columns[header] for header in kept], names=kept)
        if inside:
            table = table.filter(pa.array(samples.observed({conversion.name for conversion in inside})))
        write_table(table, folder / file)


def write_table(table: pa.Table, path: Path) -> None:
    """One table in the format of its name; texts of a CSV that a spreadsheet would compute are quoted."""
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return
    columns = [
        pa.chunked_array([_harmless(column)]) if pa.types.is_string(column.type) else column
        for column in table.columns
    ]
    names = [text or "" for text in _harmless(table.column_names)]
    mark = "\t" if path.suffix == ".tsv" else ","
    csv.write_csv(pa.table(columns, names=names), path, csv.WriteOptions(delimiter=mark))


def _harmless(texts: Sequence[str] | pa.ChunkedArray) -> list[str | None]:
    """Texts with an apostrophe before what a spreadsheet would take for a formula."""
    known = texts.to_pylist() if isinstance(texts, pa.ChunkedArray) else texts
    changed = {
        text: f"'{text}" if FORMULA.match(text) and not NUMBER.match(text) else text
        for text in set(known)
        if text is not None
    }
    return [None if text is None else changed[text] for text in known]
