"""Recognise the pattern in which most texts of a column write dates, or numbers with symbols."""

import re
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.forms import PARTS, SOME, ZONE, ZONED, Form, dates, readable, signed

DASHES = ("-", "--", "\u2013", "\u2014")
"""Texts that mark a missing cell where nothing else does."""
STRAY = 20
"""At most one in `STRAY` texts may be mistyped."""
FIRST = 3
"""Number of texts whose shapes are tried."""
SYMBOLS = r"(?:[$€£¥₹₽₩₺฿]|(?:CHF|USD|EUR|GBP|JPY|INR|CNY|SEK|NOK|DKK|PLN|CZK|AUD|CAD|Fr\.|Rs\.?|kr))"
"""What stands before or after amounts of money."""
UNITS = rf"(?:{SYMBOLS}|[%‰°]|\s[A-Za-zµμΩ°%][\w/²³°%µμ^*-]{{0,11}})"
"""What stands after numbers: a currency, a percent sign, or a unit after a blank."""
ORDERS = {"dmy": ("%d", "%m", "{year}"), "mdy": ("%m", "%d", "{year}"), "ymd": ("{year}", "%m", "%d")}
"""Orders of day, month and year in a date, those that are tried first in front."""
THOUSANDS = r"^[+-]?([1-9]\d{0,2}(,\d{3})+|\d{1,3})$"
"""A regular expression for whole numbers with commas between thousands, if they have any."""
COMPACT = "%Y%m%d"
"""The pattern of dates that are whole numbers."""
OTHER_DATES = {
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$": "%Y-%m-%dT%H:%M:%SZ",
    ZONED: f"%Y-%m-%dT%H:%M:%S{ZONE}",
    r"^\d{1,2} [A-Za-z]{3} \d{4}$": "%d %b %Y",
    r"^\d{1,2}-[A-Za-z]{3}-\d{4}$": "%d-%b-%Y",
    r"^\d{1,2}:\d\d:\d\d$": "%H:%M:%S",
    r"^\d{1,2}:\d\d$": "%H:%M",
    r"^\d{1,2}:\d\d:\d\d ?[AaPp][Mm]$": "%I:%M:%S %p",
    r"^\d{1,2}:\d\d ?[AaPp][Mm]$": "%I:%M %p",
}
TIMES = {
    "": "",
    r" \d{1,2}:\d\d": " %H:%M",
    r" \d{1,2}:\d\d:\d\d": " %H:%M:%S",
    r"T\d{1,2}:\d\d": "T%H:%M",
    r"T\d{1,2}:\d\d:\d\d": "T%H:%M:%S",
    r" \d{1,2}:\d\d ?[AaPp][Mm]": " %I:%M %p",
    r" \d{1,2}:\d\d:\d\d ?[AaPp][Mm]": " %I:%M:%S %p",
}
"""Regular expressions of times after a date, and their patterns."""


class DatePattern(NamedTuple):
    """A pattern of dates, and its order of day, month and year if other orders fit as well."""

    pattern: str
    order: str | None = None


def date_pattern(observed: pa.ChunkedArray, preferred: str | None = None) -> DatePattern | None:
    """Return the pattern of dates that fits most texts, in the preferred order if several fit; None if none does."""
    texts = readable(observed.drop_null())
    for first in dict.fromkeys(texts[:FIRST].to_pylist()):
        for expression, pattern in OTHER_DATES.items():
            if re.match(expression, first):
                return DatePattern(pattern) if _enough(_misfits(texts, expression, pattern), texts) else None
        match = re.match(r"^(\d{1,4})([/.\-])\d{1,2}[/.\-](\d{1,4})(\D.*)?$", first)
        time = next((time for time in TIMES if match and re.fullmatch(time, match[4] or "")), None)
        if match is None or time is None:
            continue
        separator, year = match[2], "%Y" if max(len(match[1]), len(match[3])) == 4 else "%y"
        misfits = {}
        for order, parts in ORDERS.items():
            own = [part.format(year=year) for part in parts]
            expression = re.escape(separator).join(PARTS.get(part, PARTS["%m"]) for part in own)
            pattern = separator.join(own) + TIMES[time]
            misfits[order, pattern] = _misfits(texts, f"^{expression}{time}$", pattern)
        fewest = min(misfits.values())
        fitting = [key for key, number in misfits.items() if number == fewest]
        if _enough(fewest, texts):
            order, pattern = next((key for key in fitting if key[0] == preferred), fitting[0])
            return DatePattern(pattern, order if len(fitting) > 1 else None)
    return None


def are_compact_dates(observed: pa.ChunkedArray) -> bool:
    """Whether all texts are whole numbers such as 20240131 that are days from 1900 to 2099."""
    for part in (observed[:SOME], observed):
        texts = readable(part.drop_null())
        if _misfits(texts, r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$", COMPACT) or not len(texts):
            return False
    return True


def _misfits(texts: pa.ChunkedArray, expression: str, pattern: str) -> int:
    """Return how many texts are no dates of a pattern; all if most of the first are not."""
    for part in (texts[:SOME], texts):
        number = len(texts)
        with suppress(pa.ArrowInvalid):  # a day with an offset from UTC does not exist
            known = pc.if_else(pc.match_substring_regex(part, expression), part, pa.scalar(None, pa.string()))
            number = dates(known, pattern, pa.timestamp("us")).null_count
        if not _enough(number, part):
            return len(texts)
    return number


def _enough(misfits: int, texts: pa.ChunkedArray) -> bool:
    return misfits * STRAY <= len(texts)


def number_pattern(observed: pa.ChunkedArray, mark: str) -> str | None:
    """Return the pattern of numbers, with one symbol around most or with separators of thousands; None if none fits."""
    plain = readable(observed.drop_null())
    texts = signed(plain)
    if pc.all(pc.starts_with(plain, "(")).as_py():  # numbers of notes or items
        return None
    unusual = not texts.equals(plain)
    separators = [sign for sign in {".": ",' ", ",": ".' "}[mark] if pc.any(pc.match_substring(texts, sign)).as_py()]
    for first in dict.fromkeys(texts[:FIRST].to_pylist()):
        match = re.match(rf"^[+-]?({SYMBOLS}?\s?)[+-]?\d[\d.,' ]*?(\s?{UNITS}?)$", first)
        if match is None:
            continue
        before, after = match[1], match[2]
        misfits = {}
        for separator in ["", *separators] if before or after or unusual else separators:
            group = rf"[1-9]\d{{0,2}}({re.escape(separator)}\d{{3}})+|\d+" if separator else r"\d+"
            number = rf"[+-]?({group})({re.escape(mark)}\d+)?"
            matches = pc.match_substring_regex(texts, f"^[+-]?\\s?{re.escape(before)}{number}{re.escape(after)}$")
            misfits[separator] = len(texts) - pc.sum(matches).as_py()
        best = min(misfits, key=lambda separator: misfits[separator], default="")
        if misfits and _enough(misfits[best], texts):
            return f"{before}{{{best}}}{after}"
    return None


def has_decimal_commas(texts: pa.ChunkedArray, delimiter: str) -> bool:
    """Whether most texts of a column are numbers, and some of them have a decimal comma.

    In a file that is delimited by commas, commas before three digits separate thousands.
    """
    if not pc.any(pc.match_substring(texts, ",")).as_py():
        return False
    texts = readable(Form(missing=DASHES).observed(texts).drop_null())
    if delimiter == "," and pc.all(pc.match_substring_regex(texts, THOUSANDS)).as_py():
        return False
    plain = pc.sum(pc.match_substring_regex(texts, r"^[+-]?\d*,?\d+([eE][+-]?\d+)?$")).as_py()
    return _enough(len(texts) - plain, texts) or bool(number_pattern(texts, ",") and not number_pattern(texts, "."))
