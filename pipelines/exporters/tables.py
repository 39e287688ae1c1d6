"""Tables: the files that modalities came from, with their headers in their order, units and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.conversion import Conversion, TableConversion
from pipelines.conversion.columns import NUMBER, named_type
from pipelines.exporters.samples import Samples

FORMULA = r"^[=+\-@\t\r]"


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
        types = (samples.dataset.conversion or {}).get("types", {}).get(file, {})
        write_table(_as_they_were(table, types), folder / file)


def write_table(table: pa.Table, path: Path) -> None:
    """One table in the format of its name; texts of a CSV that a spreadsheet would compute are quoted."""
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    if path.suffix.lower() == ".parquet":
        parquet.write_table(table, path)
        return
    columns = [_harmless(column) if pa.types.is_string(column.type) else column for column in table.columns]
    names = _harmless(pa.chunked_array([table.column_names])).to_pylist()
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    csv.write_csv(pa.table(columns, names=names), path, csv.WriteOptions(delimiter=mark))


def _as_they_were(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Columns in the types of their file, but for those whose values do not fit there."""
    for place, name in enumerate(table.column_names):
        if name in types:
            with suppress(pa.ArrowException):  # a drawn number with more digits than a decimal has
                table = table.set_column(place, name, table.column(place).cast(named_type(types[name])))
    return table


def _harmless(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts with an apostrophe before what a spreadsheet would take for a formula."""
    formula, number = (pc.match_substring_regex(texts, pattern) for pattern in (FORMULA, NUMBER))
    quoted = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.and_not(formula, number), quoted, texts)
