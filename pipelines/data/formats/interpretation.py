"""Find out what the cells of a column mean: missing values, numbers with symbols, dates, mistyped numbers."""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from postprior.pipelines.data.conversion.categories import MOST, value_counts
from postprior.pipelines.data.conversion.forms import NUMBER, SOME, Form, readable, signed, typed
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.formats.patterns import (
    COMPACT,
    DASHES,
    STRAY,
    are_compact_dates,
    date_pattern,
    number_pattern,
)
from postprior.pipelines.texts import Listing

SHORT = (-9.0, -8.0)
"""Numbers that mean missing only if they are far from the others."""
_NEGATIVE = [-int(digit * length) for digit in "987" for length in range(2, 7)]
FILLS = pa.array([float(number) for number in (*SHORT, *_NEGATIVE, *(-number for number in _NEGATIVE if number < -99))])
"""Numbers that often mean a missing cell: −9, −99, −999, 999, 8888 and others of one digit."""
REACH = 3
"""Such a number means missing if its distance to the other values is more than `REACH` times their range."""
FEWEST_NUMBERS = 10
"""Texts among whole numbers are mistyped only if there are so many different numbers; fewer may be codes."""

MISSING = "read as missing: {}; --keep-na COLUMN keeps them as values"
STRAYS = "texts among numbers or dates, read as missing: {}; --kind COLUMN=categorical keeps them as categories"
ORDERS = {
    order: f"dates read as {words}: {{}}; --dates mdy or dmy chooses the other order"
    for order, words in (("dmy", "day, month, year"), ("mdy", "month, day, year"), ("ymd", "year, month, day"))
}
CENTURY = "years of two digits read as 1969 to 2068: {}"
COMPACT_DATES = "whole numbers read as dates (year, month, day): {}; --kind COLUMN=numeric keeps the numbers"
BLANKS = "texts that differ in surrounding blanks alone, read as the same: {}"
CAPITALS = "texts that differ in capital letters alone, read as different values: {}"
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
    kind = roles.kinds.get(name)
    trained = roles.patterns.get(name) == COMPACT
    if trained or (kind is None and name != roles.label and are_compact_dates(observed)):
        notes.add(COMPACT_DATES, [] if trained else [f"{name} ({observed.drop_null()[0]})"])
        form = replace(form, pattern=COMPACT)
        values = form.parsed(texts, form.kind)
        notes.add(UNLIKE, [name] if values.null_count > observed.null_count else [])
        return Interpreted(values, form)
    values = typed(observed, mark)
    if kind == "categorical" or name == roles.label:
        return Interpreted(_merged(name, values, notes), form)
    if types.is_floating(values.type) and _has_points(observed, mark):
        form = replace(form, point=True)
    if types.is_string(values.type) and values.null_count < len(values):
        if (pattern := roles.patterns.get(name)) is not None:
            known = replace(form, pattern=pattern)
            values = known.parsed(texts, known.kind)
            notes.add(UNLIKE, [name] if values.null_count > observed.null_count else [])
            return Interpreted(values, known)
        if (found := date_pattern(observed, roles.dates)) is not None:
            form = replace(form, pattern=found.pattern)
            values = form.parsed(texts, form.kind)
            notes.add(ORDERS.get(found.order or "", "{}"), [name] if found.order else [])
            notes.add(CENTURY, [name] if "%y" in found.pattern else [])
            notes.add(STRAYS, _named(name, observed, pc.and_(values.is_null(), observed.is_valid())))
            return Interpreted(values, form)
        if (pattern := number_pattern(observed, mark)) is not None:
            form = replace(form, pattern=pattern)
            values = form.parsed(texts, pa.float64())
            notes.add(NUMBERS, [f"{name} ({_example(observed)})"])
            notes.add(STRAYS, _named(name, observed, pc.and_(values.is_null(), observed.is_valid())))
        elif mark == "," and types.is_floating((points := typed(observed)).type):
            values, form = points, replace(form, decimal=".")
        elif (numbers := _among_texts(observed, mark, notes, name)) is not None:
            values = numbers
    return fills(name, _merged(name, values, notes), form, roles, notes)


def _has_points(observed: pa.ChunkedArray, mark: str) -> bool:
    """Whether a column of numbers has whole ones such as 5.0, and none such as 5."""
    first = pc.match_substring_regex(observed[:SOME], rf"^\s*[+-]?\d+{re.escape(mark)}0\s*$")
    return bool(pc.any(first).as_py()) and not pc.any(pc.match_substring_regex(observed, r"^\s*[+-]?\d+\s*$")).as_py()


def _merged(name: str, values: pa.ChunkedArray, notes: Notes) -> pa.ChunkedArray:
    """Remove blanks around texts, and tell which texts are thereby equal, or are nearly equal."""
    if not types.is_string(values.type):
        return values
    trimmed = pc.utf8_trim_whitespace(values)
    number = pc.count_distinct(trimmed).as_py()
    if not trimmed.equals(values):
        notes.add(BLANKS, [name] if number < pc.count_distinct(values).as_py() else [])
    if number <= MOST:
        different = sorted(trimmed.unique().drop_null().to_pylist(), key=lambda text: (text.casefold(), text))
        pairs = [f"{a}, {b}" for a, b in pairwise(different) if a.casefold() == b.casefold()]
        notes.add(CAPITALS, [f"{name} ({pairs[0]}{', …' * (len(pairs) > 1)})"] if pairs else [])
    return trimmed


def _example(observed: pa.ChunkedArray) -> str:
    """Return one of the first texts, with an unusual sign if there is such a one."""
    first = observed.drop_null()[:SOME]
    texts = readable(first)
    unusual = first.filter(pc.not_equal(signed(texts), texts))
    return str((unusual if len(unusual) else first)[0])


def _named(name: str, observed: pa.ChunkedArray, others: pa.ChunkedArray) -> list[str]:
    """Name the texts in the rows that are marked by `others`."""
    return [f"{name} '{observed[row]}' (row {row + 1})" for row in pc.indices_nonzero(others).to_pylist()]


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
        if max(low - value, value - high) > REACH * (high - low) > 0 or (value < 0 <= low < high and value not in SHORT)
    ]
    known = replace(form, missing=(*form.missing, *(f"{value:.0f}" for value in far)))
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
    parts = [f"'{value.removesuffix('.0')}' {count}" for value, count in pairs if value]
    return [f"{name} ({', '.join(parts[:3] + ['…'] * (len(parts) > 3))})"] if parts else []


def _among_texts(observed: pa.ChunkedArray, mark: str, notes: Notes, name: str) -> pa.ChunkedArray | None:
    """Return the numbers among which a few other texts stand, which become null; None if most texts are no numbers."""
    plain = readable(observed)
    plain = plain if mark == "." else pc.replace_substring(plain, mark, ".")
    number = pc.match_substring_regex(plain, NUMBER)
    others = pc.and_(pc.invert(number), observed.is_valid()).fill_null(False)
    numbers = plain.filter(number)
    if pc.sum(others).as_py() * STRAY > len(observed) - observed.null_count:
        return None
    codes = not pc.any(pc.match_substring(numbers, ".")).as_py()
    if codes and pc.count_distinct(numbers).as_py() < FEWEST_NUMBERS:
        return None
    notes.add(STRAYS, _named(name, observed, others))
    return typed(pc.if_else(others, pa.scalar(None, pa.string()), observed), mark)
