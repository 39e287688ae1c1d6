"""Columns of texts and categories of a data frame as the numbers of their classes, which models read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Classes = Mapping[int, tuple[Any, ...]]
"""The classes of columns by the index of the column; a class is numbered by its place."""


def classes_of(X: Any) -> dict[int, tuple[Any, ...]]:
    """Return the classes of the columns of X that are texts or categories; none if X is no data frame.

    Categories have their own order, other values that of their texts. Only classes that occur count.

    Raises:
        ValueError: such a column has fewer than two classes.
    """
    if not _is_frame(X):
        return {}
    columns = {place: X.iloc[:, place] for place in range(X.shape[1])}
    classes = {place: _classes(column) for place, column in columns.items() if _has_classes(column)}
    for place, values in classes.items():
        if len(values) < 2:
            raise ValueError(
                f"X: column {X.columns[place]} holds {len(values)} class, expected two or more; leave it out"
            )
    return classes


def numbered(X: Any, classes: Classes) -> Any:
    """Return X with the numbers of the classes, NaN where a value is missing; without classes, X itself.

    Raises:
        ValueError: a value is none of the classes, or X is no data frame.
    """
    if not classes:
        return X
    if not _is_frame(X):
        raise ValueError(f"X: {type(X).__name__} found, expected a data frame, as in fit, whose columns have classes")
    import pandas as pd

    result = X.copy()
    for place, values in classes.items():
        if place < X.shape[1]:
            column = X.iloc[:, place].astype(object)
            numbers = column.map(dict(zip(values, map(float, range(len(values))), strict=True)))
            unknown = column[numbers.isna() & column.notna()]
            if len(unknown):
                known = ", ".join(map(str, values[:20]))
                found = f"X: column {X.columns[place]}: found {unknown.iloc[0]!r}, which no row of fit has"
                raise ValueError(f"{found}, expected one of {known}; correct it, or make it missing")
            result.isetitem(place, pd.Series(numbers, dtype="float64"))
    return result


def _is_frame(X: Any) -> bool:
    return hasattr(X, "iloc") and hasattr(X, "columns")


def _has_classes(column: Any) -> bool:
    """Whether a column has categories or texts, and not numbers or booleans."""
    from pandas.api import types

    if isinstance(column.dtype, types.CategoricalDtype):
        return True
    if types.is_object_dtype(column.dtype):
        return types.infer_dtype(column, skipna=True) == "string"
    return types.is_string_dtype(column.dtype)


def _classes(column: Any) -> tuple[Any, ...]:
    found = column.dropna().unique()
    if hasattr(found, "categories"):
        return tuple(value for value in column.dtype.categories if value in set(found))
    return tuple(sorted(found.tolist(), key=str))
