"""How a column is written in its file: marks of missing cells, symbols and separators of numbers, patterns of dates."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

CELL = pa.binary()  # the type of a column of texts of cells
MARKS = (
    *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null", "-NaN", "-nan"),
    *("1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "<NA>", "None", "?", "."),
)
"""Texts that mark a missing cell: those of pyarrow, and some of other programs."""
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""A regular expression for a text that is a number."""
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
TYPES = (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.float64())
"""Types of a column of texts, tried in this order."""
TYPOGRAPHIC = (
    ("^\u2013|[\u2212\uff0d]", "-"),
    ("[\u00a0\u2000-\u200a\u202f\u3000]", " "),
    ("[\u2019\u02bc\u00b4]", "'"),
    *((chr(ord(plain) - ord("!") + 0xFF01), plain) for plain in "0123456789.,%+$"),
)
"""Regular expressions of minus signs, blanks, apostrophes and full-width characters, and the ASCII text of each."""
SIGNS = ((r"\.-+$", ""), (r"^\((.*)\)$", r"-\1"), (r"^([^-].*)-$", r"-\1"))
"""Regular expressions of the negative numbers (5) and 5-, and of whole amounts such as 5.-, and what replaces them."""
ZONE = "%z"
"""What ends the pattern of times with an offset from UTC; the values are in UTC."""
ZONED = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)$"
"""A regular expression for such a time."""
PARTS = {"%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{1,2}", "%b": "[A-Za-z]{3}"}
"""Regular expressions for the parts of dates."""
SOME = 1000
"""Number of rows that are tried first: if they do not fit, the other rows need not be tried."""


@dataclass(frozen=True)
class Form:
    """The form in which a file writes the cells of one column.

    Args:
        pattern: of dates, the format of strftime; of numbers, the texts around `{}`, which holds the character between
            thousands: `${,}` for $1,200, and `{}%` for 12.5%. Empty for plain values.
        missing: texts and numbers that mark a missing cell in this column, besides `MARKS`.
        marks: whether `MARKS` mark a missing cell; if not, only an empty text does.
        decimal: the decimal mark, if it is not that of the file.
        point: whether whole numbers of a column with decimals are written as 5.0, so that readers see its type.
    """

    pattern: str = ""
    missing: tuple[str, ...] = ()
    marks: bool = True
    decimal: str = ""
    point: bool = False

    @property
    def kind(self) -> pa.DataType:
        """The type of values that are written in the pattern."""
        if self.pattern.endswith(ZONE):
            return pa.timestamp("us")
        if re.search("%[HI]", self.pattern):
            return pa.timestamp("s")
        return pa.date32() if re.search("%[mb]", self.pattern) else pa.float64()

    def observed(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Replace marks of missing cells, in a column of texts or numbers, by null."""
        if types.is_string(column.type):
            marks = [*(MARKS if self.marks else ("",)), *self.missing]
            hidden = pc.is_in(pc.utf8_trim_whitespace(column), value_set=pa.array(marks))
        elif numbers := [float(mark) for mark in self.missing if re.match(NUMBER, mark)]:
            if not (types.is_integer(column.type) or types.is_floating(column.type)):
                return column
            hidden = pc.is_in(column.cast(pa.float64(), safe=False), value_set=pa.array(numbers))
        else:
            return column
        return pc.if_else(hidden, pa.scalar(None, column.type), column)

    def parsed(self, texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
        """Convert texts to values of one type, null for missing cells and for texts among numbers.

        An ArrowException is raised if a text does not fit another type.
        """
        observed = self.observed(texts)
        if types.is_string(kind):
            return pc.utf8_trim_whitespace(observed)
        trimmed = readable(observed)
        if types.is_temporal(kind) and self.pattern:
            return dates(trimmed, self.pattern, kind)
        if not (types.is_integer(kind) or types.is_floating(kind)):
            return cast(trimmed, kind, ".")
        plain = self.plain(trimmed)
        if types.is_floating(kind) and pc.any(pc.match_substring(plain, ",")).as_py():
            plain = pc.replace_substring(plain, ",", ".")
        number = pc.match_substring_regex(plain, NUMBER)
        return self.observed(pc.if_else(number, plain, pa.scalar(None, pa.string())).cast(kind))

    def plain(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Put signs in front of numbers, and remove the symbols around them and the separators of thousands."""
        if not self.pattern:
            return texts
        before, separator, after = self._parts()
        symbols = rf"^([+-]?)\s?{re.escape(before)}|{re.escape(after)}$"
        texts = pc.replace_substring_regex(signed(texts), symbols, r"\1")
        return pc.replace_substring(texts, separator, "") if separator else texts

    def written(self, column: Any, mark: str = ".") -> Any:
        """Format values as texts, with the decimal `mark`; null remains null."""
        if types.is_temporal(column.type) and self.pattern:
            zone = "UTC" if self.pattern.endswith(ZONE) else None
            return pc.strftime(
                column.cast(pa.timestamp("s"), safe=False).cast(pa.timestamp("s", zone)), format=self.pattern
            )
        texts = column.cast(pa.string())
        if self.point and types.is_floating(column.type):
            texts = pc.replace_substring_regex(texts, r"^(-?\d+)$", r"\1.0")
        texts = pc.replace_substring(texts, ".", self.decimal or mark) if types.is_floating(column.type) else texts
        if not self.pattern:
            return texts
        before, _, after = self._parts()
        return pc.binary_join_element_wise(before, texts, after, "")

    def _parts(self) -> tuple[str, str, str]:
        before, _, rest = self.pattern.partition("{")
        separator, _, after = rest.partition("}")
        return before, separator, after

    def describe(self) -> dict[str, Any]:
        """JSON-able description: the arguments that are not the usual ones."""
        fields = {**asdict(self), "missing": list(self.missing)}
        return {name: value for name, value in fields.items() if value != USUAL[name]}


PLAIN = Form()
"""The usual form of cells."""
USUAL = {**asdict(PLAIN), "missing": []}
"""Its arguments."""


def usual_dialect(file: str) -> dict[str, str]:
    """Return the column delimiter, decimal mark and encoding that a text file of this name usually has."""
    tabs = file.lower().removesuffix(".gz").endswith(".tsv")
    return {"delimiter": "\t" if tabs else ",", "decimal": ".", "encoding": "utf-8"}


def typed(observed: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """Convert texts, null where missing, to the first type that fits all, or strings; `mark` is the decimal mark."""
    if observed.null_count == len(observed):
        return observed.cast(pa.float64())
    trimmed = readable(observed)
    for kind in TYPES:
        with suppress(pa.ArrowException):
            cast(trimmed[:SOME], kind, mark)  # fails faster than a cast of all texts
            return cast(trimmed, kind, mark)
    return observed


def cast(texts: pa.ChunkedArray, kind: pa.DataType, mark: str) -> pa.ChunkedArray:
    """Cast texts without surrounding blanks to another type; an ArrowException if one does not fit."""
    if types.is_floating(kind) and mark == ",":
        if pc.any(pc.match_substring(texts, ".")).as_py():
            raise pa.ArrowInvalid("a decimal point among decimal commas")
        return pc.replace_substring(texts, mark, ".").cast(kind)
    if types.is_integer(kind) and pc.any(pc.match_substring_regex(texts, "^[+-]?0[xX]")).as_py():
        raise pa.ArrowInvalid("hexadecimal codes")
    if not types.is_boolean(kind):
        return texts.cast(kind)
    true, false = (pc.is_in(texts, value_set=pa.array(words)) for words in (TRUE, FALSE))
    if not pc.all(pc.or_(pc.or_(true, false), texts.is_null())).as_py():
        raise pa.ArrowInvalid("neither true nor false")
    return pc.if_else(texts.is_null(), pa.scalar(None, pa.bool_()), true)


def readable(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts without surrounding blanks, and with ASCII characters in place of typographic ones in numbers."""
    texts = pc.utf8_trim_whitespace(texts)
    if not pc.all(pc.string_is_ascii(texts), min_count=0).as_py():
        for found, plain in TYPOGRAPHIC:
            texts = pc.replace_substring_regex(texts, found, plain)
    return texts


def signed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Put the signs of negative numbers such as (5) and 5- in front."""
    if not pc.any(pc.match_substring_regex(texts, "[)-]$")).as_py():
        return texts
    for found, plain in SIGNS:
        texts = pc.replace_substring_regex(texts, found, plain)
    return texts


def dates(texts: pa.ChunkedArray, pattern: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Convert texts to dates or timestamps of this pattern; null where a text does not fit or no such day exists."""
    if pattern.endswith(ZONE):
        fits = pc.match_substring_regex(texts, ZONED)
        zoned = pc.if_else(fits, texts, pa.scalar(None, pa.string())).cast(pa.timestamp("us", "UTC"))
        return zoned.cast(kind)
    values = pc.strptime(texts, format=pattern, unit="s", error_is_null=True)
    if "%d" in pattern:  # strptime reads 31.02. as 2 March
        before = re.sub("%[Yymb]", lambda part: PARTS[part[0]], pattern[: pattern.index("%d")])
        day = pc.struct_field(pc.extract_regex(texts, rf"^{before}(?P<day>\d{{1,2}})"), "day").cast(pa.int64())
        values = pc.if_else(pc.equal(pc.day(values), day), values, pa.scalar(None, values.type))
    return values.cast(kind)
