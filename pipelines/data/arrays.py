"""Read arrays from archives, and process arrays that may be larger than memory in chunks of rows."""

import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from postprior.pipelines.errors import UserError, as_user_error, naming
from postprior.pipelines.settings.names import first_duplicate

Values = np.ndarray[Any, np.dtype[Any]]
CHUNK = 1 << 22
"""Number of values per chunk: 16 MB of float32."""
LARGE = 1 << 25
"""Number of bytes from which on a new array is kept in a file."""


class Rows(Protocol):
    """What has rows (N, …): an array, or rows that become one where they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the shape of one."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the rows that are read."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...

    def __array__(self, dtype: Any = None, /) -> Values: ...


def zeros(shape: tuple[int, ...], dtype: Any) -> Values:
    """Return an array of zeros; a large one is kept in a temporary file, so that it does not take up memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file, naming(Path(tempfile.gettempdir())):
        if hasattr(os, "posix_fallocate"):  # else, a disk that gets full would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)


def blocks(array: Rows, count: int | None = None) -> Iterator[slice]:
    """Yield slices that cover all rows of an array, or `count` such rows, with about `CHUNK` values each."""
    step = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array) if count is None else count, step):
        yield slice(start, start + step)


def chunks(array: Rows, rows: Values | None = None) -> Iterator[Values]:
    """Yield all rows of an array, or the rows at the given indices, in chunks."""
    for block in blocks(array, None if rows is None else len(rows)):
        yield array[block if rows is None else rows[block]]


def expand_like(flags: Values, array: Rows) -> Values:
    """Reshape one flag per row (n,) so that it broadcasts against an array (n, …)."""
    return flags.reshape(-1, *[1] * (array.ndim - 1))


def read_arrays(path: Path) -> dict[str, Values]:
    """Return the arrays in an .npz file; pickled objects are refused."""
    if not zipfile.is_zipfile(path):
        expected = "expected a complete .npz file as numpy.savez writes it; write it again"
        raise UserError(f"{path}: this is not an .npz file, or only a part of one, {expected}")
    broken = OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error
    problem, remedy = "no array of numbers or texts found", "write the file again, without Python objects"
    arrays: dict[str, Values] = {}
    with as_user_error(broken, f"{path}: the archive cannot be opened", remedy):
        file = np.load(path, allow_pickle=False)
    with file:
        if (name := first_duplicate(file.files)) is not None:
            expected = "expected a different name for each array; write the file again"
            raise UserError(f"{path}: array {name} found twice, {expected}")
        for name in file.files:
            with as_user_error(broken, f"{path}: {name}: {problem}", remedy):
                large = _read_large(file.zip, f"{name}.npy")
                arrays[name] = file[name] if large is None else large
                if not isinstance(arrays[name], np.ndarray):
                    raise ValueError("this is not an array")
    return arrays


def _read_large(archive: zipfile.ZipFile, member: str) -> Values | None:
    """Read a large array piece by piece into `zeros`; None if it is small, or if NumPy has to read or to refuse it."""
    if member not in archive.namelist() or (size := archive.getinfo(member).file_size) < LARGE:
        return None
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        if fortran_order or dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != size:
            return None
        array = zeros(shape, dtype)
        flat, start = array.reshape(-1).view(np.uint8), 0
        while start < len(flat):
            if not (piece := file.read(min(LARGE, len(flat) - start))):
                raise EOFError(f"{member} ends too early")
            flat[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
            start += len(piece)
    return array
