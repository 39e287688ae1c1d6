"""Arrays that may be larger than memory, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[Any]]
CHUNK = 1 << 22
"""Values looked at together: 16 MB of float32."""


def blocks(array: Values, count: int | None = None) -> Iterator[slice]:
    """Slices of all rows of an array, or of `count` such rows, with about `CHUNK` values each."""
    count, step = (
        len(array) if count is None else count,
        max(1, CHUNK // max(1, int(np.prod(array.shape[1:])))),
    )
    yield from (slice(start, start + step) for start in range(0, count, step))


def chunks(array: Values, rows: Values | None = None) -> Iterator[Values]:
    """All or the chosen rows of an array, some at a time."""
    if rows is None:
        yield from (array[block] for block in blocks(array))
    else:
        yield from (array[rows[block]] for block in blocks(array, len(rows)))


def beside(flags: Values, array: Values) -> Values:
    """A flag a row (n,), shaped to go with the values of an array (n, …)."""
    return flags.reshape(-1, *[1] * (array.ndim - 1))
