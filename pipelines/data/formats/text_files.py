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

import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.forms import CELL
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import first_duplicate

BLOCK = 1 << 26  # bytes of a text file per read, which is the greatest length of a row
DELIMITERS = ",;\t|"
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
    delimiter = max(marks, key=lambda mark: _consistency(head, mark))
    reader = csv.reader(head, delimiter=delimiter)
    names = next(reader, [])
    skip = comments + reader.line_num
    rows = [row for row in islice(reader, FIRST) if row and not row[0].startswith("#")]
    if names and {len(row) for row in rows} == {len(names) + 1}:
        named = any(row[-1].strip() for row in rows)  # R leaves out the header of row names
        names = ["", *names] if named else [*names, ""]  # others end each row with a delimiter
    if names and not names[0].strip() and any(name.strip() for name in names):
        names[0] = INDEX
    return Layout(encoding, delimiter, skip, names)


def cells(path: Path, found: Layout) -> pa.Table:
    """Read the texts of all cells of a file, with the type `CELL`, and drop empty columns without a header at the end.

    An ArrowException is raised if rows have different numbers of cells.
    """
    import pyarrow.csv as arrow

    table = arrow.read_csv(
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
    names = list(found.names)
    while len(names) > 1 and not names[-1].strip() and not pc.any(pc.greater(pc.binary_length(table[-1]), 0)).as_py():
        names, table = names[:-1], table.remove_column(len(names) - 1)
    check_headers(path, names)
    return table.rename_columns(names)


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
        raise UserError(f"{path}: header {name!r} found twice, expected a different name per column; rename one")


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else open(path, "rb")


def _encoding(path: Path) -> str:
    """Return the encoding of a file: UTF-16 with a mark, UTF-8, Windows-1252 or Latin-1."""
    with _opened(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
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
                continue
    raise csv.Error("no known encoding")  # every byte is valid in Latin-1


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
