"""Durations, periods and intervals of pandas, as numbers and texts, and back.

A duration is a number of seconds, a period the number of its unit since 1970, an interval its text, which is a
category. Their types are JSON:

{"duration": "timedelta64[ns]", "step": "D"}   the coarsest unit that has all durations of the column
{"period": "M"}                                 the frequency
{"interval": {"dtype": "float64"}, "closed": "right"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.data.conversion.categories import OTHER

if TYPE_CHECKING:
    import pandas as pd

STEPS = {"D": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of NumPy and their lengths in seconds."""
INTERVAL = re.compile(r"([\[(])(.+), (.+)([\])])")


def type_of(column: pd.Series) -> dict[str, Any] | None:
    """JSON-able description of the dtype of a column of durations, periods or intervals; None for any other."""
    import pandas as pd

    dtype = column.dtype
    if _is_duration(dtype):
        moments = column.dropna().astype("timedelta64[ns]").to_numpy()
        whole = (unit for unit in STEPS if (moments.astype(f"timedelta64[{unit}]") == moments).all())
        return {"duration": str(dtype), "step": next(whole)}
    if isinstance(dtype, pd.PeriodDtype):
        return {"period": str(dtype).removeprefix("period[").removesuffix("]")}
    if isinstance(dtype, pd.IntervalDtype):
        return {"interval": {"dtype": str(dtype.subtype)}, "closed": dtype.closed}
    return None


def plain(column: pd.Series) -> pd.Series:
    """Return a column of durations, periods or intervals, or of categories that are such, as numbers or texts."""
    import pandas as pd

    dtype = column.dtype
    if _is_duration(dtype):
        return column.astype("timedelta64[ns]") / np.timedelta64(1, "s")
    if isinstance(dtype, pd.PeriodDtype):
        numbers = pd.array(column.array.asi8, "Int64")
        numbers[column.isna().to_numpy()] = pd.NA
        return pd.Series(numbers, column.index)
    if isinstance(dtype, pd.IntervalDtype):
        return column.astype(object).map(str, na_action="ignore")
    return (
        column.cat.rename_categories(as_texts(dtype.categories)) if isinstance(dtype, pd.CategoricalDtype) else column
    )


def as_texts(categories: pd.Index) -> pd.Index:
    """Return categories that are durations, periods or intervals as texts; any other as they are."""
    return categories.map(str) if type_of(categories.to_series()) is not None else categories


def _is_duration(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") == "m"


def restored(values: list[Any], entry: Mapping[str, Any]) -> pd.Series:
    """Return numbers or texts, None where one is missing, in the type that `type_of` described.

    Durations are rounded to their step. A class of rare intervals is a text among intervals.
    """
    import pandas as pd

    if "duration" in entry:
        counts = np.array([np.nan if value is None else value for value in values], float) / STEPS[entry["step"]]
        whole = np.rint(np.nan_to_num(counts)).astype(np.int64).astype(f"timedelta64[{entry['step']}]")
        unit = "s" if entry["step"] in ("D", "h", "m") else entry["step"]  # the coarsest of pandas
        moments = pd.Series(whole.astype(f"timedelta64[{unit}]"))
        return moments.mask(np.isnan(counts)).astype(pd.api.types.pandas_dtype(entry["duration"]))
    if "period" in entry:
        ordinals = [None if value is None else round(value) for value in values]
        periods = [pd.NaT if number is None else pd.Period(ordinal=number, freq=entry["period"]) for number in ordinals]
        return pd.Series(periods, dtype=pd.PeriodDtype(entry["period"]))
    intervals = [text if text in (None, OTHER) else parsed(text, entry) for text in values]
    return pd.Series(intervals, dtype=object if OTHER in values else dtype_of(entry))


def dtype_of(entry: Mapping[str, Any]) -> Any:
    """Return the dtype of a description; None if it is no duration, period or interval."""
    import pandas as pd

    if "duration" in entry:
        return pd.api.types.pandas_dtype(entry["duration"])
    if "period" in entry:
        return pd.PeriodDtype(entry["period"])
    if "interval" in entry:
        return pd.IntervalDtype(entry["interval"]["dtype"], entry["closed"])
    return None


def parsed(text: str, entry: Mapping[str, Any]) -> Any:
    """Return the duration, period or interval that a text writes."""
    import pandas as pd

    if "duration" in entry:
        return pd.Timedelta(text)
    if "period" in entry:
        return pd.Period(text, freq=entry["period"])
    subtype = pd.api.types.pandas_dtype(entry["interval"]["dtype"])
    end = pd.Timedelta if subtype.kind == "m" else pd.Timestamp if subtype.kind == "M" else subtype.type
    found = INTERVAL.fullmatch(text)
    assert found is not None, text
    return pd.Interval(end(found[2]), end(found[3]), entry["closed"])
