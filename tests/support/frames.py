"""Data frames with columns of every dtype, with holes."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def everything(rows: int, seed: int = 0) -> pd.DataFrame:
    """A frame whose index names patients, with a column of every dtype that can be modelled; some have holes."""
    rng = np.random.default_rng(seed)

    def holes(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
        return np.where(rng.random(rows) < 0.1, None, values)

    days = pd.Series(pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), "D")).dt.as_unit("us")
    seconds = days + pd.to_timedelta(rng.integers(0, 86400, rows), "s")
    frame = pd.DataFrame(
        {
            "int64": rng.integers(0, 90, rows),
            "Int64": pd.array(holes(rng.integers(18, 90, rows)), "Int64"),
            "uint8": rng.integers(0, 200, rows).astype(np.uint8),
            "float32": rng.normal(size=rows).astype(np.float32),
            "Float64": pd.array(holes(rng.normal(size=rows).round(2)), "Float64"),
            "arrow": pd.array(holes(rng.integers(0, 9, rows)), pd.ArrowDtype(pa.int32())),
            "bool": rng.random(rows) < 0.4,
            "boolean": pd.array(holes(rng.random(rows) < 0.4), "boolean"),
            "str": pd.array(holes(rng.choice(["a", "b"], rows)), "str"),
            "string": pd.array(holes(rng.choice(["a", "b"], rows)), "string"),
            "python": pd.array(holes(rng.choice(["a", "b"], rows)), pd.StringDtype("python")),
            "object": pd.Series(holes(rng.choice(["a", "b"], rows)), dtype=object),
            "category": pd.Categorical(rng.choice(["low", "high"], rows), ["low", "middle", "high"], ordered=True),
            "numbers": pd.Categorical(rng.choice([1, 2, 7], rows)),
            "days": days.where(rng.random(rows) > 0.1),
            "seconds": seconds.dt.as_unit("s"),
            "zone": seconds.dt.as_unit("ns").dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
            "dates": pd.Series([datetime.date(2020, 1, 1 + day) for day in rng.integers(0, 30, rows)], dtype=object),
            7: rng.normal(size=rows),
            "death": rng.random(rows) < 0.4,
        }
    )
    return frame.set_axis(pd.Index([f"p{row:03}" for row in range(rows)], name="patient"), axis=0)


def labs(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Values of the first patients of a frame, in another order; two are missing."""
    rng = np.random.default_rng(1)
    index = frame.index[:rows][::-1]
    values = pd.DataFrame(
        {"crp": rng.lognormal(size=rows).round(1), "kreatinin": rng.normal(80, 9, rows).round(2)}, index
    )
    values.iloc[3, 0] = values.iloc[5, 1] = np.nan
    return values
