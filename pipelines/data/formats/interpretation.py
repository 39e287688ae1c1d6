"""Find out what the cells of a column mean: missing values, numbers with symbols, dates, mistyped numbers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from postprior.pipelines.data.conversion.categories import value_counts
from postprior.pipelines.data.conversion.forms import NUMBER, SOME, Form, dates, typed
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.texts import Listing

DASHES = ("-", "--", "\u2013", "\u2014")
_NEGATIVE = [-int(digit * length) for digit in "987" for length in range(2, 7)]
FILLS = pa.array([float(number) for number in (*_NEGATIVE, *(-number for number in _NEGATIVE if number < -99))])
"""Numbers that often mean a missing cell: −99, −999, 999, 8888 and others of one digit."""
REACH = 3
"""Such a number means missing if its distance to the other values is more than `REACH` times their range."""
SYMBOLS = r"(?:[$€£¥%]|CHF|USD|EUR|GBP)"
ORDERS = {"dmy": ("%d", "%m", "{year}"), "mdy": ("%m", "%d", "{year}"), "ymd": ("{year}", "%m", "%d")}
"""Orders of day, month and year in a date, those that are tried first in front."""
OTHER_DATES = {
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$": "%Y-%m-%dT%H:%M:%SZ",
    r"^\d{1,2} [A-Za-z]{3} \d{4}$": "%d %b %Y",
    r"^\d{1,2}-[A-Za-z]{3}-\d{4}$": "%d-%b-%Y",
    r"^\d{1,2}:\d\d:\d\d$": "%H:%M:%S",
    r"^\d{1,2}:\d\d$": "%H:%M",
}
FEWEST_NUMBERS, STRAY = 10, 20
"""Texts among numbers are mistyped if there are `FEWEST_NUMBERS` different numbers and at most one in `STRAY` texts."""

MISSING = "read as missing: {}; --keep-na COLUMN keeps them as values"
STRAYS = "texts among numbers, read as missing: {}; --kind COLUMN=categorical keeps them as categories"
ORDER = "dates read as {}; --dates mdy or dmy chooses the other order"
UNLIKE = "cells that are not written as in the training data, read as missing: {}"
NUMBERS = "read as numbers: {}; --kind COLUMN=categorical keeps the texts"


class Notes:
    """What an import tells about the columns of a file, by topic: one line per topic."""

    def __init__(self) -> None:
        self._items: dict[str, list[str]] = {}

    def add(self, topic: str, items: Iterable[str]) -> None:
        """Add items to a topic, which is a line with `{}` in place of its items."""
        if items := list(items):
            self._items.setdefault(topic, []).extend(items)

    def extend(self, notes: "Notes") -> None:
        """Add all items of other notes."""
        for topic, items in notes._items.items():
            self.add(topic, items)

    def lines(self, place: str) -> tuple[Listing, ...]:
        """Return one line per topic, which lists its items."""
        return tuple(Listing.of(topic, items).after(f"{place}: ") for topic, items in self._items.items())


class Interpreted(NamedTuple):
    """The values of a column, null where missing, and the form of its cells."""

    values: pa.ChunkedArray
    form: Form


def interpret(name: str, texts: pa.ChunkedArray, mark: str, roles: Roles, notes: Notes) -> Interpreted:
    """Convert the texts of the cells of a column to values; `mark` is the decimal mark."""
    form = _form(name, roles)
    if form.marks and not pc.any(pc.equal(texts, "+")).as_py():
        dashes = pa.array(DASHES).filter(pc.is_in(pa.array(DASHES), value_set=texts.unique())).to_pylist()
        form = Form(missing=(*form.missing, *dashes))  # beside + a dash is a value
    observed = form.observed(texts)
    notes.add(MISSING, _counted(name, pc.utf8_trim_whitespace(texts.filter(observed.is_null()))))
    values = typed(observed, mark)
    if roles.kinds.get(name) == "categorical" or name == roles.label:
        return Interpreted(values, form)
    if types.is_string(values.type) and values.null_count < len(values):
        if (pattern := roles.patterns.get(name)) is not None:
            known = Form(pattern, form.missing, form.marks)
            values = known.parsed(texts, known.kind)
            notes.add(UNLIKE, [name] if values.null_count > observed.null_count else [])
            return Interpreted(values, known)
        if (pattern := _date_pattern(name, observed, roles, notes)) is not None:
            form = Form(pattern, form.missing, form.marks)
            return Interpreted(form.parsed(texts, form.kind), form)
        if pattern := _number_pattern(observed, mark):
            form = Form(pattern, form.missing, form.marks)
            values = form.parsed(texts, pa.float64())
            notes.add(NUMBERS, [f"{name} ({observed.drop_null()[0]})"])
        elif (numbers := _among_texts(observed, mark, notes, name)) is not None:
            values = numbers
    return fills(name, values, form, roles, notes)


def stored(name: str, column: pa.ChunkedArray, roles: Roles, notes: Notes) -> Interpreted:
    """Interpret a column of a file with types, whose texts are missing only if the user says so."""
    form = Form(missing=_form(name, roles).missing)
    if types.is_string(column.type):
        return Interpreted(Form(missing=form.missing, marks=False).observed(column) if form.missing else column, form)
    return fills(name, column, form, roles, notes)


def fills(name: str, values: pa.ChunkedArray, form: Form, roles: Roles, notes: Notes) -> Interpreted:
    """Replace numbers such as −999, far outside of the range of the others, by null."""
    values = form.observed(values)
    if not (types.is_integer(values.type) or types.is_floating(values.type)) or name in roles.keep_na:
        return Interpreted(values, form)
    hits = pc.is_in(values.cast(pa.float64(), safe=False), value_set=FILLS)
    rest = values.filter(pc.invert(hits)).drop_null()
    if not pc.any(hits).as_py() or not len(rest):
        return Interpreted(values, form)
    low, high = (float(end) for end in pc.min_max(rest).as_py().values())
    found = [float(value) for value in values.filter(hits).unique().to_pylist()]
    far = [
        value
        for value in found
        if max(low - value, value - high) > REACH * (high - low) > 0 or (value < 0 <= low < high)
    ]
    known = Form(form.pattern, (*form.missing, *(f"{value:.0f}" for value in far)), form.marks)
    observed = known.observed(values)
    notes.add(MISSING, _counted(name, values.filter(pc.and_(observed.is_null(), values.is_valid()))))
    return Interpreted(observed, known)


def _form(name: str, roles: Roles) -> Form:
    """Return the marks of missing cells that the user gives for a column, or for all."""
    given = (*roles.na.get("", ()), *roles.na.get(name, ()))
    return Form(missing=tuple(dict.fromkeys(given)), marks=name not in roles.keep_na)


def _counted(name: str, texts: pa.ChunkedArray) -> list[str]:
    """Name the commonest of these texts and how many rows have each; empty cells are not told."""
    values, counts = value_counts(texts)
    pairs = sorted(zip(map(str, values.to_pylist()), counts.tolist(), strict=True), key=lambda pair: -pair[1])
    parts = [f"'{value}' {count}" for value, count in pairs if value]
    return [f"{name} ({', '.join(parts[:3] + ['…'] * (len(parts) > 3))})"] if parts else []


def _date_pattern(name: str, observed: pa.ChunkedArray, roles: Roles, notes: Notes) -> str | None:
    """Return the pattern of dates that fits all texts, or None."""
    texts = pc.utf8_trim(observed.drop_null(), " \t")
    first = texts[0].as_py()
    for expression, pattern in OTHER_DATES.items():
        if re.match(expression, first):
            return pattern if _all_match(texts, expression) and _all_dates(texts, pattern) else None
    match = re.match(r"^(\d{1,4})([/.\-])\d{1,2}[/.\-](\d{1,4})([ T]\d{1,2}:\d\d(:\d\d)?)?$", first)
    if match is None:
        return None
    separator, time = match[2], ("" if match[4] is None else match[4][0] + ("%H:%M:%S" if match[5] else "%H:%M"))
    long = max(len(match[1]), len(match[3])) == 4
    year = "%Y" if long else "%y"
    shapes = {"%Y": (r"\d{4}", r"\d{1,2}"), "%y": (r"\d{2}", r"\d{1,2}")}[year]
    fitting = []
    for order, parts in ORDERS.items():
        expression = re.escape(separator).join(shapes[0] if part == "{year}" else shapes[1] for part in parts)
        pattern = separator.join(part.format(year=year) for part in parts) + time
        if _all_match(texts, f"^{expression}([ T]|$)") and _all_dates(texts, pattern):
            fitting.append((order, pattern))
    if not fitting:
        return None
    order, pattern = next((pair for pair in fitting if pair[0] == roles.dates), fitting[0])
    if len(fitting) > 1:
        names = {"dmy": "day, month, year", "mdy": "month, day, year", "ymd": "year, month, day"}
        notes.add(ORDER, [f"{names[order]}: {name}"])
    return pattern


def _all_match(texts: pa.ChunkedArray, expression: str) -> bool:
    """Whether all texts match a regular expression."""
    parts = (texts[:SOME], texts[SOME:])
    return all(pc.all(pc.match_substring_regex(part, expression), min_count=0).as_py() for part in parts)


def _all_dates(texts: pa.ChunkedArray, pattern: str) -> bool:
    """Whether all texts are dates of this pattern."""
    return all(not dates(part, pattern, pa.timestamp("s")).null_count for part in (texts[:SOME], texts[SOME:]))


def _number_pattern(observed: pa.ChunkedArray, mark: str) -> str | None:
    """Return the pattern of numbers with one symbol around all, or with separators of thousands; None if none fits."""
    texts = pc.utf8_trim(observed.drop_null(), " \t")
    match = re.match(rf"^({SYMBOLS}?\s?)([+-]?\d[\d.,' \u00a0\u202f]*?)(\s?{SYMBOLS}?)$", texts[0].as_py())
    if match is None:
        return None
    before, after = match[1], match[3]
    marks = {".": ",' \u00a0\u202f", ",": ".' \u00a0\u202f"}[mark]
    for separator in ("", *marks):
        group = rf"\d{{1,3}}({re.escape(separator)}\d{{3}})*" if separator else r"\d+"
        expression = f"^{re.escape(before)}[+-]?{group}({re.escape(mark)}\\d+)?{re.escape(after)}$"
        if (separator or before or after) and _all_match(texts, expression):
            return f"{before}{{{separator}}}{after}"
    return None


def _among_texts(observed: pa.ChunkedArray, mark: str, notes: Notes, name: str) -> pa.ChunkedArray | None:
    """Return the numbers among which a few other texts stand, which become null; None if most texts are no numbers."""
    trimmed = pc.utf8_trim(observed, " \t")
    plain = trimmed if mark == "." else pc.replace_substring(trimmed, mark, ".")
    number = pc.match_substring_regex(plain, NUMBER)
    others = pc.and_(pc.invert(number), observed.is_valid()).fill_null(False)
    few = pc.sum(others).as_py() * STRAY <= len(observed) - observed.null_count
    if not few or pc.count_distinct(plain.filter(number)).as_py() < FEWEST_NUMBERS:
        return None
    rows = pc.indices_nonzero(others).to_pylist()
    notes.add(STRAYS, [f"{name} '{observed[row]}' (row {row + 1})" for row in rows])
    null = pa.scalar(None, pa.string())
    return typed(pc.if_else(others, null, observed), mark)
