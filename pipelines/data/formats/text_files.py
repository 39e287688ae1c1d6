"""Text files of tables: their encoding, delimiter, comment lines and headers, and the texts of their cells."""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.forms import CELL, NUMBER
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import first_duplicate
from postprior.pipelines.texts import shortened

BLOCK = 1 << 26  # bytes of a text file per read, which is the greatest length of a row
DELIMITERS = ",;\t|"
ARCHIVES = {
    b"\x1f\x8b": ("a file that gzip compressed", "add .gz to its name"),
    b"PK\x03\x04": ("a spreadsheet or a zip archive", "save the sheet as CSV in UTF-8"),
}
"""The first bytes of files that are named .csv by mistake, what they are, and a remedy."""
TOTALS = {"total", "totals", "sum", "mean", "average", "summe", "gesamt", "mittelwert", "durchschnitt", "somme", "suma"}
"""First cells, in small letters, of rows of totals."""
FIRST = 20  # rows that decide about the delimiter
INDEX = "index"
"""The name that import gives to a first column without a header, such as the index that pandas writes."""


class Layout(NamedTuple):
    """How a text file is to be read: `skip` lines precede the rows, and `names` are the headers of all columns."""

    encoding: str
    delimiter: str
    skip: int
    names: list[str]


def layout(path: Path) -> Layout:
    """Recognise the layout of a text file from its bytes and its first rows; a csv.Error if it is not a text file."""
    encoding = _encoding(path)
    with _opened(path) as file, io.TextIOWrapper(file, encoding.replace("utf-8", "utf-8-sig"), newline="") as text:
        lines: Iterator[str] = iter(text)
        comments = 0
        first = next(lines, "")
        while first and not first.strip():
            first, comments = next(lines, ""), comments + 1
        if hint := re.match(rf'^"?sep=([{DELIMITERS}])"?\s*$', first):  # as Excel writes and reads
            first, comments = next(lines, ""), comments + 1
        while first.startswith("#") or (comments and not first.strip()):
            following = next(lines, "")
            if not following.startswith("#") and _delimited(first, following):
                lines = chain([following], lines)  # the header itself begins with #
                break
            first, comments = following, comments + 1
            if not following:
                break
        head = [first, *islice(lines, 10 * FIRST)]
    marks = DELIMITERS + " " * bool(re.search(r"\.txt(\.gz)?$", path.name, re.IGNORECASE))  # as R writes
    csv.field_size_limit(BLOCK)
    delimiter = hint[1] if hint else max(marks, key=lambda mark: _consistency(head, mark))
    reader = csv.reader(head, delimiter=delimiter)
    names = next(reader, [])
    if not names:
        raise UserError(f"{path}: no text found, expected a row of headers, and one row per sample; check the file")
    skip = comments + reader.line_num
    rows = [row for row in islice(reader, FIRST) if row and not row[0].startswith("#")]
    if len(names) == 1 and not "".join(head[1:2]).strip() and any(len(row) > 1 for row in rows):
        expected = "expected the headers first; delete the lines above them"
        raise UserError(f"{path}: the title {shortened(names[0], 60)!r} found above the headers, {expected}")
    if names and {len(row) for row in rows} == {len(names) + 1}:
        named = any(row[-1].strip() for row in rows)  # R leaves out the header of row names
        names = ["", *names] if named else [*names, ""]  # others end each row with a delimiter
    if names and not names[0].strip() and any(name.strip() for name in names):
        names[0] = INDEX
    return Layout(encoding, delimiter, skip, names)


def cells(path: Path, found: Layout) -> pa.Table:
    """Read the texts of all cells of a file, with the type `CELL`, and drop empty columns without a header at the end.

    A UserError names the first row that has another number of cells than the headers.
    """
    try:
        table = _read(path, found)
    except pa.ArrowInvalid:
        _check_lengths(path, found)
        raise
    names = list(found.names)
    while len(names) > 1 and not names[-1].strip() and not pc.any(pc.greater(pc.binary_length(table[-1]), 0)).as_py():
        names, table = names[:-1], table.remove_column(len(names) - 1)
    check_headers(path, names)
    return table.rename_columns(names)


def _read(path: Path, found: Layout) -> pa.Table:
    import pyarrow.csv as arrow

    return arrow.read_csv(
        path,
        arrow.ReadOptions(
            block_size=BLOCK,
            encoding=found.encoding.replace("utf-8", "utf8"),
            skip_rows=found.skip,
            column_names=(places := [str(place) for place in range(len(found.names))]),
        ),
        arrow.ParseOptions(
            delimiter=found.delimiter,
            newlines_in_values=True,
            invalid_row_handler=lambda row: "skip" if row.text.startswith("#") else "error",
        ),
        arrow.ConvertOptions(column_types=dict.fromkeys(places, CELL), strings_can_be_null=False),
    )


def _check_lengths(path: Path, found: Layout) -> None:
    """Refuse the first row that has another number of cells than the headers."""
    expected = len(found.names)
    with _opened(path) as file, io.TextIOWrapper(file, found.encoding, newline="") as text:
        reader = csv.reader(islice(text, found.skip, None), delimiter=found.delimiter)
        for row in reader:
            if row and not row[0].startswith("#") and len(row) != expected:
                line, cells = found.skip + reader.line_num, f"{len(row)} cell{'s' * (len(row) > 1)}"
                wanted = f"expected {expected}, as in the headers ({shortened(', '.join(found.names), 60)})"
                remedy = "correct the line, and delete lines of titles above the headers"
                raise UserError(f"{path}: line {line} has {cells}, {wanted}; {remedy}")


def without_extras(table: pa.Table, identified: bool) -> tuple[pa.Table, list[str]]:
    """Leave out rows that are no samples; also return what they are.

    Such are rows that repeat the headers, rows of totals at the end and, if the rows are `identified` by ids, empty
    rows.
    """
    names, texts = table.column_names, table[0]
    header, empty = (pc.equal(texts, pa.scalar(text.encode(), CELL)) for text in (names[0], ""))
    suspects = np.flatnonzero(pc.or_(header, empty).to_numpy())
    few = table.take(pa.array(suspects)).to_pylist()
    extras: dict[str, list[int]] = {"headers again": [], "empty": [], "totals": []}
    for row, cells in zip(suspects.tolist(), few, strict=True):
        if all(cell.decode(errors="replace").strip() == name for name, cell in cells.items()):
            extras["headers again"].append(row)
        elif identified and not any(cell.strip() for cell in cells.values()):
            extras["empty"].append(row)
    last = len(table) - 1
    word = texts[last].as_py().decode(errors="replace").strip().strip(":").casefold()
    if word in TOTALS and len(names) > 1 and pc.sum(pc.equal(texts, texts[last])).as_py() == 1:
        extras["totals"].append(last)
    rows = [row for kind in extras.values() for row in kind]
    told = [
        f"row {kind[0] + 1}{f' and {len(kind) - 1} more' * (len(kind) > 1)} ({what})"
        for what, kind in extras.items()
        if kind
    ]
    return (table.take(pa.array(np.delete(np.arange(len(table)), rows))) if rows else table), told


def are_numbers(names: list[str]) -> bool:
    """Whether headers are numbers that neither rise nor fall, such as those of a first sample."""
    if len(names) < 2 or not all(re.match(NUMBER, name.strip()) for name in names):
        return False
    steps = np.diff([float(name) for name in names])
    return not ((steps > 0).all() or (steps < 0).all())


def texts(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells as strings."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        expected = "expected text in UTF-8; save the file in UTF-8"
        raise UserError(f"{path}: column {name}: bytes that are not UTF-8 found, {expected}") from None


def check_headers(path: Path, names: list[str]) -> None:
    """Refuse empty and repeated headers."""
    if empty := [place for place, name in enumerate(names) if not name.strip()]:
        raise UserError(f"{path}: column {empty[0] + 1} has an empty header, expected a name; name the column")
    if (name := first_duplicate(names)) is not None:
        remedy = "rename one" if not re.match(NUMBER, name) else "rename one, or add a row of headers if there is none"
        raise UserError(f"{path}: header {name!r} found twice, expected a different name per column; {remedy}")


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else open(path, "rb")


def _encoding(path: Path) -> str:
    """Return the encoding of a file: UTF-16, UTF-8, Windows-1252 or Latin-1."""
    with _opened(path) as file:
        start = file.read(1 << 10)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for marks, (what, remedy) in ARCHIVES.items():
        if start.startswith(marks):
            raise UserError(f"{path}: {what} found, expected a table as text; {remedy}")
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if zeros.count(0) > 0.9 * len(zeros) > 0:
            return encoding
    for encoding in ("utf-8", "cp1252", "latin-1"):
        decoder = codecs.getincrementaldecoder(encoding)()
        with _opened(path) as file:
            try:
                while block := file.read(1 << 20):
                    if b"\0" in block:
                        raise csv.Error("a zero byte")
                    decoder.decode(block)
                decoder.decode(b"", final=True)
                return encoding
            except UnicodeDecodeError:
                if encoding == "utf-8":
                    _check_utf8(path)
    raise csv.Error("no known encoding")  # every byte is valid in Latin-1


def _check_utf8(path: Path) -> None:
    """Refuse a file in UTF-8 with some bytes of another encoding, which would garble all other letters."""
    known, broken, line, first = 0, 0, 1, 0
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8", errors="replace") as text:
        while block := text.read(1 << 20):
            if (place := block.find("\ufffd")) >= 0:
                broken, first = broken + block.count("\ufffd"), first or line + block.count("\n", 0, place)
            known, line = known + sum(character > "\x7f" for character in block), line + block.count("\n")
    if known > 2 * broken:
        expected = "expected one encoding; save the file in UTF-8"
        raise UserError(f"{path}: text in UTF-8 with other bytes found, the first in line {first}, {expected}")


def _delimited(header: str, row: str) -> bool:
    """Whether a line and the next have the same number of cells, and more than one."""
    counts = [(len(header.split(mark)), len(row.split(mark))) for mark in DELIMITERS]
    return any(a == b > 1 for a, b in counts)


def _consistency(lines: list[str], mark: str) -> tuple[bool, bool, int]:
    """Return whether the rows have as many cells as the header (or one more), and the number of cells.

    Between them is whether the delimiter is no blank, which texts contain as well.
    """
    rows = [row for row in islice(csv.reader(lines, delimiter=mark), FIRST + 1) if row and not row[0].startswith("#")]
    if not rows:
        return False, mark != " ", 0
    counts = {len(row) for row in rows[1:]}
    fits = len(counts) <= 1 and counts <= {len(rows[0]), len(rows[0]) + 1}
    return fits and len(rows[0]) + len(counts) > 2, mark != " ", len(rows[0])


def stem(file: str) -> str:
    """Return the name of a file without its suffixes.

    >>> stem("rna.csv.gz")
    'rna'
    """
    return Path(re.sub(r"\.gz$", "", file, flags=re.IGNORECASE)).stem
