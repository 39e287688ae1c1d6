"""The options --range and --decimals of an import: limits of synthetic values other than those of the training rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.columns import named_type
from postprior.pipelines.data.conversion.precision import MOST
from postprior.pipelines.data.conversion.zero_heavy import AMOUNTS
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import is_count, pick

KINDS = {
    "valid_range": ("numeric", "log", "quantile", "count", *AMOUNTS),
    "decimals": ("numeric", "log", "quantile", *AMOUNTS),
}
"""Kinds of columns and vectors that have such a limit."""
NONE = "none"
OPTIONS = {"valid_range": "--range", "decimals": "--decimals"}


def parse_range(text: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a text LOW,HIGH; None if it is `none`; else a ValueError.

    >>> parse_range("0,120")
    (0.0, 120.0)
    """
    if text == NONE:
        return None
    low, high = map(float, text.split(","))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("expected finite numbers, the least first")
    return low, high


def parse_decimals(text: str) -> int | None:
    """Return a number of decimals, None if the text is `none`; else a ValueError."""
    if text == NONE:
        return None
    if not is_count(text) or int(text) > MOST:
        raise ValueError(f"expected a whole number from 0 to {MOST}")
    return int(text)


def parse_limits(option: str, arguments: list[str] | None, form: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Parse arguments [NAME=]VALUE to values by name; an empty name stands for all columns and vectors."""
    limits: dict[str, Any] = {}
    for text in arguments or ():
        name, _, value = text.rpartition("=")
        if name in limits:
            raise UserError(f"{option}: found {name or 'a value for all'} twice, expected it once; leave one out")
        try:
            limits[name] = parse(value)
        except ValueError:
            raise UserError(f"{option}: found '{text}', expected [NAME=]{form} or [NAME=]{NONE}") from None
    return limits


def limited(learned: Sequence[Conversion], roles: Roles) -> list[Conversion]:
    """Return conversions with the limits that the user gives; a UserError if a name is unknown or has no such limit."""
    limits = {"valid_range": roles.ranges, "decimals": roles.decimals}
    _check(learned, limits)
    return [
        replace(c, columns=tuple(replace(column, **_changes(column, column.name, limits)) for column in c.columns))
        if isinstance(c, TableConversion)
        else replace(c, **_changes(c, c.title, limits))
        for c in learned
    ]


def _changes(
    conversion: ArrayConversion | ColumnConversion, name: str, limits: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the fields that the user gives for one column or array; its own name goes before the empty one."""
    return {
        field: given[key]
        for field, given in limits.items()
        for key in ("", name)
        if key in given and _has(conversion, field)
    }


def _has(conversion: ArrayConversion | ColumnConversion, field: str) -> bool:
    vector = isinstance(conversion, ColumnConversion) or conversion.modality.kind == "vector"
    return vector and conversion.kind in KINDS[field]


def _check(learned: Sequence[Conversion], limits: Mapping[str, Mapping[str, Any]]) -> None:
    known: dict[str, ArrayConversion | ColumnConversion] = {}
    for conversion in learned:
        if isinstance(conversion, TableConversion):
            known |= {column.name: column for column in conversion.columns}
        else:
            known[conversion.title] = conversion
    for field, given in limits.items():
        for name in filter(None, given):
            part, option = pick(known, name, OPTIONS[field], "column or array"), f"{OPTIONS[field]} {name}"
            if not _has(part, field):
                expected = f"expected a vector or a column of the kind {' or '.join(KINDS[field])}; leave it out"
                raise UserError(f"{option}: the kind {part.kind} found, {expected}")
            dates = isinstance(part, ColumnConversion) and pa.types.is_temporal(named_type(part.type))
            if dates and given[name] is not None:
                raise UserError(f"{option}: a column of dates found, expected numbers; use {option}={NONE}")
