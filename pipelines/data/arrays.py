"""Arrays in archives, and arrays that may be larger than memory, some rows at a time."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.settings.names import first_duplicate

Values = np.ndarray[Any, np.dtype[Any]]
CHUNK = 1 << 22
"""Values looked at together: 16 MB of float32."""


def blocks(array: Values, count: int | None = None) -> Iterator[slice]:
    """Slices of all rows of an array, or of `count` such rows, with about `CHUNK` values each."""
    step = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array) if count is None else count, step):
        yield slice(start, start + step)


def chunks(array: Values, rows: Values | None = None) -> Iterator[Values]:
    """All or the chosen rows of an array, some at a time."""
    for block in blocks(array, None if rows is None else len(rows)):
        yield array[block if rows is None else rows[block]]


def beside(flags: Values, array: Values) -> Values:
    """A flag a row (n,), shaped to go with the values of an array (n, …)."""
    return flags.reshape(-1, *[1] * (array.ndim - 1))


def read_arrays(path: Path) -> dict[str, Values]:
    """The arrays in an .npz file, none of them a pickle."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: expected an .npz file, as numpy.savez writes it, found another or a part of one")
    broken = ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
    found, remedy = "no array of plain numbers or texts was found", "write it again, without objects"
    arrays: dict[str, Values] = {}
    with as_user_error(broken, f"{path}: its table of contents: {found}", remedy):
        file = np.load(path, allow_pickle=False)
    with file:
        if (name := first_duplicate(file.files)) is not None:
            expected = "expected a different name for every array; write the file again"
            raise UserError(f"{path}: {name} found twice, {expected}")
        for name in file.files:
            with as_user_error(broken, f"{path}: {name}: {found}", remedy):
                arrays[name] = file[name]
                if not isinstance(arrays[name], np.ndarray):
                    raise ValueError("another kind of file")
    return arrays
